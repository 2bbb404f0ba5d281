"""Reptile (Nichol, Achiam and Schulman, 2018): move the start towards where each task's training ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.adaptation.steps import MeanSquares, batch_of
from lifelong.learner import Learner
from lifelong.meta.stage import Meta, Stage, Study, params_of
from lifelong.optimisers import SGD, Adam, Optimiser
from lifelong.problem import Params, scaled
from lifelong.strategy import FineTuning
from scenarios.episodes import Episode


@dataclass(frozen=True)
class Reptile(Stage):
    """p <- p + step x mean over tasks of (p_k - p), p_k after `steps` steps of the inner optimiser on one task.

    It is gradient descent on "gradient" p - mean p_k, so the outer optimiser is SGD, whose rate is the step. query: 1,
    unused in training: shot counts the images a task is trained on (10 in the paper even for 1-shot tests), batch of them
    at a time. test_steps: steps when tested, on whole supports or `batch` of them.
    """

    any_way = False
    tasks: int = 5
    shot: int = 10
    outer: Optimiser = field(default_factory=lambda: SGD(1.0, schedule="linear"))
    inner: Optimiser = field(default_factory=lambda: Adam(1e-3, beta1=0.0))
    steps: int = 5
    batch: int = 10
    test_steps: int = 50

    def adapt(
        self, study: Study, meta: Meta, support: Tensor, labels: Tensor, way: int, steps: int, order: Tensor | None
    ) -> tuple[Params, Tensor]:
        """Parameters after some inner steps on one task's rows, and the last loss; order int64 [steps, batch]."""
        problem, params = study.problem(way), params_of(meta)
        strategy = MeanSquares() if study.regression else FineTuning()
        learner = Learner(study.model, strategy, self.inner)
        state, loss = learner.init(problem, params, torch.Generator()), torch.zeros((), dtype=study.dtype)
        x = scaled(support, study.dtype)
        for i in range(steps):
            rows = (x, labels) if order is None else (x[order[i]], labels[order[i]])
            batch = batch_of(*rows, way, study.dtype)
            step = learner.gradients(problem, state, batch)
            moved, optimiser = learner.optimiser.update(state.params, step.gradients, state.optimiser, batch.progress)
            state, loss = state._replace(params=moved, optimiser=optimiser), step.loss
        return state.params, loss

    def draw(self, study: Study, generator: torch.Generator) -> tuple[Episode, Tensor]:
        """Tasks, and for each the rows of every inner batch: random orders, one after another, [T, steps, batch]."""
        episode = super().draw(study, generator)
        count = episode.support_x.shape[1]
        wanted = self.steps * min(self.batch, count)
        rounds = -(-wanted // count)
        order = torch.rand(self.tasks, rounds, count, generator=generator).argsort(2).flatten(1)[:, :wanted]
        return episode, order.view(self.tasks, self.steps, -1).to(study.device)

    def gradient(self, study: Study, meta: Meta, drawn: tuple[Episode, Tensor]) -> tuple[Tensor, Meta]:
        """Mean over tasks of the last inner loss, and p - mean p_k."""
        episode, order = drawn

        def one(task: Episode, own: Tensor) -> tuple[Params, Tensor]:
            return self.adapt(study, meta, task.support_x, task.support_y, self.way, self.steps, own)

        params, loss = torch.func.vmap(one)(episode, order)
        return loss.mean(), tree_map(lambda p, moved: p - moved.mean(0), {"net": meta["net"]}, params)

    def answers(self, study: Study, meta: Meta, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Scores [Q, N] after the test's inner steps on the whole support."""
        params, _ = self.adapt(study, meta, support, labels, way, self.test_steps, None)
        return study.problem(way).logits(params, scaled(query, study.dtype))

    @property
    def tests_way(self) -> int:
        """Its head has one output for each class of an episode."""
        return self.way

    def images(self, study: Study) -> int:
        """Every row of every inner batch."""
        return self.tasks * self.steps * min(self.batch, self.ways(study) * self.shot)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return f"{self.test_steps} steps of {self.inner!r}"
