"""Reptile (Nichol, Achiam and Schulman, 2018): move the start towards where each task's training ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.core.inner_loop import adapted, batch_of
from lifelong.core.learner import Learner, State
from lifelong.core.problem import Params, scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import Meta, params_of
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.sgd import SGD
from scenarios.episodes import Episode, Support, shuffled


@dataclass(frozen=True, kw_only=True)
class Reptile(MetaLearner):
    """p <- p + step x mean over tasks of (p_k - p), p_k after `steps` steps of the inner optimiser on one task.

    It is gradient descent on "gradient" p - mean p_k, so the outer optimiser is SGD, whose rate is the step. query: 1,
    unused in training: shot counts the images a task is trained on (10 in the paper even for 1-shot tests), batch of them
    at a time. test_steps: steps when tested, on whole supports.
    """

    any_way: ClassVar[bool] = False
    least: ClassVar[dict[str, int]] = {**MetaLearner.least, "shot": 1, "steps": 1, "batch": 1, "test_steps": 0}

    tasks: int = 5
    shot: int = 10
    outer: Optimiser = field(default_factory=lambda: SGD(1.0, schedule="linear"))
    inner: Optimiser = field(default_factory=lambda: Adam(1e-3, beta1=0.0))
    steps: int = 5
    batch: int = 10
    test_steps: int = 50

    def inner_learner(self, distribution: TaskDistribution, meta: Meta, way: int) -> tuple[Learner, Any]:
        """What learns a task by its `step`, and its optimiser's state before the first."""
        learner = Learner(distribution.model, distribution.objective, self.inner)
        return learner, self.inner.init(learner.trained(params_of(meta)))

    def _begun(self, distribution: TaskDistribution, meta: Meta) -> tuple[Learner, State]:
        learner, optimiser = self.inner_learner(distribution, meta, self.way)
        state = learner.init(distribution.problem(self.way), params_of(meta), torch.Generator())
        return learner, state._replace(optimiser=optimiser)

    def draw(self, distribution: TaskDistribution, generator: torch.Generator) -> tuple[Episode, Tensor]:
        """Tasks, and for each the rows of every inner batch: random orders, one after another, [T, steps, batch]."""
        episode = super().draw(distribution, generator)
        count = episode.support_x.shape[1]
        wanted = self.steps * min(self.batch, count)
        orders = [shuffled(self.tasks, count, generator) for _ in range(-(-wanted // count))]
        order = torch.cat(orders, 1)[:, :wanted]
        return episode, order.view(self.tasks, self.steps, -1).to(distribution.device)

    def gradient(
        self, distribution: TaskDistribution, meta: Meta, drawn: tuple[Episode, Tensor], progress: Tensor
    ) -> tuple[Tensor, Meta]:
        """Mean over tasks of the last inner loss, and p - mean p_k."""
        problem = distribution.problem(self.way)

        def trained(task: Episode, order: Tensor) -> tuple[Params, Tensor]:
            learner, state = self._begun(distribution, meta)
            loss = torch.zeros((), dtype=distribution.dtype, device=order.device)
            support = task.support
            for rows in order.unbind():
                weight = support.weight[rows] if isinstance(support.weight, Tensor) else ()
                batch = batch_of(support.x[rows], support.y[rows], problem.classes, distribution.dtype, weight)
                state, loss = learner.step_and_loss(problem, state, batch)
            return state.params, loss

        params, loss = torch.func.vmap(trained)(*drawn)
        return loss.mean(), tree_map(lambda p, moved: p - moved.mean(0), params_of(meta), params)

    @property
    def differentiates(self) -> bool:
        """No: the step towards where training ends is no loss's derivative."""
        return False

    def adapt(self, distribution: TaskDistribution, meta: Meta, support: Support, way: int) -> Meta:
        """What was learned, with the parameters after the test's inner steps on the whole support."""
        problem = distribution.problem(way)
        learner, state = self._begun(distribution, meta)
        batch = batch_of(support.x, support.y, problem.classes, distribution.dtype, support.weight)
        return {**meta, **adapted(learner, problem, state, batch, self.test_steps).params}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N] of the adapted network."""
        return distribution.problem(way).logits(params_of(meta), scaled(query, distribution.dtype))

    @property
    def tests_way(self) -> int:
        """Its head has one output for each class of an episode."""
        return self.way

    def images(self, distribution: TaskDistribution) -> int:
        """Every row of every inner batch."""
        return self.tasks * self.steps * min(self.batch, distribution.train.outputs(self.way) * self.shot)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return f"{self.test_steps} steps of {self.inner!r}"

    def small(self) -> Reptile:
        """Few tasks, and few steps in the test."""
        return replace(super().small(), shot=4, test_steps=3)
