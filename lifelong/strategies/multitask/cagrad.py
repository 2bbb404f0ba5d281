"""CAGrad: near the mean gradient, the direction that is best for the task worst off (Liu et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lifelong.core.batch import Batch, Memory
from lifelong.core.strategy import require
from lifelong.strategies.multitask.gradients import GradientSurgery
from lifelong.strategies.multitask.surgery import cagrad


@dataclass(frozen=True)
class CAGrad(GradientSurgery):
    """Conflict-averse gradient descent: go where the task that gains least gains most, within c |g_0| of g_0; see `surgery.cagrad`.

    g_0 = mean of the g_i, the gradients of the mean losses of the tasks with rows in the batch. c = 0 is g_0 itself, the
    plain joint step where all tasks have as many rows; the authors take 0.1 to 0.9. The paper's d, not divided
    by 1 + c^2 as parts of its code do: it is up to 1 + c times as long as g_0. iterations: steps of Frank-Wolfe.
    """

    c: float = 0.5
    iterations: int = 25
    defaults = "published for MT50, but for iterations"

    def __post_init__(self) -> None:
        require(self, self.c >= 0 and self.iterations >= 1, "c must be at least 0, iterations at least 1")

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """The weights of d."""
        return cagrad(gramian, self.c, self.iterations, present), {}
