"""Infinite mixture prototypes (Allen, Shelhamer, Shin and Tenenbaum, 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.core.inner_loop import class_means, memberships
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta
from lifelong.meta.metric import MetricLearner, embedded, log_weights
from scenarios.brief import in_brief
from scenarios.episodes import Support


class Clusters(NamedTuple):
    """Places for N + R clusters: centre [N + R, F], label int64 [N + R], and whether there is one, bool [N + R]."""

    centre: Tensor
    label: Tensor
    there: Tensor
    __repr__ = in_brief


@dataclass(frozen=True)
class InfiniteMixturePrototypes(MetricLearner):
    """Classes of as many clusters as their support asks for: scores are -|f(q) - nearest centre of the class|^2 / (2 v).

    A class begins with its mean; a row farther than lambda from all centres of its class begins a cluster of its own. Then
    every row is shared among its class's clusters, z_ic ~ exp(-|f(x_i) - centre_c|^2 / (2 v)), and centres become weighted
    means, once. lambda = v (F log(1 + rho / v) - 2 log concentration), rho the variance of the class means, mean over
    features; v is learned with the trunk, from 1 on. concentration 0 makes lambda infinite: ProtoNet's scores, over 2 v.

    Rows are gone through from the one farthest from its class's mean on, so that their order is irrelevant; the paper goes
    through them as they come. Its unlabelled rows are not taken.
    """

    way: int = 20
    tasks: int = 1
    concentration: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.concentration < 0:
            raise InitialisationError(
                "InfiniteMixturePrototypes: concentration is at least 0, which allows no new cluster"
            )

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, and log v, 0-d."""
        zero = torch.zeros((), dtype=distribution.dtype, device=distribution.device)
        return {**super().init(distribution, generator), "mixture": {"log_variance": zero}}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; support and queries pass through the network together."""
        shown, asked = embedded(distribution, meta, support, query, way)
        variance = meta["mixture"]["log_variance"].exp()
        clusters = self.clusters(shown, support, way, variance)
        scores = -_squares(asked, clusters.centre) / (2 * variance)  # [Q, N + R]
        classes = memberships(clusters.label, way, torch.bool) & clusters.there[:, None]  # [N + R, N]
        return scores[:, :, None].masked_fill(~classes, -torch.inf).amax(1)

    def clusters(self, features: Tensor, support: Support, way: int, variance: Tensor) -> Clusters:
        """Those of a task's support, features [R, F]."""
        means = class_means(features, support.y, way, support.weight)
        farthest_first = (features - means[support.y]).square().sum(1).argsort(descending=True)
        features, labels = features[farthest_first], support.y[farthest_first]
        weights = log_weights(support, features.dtype)[farthest_first]
        start = Clusters(
            torch.cat([means, features]),
            torch.cat([torch.arange(way, device=labels.device), labels]),
            torch.cat([torch.ones_like(means[:, 0], dtype=torch.bool), weights > -torch.inf]),
        )
        gaps = _squares(features, start.centre)  # [R, N + R]
        near = (labels[:, None] == start.label) & (gaps <= self.threshold(means, variance))
        there = _begun(near, start.there, way)
        open_to = (labels[:, None] == start.label) & there
        shared = (-gaps / (2 * variance)).masked_fill(~open_to, -torch.inf).log_softmax(1)
        # a place without a cluster has no row to be the mean of: any numbers do, they are never read
        parts = (shared + weights[:, None]).masked_fill(~there, 0.0).softmax(0)
        return Clusters(parts.T @ features, start.label, there)

    def threshold(self, means: Tensor, variance: Tensor) -> Tensor:
        """lambda, 0-d, of class means [N, F]."""
        allowed = -2 * math.log(self.concentration) if self.concentration else math.inf
        spread = means.var(0).mean()
        return variance * (means.shape[1] * torch.log1p(spread / variance) + allowed)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "nearest of each class's clusters"


def _begun(near: Tensor, counts: Tensor, way: int) -> Tensor:
    """Which clusters there are, bool [N + R], row after row: none for a row that is near one that began before it.

    near [R, N + R]: whether a row is within reach of a place, of its own class; counts [N + R]: whether a row counts.
    """
    there = list(counts[:way].unbind())
    for place in range(len(near)):
        reached = (near[place, : way + place] & torch.stack(there)).any()
        there.append(counts[way + place] & ~reached)
    return torch.stack(there)


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of rows [A, F] and [B, F]: [A, B]."""
    return (a[:, None] - b).square().sum(2)
