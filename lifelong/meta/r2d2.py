"""A ridge-regression head, solved in closed form on an episode's features (R2-D2; Bertinetto et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.inner_loop import memberships
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.metric import MetricLearner, embedded
from scenarios.episodes import Support


@dataclass(frozen=True)
class R2D2(MetricLearner):
    """Features on which ridge regression to the classes answers: scores are scale x f(x) W.

    W = argmin |X W - Y|^2 + strength |W|^2 = X' (X X' + strength)^{-1} Y, X [R, F] the support's features and Y [R, N] its
    labels as unit vectors. The loss is the queries' cross-entropy; strength and scale are learned with the trunk, from 1 on. The
    paper adds a learned number to the scores, which is the same for all classes and changes no answer: it is left out. The
    network's own head is never used.
    """

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, and the two numbers of the ridge head, each 0-d."""
        zero = torch.zeros((), dtype=distribution.dtype, device=distribution.device)
        ridge = {"log_strength": zero, "scale": zero + 1}
        return {**super().init(distribution, generator), "ridge": ridge}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; support and queries pass through the network together."""
        shown, asked = embedded(distribution, meta, support, query, way)
        targets, ridge = memberships(support.y, way, shown.dtype), meta["ridge"]
        head = ridge_head(shown, targets, ridge["log_strength"].exp(), support.weight)
        return ridge["scale"] * (asked @ head)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "ridge regression on the features"


def ridge_head(x: Tensor, y: Tensor, strength: Tensor, weight: Any = ()) -> Tensor:
    """argmin over W of sum_i weight_i |x_i W - y_i|^2 + strength |W|^2, [F, N]: x [R, F], y [R, N], weight [R] or nothing."""
    root = weight.to(x.dtype).sqrt()[:, None] if isinstance(weight, Tensor) else torch.ones_like(x[:, :1])
    x, y = root * x, root * y
    return x.T @ torch.linalg.solve(x @ x.T + strength * torch.eye(len(x), dtype=x.dtype, device=x.device), y)
