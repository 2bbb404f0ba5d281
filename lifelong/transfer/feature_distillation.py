"""Distillation of what lies below the scores: a teacher's features, by a projector, and the relations between rows.

Parts that are added to `Distillation`, as in `Distillation() + FeatureHints(1.0) + RelationalDistillation()`; alone, with
`Distillation(alpha=1.0)`, they teach beside the labels. The teacher's features are computed once, by `distil`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, StrategyError, require
from lifelong.models.base import linear

TINY = 1e-12  # under a root, whose slope at 0 is infinite


def _require_teacher(part: Strategy, problem: Problem) -> None:
    if "teacher_features" not in problem.index:
        raise StrategyError(f"{part!r} needs a teacher's features: `lifelong distil RUN` brings them")


def features_of_teacher(problem: Problem, batch: Batch) -> Tensor:
    """The teacher's features of a batch's rows, [B, D]."""
    place = problem.index["teacher_place"][batch.task, batch.row]
    return problem.index["teacher_features"][batch.task, place]


@dataclass(frozen=True)
class FeatureHints(Strategy):
    """Bring the student's features, through a linear projector, to the teacher's (Romero et al., 2015: FitNets).

    penalty = weight / 2 sum_i w_i |A f_s(x_i) + b - f_t(x_i)|^2 / D, f_t [B, D]; A, b are learned beside the student. In
    the paper hints come first, in a phase of their own, between layers in the middle; here they act throughout, on the
    features below the heads.
    """

    weight: float = 1.0
    requires = Requirements(paradigm="")

    def __post_init__(self) -> None:
        require(self, self.weight >= 0, "weight must be at least 0")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Draw the projector. Raises StrategyError where there is no teacher."""
        _require_teacher(self, problem)
        width, wanted = problem.model.head_rows(params["net"]).shape[1], problem.index["teacher_features"].shape[-1]
        projector: dict[str, Tensor] = {}
        linear(projector, "projector", width, wanted, generator)
        placed = {name: value.to(problem.device, problem.dtype) for name, value in projector.items()}
        return {**params, "own": placed}, {}

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The squared distance, by row and feature."""
        projector: Any = params["own"]
        projected = torch.addmm(projector["projector.bias"], outputs.features, projector["projector.weight"])
        rows = (projected - features_of_teacher(problem, batch)).square().mean(1)
        return self.weight / 2 * (batch.weight * rows).sum()


@dataclass(frozen=True)
class RelationalDistillation(Strategy):
    """Keep distances and angles between rows as the teacher has them (Park et al., 2019: RKD).

    penalty = distance mean_ij h(d_ij^t - d_ij^s) + angle mean_ijk h(c_ijk^t - c_ijk^s), h Huber's loss at 1;
    d_ij = |f_i - f_j| over its mean in the batch, c_ijk = cos of the angle at j between f_i and f_k. Means over pairs
    and triples of different rows, those that fill up a batch left out. The paper takes 25 and 50 beside labels.
    """

    distance: float = 25.0
    angle: float = 50.0
    requires = Requirements(paradigm="")

    def __post_init__(self) -> None:
        require(self, self.distance >= 0 and self.angle >= 0, "distance and angle must be at least 0")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Nothing to remember. Raises StrategyError where there is no teacher."""
        _require_teacher(self, problem)
        return params, {}

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """Both parts; the teacher's side is constant."""
        counts = (batch.weight > 0).to(outputs.features.dtype)
        teacher, student = features_of_teacher(problem, batch), outputs.features
        total = torch.zeros((), dtype=student.dtype, device=student.device)
        if self.distance:
            total = total + self.distance * distance_gap(teacher, student, counts)
        if self.angle:
            total = total + self.angle * angle_gap(teacher, student, counts)
        return total


def distance_gap(teacher: Tensor, student: Tensor, counts: Tensor) -> Tensor:
    """Mean Huber loss of the distances between different rows that count, 0-d. teacher [B, D], student [B, F], counts [B]."""
    pairs = _pairs(counts)
    each = [_distances(features) for features in (teacher, student)]
    scaled = [d / (_mean(d, pairs) + TINY) for d in each]
    return _mean(_huber(scaled[0] - scaled[1]), pairs)


def angle_gap(teacher: Tensor, student: Tensor, counts: Tensor) -> Tensor:
    """Mean Huber loss of the cosines of angles at j between different rows i, j, k that count, 0-d."""
    pairs = _pairs(counts)
    triples = pairs[:, :, None] * pairs[None] * pairs[:, None]  # i, j, k
    cosines = []
    for features in (teacher, student):
        ray = features[:, None] - features[None]  # [i, j, D], from j to i
        unit = ray / (ray.square().sum(2, keepdim=True) + TINY).sqrt()
        cosines.append(torch.einsum("ijd,kjd->ijk", unit, unit))
    return _mean(_huber(cosines[0] - cosines[1]), triples)


def _pairs(counts: Tensor) -> Tensor:
    """1 for two different rows that count, [B, B]."""
    return counts[:, None] * counts[None] * (1 - torch.eye(len(counts), dtype=counts.dtype, device=counts.device))


def _distances(features: Tensor) -> Tensor:
    return ((features[:, None] - features[None]).square().sum(2) + TINY).sqrt()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)


def _huber(gap: Tensor) -> Tensor:
    """gap^2 / 2 within 1, |gap| - 1/2 beyond."""
    size = gap.abs()
    return torch.where(size < 1, gap.square() / 2, size - 0.5)
