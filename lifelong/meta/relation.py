"""Relation networks (Sung, Yang, Zhang, Xiang, Torr and Hospedales, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.inner_loop import class_means, memberships, shares
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.metric import LearnedComparison, embedded, layers
from lifelong.models.base import Net, apply_linear
from scenarios.episodes import Episode, Support


@dataclass(frozen=True)
class RelationNet(LearnedComparison):
    """A learned comparison of a class and a query: r = sigmoid(g([mean of f over the class's support; f(q)])), in 0 ... 1.

    The loss is the square error of r to 1 for the query's class and 0 for the others, mean over classes. g is here a
    perceptron on flat features, two hidden layers of U units. In the paper features are maps, summed over the shots, and g
    begins with two convolutions on the two maps laid over one another.
    """

    least: ClassVar[dict[str, int]] = {**LearnedComparison.least, "units": 1}

    units: int = 128

    def layers(self, width: int, generator: torch.Generator) -> Net:
        """Of g: pair [2 F, U], whose first F rows see the class; middle [U, U]; score [U, 1]."""
        widths = {"pair": (2 * width, self.units), "middle": (self.units, self.units), "score": (self.units, 1)}
        return layers(widths, generator)

    def task_loss(self, distribution: TaskDistribution, meta: Meta, task: Episode) -> Tensor:
        """Mean square error to 0 and 1, 0-d."""
        scores = self.predict(distribution, meta, task.support, task.query_x, self.way)
        squares = (scores - memberships(task.query_y, self.way, scores.dtype)).square().mean(1)
        return (squares * shares(task.query_weight, len(squares), squares.dtype, squares.device)).sum()

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """r [Q, N]."""
        shown, asked = embedded(distribution, meta, support, query, way)
        means, net = class_means(shown, support.y, way, support.weight), meta["comparison"]
        of_class, of_query = net["pair.weight"].split(means.shape[1])  # a product for each part, not for each pair
        pairs = (means @ of_class + (asked @ of_query + net["pair.bias"])[:, None]).relu()  # [Q, N, U]
        hidden = apply_linear(net, "middle", pairs.flatten(0, 1)).relu()
        return apply_linear(net, "score", hidden).view(len(query), way).sigmoid()

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "learned relation to each class"
