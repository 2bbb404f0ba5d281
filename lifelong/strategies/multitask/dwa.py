"""Dynamic weight average: tasks whose loss falls slowly count more (Liu, Johns and Davison, 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.multitask.gradients import GAINS, task_losses
from scenarios.stream import Stream


@dataclass(frozen=True)
class DWA(Strategy):
    """Weigh the tasks by how fast their losses fall: a = T softmax(r / temperature), r_i = L_i(t - 1) / L_i(t - 2).

    L_i(t): the mean over window t of the mean losses of the batch's rows of task i; loss = sum_i a_i n_i / B L_i, with n_i
    rows of task i of B. All a_i are 1 in the first two windows, and r_i is 1 where one of its two is missing. window: steps,
    0 for as many as show as many rows as all tasks have: the paper's epoch, which a short run may never end: give a number
    there.
    """

    temperature: float = 2.0
    window: int = 0
    keeps = "three losses for each task"
    witness = "its formula, in a plain float64 loop: tests/reference/test_task_weights.py"
    defaults = "published"
    requires = Requirements(paradigm="joint")

    def __post_init__(self) -> None:
        require(self, self.temperature > 0 and self.window >= 0, "temperature must be above 0, window at least 0")

    def notes(self, stream: Stream) -> list[str]:
        """What to expect."""
        return [GAINS.format("DWA")]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Sums of losses and their number in this window, means of the last one and of that before [T], 0 for none; steps."""
        each = ("sum", "count", "last", "before")
        return params, {name: problem.zeros(problem.tasks) for name in each} | {"steps": problem.zeros()}

    def weights(self, memory: Memory) -> Tensor:
        """a [T]."""
        known = (memory["before"] > 0) & (memory["last"] > 0)
        fall = torch.where(known, memory["last"] / torch.where(known, memory["before"], 1), 1)
        return len(fall) * torch.softmax(fall / self.temperature, 0)

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Scale each row's weight by its task's."""
        return batch.replace(weight=batch.weight * self.weights(memory)[batch.task])

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Count the losses from before the step; turn over where the window ends."""
        losses, present = task_losses(problem, step.outputs.logits, step.batch)
        total, count, steps = memory["sum"] + losses, memory["count"] + present, memory["steps"] + 1
        rows = problem.index["count_train"].sum()
        over = steps >= (self.window or (rows + problem.batch - 1) // problem.batch)
        seen = over & (count > 0)
        return params, {
            "sum": torch.where(over, 0, total),
            "count": torch.where(over, 0, count),
            "last": torch.where(seen, total / count.clamp(min=1), memory["last"]),
            "before": torch.where(over, memory["last"], memory["before"]),
            "steps": torch.where(over, 0, steps),
        }
