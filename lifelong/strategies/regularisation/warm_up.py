"""The new head learns alone at first (Li and Hoiem, 2016, "warm-up step")."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lifelong.core.batch import FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.regularisation.heads import entries_of


@dataclass(frozen=True)
class WarmUp(Strategy):
    """For the first share of every task but the first, only the outputs of the task's own classes learn.

    p <- p before the step, for the trunk and the other classes' outputs, while progress < share and a task has ended.

    Li and Hoiem (2016, section 3) train a new head so until it converges, then everything, "joint-optimize"; how long that
    takes they do not say, so 0.2 is ours. In their words LwF(scaled=False) + WarmUp(); it goes with any other part as well.
    Where all tasks share one head, that whole head learns alone. The optimiser's moments of what stays put go on as if it
    had moved. At its right stands what is to move parameters all the same.

    Memory: whether a task has ended. Raises StrategyError unless share lies in 0 ... 1.
    """

    share: float = 0.2
    off = {"share": 0.0}
    previous_params = True
    requires = Requirements(task_ends=True)
    keeps = "a flag"
    witness = "a plain float64 loop: tests/reference/witnesses/test_lwf.py"
    defaults = "ours"

    def __post_init__(self) -> None:
        require(self, 0 <= self.share <= 1, "share lies in 0 ... 1")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """A flag for when it counts."""
        return params, {"on": problem.zeros()}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Put back what may not move yet."""
        waits = (memory["on"] > 0) & (step.batch.progress < self.share)
        others = ~problem.index["classes_of"][step.batch.task[:1]][0]  # bool [C]
        head, previous = entries_of(problem, params["net"], others), step.previous["net"]
        stays = {name: waits & head.get(name, waits) for name in params["net"]}
        net = {name: torch.where(stays[name], previous[name], p) for name, p in params["net"].items()}
        return {**params, "net": net}, memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """From now on there is something to keep."""
        return params, {"on": torch.ones_like(memory["on"])}
