"""Starts from ordinary training on other classes: all of them at once, or as many tasks with heads of their own."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lifelong.core.problem import scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta, Record, params_of
from scenarios.brief import in_brief


class Rows(NamedTuple):
    """Rows of an iteration: x [B, ...]; y int64 [B], classes of the source, or float [B, D]."""

    x: Tensor
    y: Tensor
    __repr__ = in_brief


def rows_of_classes(distribution: TaskDistribution, count: int, generator: torch.Generator) -> Rows:
    """One row of each of B classes drawn with equal chances; all classes as often as any other where B is larger."""
    way = min(count, len(distribution.train))
    episode = distribution.train.draw(-(-count // way), way, 1, 0, generator)
    labels = distribution.train.labels(episode)
    return Rows(*(part.flatten(0, 1)[:count] for part in (episode.support_x, labels)))


def scores_of(distribution: TaskDistribution, meta: Meta, drawn: Rows) -> Tensor:
    """Scores [B, C] of the rows for all classes of the source."""
    problem = distribution.problem(len(distribution.train))
    return problem.logits(params_of(meta), scaled(drawn.x, distribution.dtype))


@dataclass(frozen=True)
class Pretrained(InitialisationLearner):
    """Supervised training on every class of the data at once: the transfer baseline of a learned start.

    batch: rows of an iteration, drawn class by class. Loss: cross-entropy over all classes (and their right angles).
    way, shot, query, tasks, groups: words of earlier texts, which never said anything here.
    """

    least: ClassVar[dict[str, int]] = {"iterations": 0, "batch": 1}

    batch: int = 64
    way: InitVar[int] = 0
    shot: InitVar[int] = 0
    query: InitVar[int] = 0
    tasks: InitVar[int] = 0
    groups: InitVar[int] = 0

    def __post_init__(self, way: int, shot: int, query: int, tasks: int, groups: int) -> None:
        super().__post_init__()
        if groups:
            raise InitialisationError(f"Pretrained has no groups: write MultiTask(groups={groups})")

    def draw(self, distribution: TaskDistribution, generator: torch.Generator) -> Rows:
        """The rows of one iteration."""
        return rows_of_classes(distribution, self.batch, generator)

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Rows, progress: Tensor) -> Tensor:
        """Cross-entropy over all classes; of numbers, the mean square."""
        return distribution.loss(scores_of(distribution, meta, drawn), drawn.y)

    def images(self, distribution: TaskDistribution) -> int:
        """The rows of a batch."""
        return self.batch

    def small(self: Record) -> Record:
        """Few rows."""
        return replace(self, iterations=3, batch=8)


@dataclass(frozen=True)
class MultiTask(InitialisationLearner):
    """Joint training on many tasks, each with its own head: the data's classes in `groups` runs of equal length.

    Loss: cross-entropy over the classes of the row's own group. (Caruana, 1997.) batch: as in Pretrained.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    least: ClassVar[dict[str, int]] = {"iterations": 0, "batch": 1, "groups": 1}

    batch: int = 64
    groups: int = 10
    way: InitVar[int] = 0
    shot: InitVar[int] = 0
    query: InitVar[int] = 0
    tasks: InitVar[int] = 0

    def __post_init__(self, way: int, shot: int, query: int, tasks: int) -> None:
        super().__post_init__()

    def check(self, distribution: TaskDistribution) -> None:
        """Each group needs two classes."""
        super().check(distribution)
        count = len(distribution.train)
        if self.groups > count // 2:
            raise InitialisationError(f"{self!r}: each group needs 2 of the {count} classes")

    def draw(self, distribution: TaskDistribution, generator: torch.Generator) -> Rows:
        """The rows of one iteration."""
        return rows_of_classes(distribution, self.batch, generator)

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Rows, progress: Tensor) -> Tensor:
        """Cross-entropy over the classes of each row's group."""
        count = len(distribution.train)
        group = torch.arange(count, device=drawn.y.device) * self.groups // count
        scores = scores_of(distribution, meta, drawn)
        return distribution.loss(scores.masked_fill(group[drawn.y][:, None] != group, -torch.inf), drawn.y)

    def images(self, distribution: TaskDistribution) -> int:
        """The rows of a batch."""
        return self.batch

    def small(self: Record) -> Record:
        """Few rows and groups."""
        return replace(self, iterations=3, batch=8, groups=3)
