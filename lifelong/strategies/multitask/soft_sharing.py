"""Soft sharing: a network for each task, tied to the others by a spring (Duong et al., 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, StrategyError, require
from lifelong.models.base import Net
from lifelong.models.perceptron import MLP
from lifelong.models.shared_layers import SharedLayers
from lifelong.models.told import OWN
from lifelong.strategies.multitask.gradients import GAINS
from scenarios.stream import Stream


@dataclass(frozen=True)
class SoftSharing(Strategy):
    """Add tie / 2 sum_{s<t} |theta_s - theta_t|^2, theta_t task t's own layers: T / 2 tie times their squared distances to the mean.

    On `SharedLayers`, of which depth says what is shared in any case: SoftSharing(0.1) on SharedLayers(MLP(100, 100), depth=0).
    tie = 0: separate networks. tie to infinity: one network, whose layers then move by the mean of the tasks' gradients, where
    a shared one moves by their sum: it is `SharedLayers(depth=-1)` at a rate T times as high. Gradient descent stands a
    tie of up to 2 / (rate T) and no more. decoupled: after each step theta_t <- (theta_t + tie mean) / (1 + tie) instead, whatever the
    optimiser, for any tie, as decoupled weight decay is to plain: then tie has no unit, and infinity may be written.
    Raises StrategyError for other networks.

    What differs from the source: Duong et al. (2015) train the parser of one language first, and then pull that of another
    to it, which stays where it is; two strengths, one for embeddings, and none for words. Here all tasks learn at once and
    all are pulled, by one strength; the decoupled form is ours.
    """

    tie: float = 0.1
    decoupled: bool = False
    keeps = "nothing"
    witness = "a plain float64 loop, and its two limits: tests/reference/test_sharing.py"
    defaults = "ours"
    requires = Requirements(paradigm="joint", task_id=True)
    checked_with = SharedLayers(MLP(8), 0)

    def __post_init__(self) -> None:
        require(self, self.tie >= 0, "tie must be at least 0")

    def notes(self, stream: Stream) -> list[str]:
        """What to expect."""
        return [GAINS.format("SoftSharing")]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Keeps nothing; sees that there is something to tie."""
        if not any(name.startswith(OWN) for name in params["net"]):
            raise StrategyError(
                f"{self!r} ties layers that each task has for itself: use --model 'SharedLayers(MLP(100, 100), depth=0)'"
            )
        return params, {}

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The springs' energy."""
        if self.decoupled:
            return problem.zeros()
        stacks = [value for name, value in params["net"].items() if name.startswith(OWN)]  # each [T, ...]
        return self.tie * problem.tasks / 2 * torch.stack([(p - p.mean(0)).square().sum() for p in stacks]).sum()

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Pull the layers together, where that is not the gradient's business."""
        if not self.decoupled:
            return params, memory
        kept = 1 / (1 + self.tie)  # the share of its distance to the mean that each keeps

        def pulled(name: str, value: Tensor) -> Tensor:
            return value.mean(0) + kept * (value - value.mean(0)) if name.startswith(OWN) else value

        net: Net = {name: pulled(name, value) for name, value in params["net"].items()}
        return {**params, "net": net}, memory
