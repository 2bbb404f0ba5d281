"""Dark experience replay, DER and DER++ (Buzzega, Boschini, Porrello, Abati and Calderara, 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import drawn_rows
from lifelong.memory.reservoir import Reservoir
from lifelong.strategies.replay.rehearsal import Rehearsal, scores_of_task


class _DarkReplay(Rehearsal):
    """What DER and DER++ share: rows of a memory whose scores are to stay as they were when the row came by."""

    alpha: float
    # at its first sight of a task the network has nothing to say that is worth keeping
    offered_again = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.alpha >= 0, "alpha must be at least 0")

    def extras(self, problem: Problem) -> dict[str, Tensor]:
        """The scores [C] of each row."""
        return {"logits": problem.zeros(problem.classes)}

    def brought(self, problem: Problem, params: Params, step: Step) -> dict[str, Tensor]:
        """The scores that a row had before this step."""
        return {"logits": step.outputs.logits[step.batch.stream]}

    def brought_by_task(self, problem: Problem, params: Params, task: FinishedTask) -> dict[str, Tensor]:
        """Those at the task's end."""
        return {"logits": scores_of_task(problem, params, task)}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add the rows whose scores are compared: in the same forward pass, without weight in the loss."""
        if not len(memory["row"]):
            return batch
        row, task = drawn_rows(memory, self.picked(memory, batch))
        return batch.add(problem, row, task, torch.zeros_like(row, dtype=batch.weight.dtype))

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """alpha x the mean square between scores now and then, over the classes open to a row."""
        if not len(memory["row"]):
            return batch.weight.new_zeros(())
        draw = self.picked(memory, batch)
        rows = slice(batch.mine.start, batch.mine.start + len(draw.place))
        allowed = batch.allowed[rows]
        gap = torch.where(allowed, outputs.logits[rows] - memory["logits"][draw.place], 0)
        each = gap.square().sum(1) / allowed.sum(1)  # [R]
        return self.alpha * (draw.weight(batch.weight.new_ones(())) * each).sum()


@dataclass(frozen=True)
class DER(_DarkReplay):
    """Keep a uniform sample of all that was shown so far, each row with the scores that the network gave it then.

    loss = L(stream) + alpha x mean over R replayed rows of |h(x') - z'|^2 / C (Buzzega et al., 2020, eq. 5, with the mean
    over classes that the authors' code takes), z' [C] the scores when the row was shown, before that step. R is
    rows, or as many as the stream brings; size: M, rows kept; replacement: whether a row may be drawn twice in a step,
    which the authors' code does not; memory: which rows are kept.

    The stream's weight stays 1: old rows come on top. The end of a task plays no part, but to a memory that chooses then: it keeps the scores of that moment. A row that is shown in several
    epochs is offered to the reservoir each time, as in the authors' code; so it may be kept twice, with other scores.
    What differs from the source: where a row competes among some classes alone (task-incremental), only their scores
    are compared, and C is their number, since the others mean nothing there.
    """

    size: int = 1000
    alpha: float = 0.5
    rows: int = 0
    replacement: bool = False
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows and the scores of each"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/test_methods_a.py"
    defaults: ClassVar[str] = "the authors' for MNIST with 5,120 rows"
    passes = (2.0, 2.0)


@dataclass(frozen=True)
class DERPlusPlus(_DarkReplay):
    """DER, and a second, independent draw of R rows that are learned again by their labels.

    loss = L(stream) + alpha x mean |h(x') - z'|^2 / C + beta x mean L(x'', y'') (Buzzega et al., 2020, eq. 6); everything
    else as in `DER`.
    """

    size: int = 1000
    alpha: float = 0.5
    beta: float = 0.5
    rows: int = 0
    replacement: bool = False
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows and the scores of each"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/test_methods_a.py"
    defaults: ClassVar[str] = "the authors' for rotated MNIST with 5,120 rows"
    passes = (3.0, 3.0)
    places = ("place", "place_again")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.beta >= 0, "beta must be at least 0")

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add the rows whose scores are compared, then those that are learned again."""
        if not len(memory["row"]):
            return batch
        draw = self.picked(memory, batch, "place_again")
        weight = self.beta * draw.weight(batch.weight.new_ones(()))
        return super().extend(problem, params, memory, batch).add(problem, *drawn_rows(memory, draw), weight)
