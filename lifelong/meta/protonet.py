"""Prototypical networks (Snell, Swersky and Zemel, 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lifelong.core.inner_loop import nearest_means
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.metric import MetricLearner, embedded
from scenarios.episodes import Support


@dataclass(frozen=True)
class ProtoNet(MetricLearner):
    """Features in which the nearest class mean is right: scores are -|f(x) - mean of f over the class's support|^2.

    The loss is the cross-entropy of those scores. way is that of training, 60 for Omniglot in the paper, and need not be
    that of the test. The head is never used.
    """

    way: int = 20
    tasks: int = 1

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; support and queries pass through the network together."""
        shown, asked = embedded(distribution, meta, support, query, way)
        return nearest_means(shown, support.y, asked, way, support.weight)
