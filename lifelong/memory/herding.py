"""Herding (Welling, 2009), as iCaRL chooses its exemplars (Rebuffi, Kolesnikov, Sperl and Lampert, 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Params
from lifelong.core.problem import Problem
from lifelong.core.row_gradients import ROWS
from lifelong.core.strategy import Shapes
from lifelong.memory.base import State, groups
from lifelong.memory.per_class import PerClass, kept_smallest


@dataclass(frozen=True)
class Herding(PerClass):
    """K = M / G rows of each class whose mean feature is nearest to that of all its rows, chosen when its task ends.

    The k-th is argmin over the class's other rows of |mu - (f(x) + sum_{j < k} f(p_j)) / k|, f the network's features,
    brought to length 1 where `normalised`, and mu their mean (Rebuffi et al., 2017, algorithm 4; van de Ven et al., 2022,
    take length 1, and bring mu to it as well, which here stays the mean that it is). So the first m rows of a class are what herding would choose for m. Where a class comes back in
    a later task, the first of both stand before the second of both, those of the earlier task before. No random numbers.
    State: ticket: the rank in its class, and the share of the stream that its task begins at.
    """

    normalised: bool = True

    def task_draws(self, problem: Problem, size: int) -> Shapes:
        """None."""
        return {}

    def insert_task(
        self, problem: Problem, params: Params, state: State, task: FinishedTask, draws: Any, **extra: Tensor
    ) -> State:
        """Choose this task's rows by the network as it is now."""
        if not len(state["row"]):
            return state
        number = task.number.expand(len(task.row))
        pieces = zip(task.row.split(ROWS), number.split(ROWS), strict=True)
        features = torch.cat([problem.features(params, problem.x(row, t)) for row, t in pieces])  # [N, F]
        if self.normalised:
            features = torch.nn.functional.normalize(features, dim=1)
        y = problem.y(task.row, number)
        member = (y == torch.arange(problem.classes, device=y.device)[:, None]) & task.valid  # [C, N]
        rank = herded(features, member, min(len(state["row"]) // groups(problem), len(y)))
        first = task.number.to(rank.dtype) / problem.tasks  # of equal ranks that of the earlier task stays before
        return kept_smallest(problem, state, task, (rank + first).to(state["ticket"].dtype), extra)


def herded(features: Tensor, member: Tensor, count: int) -> Tensor:
    """The rank of each row in the herding of each class, 0 ... count - 1, infinite where it is not chosen: [C, N].

    features: [N, F]; member: bool [C, N], each class's rows.
    """
    weight = member.to(features.dtype)
    mean = weight @ features / weight.sum(1, keepdim=True).clamp(min=1)  # [C, F]
    length, total = features.square().sum(1), torch.zeros_like(mean)
    rank = torch.full_like(weight, torch.inf)
    for k in range(count):
        # |mu - (f + s) / (k + 1)|^2 = const + (|f|^2 - 2 f'((k + 1) mu - s)) / (k + 1)^2
        gap = length - 2 * ((k + 1) * mean - total) @ features.T
        gap = gap.masked_fill(~member | rank.isfinite(), torch.inf)
        best, place = gap.min(1)
        chosen = (torch.arange(len(length), device=place.device) == place[:, None]) & best.isfinite()[:, None]
        rank = torch.where(chosen, torch.full_like(rank, k), rank)
        total = total + chosen.to(features.dtype) @ features
    return rank
