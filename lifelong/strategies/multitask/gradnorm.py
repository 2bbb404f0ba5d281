"""GradNorm: weights under which all tasks pull at the shared layer as hard as they should (Chen et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, StrategyError, require
from lifelong.models.base import Net, chosen
from lifelong.models.told import OWN
from lifelong.optimisers.adam import Adam
from lifelong.strategies.multitask.gradients import GAINS, gramian, members, task_gradients
from scenarios.stream import Stream

OF_ONE_TASK = (OWN, "gate.", "stitch")  # names of what a network has for each task begin so


@dataclass(frozen=True)
class GradNorm(Strategy):
    """Learn weights a with the network: loss = sum_i a_i n_i / B L_i, L_i the mean loss of the batch's n_i rows of task i, of B.

    G_i = |grad_W a_i L_i|, W a shared layer; r_i = (L_i / L_i(0)) / mean of that over tasks. The a_i descend
    sum_i |G_i - mean(G) r_i^alpha|, the targets held constant, by Adam at `rate`; then they are divided so that they add up
    to T. Means are over the tasks with rows in the batch, the others' weights get no gradient. L_i(0): task i's loss the first time that it is
    shown. alpha: how far tasks that learn slowly are helped, 0 for equal norms. layer: W, names of parameters; empty: the weight of
    the last layer before the head. floor: what no weight falls below (before the division), for the paper's loss has no barrier at 0.
    """

    alpha: float = 1.5
    rate: float = 0.025
    layer: str = ""
    floor: float = 1e-3
    keeps = "a weight and a loss for each task"
    witness = "its formula, in a plain float64 loop, and its toy: tests/reference/test_task_weights.py"
    defaults = "published for NYUv2, but for floor"
    passes = (2.0, 1.0)  # and one for each task through the layers after W
    requires = Requirements(paradigm="joint")

    def __post_init__(self) -> None:
        require(self, self.alpha >= 0, "alpha must be at least 0")
        require(self, self.rate > 0 and 0 < self.floor < 1, "rate must be above 0, floor between 0 and 1")

    @property
    def optimiser(self) -> Adam:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """The weights'."""
        return Adam(self.rate)

    def notes(self, stream: Stream) -> list[str]:
        """What to expect."""
        return [GAINS.format("GradNorm")]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """weights a [T] beside the network's parameters; first losses [T], 0 for none. Raises StrategyError without a layer."""
        self.shared(params["net"])
        return {**params, "own": {"weights": problem.zeros(problem.tasks) + 1}}, {"first": problem.zeros(problem.tasks)}

    def shared(self, net: Net) -> Net:
        """W."""
        if self.layer:
            return chosen(net, self.layer)
        names = [name for name in net if name.endswith(".weight") and not name.startswith(("head.", *OF_ONE_TASK))]
        if not names:
            raise StrategyError(f"{self!r}: the network has no layer before its head: there is nothing to share")
        return {names[-1]: net[names[-1]]}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Scale each row's weight by its task's."""
        return batch.replace(weight=batch.weight * params["own"]["weights"].detach()[batch.task])

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The weights' gradient; the first losses are for `after_step`."""
        weights = params["own"]["weights"]
        losses, length, present = self.losses_and_norms(problem, params, batch)
        first = torch.where((memory["first"] == 0) & present, losses, memory["first"])
        here = present.to(problem.dtype)
        mean = here / here.sum().clamp(min=1)  # takes the mean over the tasks that are here
        left = losses / torch.where(first > 0, first, 1)
        rate = left / torch.where(mean @ left > 0, mean @ left, 1)
        target = (mean @ (weights * length)) * rate**self.alpha
        slope = torch.sign(weights * length - target) * length * here
        return {**grads, "own": {"weights": slope}}, first

    def losses_and_norms(self, problem: Problem, params: Params, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """L_i and |grad_W L_i| [T], without weights, 0 for tasks that the batch shows no row of; which it shows, bool [T]."""
        shown = members(problem, batch) & batch.shown
        share = shown.to(batch.weight.dtype)
        share = share / share.sum(1, keepdim=True).clamp(min=1)
        plain = batch.replace(weight=torch.ones_like(batch.weight))
        losses, each = task_gradients(problem, params, plain, {"net": self.shared(params["net"])}, share)
        return losses, gramian(each).diagonal().clamp(min=0).sqrt(), shown.any(1)

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Let the weights add up to T; remember the first losses."""
        weights = params["own"]["weights"].clamp(min=self.floor)
        return {**params, "own": {"weights": len(weights) * weights / weights.sum()}}, {"first": step.notes}
