"""Experience replay: a uniform reservoir (Vitter, 1985; Chaudhry et al., 2019), and a fixed number for each class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.memory import PerClass, Reservoir, draws_of, replayed

WEIGHTINGS = ("tasks", "equal")


def share_of_new(weighting: str, done: Tensor) -> Tensor:
    """Weight of the stream's rows: "tasks" 1 / k with k tasks begun, "equal" 1/2; 0-d."""
    whole = torch.ones_like(done)
    return whole / (done + 1) if weighting == "tasks" else whole / 2


@dataclass(frozen=True)
class Replay(Strategy):
    """Keep a uniform sample of all rows seen so far, and learn some of them again with each batch.

    size: M, rows kept. rows: R, how many are replayed in each step, 0 for as many as the stream brings. replacement:
    whether one row may be drawn twice in a step. weighting: "tasks" weighs new rows 1/k and old ones 1 - 1/k with k
    tasks begun; "equal" halves. The current task is part of the sample.
    """

    size: int = 1000
    rows: int = 0
    replacement: bool = True
    weighting: str = "tasks"
    off = {"size": 0}
    acts_at_once = True

    def __post_init__(self) -> None:
        require(self, self.size >= 0 and self.rows >= 0, "size and rows must be at least 0")
        require(self, self.weighting in WEIGHTINGS, f"weighting is one of {', '.join(WEIGHTINGS)}")

    @property
    def requires(self) -> Requirements:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """Weights by the number of tasks need their ends."""
        return Requirements(task_ends=self.weighting == "tasks", instead="write Replay(weighting='equal')")

    @property
    def memory(self) -> Reservoir:
        """What is kept."""
        return Reservoir(self.size)

    def draws(self, problem: Problem) -> Shapes:
        """Which places are replayed, and a ticket for each row of the stream."""
        if not self.size:
            return {}
        places = draws_of(self.size, self.rows or problem.batch, self.replacement)
        return {"place": places, **self.memory.draws(problem)}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The reservoir, and tasks done."""
        return params, {**self.memory.init(problem), "done": problem.zeros()}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows."""
        if not self.size:
            return batch
        rows = self.rows or len(batch.row[batch.stream])
        draw = self.memory.pick(memory, batch.draws["place"], rows, self.replacement)
        return replayed(problem, batch, memory, draw, share_of_new(self.weighting, memory["done"]))

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Let the stream's rows into the reservoir."""
        if not self.size:
            return params, memory
        return params, self.memory.insert(memory, step.batch, step.batch.draws["ticket"])

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Count the task."""
        return params, {**memory, "done": memory["done"] + 1}


@dataclass(frozen=True)
class ClassReplay(Strategy):
    """Keep `per_class` random rows of each class (domain-incremental: of each class and task), chosen at a task's end.

    So the current task is never replayed. This is the "ER" of van de Ven, Tuytelaars and Tolias (2022). rows,
    replacement, weighting: as in `Replay`.
    """

    per_class: int = 100
    rows: int = 0
    replacement: bool = True
    weighting: str = "tasks"
    off = {"per_class": 0}
    requires = Requirements(task_ends=True, classes=True, instead="write Replay(weighting='equal')")

    def __post_init__(self) -> None:
        require(self, self.per_class >= 0 and self.rows >= 0, "per_class and rows must be at least 0")
        require(self, self.weighting in WEIGHTINGS, f"weighting is one of {', '.join(WEIGHTINGS)}")

    @property
    def memory(self) -> PerClass:
        """What is kept."""
        return PerClass(self.per_class)

    def draws(self, problem: Problem) -> Shapes:
        """Which places are replayed."""
        places = self.memory.groups(problem) * self.per_class
        return {"place": draws_of(places, self.rows or problem.batch, self.replacement)} if places else {}

    def task_draws(self, problem: Problem) -> Shapes:
        """A ticket for each row."""
        return self.memory.task_draws(problem)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The memory, and tasks done."""
        return params, {**self.memory.init(problem), "done": problem.zeros()}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows."""
        if not self.per_class:
            return batch
        rows = self.rows or len(batch.row[batch.stream])
        draw = self.memory.pick(memory, batch.draws["place"], rows, self.replacement)
        return replayed(problem, batch, memory, draw, share_of_new(self.weighting, memory["done"]))

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Choose the rows that are kept of this task."""
        done = memory["done"] + 1
        if not self.per_class:
            return params, {**memory, "done": done}
        return params, {**self.memory.insert(problem, memory, task, task.draws["ticket"]), "done": done}
