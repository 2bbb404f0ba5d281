"""IMTL-G: equal projections on all tasks' gradients (Liu et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lifelong.core.batch import Batch, Memory
from lifelong.strategies.multitask.gradients import GradientSurgery
from lifelong.strategies.multitask.surgery import imtl_g


@dataclass(frozen=True)
class IMTLG(GradientSurgery):
    """Impartial multi-task learning at the gradient: the step goes as far along each task's gradient; see `surgery.imtl_g`.

    g_i = gradient of the mean loss of task i's rows in the batch; the weights add up to 1 over the tasks with rows, and with
    three tasks and more some may be negative. The authors take gradients at the shared features and add IMTL-L, which learns
    a scale for each loss, near `UncertaintyWeights`; this is its gradient half, on all parameters.
    """

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """The weights of equal projections."""
        return imtl_g(gramian, present), {}
