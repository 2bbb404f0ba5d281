"""PCGrad: gradients that conflict are projected onto each other's normal planes (Yu et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from lifelong.multitask.gradients import combined, gramian, members, task_gradients
from lifelong.multitask.surgery import pcgrad
from lifelong.problem import Batch, Memory, Params, Problem
from lifelong.strategy import Strategy


@dataclass(frozen=True)
class PCGrad(Strategy):
    """Take from each task's gradient what points against another task's, then add them up; see `surgery.pcgrad`.

    g_i = gradient of sum over the batch's rows b of task i of w_b l_b, with w_b = 1 / B: the task's share of the batch
    times its mean loss. They add up to the plain joint gradient, so without conflict the step is the plain one, up to
    rounding, at the same learning rate. A row's weight that another part scaled, as `TaskWeights` does, scales g_i. A
    task without rows in the batch neither acts nor is acted on. The tasks are visited in one random order for each
    step, the same for all i: each g_i' is then distributed, and the mean step is, as if each i drew its own.
    """

    multi_task = True
    replaces_gradient = True
    uniforms_per_row = 1

    def grads(self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params) -> Params:
        """The sum of the projected gradients; penalties' gradients stay as they came."""
        of_task = members(problem, batch).to(batch.weight.dtype)
        each = task_gradients(problem, params, batch, grads, of_task)
        drawn = batch.uniforms[:, 0].to(of_task.dtype)  # the stream's rows come first
        # a sum of uniforms, taken modulo 1, is uniform whatever the number of rows: one draw for each task that is here
        order = ((of_task[:, : drawn.shape[0]] @ drawn) % 1).argsort()
        return combined(grads, each, pcgrad(gramian(each), order))
