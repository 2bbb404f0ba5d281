"""Metric learners: what is learned is a comparison of a query's features with the support's, and nothing adapts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.problem import scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import Meta, params_of
from lifelong.models.base import Net, linear
from scenarios.episodes import Episode, Support


@dataclass(frozen=True)
class MetricLearner(MetaLearner):
    """A learner that answers by features alone, so that tests may have other ways and shots than its episodes.

    One that learns from another loss than its answers' says it as `task_loss`. A row of the support that weighs nothing
    is as if it were not there.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    together: ClassVar[bool] = True
    least: ClassVar[dict[str, int]] = {
        **MetaLearner.least,
        "shot": 1,
    }  # a class without support is not to be compared with

    query: int = 5

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Episode, progress: Tensor) -> Tensor:
        """Mean over tasks of `task_loss`."""
        if len(drawn.support_x) == 1:  # not mapped: under a map a norm leaves its affine part to kernels of their own
            return self.task_loss(distribution, meta, drawn.task(0))
        return torch.func.vmap(lambda task: self.task_loss(distribution, meta, task))(drawn).mean()

    def task_loss(self, distribution: TaskDistribution, meta: Meta, task: Episode) -> Tensor:
        """What is minimised on one task, 0-d: the weighted cross-entropy of the answers to its queries."""
        scores = self.predict(distribution, meta, task.support, task.query_x, self.way)
        return distribution.loss(scores, task.query_y, task.query_weight)

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot


@dataclass(frozen=True)
class LearnedComparison(MetricLearner):
    """A metric learner whose comparison has layers of its own, which lie in `meta` as "comparison"."""

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, and after it the layers of the comparison."""
        meta = super().init(distribution, generator)
        comparison = self.layers(distribution.model.head_rows(meta["net"]).shape[1], generator)
        placed = {name: leaf.to(distribution.device, distribution.dtype) for name, leaf in comparison.items()}
        return {**meta, "comparison": placed}

    @abstractmethod
    def layers(self, width: int, generator: torch.Generator) -> Net:
        """Fresh parameters of the comparison of features [F], F = width."""


def embedded(
    distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
) -> tuple[Tensor, Tensor]:
    """Features of support [R, F] and queries [Q, F], which pass through the network together."""
    rows = scaled(torch.cat([support.x, query]), distribution.dtype)
    features, shown = distribution.problem(way).features(params_of(meta), rows), len(support.y)
    return features[:shown], features[shown:]


def log_weights(support: Support, dtype: torch.dtype) -> Tensor:
    """Logarithm of how much each row of the support counts [R]: 0 for one row, minus infinity for one that only fills up."""
    if isinstance(support.weight, Tensor):
        return support.weight.to(dtype).log()
    return torch.zeros(len(support.y), dtype=dtype, device=support.y.device)


def layers(widths: dict[str, tuple[int, int]], generator: torch.Generator) -> Net:
    """Linear layers by name, each from so many inputs to so many outputs, drawn in this order."""
    net: Net = {}
    for name, (inputs, outputs) in widths.items():
        linear(net, name, inputs, outputs, generator)
    return net
