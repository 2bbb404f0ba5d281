"""Experience replay with asymmetric metric learning, ER-AML (Caccia, Aljundi, Asadi, Tuytelaars, Pineau and Belilovsky, 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import drawn_rows
from lifelong.memory.reservoir import Reservoir
from lifelong.strategies.replay.erace import classes_of, labelled
from lifelong.strategies.replay.rehearsal import Rehearsal


@dataclass(frozen=True)
class ERAML(Rehearsal):
    """New rows are drawn to rows of their own class and away from those they come with, by features alone.

    loss = mean_i l_i + mean CE(R replayed rows); f: features brought to length 1; for a new row i (Caccia et al., 2022, the
    supervised contrastive form)

        l_i = - mean over p in P_i of log(exp(f_i . f_p / temperature) / sum over a in A of exp(f_i . f_a / temperature)).

    For each new row one row of its class and one of another class of its batch are drawn, from memory and batch together; A
    is all of these, 2 B rows, and P_i those of the row's class. A row for which either is missing is left out. So the
    classes that a batch lacks are not contrasted with, and the head learns from replayed rows alone, but for the
    first batch, while the memory is empty: CE. All as in the authors' code, which besides multiplies l_i by temperature / 0.07,
    normalises the head's weights, too, and where it is told of tasks takes its negatives from the whole task.

    The three settings differ in the CE of the replayed rows alone, which compete as the setting says. R is rows, or as many
    as the stream brings; size: M; replacement: whether a row may be replayed twice in a step; memory: which rows are kept.
    """

    size: int = 1000
    temperature: float = 0.1
    rows: int = 0
    replacement: bool = False
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_eraml.py"
    defaults: ClassVar[str] = "the authors' best for CIFAR-100"
    passes = (4.0, 4.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.temperature > 0, "temperature must be above 0")

    @property
    def requires(self) -> Requirements:
        """Classes, too."""
        needed = self.memory.at_task_ends
        return Requirements(task_ends=needed, classes=True, instead="write memory=Reservoir()")

    def draws(self, problem: Problem) -> Shapes:
        """What is replayed, and which rows each new row is contrasted with."""
        asked = super().draws(problem)
        return {**asked, "alike": (problem.batch,), "other": (problem.batch,)} if asked else asked

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add one row of the same class for each new row, then one of another, then the replayed rows."""
        if not len(memory["row"]):
            return batch
        new, filled = batch.stream, self.memory.filled(memory)
        row, task = (torch.cat([memory[name], getattr(batch, name)[new]]) for name in ("row", "task"))
        y = problem.y(memory["row"], memory["task"])
        there = filled & (y >= 0) & classes_of(problem, batch)[y.clamp(min=0)]
        label = torch.cat([torch.where(there, y, -1), torch.where(labelled(batch), batch.y[new], -1)])
        pairs = contrasted(label, problem.classes, batch.draws["alike"], batch.draws["other"])
        by_label = torch.where(filled.any(), 0.0, batch.weight[new])
        batch = batch.replace(weight=torch.cat([by_label, batch.weight[new.stop :]]))
        for place in pairs:
            batch = batch.add(problem, row[place], task[place], batch.weight.new_zeros(len(place)))
        draw = self.picked(memory, batch)
        return batch.add(problem, *drawn_rows(memory, draw), draw.weight(batch.weight.new_ones(())))

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The contrast of new rows with those that were drawn for them."""
        if not len(memory["row"]):
            return batch.weight.new_zeros(())
        y = batch.y[batch.stream]
        first, count = batch.mine.start, len(y)
        others = slice(first, first + 2 * count)
        valid = (batch.y[others][count:] != y) & self.memory.filled(memory).any()
        features = F.normalize(outputs.features[batch.stream], dim=1)
        against = F.normalize(outputs.features[others], dim=1)
        scores = features @ against.T / self.temperature  # [B, 2 B]
        taken = valid.repeat(2)
        log_p = scores.masked_fill(~taken, torch.finfo(scores.dtype).min).log_softmax(1)
        alike = (y[:, None] == batch.y[others]) & taken
        each = -torch.where(alike, log_p, 0).sum(1) / alike.sum(1).clamp(min=1)
        return (each * valid).sum() / valid.sum().clamp(min=1)


def contrasted(label: Tensor, classes: int, alike: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """For each of the last B of N rows the places of a row of its class, not itself, and of one of another: int64 [B] each.

    label: int64 [N], -1 for rows that are not to be taken; alike, other: [B], the n-th of so many in order of
    class and place. Both places are its own where either is missing.
    """
    size, count = len(label), len(alike)
    order = torch.where(label < 0, classes, label).argsort(stable=True)
    held = (label[:, None] == torch.arange(classes, device=label.device)).sum(0)  # [C]
    y = label[size - count :]
    same, before = (
        held[y.clamp(min=0)],
        (held.cumsum(0) - held)[y.clamp(min=0)],
    )  # [B]: rows of its class, and before them
    at = torch.arange(count, device=label.device)
    # the anchors are the last of their class: its own place in order is before those that are to come
    own_place = before + same - ((y == y[:, None]) & (at >= at[:, None])).sum(1)
    near = before + _nth(alike, same - 1)
    near = near + (near >= own_place)
    rest = held.sum() - same
    far = _nth(other, rest)
    far = far + torch.where(far >= before, same, 0)
    valid = (y >= 0) & (same > 1) & (rest > 0)
    itself = at + size - count
    near, far = (torch.where(valid, order[place.clamp(max=size - 1)], itself) for place in (near, far))
    return near, far


def _nth(uniforms: Tensor, count: Tensor) -> Tensor:
    """floor(u n), 0 ... n - 1."""
    return (uniforms * count).to(torch.int64).minimum(count - 1).clamp(min=0)
