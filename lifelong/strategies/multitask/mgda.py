"""MGDA: the shortest vector in the convex hull of the tasks' gradients (Desideri, 2012; Sener and Koltun, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory
from lifelong.core.strategy import require
from lifelong.strategies.multitask.gradients import GradientSurgery
from lifelong.strategies.multitask.surgery import mgda


@dataclass(frozen=True)
class MGDA(GradientSurgery):
    """Step along the shortest weighted mean of the tasks' gradients; see `surgery.mgda`.

    g_i = gradient of L_i, the mean loss of task i's rows in the batch, times what another part scaled their weights by,
    as `TaskWeights` does: not of the task's share, for the shortest vector leans to short gradients, and how many rows
    a task drew is luck. The weights add up to 1 over the tasks with rows in the batch, the others get none: a mean and
    not a sum, equal to the plain joint gradient where all weights are equal and all tasks have as many rows. Tasks with
    small gradients rule: one that is learned already holds the others up, and the step is short. normalised: the
    weights are those of the gradients g_i / |g_i|, and go to the g_i as they are ("l2" in the authors' code).
    iterations: steps of Frank-Wolfe.
    """

    normalised: bool = False
    iterations: int = 25
    witness = "a solver, on autograd's gradients: tests/reference/test_multitask.py"
    defaults = "ours"

    def __post_init__(self) -> None:
        require(self, self.iterations >= 1, "iterations must be at least 1")

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """The weights of the shortest mean."""
        if self.normalised:
            length = gramian.diagonal().sqrt().clamp(min=torch.finfo(gramian.dtype).tiny)
            gramian = gramian / length / length[:, None]
        return mgda(gramian, self.iterations, present), {}
