"""Nash-MTL: the step that the tasks agree to as a Nash bargain (Navon et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory
from lifelong.core.strategy import require
from lifelong.strategies.multitask.gradients import GradientSurgery
from lifelong.strategies.multitask.surgery import nash


@dataclass(frozen=True)
class NashMTL(GradientSurgery):
    """Step along the direction whose gains multiply to the most, sum_i log(g_i . d); see `surgery.nash`.

    g_i = gradient of the mean loss of task i's rows in the batch. The paper's direction at the length of a mean: the weights are
    divided by their sum, so that they add up to 1 over the tasks with rows, for G a = 1 / a alone gives steps of the same
    length however small the gradients have become. (Its code scales by the Gramian's norm and clips, to the same end.)
    iterations: Newton's steps.
    """

    iterations: int = 25
    defaults = "ours"

    def __post_init__(self) -> None:
        require(self, self.iterations >= 1, "iterations must be at least 1")

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """The bargain's weights, as shares."""
        each = nash(gramian, self.iterations, present)
        total = each.sum()
        return each / torch.where(total > 0, total, 1), {}
