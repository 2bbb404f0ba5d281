"""What strategies share that keep rows and look at some of them again in each step: size, policy, draws, bookkeeping."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.row_gradients import ROWS
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.memory.base import RowMemory, groups
from lifelong.memory.drawn import Drawn, draws_of


class Rehearsal(Strategy):
    """Fields that a strategy of this kind has, and the verbs that keep its memory.

    size: M, rows kept. rows: R, how many are drawn in each step, 0 for as many as the stream brings. replacement: whether
    one row may be drawn twice in a step. memory: which rows are kept. offered_again: whether a row that is shown again,
    in another epoch, is offered to the memory again. places: names of the sets of places that are drawn in each step.
    """

    size: int
    rows: int
    replacement: bool
    memory: RowMemory
    sized_by = "size"
    off = {"size": 0}
    acts_at_once = True
    offered_again: ClassVar[bool] = False
    places: ClassVar[tuple[str, ...]] = ("place",)

    def __post_init__(self) -> None:
        require(self, self.size >= 0 and self.rows >= 0, "size and rows must be at least 0")

    @property
    def requires(self) -> Requirements:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """Policies that choose at task ends need them."""
        return Requirements(task_ends=self.memory.at_task_ends, instead="write memory=Reservoir()")

    def room(self, problem: Problem) -> int:
        """M."""
        return self.size

    def extras(self, problem: Problem) -> dict[str, Tensor]:
        """What one row brings along, by name: nothing."""
        return {}

    def brought(self, problem: Problem, params: Params, step: Step) -> dict[str, Tensor]:
        """What the stream's rows of a step bring along, [B, ...]."""
        return {}

    def brought_by_task(self, problem: Problem, params: Params, task: FinishedTask) -> dict[str, Tensor]:
        """What a finished task's rows bring along, [N, ...]."""
        return {}

    def draws(self, problem: Problem) -> Shapes:
        """Which places are drawn, and what the policy asks for."""
        room = self.room(problem)
        if not room:
            return {}
        drawn = draws_of(self.memory.places(problem, room), self.rows or problem.batch, self.replacement)
        return {**dict.fromkeys(self.places, drawn), **self.memory.draws(problem, room)}

    def task_draws(self, problem: Problem) -> Shapes:
        """What the policy asks for."""
        return self.memory.task_draws(problem, self.room(problem))

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The memory, and tasks done."""
        room = self.room(problem)
        least = self.memory.least(problem)
        require(self, room == 0 or room >= least, f"{self.memory!r} needs room for at least {least} rows here")
        return params, {**self.memory.init(problem, room, **self.extras(problem)), "done": problem.zeros()}

    def picked(self, memory: Memory, batch: Batch, name: str = "place", among: Tensor | None = None) -> Drawn:
        """The places that a step draws; among, bool [M]: of these alone."""
        rows = self.rows or len(batch.row[batch.stream])
        return self.memory.pick(memory, batch.draws[name], rows, self.replacement, among)

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Offer the stream's rows to the memory."""
        if not len(memory["row"]):
            return params, memory
        batch = step.batch.replace(first_seen=step.batch.shown) if self.offered_again else step.batch
        extra = self.brought(problem, params, step)
        return params, self.memory.insert(problem, memory, batch, batch.draws, **extra)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Count the task, and let the policy choose among its rows."""
        done = memory["done"] + 1
        if self.memory.at_task_ends and len(memory["row"]):
            extra = self.brought_by_task(problem, params, task)
            memory = self.memory.insert_task(problem, params, memory, task, task.draws, **extra)
        return params, {**memory, "done": done}


class ClassRehearsal(Rehearsal):
    """The same with `per_class` rows of each class, in domain-incremental streams of each class of each task."""

    per_class: int
    sized_by = "per_class"

    @property
    def size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] # it depends on the stream: see room
        """Rows of each class."""
        return self.per_class

    def room(self, problem: Problem) -> int:
        """M: K places for each group."""
        return self.per_class * groups(problem)


def scores_of_task(problem: Problem, params: Params, task: FinishedTask) -> Tensor:
    """The network's scores for all rows of a task, [N, C], some rows at a time."""
    number = task.number.expand(len(task.row))
    pieces = zip(task.row.split(ROWS), number.split(ROWS), strict=True)
    return torch.cat([problem.logits(params, problem.x(row, t)) for row, t in pieces])
