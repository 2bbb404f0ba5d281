"""Prototypical networks (Snell, Swersky and Zemel, 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.inner_loop import nearest_means
from lifelong.core.problem import scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import Meta, params_of
from scenarios.episodes import Support


@dataclass(frozen=True)
class ProtoNet(MetaLearner):
    """Features in which the nearest class mean is right: scores are -|f(x) - mean of f over the class's support|^2.

    The loss is the cross-entropy of those scores. way is that of training, 60 for Omniglot in the paper, and need not be
    that of the test. The head is never used.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    least: ClassVar[dict[str, int]] = {**MetaLearner.least, "shot": 1}  # a class without support has no mean

    way: int = 20
    query: int = 5
    tasks: int = 1

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; support and queries pass through the network together."""
        x = scaled(torch.cat([support.x, query]), distribution.dtype)
        features, shown = distribution.problem(way).features(params_of(meta), x), len(support.y)
        return nearest_means(features[:shown], support.y, features[shown:], way, support.weight)

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot
