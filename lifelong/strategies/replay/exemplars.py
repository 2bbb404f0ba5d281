"""What methods with exemplars share: training among them, the classes met so far, and answers by the mean of each class."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes
from lifelong.memory.base import State
from lifelong.memory.drawn import Drawn
from lifelong.strategies.replay.rehearsal import ClassRehearsal


class Exemplars(ClassRehearsal):
    """Verbs of a strategy whose exemplars lie among the rows of its batches, see `among_exemplars`."""

    rows: ClassVar[int] = 0  # pyright: ignore[reportIncompatibleVariableOverride] # as many as the stream brings
    replacement: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]
    off = {}

    @property
    def requires(self) -> Requirements:
        """Classes that come task by task and compete."""
        return Requirements(settings=("class",), task_ends=True, classes=True)

    def draws(self, problem: Problem) -> Shapes:
        """Which exemplar stands ready for each row, and whether it takes its place."""
        draws = super().draws(problem)
        return {**draws, "luck": (problem.batch,)} if draws else {}

    def mixed(self, problem: Problem, memory: Memory, batch: Batch) -> Batch:
        """The batch with exemplars among its rows."""
        if not len(memory["row"]):
            return batch
        filled, draw = self.memory.filled(memory), self.picked(memory, batch)
        return among_exemplars(problem, batch, memory, filled, draw, batch.draws["luck"])


def rewritten(batch: Batch, **fields: Tensor) -> Batch:
    """The batch with some fields of the stream's rows changed, and those of added rows as they were."""
    end = batch.stream.stop
    return batch.replace(**{name: torch.cat([value, getattr(batch, name)[end:]]) for name, value in fields.items()})


def among_exemplars(problem: Problem, batch: Batch, state: State, filled: Tensor, draw: Drawn, luck: Tensor) -> Batch:
    """A batch of the task's n rows and the m exemplars together: filled bool [M], draw of B places, luck [B].

    Each row of the stream gives way to a drawn exemplar with probability m / (n + m). So every row of the batch is
    a uniform draw from the n + m, as where exemplars are added to the training set; only the number of exemplars in a
    batch, and which rows of the stream a pass leaves out, are chance. A step costs what one without a memory costs.
    """
    rows = batch.stream
    count, held = problem.index["count_train"][batch.task[:1]][0], filled.sum()
    gives_way = (luck * (count + held) < held) & batch.shown[rows] & draw.valid
    row = torch.where(gives_way, state["row"][draw.place], batch.row[rows])
    task = torch.where(gives_way, state["task"][draw.place], batch.task[rows])
    mixed = problem.batch_of_rows(row, task, batch.weight[rows])
    seen = {name: getattr(mixed, name) for name in ("row", "task", "x", "y", "allowed")}
    return rewritten(batch, **seen, first_seen=batch.first_seen[rows] & ~gives_way)


def classes_here(problem: Problem, done: Tensor) -> Tensor:
    """The classes of the task that is being learned, bool [C], where so many are done, 0-d."""
    classes = problem.index["classes_of"]
    return classes[done.to(torch.int64).clamp(max=len(classes) - 1)[None]][0]


def of_class(y: Tensor, classes: int) -> Tensor:
    """Which class each row has, bool [B, C]; none where the label is missing."""
    return y[:, None] == torch.arange(classes, device=y.device)


def class_means(problem: Problem, params: Params, state: State, filled: Tensor) -> State:
    """means [C, F], of length 1, of each class's exemplars' features of length 1; there bool [C], which classes have any."""
    row, task = state["row"], state["task"]
    features = F.normalize(problem.features(params, problem.x(row, task)), dim=1)
    member = of_class(problem.y(row, task), problem.classes) & filled[:, None]  # [M, C]
    return {"means": F.normalize(member.to(features.dtype).T @ features, dim=1), "there": member.any(0)}


def nearest_mean(problem: Problem, params: Params, prepared: State, x: Tensor) -> Tensor:
    """Minus the squared distance of features of length 1 to each class's mean [B, C], minus infinity where it has none.

    While no class has a mean the network's own scores stand in.
    """
    outputs = problem.outputs(params, x)
    means, there = prepared["means"], prepared["there"]
    scores = 2 * F.normalize(outputs.features, dim=1) @ means.T - means.square().sum(1) - 1
    return torch.where(there.any(), scores.masked_fill(~there, -torch.inf), outputs.logits)
