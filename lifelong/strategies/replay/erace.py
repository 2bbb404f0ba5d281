"""Experience replay with asymmetric cross-entropy, ER-ACE (Caccia, Aljundi, Asadi, Tuytelaars, Pineau and Belilovsky, 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import drawn_rows
from lifelong.memory.reservoir import Reservoir
from lifelong.strategies.replay.rehearsal import Rehearsal


@dataclass(frozen=True)
class ERACE(Rehearsal):
    """New rows compete among the classes of their own batch alone, so that they do not push old classes away.

    loss = mean CE(stream's rows, among the classes of the batch) + mean CE(R replayed rows, among all classes seen so far)
    (Caccia et al., 2022), both as far as the setting lets classes compete at all. Class-incremental: as the paper has it.
    Task-incremental: a row competes among its task's classes as it is, and a batch that lacks some of them makes the
    difference. Domain-incremental: where every batch has every class, it is replay with a weight of 1 for new rows and
    of 1 for old ones.

    R is rows, or as many as the stream brings, drawn without replacement as in the authors' code; size: M; memory: which
    rows are kept. What differs from the source: the authors' code, other than the paper, lets all classes
    compete for old rows, and the not yet seen ones for new rows, too. A batch of a single class teaches nothing
    but by its replayed rows.

    State beside the memory's: classes, bool [C], those seen so far.
    """

    size: int = 1000
    rows: int = 0
    replacement: bool = False
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_erace.py"
    passes = (2.0, 2.0)

    @property
    def requires(self) -> Requirements:
        """Classes, too."""
        needed = self.memory.at_task_ends
        return Requirements(task_ends=needed, classes=True, instead="write memory=Reservoir()")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """No class was seen."""
        params, memory = super().init(problem, params, generator)
        none = torch.zeros(problem.classes, dtype=torch.bool, device=problem.device)
        return params, {**memory, "classes": none}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Close the classes that are absent to the stream's rows; add replayed rows, to which they stay open."""
        if not len(memory["row"]):
            return batch
        new, present = batch.allowed[batch.stream], classes_of(problem, batch)
        new = new & (present | ~labelled(batch)[:, None])
        batch = batch.replace(allowed=torch.cat([new, batch.allowed[batch.stream.stop :]]))
        draw = self.picked(memory, batch)
        row, task = drawn_rows(memory, draw)
        # a place that holds no row yet may have one whose class was never seen
        known = memory["classes"] | present | ~(draw.valid & (problem.y(row, task) >= 0))[:, None]
        weight = draw.weight(batch.weight.new_ones(()))
        return batch.add(problem, row, task, weight, allowed=problem.allowed(task) & known)

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Offer the rows to the memory, and note their classes."""
        params, memory = super().after_step(problem, params, memory, step)
        return params, {**memory, "classes": memory["classes"] | classes_of(problem, step.batch)}


def labelled(batch: Batch) -> Tensor:
    """Which of the stream's rows count and have a label, bool [B]."""
    return batch.shown[batch.stream] & (batch.y[batch.stream] >= 0)


def classes_of(problem: Problem, batch: Batch) -> Tensor:
    """The classes of the stream's rows, bool [C]."""
    y = batch.y[batch.stream]
    member = y[:, None] == torch.arange(problem.classes, device=y.device)
    return (member & labelled(batch)[:, None]).any(0)
