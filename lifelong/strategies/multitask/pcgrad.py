"""PCGrad: gradients that conflict are projected onto each other's normal planes (Yu et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy
from lifelong.strategies.multitask.gradients import GAINS, PASSES, combined, gramian, members, task_gradients
from lifelong.strategies.multitask.surgery import pcgrad
from scenarios.stream import Stream


@dataclass(frozen=True)
class PCGrad(Strategy):
    """Take from each task's gradient what points against another task's, then add them up; see `surgery.pcgrad`.

    g_i = gradient of sum over the batch's rows b of task i of w_b l_b, with w_b = 1 / B: the task's share of the batch
    times its mean loss. They add up to the plain joint gradient, so without conflict the step is the plain one, up to
    rounding, at the same learning rate. A row's weight that another part scaled, as `TaskWeights` does, scales g_i. A
    task without rows in the batch neither acts nor is acted on. The tasks are visited in one random order for each
    step, the same for all i: each g_i' is then distributed, and the mean step is, as if each i drew its own.
    """

    keeps = "nothing"
    witness = "the paper's loop on autograd's gradients: tests/reference/test_multitask.py"
    requires = Requirements(paradigm="joint")
    own_gradient = True

    def draws(self, problem: Problem) -> Shapes:
        """An order of the tasks."""
        return {"order": (problem.tasks,)}

    def notes(self, stream: Stream) -> list[str]:
        """What it costs and what to expect."""
        return [GAINS.format("PCGrad"), PASSES]

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The sum of the projected gradients; penalties' gradients stay as they came."""
        of_task = members(problem, batch).to(batch.weight.dtype)
        each = task_gradients(problem, params, batch, grads, of_task)
        order = batch.draws["order"].argsort()
        return combined(grads, each, pcgrad(gramian(each), order)), {}
