"""Siamese networks (Koch, Zemel and Salakhutdinov, 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.inner_loop import memberships, shares
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.metric import LearnedComparison, embedded, layers
from lifelong.models.base import Net, apply_linear
from scenarios.episodes import Episode, Support


@dataclass(frozen=True)
class Siamese(LearnedComparison):
    """A verdict on pairs: logit(a, b) = sum_j alpha_j |h_j(a) - h_j(b)| + shift, h = sigmoid(f(x) W + b), U units.

    The loss is the binary cross-entropy of whether a query and a row of the support are of one class, over all such pairs
    of an episode; pairs of one class and of two count half each, as they are drawn in the paper. A query's score for a
    class is the mean of its logits with the class's support; the paper, of one shot, takes the best pair's class. In the
    paper images are distorted, weights decay, and every layer has rates of its own.
    """

    least: ClassVar[dict[str, int]] = {**LearnedComparison.least, "units": 1}

    way: int = 20
    tasks: int = 1
    units: int = 128

    def layers(self, width: int, generator: torch.Generator) -> Net:
        """W [F, U] and b, then alpha [U, 1] and shift."""
        return layers({"twin": (width, self.units), "pair": (self.units, 1)}, generator)

    def logits(self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int) -> Tensor:
        """That a query and a row of the support are of one class [Q, R]."""
        comparison, features = meta["comparison"], embedded(distribution, meta, support, query, way)
        shown, asked = (apply_linear(comparison, "twin", part).sigmoid() for part in features)
        gaps = (asked[:, None] - shown).abs()  # [Q, R, U]
        return (gaps @ comparison["pair.weight"] + comparison["pair.bias"]).squeeze(2)

    def task_loss(self, distribution: TaskDistribution, meta: Meta, task: Episode) -> Tensor:
        """Binary cross-entropy over the pairs of queries and support, 0-d."""
        logits = self.logits(distribution, meta, task.support, task.query_x, self.way)
        same = (task.query_y[:, None] == task.support_y).to(logits.dtype)
        rows, columns = (
            shares(weight, len(y), logits.dtype, logits.device)
            for weight, y in ((task.query_weight, task.query_y), (task.support_weight, task.support_y))
        )
        weight = rows[:, None] * columns
        losses = weight * F.binary_cross_entropy_with_logits(logits, same, reduction="none")
        return (
            sum(((losses * part).sum() / (weight * part).sum() for part in (same, 1 - same)), logits.new_zeros(())) / 2
        )

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Mean logit with each class's support [Q, N]."""
        logits = self.logits(distribution, meta, support, query, way)
        member = memberships(support.y, way, logits.dtype, support.weight)
        return logits @ member / member.sum(0)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "mean verdict on pairs"
