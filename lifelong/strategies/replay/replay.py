"""Experience replay: some rows are kept, and some of them learned again with each batch (Chaudhry et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import Drawn, replayed
from lifelong.memory.per_class import PerClass
from lifelong.memory.reservoir import Reservoir
from lifelong.strategies.replay.rehearsal import ClassRehearsal, Rehearsal

WEIGHTINGS = ("tasks", "equal")


def share_of_new(weighting: str, done: Tensor) -> Tensor:
    """Weight of the stream's rows: "tasks" 1 / k with k tasks begun, "equal" 1/2; 0-d."""
    whole = torch.ones_like(done)
    return whole / (done + 1) if weighting == "tasks" else whole / 2


class _Replay(Rehearsal):
    """What `Replay` and `ClassReplay` share: old and new rows are weighed against one another."""

    weighting: str | float
    passes = (2.0, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        weighting = self.weighting
        known = weighting in (*WEIGHTINGS, "rows") if isinstance(weighting, str) else 0 < weighting < 1
        words = f"weighting is one of {', '.join(WEIGHTINGS)}, rows, or the share of new rows, between 0 and 1"
        require(self, known, words)

    @property
    def requires(self) -> Requirements:
        """Weights by the number of tasks need their ends, too."""
        instead = "write Replay(weighting='equal')"
        return Requirements(task_ends=self.weighting == "tasks" or self.memory.at_task_ends, instead=instead)

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows."""
        if not len(memory["row"]):
            return batch
        draw = self.picked(memory, batch)
        return replayed(problem, batch, memory, draw, self.share(memory, batch, draw))

    def share(self, memory: Memory, batch: Batch, draw: Drawn) -> Tensor:
        """Weight of the stream's rows, 0-d."""
        if not isinstance(self.weighting, str):
            return torch.ones_like(memory["done"]) * self.weighting
        if self.weighting == "rows":
            new = batch.shown[batch.stream].to(batch.weight.dtype).sum()
            return new / (new + draw.valid.sum()).clamp(min=1)
        return share_of_new(self.weighting, memory["done"])


@dataclass(frozen=True)
class Replay(_Replay):
    """Keep a sample of all rows seen so far, and learn some of them again with each batch.

    size: M, rows kept. rows: R, how many are replayed in each step, 0 for as many as the stream brings. replacement:
    whether one row may be drawn twice in a step. weighting: "tasks" weighs new rows 1/k and old ones 1 - 1/k with k
    tasks begun; "equal" halves; "rows" lets every row of both count alike, the mean over one batch of all, as in the authors'
    code; a number is the new rows' share. memory: which rows are kept; of the default, a uniform reservoir, the current task is part.
    """

    size: int = 1000
    rows: int = 0
    replacement: bool = True
    weighting: str | float = "tasks"
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_replay.py"


@dataclass(frozen=True)
class ClassReplay(ClassRehearsal, _Replay):  # pyright: ignore[reportIncompatibleVariableOverride] # size: see room
    """Keep `per_class` rows of each class (domain-incremental: of each class and task), chosen at a task's end.

    So the current task is never replayed. This is the "ER" of van de Ven, Tuytelaars and Tolias (2022); they choose at
    random, as the default does. rows, replacement, weighting: as in `Replay`.
    """

    per_class: int = 100
    rows: int = 0
    replacement: bool = True
    weighting: str | float = "tasks"
    memory: RowMemory = field(default_factory=PerClass)
    off = {"per_class": 0}
    acts_at_once = False
    keeps: ClassVar[str] = "rows of each class"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_replay.py"

    @property
    def requires(self) -> Requirements:
        """Classes, too."""
        return Requirements(task_ends=True, classes=True, instead="write Replay(weighting='equal')")
