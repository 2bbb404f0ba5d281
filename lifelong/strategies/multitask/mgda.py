"""MGDA: the shortest vector in the convex hull of the tasks' gradients (Desideri, 2012; Sener and Koltun, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.multitask.gradients import GAINS, PASSES, combined, gramian, members, task_gradients
from lifelong.strategies.multitask.surgery import mgda
from scenarios.stream import Stream


@dataclass(frozen=True)
class MGDA(Strategy):
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
    keeps = "nothing"
    witness = "a solver, on autograd's gradients: tests/reference/test_multitask.py"
    requires = Requirements(paradigm="joint")
    own_gradient = True

    def __post_init__(self) -> None:
        require(self, self.iterations >= 1, "iterations must be at least 1")

    def notes(self, stream: Stream) -> list[str]:
        """What it costs and what to expect."""
        return [GAINS.format("MGDA"), PASSES]

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The shortest weighted mean; penalties' gradients stay as they came."""
        of_task = members(problem, batch)
        count = of_task.sum(1, keepdim=True)
        share = (
            of_task.to(batch.weight.dtype) * batch.weight.shape[0] / count.clamp(min=1)
        )  # [T, B], B / rows of the task
        each = task_gradients(problem, params, batch, grads, share)
        present = (of_task & (batch.weight > 0)).any(1)
        products = gramian(each)
        if self.normalised:
            length = products.diagonal().sqrt().clamp(min=torch.finfo(products.dtype).tiny)
            products = products / length / length[:, None]
        return combined(grads, each, mgda(products, self.iterations, present)), {}
