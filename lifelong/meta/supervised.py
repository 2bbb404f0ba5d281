"""Starts from ordinary training on other classes: all of them at once, or as many tasks with heads of their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.adaptation.steps import batch_of, loss_of
from lifelong.meta.stage import Meta, Stage, StageError, Study, params_of
from scenarios.episodes import Episode


@dataclass(frozen=True)
class Pretrained(Stage):
    """Supervised training on every class of the data at once: the transfer baseline of a learned start.

    batch: rows of an iteration, drawn class by class. Loss: cross-entropy over all classes (and their right angles).
    """

    episodic = False
    batch: int = 64
    groups: int = 0

    def check(self, study: Study) -> None:
        """Any study will do, as long as there are as many classes as groups."""
        if self.batch < 1 or self.groups < 0 or (not study.regression and self.groups > len(study.train) // 2):
            raise StageError(f"{self!r}: batch is at least 1, and each group needs 2 of the {len(study.train)} classes")

    def init(self, study: Study, generator: torch.Generator) -> Meta:
        """A network with one output for each class."""
        return {"net": self.fresh(study, 1 if study.regression else len(study.train), generator)}

    def draw(self, study: Study, generator: torch.Generator) -> Episode:
        """One row of each of `batch` classes drawn with equal chances: every field [batch, 1, ...]."""
        if study.regression:
            return study.train.draw(self.batch, 1, 1, 1, generator)
        way = min(self.batch, len(study.train))
        episode = study.train.draw(-(-self.batch // way), way, 1, 1, generator)
        return Episode(*(part.flatten(0, 1)[: self.batch, None] for part in episode))

    def loss(self, study: Study, meta: Meta, drawn: Episode) -> Tensor:
        """Cross-entropy over all classes, or over those of the row's group."""
        if study.regression:
            batch = batch_of(drawn.support_x.flatten(0, 1), drawn.support_y.flatten(0, 1), 1, study.dtype)
            return loss_of(study.problem(1), params_of(meta), batch)
        count, classes = len(study.train), drawn.classes.flatten()
        batch = batch_of(drawn.support_x.flatten(0, 1), classes, count, study.dtype)
        if self.groups:
            group = torch.arange(count, device=classes.device) * self.groups // count
            batch = batch._replace(allowed=group[classes][:, None] == group[None])
        return loss_of(study.problem(count), params_of(meta), batch)

    def answers(self, study: Study, meta: Meta, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Scores of the nearest class mean; in regression, what the network says without adapting."""
        if study.regression:
            return study.problem(1).logits(params_of(meta), query.to(study.dtype))
        return super().answers(study, meta, support, labels, query, way)

    def images(self, study: Study) -> int:
        """The rows of a batch."""
        return self.batch


@dataclass(frozen=True)
class MultiTask(Pretrained):
    """Joint training on many tasks, each with its own head: the data's classes in `groups` runs of equal length.

    Loss: cross-entropy over the classes of the row's own group. (Caruana, 1997.)
    """

    groups: int = 10
