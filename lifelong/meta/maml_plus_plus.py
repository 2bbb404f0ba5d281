"""MAML++ (Antoniou, Edwards and Storkey, 2019): MAML with a rate for each step, and a loss after each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Strategy
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta
from lifelong.meta.maml import MAML
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.per_step import PerStepSGD
from scenarios.episodes import Episode


@dataclass(frozen=True, kw_only=True)
class MAMLPlusPlus(MAML):
    """MAML whose loss is sum_j w_j L(p_j; query), j = 1 ... k, p_{j+1} = p_j - rate_j x grad L(p_j; support).

    Every tensor of parameters has a learned rate for each step (LSLR), of either sign; steps beyond `steps` are taken at
    the last. multi_step: the share of the outer loop by whose end the weights w have gone, linearly, from 1 / k for each
    step to 1 for the last; 0 for the last alone from the start. first_order: the share of the outer loop at whose
    beginning inner gradients count as constants; it saves no time, as the switch is a factor. The outer rate falls as a
    cosine. What the paper has besides is left out: running statistics and affine maps of norms for each step, the least
    weight of 0.03 / k that its code keeps, and the ensemble of its test.
    """

    least: ClassVar[dict[str, int]] = {**MAML.least, "steps": 1, "multi_step": 0, "first_order": 0}

    steps: int = 5
    rate: float = 0.1
    learn_rates: bool = True
    multi_step: float = 0.1
    first_order: float = 0.0
    outer: Optimiser = field(default_factory=lambda: Adam(schedule="cosine"))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("multi_step", "first_order"):
            if getattr(self, name) > 1:
                raise InitialisationError(f"MAMLPlusPlus({name}={getattr(self, name)}): it is a share, at most 1")

    @property
    def optimiser(self) -> Optimiser:
        """A rate for each tensor and step."""
        return PerStepSGD(self.rate, self.steps)

    def objective(self, distribution: TaskDistribution) -> Strategy:
        """As MAML's, in first order for as long as is said."""
        plain = super().objective(distribution)
        return FirstOrderUntil(self.first_order) + plain if self.first_order else plain

    def project(self, meta: Meta) -> Meta:
        """Rates of either sign: learned are directions, too."""
        return meta

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Episode, progress: Tensor) -> Tensor:
        """Mean over tasks of the weighted sum of the losses on the queries after each inner step."""
        if not drawn.support_y.shape[1]:
            return super().loss(distribution, meta, drawn, progress)

        def of_task(task: Episode) -> Tensor:
            learner, problem, state, batch = self.begun(distribution, meta, task.support, self.way)
            batch, losses = batch.replace(progress=progress), []
            for j in range(self.steps):
                state = learner.step(problem, state, batch)
                if self.multi_step or j == self.steps - 1:
                    moved = {**meta, **state.params}
                    scores = self.query_scores(distribution, moved, task.support, task.query_x, self.way)
                    losses.append(distribution.loss(scores, task.query_y, task.query_weight))
            return (step_weights(len(losses), self.multi_step, progress) * torch.stack(losses)).sum()

        return torch.func.vmap(of_task)(drawn).mean()

    @property
    def differentiates(self) -> bool:
        """Not while inner gradients count as constants."""
        return super().differentiates and not self.first_order

    def images(self, distribution: TaskDistribution) -> int:
        """As MAML's, and the queries after every step whose loss may count."""
        of_support = 1 if self.adapts == "head" else self.steps * self.order
        return self.passed(distribution, of_support, self.steps if self.multi_step else 1)

    def small(self) -> MAMLPlusPlus:
        """Two steps, and weights that move in the contract's three iterations."""
        return replace(super().small(), steps=2, multi_step=0.8)


def step_weights(steps: int, multi_step: float, progress: Tensor) -> Tensor:
    """The weights w [k] of the losses after each step: 1 / k each at the beginning, the last alone from `multi_step` on."""
    last = torch.zeros(steps, dtype=progress.dtype, device=progress.device)
    last[-1] = 1
    over = (progress / multi_step).clamp(max=1) if multi_step else torch.ones_like(progress)
    return over * last + (1 - over) / steps


@dataclass(frozen=True)
class FirstOrderUntil(Strategy):
    """Gradients count as constants until a share of the outer loop is over, which `batch.progress` says here."""

    share: float = 1.0

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The same numbers, by a factor of 0 or 1 within their graph."""
        whole = (batch.progress >= self.share).to(batch.weight.dtype)
        return tree_map(lambda g: whole * g + (1 - whole) * g.detach(), grads), {}
