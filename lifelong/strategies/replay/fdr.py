"""Function distance regularisation, FDR (Benjamin, Rolnick and Kording, 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params
from lifelong.core.problem import Problem, log_softmax
from lifelong.core.strategy import Requirements, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import drawn_rows
from lifelong.memory.per_class import PerClass
from lifelong.strategies.replay.rehearsal import ClassRehearsal, scores_of_task

NEAR = 1e-5  # answers that differ by less have not moved: rounding would say whereto, and a length's slope is 1 at any


@dataclass(frozen=True)
class FDR(ClassRehearsal):
    """Keep some rows of each task with what the network answered at its end, and stay near those answers.

    loss = L(stream) + alpha x mean over R drawn rows of |p(x') - p'|, p the probabilities of the classes, p' those at
    the end of the row's task, |.| the length (Benjamin et al., 2019: L2 distance in function space), over the classes
    open to the row: in task-incremental streams its task's alone. In class-incremental ones p' gives classes that
    came later next to nothing, and so holds old rows off them. No label is kept or used.

    `per_class` rows of each class (domain-incremental: of each class and task) are chosen when its task ends; memory:
    which. R is rows, or as many as the stream brings; replacement: whether a row may be drawn twice in a step. What
    differs from the source: the paper shares a fixed memory equally among the tasks so far; and a well-known code
    (Mammoth) takes a step of its own down the distance, with no weight, where here both gradients are one step's. Right
    after a task's end nothing has moved, and the distance has no slope.
    """

    per_class: int = 100
    alpha: float = 1.0
    rows: int = 0
    replacement: bool = False
    memory: RowMemory = field(default_factory=PerClass)
    keeps: ClassVar[str] = "rows of each class and the answers to each"
    runs_network: ClassVar[bool] = True
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_fdr.py"
    defaults: ClassVar[str] = "Buzzega et al.'s (2020) for permuted MNIST"
    passes = (2.0, 2.0)
    off = {"per_class": 0}
    acts_at_once = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.alpha >= 0, "alpha must be at least 0")
        require(
            self, self.memory.at_task_ends, f"{self.memory!r} does not wait for a task's end: write memory=PerClass()"
        )

    @property
    def requires(self) -> Requirements:
        """Classes, and tasks that end."""
        return Requirements(task_ends=True, classes=True, instead="write DER()")

    def extras(self, problem: Problem) -> dict[str, Tensor]:
        """The probabilities [C] of each row."""
        return {"answer": problem.zeros(problem.classes)}

    def brought_by_task(self, problem: Problem, params: Params, task: FinishedTask) -> dict[str, Tensor]:
        """Those at the task's end."""
        open_to = problem.allowed(task.number.expand(len(task.row)))
        return {"answer": log_softmax(scores_of_task(problem, params, task), open_to).exp()}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add the rows whose answers are compared: in the same forward pass, without weight in the loss."""
        if not len(memory["row"]):
            return batch
        row, task = drawn_rows(memory, self.picked(memory, batch))
        return batch.add(problem, row, task, batch.weight.new_zeros(len(row)))

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """alpha x the mean distance between answers now and then."""
        if not len(memory["row"]):
            return batch.weight.new_zeros(())
        draw = self.picked(memory, batch)
        now = log_softmax(outputs.logits[batch.mine], batch.allowed[batch.mine]).exp()
        square = (now - memory["answer"][draw.place]).square().sum(1)  # [R]
        apart = square > NEAR**2
        length = torch.where(apart, torch.where(apart, square, 1).sqrt(), 0)
        return self.alpha * (draw.weight(batch.weight.new_ones(())) * length).sum()
