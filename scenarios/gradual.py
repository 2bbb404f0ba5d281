"""Gradual: one task fades into the next, and nobody says when a task ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.split import split
from scenarios.stream import Budget, Dataset, ScenarioError, Shown, Stream, Task, generator, in_orders


@dataclass(frozen=True)
class GradualSchedule:
    """Each task's rows in random orders of its own, the places of neighbouring tasks mixed around each boundary.

    width: w, how long a change takes, as a share 0 ... 1 of the shorter phase. The k-th row before a boundary and the
    k-th after it change places with probability (1 - (k - 1/2) / h) / 2, h = w / 2 of that phase: so the share of the
    new task rises linearly from 0 to 1 over the change, and in all each task is shown as often as without it.
    """

    width: float

    def size(self, tasks: list[Task], phase: int) -> int:
        """The rows of the task."""
        return len(tasks[phase].train)

    def shown(self, tasks: list[Task], phase: int, wanted: Sequence[int], *seed: object) -> Shown:
        """The phase's own rows, but for those that changed places with a neighbour's."""
        number = torch.full((wanted[phase],), phase)
        before = torch.nonzero(self._changed(tasks, phase, wanted, *seed))[:, 0]
        after = torch.nonzero(self._changed(tasks, phase + 1, wanted, *seed))[:, 0]
        number[before] = phase - 1
        number[wanted[phase] - 1 - after] = phase + 1
        # how many rows of each task were shown in earlier phases: a task begins in the one before its own
        shown = {phase: len(before), phase + 1: 0}
        if phase:
            shown[phase - 1] = wanted[phase - 1] - len(before)
        row, first = torch.zeros_like(number), torch.zeros_like(number, dtype=torch.bool)
        for t in torch.unique(number).tolist():
            here, train = number == t, tasks[t].train
            nth = shown[t] + torch.arange(int(here.sum()))  # of all showings of the task
            order = in_orders(len(train), wanted[t], generator(*seed, tasks[t].number))
            row[here], first[here] = train[order[nth]], nth < len(train)
        return Shown(row, number, first)

    def _changed(self, tasks: list[Task], phase: int, wanted: Sequence[int], *seed: object) -> Tensor:
        """Which distances from the boundary before a phase have changed places, bool [h]; none at the stream's ends."""
        if not 0 < phase < len(tasks):
            return torch.zeros(0, dtype=torch.bool)
        half = int(self.width * min(wanted[phase - 1], wanted[phase]) / 2)
        chance = (1 - (torch.arange(half) + 0.5) / max(half, 1)) / 2
        return torch.rand(half, generator=generator(*seed, "boundary", tasks[phase].number)) < chance


def faded(stream: Stream, width: float = 0.5) -> Stream:
    """The stream with gradual changes and without task ends; what is tested stays as it is."""
    if not 0 <= width <= 1:
        raise ScenarioError(f"width={width} is not possible: a change takes 0 ... 1 of a task")
    return replace(stream, schedule=GradualSchedule(width), task_ends=False)


def gradual(
    dataset: Dataset,
    tasks: int = 5,
    setting: str = "class",
    width: float = 0.5,
    order: tuple[int, ...] | None = None,
    validation: float = 0.0,
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """The classes of a dataset, a few at a time, each few fading into the next; a learner is not told when, nor of how many.

    width: how long a change takes, as a share 0 ... 1 of a task. So task-free (Aljundi, Kelchtermans and Tuytelaars,
    2019), with tasks that change gradually rather than at once (as in Zeno et al., 2018). The rest: see `split`.
    """
    stream = split(dataset, tasks, setting, order, validation, budget=budget, name=name or f"gradual-{dataset.name}")
    return faded(stream, width)
