"""Aligned-MTL: the tasks' gradients with their principal directions at equal length (Senushkin et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lifelong.core.batch import Batch, Memory
from lifelong.strategies.multitask.gradients import GradientSurgery
from lifelong.strategies.multitask.surgery import aligned


@dataclass(frozen=True)
class AlignedMTL(GradientSurgery):
    """Step along the mean of the gradients after a change to condition number 1; see `surgery.aligned`.

    g_i = gradient of the mean loss of task i's rows in the batch. As long as the shortest principal direction, so that a task
    whose gradient vanishes, or two that all but agree, make the step short. (Senushkin et al., 2023.) What differs from
    the source: tasks weigh alike, where the paper lets them be weighed; and of all parameters, as the paper has it, not of
    shared features, its cheaper bound.
    """

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """The weights of the aligned mean."""
        return aligned(gramian, present), {}
