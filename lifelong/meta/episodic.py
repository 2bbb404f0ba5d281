"""Meta-learners: initialisations that learn from episodes of N ways, K shots and Q queries of each class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationLearner, Meta, Record
from scenarios.episodes import Episode, Support


@dataclass(frozen=True)
class MetaLearner(InitialisationLearner):
    """An initialisation that minimises the loss of its own answers to an episode's queries.

    way, shot, query: of its episodes; tasks: episodes of an iteration. A metric method is its `answers` alone; one that
    learns from the support, its `adapt` too.
    """

    least: ClassVar[dict[str, int]] = {"way": 2, "shot": 0, "query": 1, "tasks": 1, "iterations": 0}
    episodic: ClassVar[bool] = True

    way: int = 5
    shot: int = 1
    query: int = 1
    tasks: int = 16

    def check(self, distribution: TaskDistribution) -> None:
        """Raise a ConfigurationError where no such episodes can be drawn."""
        super().check(distribution)
        distribution.train.check(self.way, self.shot, self.query)

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """A network with one output for each class of an episode."""
        return {"net": self.fresh(distribution, distribution.train.outputs(self.way), generator)}

    def draw(self, distribution: TaskDistribution, generator: torch.Generator) -> Any:
        """The episodes of one iteration."""
        return distribution.train.draw(self.tasks, self.way, self.shot, self.query, generator)

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Episode, progress: Tensor) -> Tensor:
        """Mean over tasks of the loss on the queries, by `predict`."""
        return query_loss(self, distribution, meta, drawn)

    @abstractmethod
    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N] of one task's queries, `meta` as `adapt` left it."""

    def images(self, distribution: TaskDistribution) -> int:
        """Support and queries, once."""
        return self.tasks * distribution.train.outputs(self.way) * (self.shot + self.query)

    def small(self: Record) -> Record:
        """Few ways, shots and queries."""
        return replace(self, iterations=3, way=3, shot=2, query=2, tasks=2)


def query_loss(learner: MetaLearner, distribution: TaskDistribution, meta: Meta, drawn: Episode) -> Tensor:
    """Mean over tasks of the weighted loss on the queries, 0-d, by a meta-learner's own answers."""

    def of_task(task: Episode) -> Tensor:
        scores = learner.predict(distribution, meta, task.support, task.query_x, learner.way)
        return distribution.loss(scores, task.query_y, task.query_weight)

    return torch.func.vmap(of_task)(drawn).mean()


def in_chunks(episode: Episode, size: int) -> list[Episode]:
    """The tasks of an episode, `size` at a time; all together where size is 0."""
    count = len(episode.support_x)
    return [episode.some(first, first + size) for first in range(0, count, size)] if size else [episode]
