"""The ridge variant of meta-learning with a convex head, MetaOptNet (Lee, Maji, Ravichandran and Soatto, 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta
from lifelong.meta.r2d2 import R2D2
from scenarios.episodes import Support


@dataclass(frozen=True)
class MetaOptNetRidge(R2D2):
    """R2D2's ridge head at a given strength: scores are scale x f(x) W, and of the head the scale alone is learned.

    W = argmin |X W - Y|^2 + strength |W|^2. strength: 50 in the authors' code. Their head is solved as a quadratic program
    whose answer is 2 W, which the scale, from 1 on, takes up; the same program with the hinge loss of a support vector
    machine is not here.
    """

    strength: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength > 0:
            raise InitialisationError(f"MetaOptNetRidge(strength={self.strength}): it is above 0")

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, and the scale, 0-d."""
        meta = super().init(distribution, generator)
        return {**meta, "ridge": {"scale": meta["ridge"]["scale"]}}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]: R2D2's, with a strength that is not learned."""
        scale = meta["ridge"]["scale"]
        log_strength = scale.new_full((), math.log(self.strength))
        ridge = {"log_strength": log_strength, "scale": scale}
        return super().query_scores(distribution, {**meta, "ridge": ridge}, support, query, way)
