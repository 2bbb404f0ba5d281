"""PCGrad: gradients that conflict are projected onto each other's normal planes (Yu et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lifelong.core.batch import Batch, Memory
from lifelong.strategies.multitask.gradients import GradientSurgery
from lifelong.strategies.multitask.surgery import pcgrad


@dataclass(frozen=True)
class PCGrad(GradientSurgery):
    """Take from each task's gradient what points against another task's, then add them up; see `surgery.pcgrad`.

    g_i = gradient of sum over the batch's rows b of task i of w_b l_b, with w_b = 1 / B: the task's share of the batch
    times its mean loss. They add up to the plain joint gradient, so without conflict the step is the plain one, up to
    rounding, at the same learning rate. A row's weight that another part scaled, as `TaskWeights` does, scales g_i. A
    task without rows in the batch neither acts nor is acted on. The tasks are visited in one random order for each
    step, the same for all i: each g_i' is then distributed, and the mean step is, as if each i drew its own.
    """

    of_means = False
    ordered = True
    witness = "the paper's loop on autograd's gradients: tests/reference/test_multitask.py"

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """The weights of the sum of the projected gradients."""
        return pcgrad(gramian, batch.draws["order"].argsort()), {}
