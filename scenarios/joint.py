"""Baselines made from a stream: they change only what is trained on, never what is tested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.stream import ScenarioError, SequentialSchedule, Shown, Stream, Task, generator


@dataclass(frozen=True)
class JointSchedule:
    """The rows of all tasks in every phase, each with its own task; batch: rows of a step, for "round-robin"."""

    sampling: str = "proportional"
    batch: int = 32

    def size(self, tasks: list[Task], phase: int) -> int:
        """A pass over all rows is divided over the phases."""
        return -(-sum(len(task.train) for task in tasks) // len(tasks))

    def shown(self, tasks: list[Task], phase: int, wanted: Sequence[int], *seed: object) -> Shown:
        """Random orders of all rows, or rows in turn of tasks that are drawn by the sampling; a phase goes on where the
        one before it ended, so that a pass over all phases shows each row once.
        """
        row = torch.cat([task.train for task in tasks])
        number = torch.cat([torch.full_like(task.train, t) for t, task in enumerate(tasks)])
        if self.sampling == "proportional":
            before = sum(wanted[:phase])
            order = _of_passes(len(row), before, wanted[phase], *seed)
            return Shown(row[order], number[order], before + torch.arange(len(order)) < len(row))
        before = torch.zeros(len(tasks), dtype=torch.int64)  # rows of each task that were shown in earlier phases
        for earlier in range(phase):
            before += torch.bincount(self._turns(tasks, earlier, wanted, *seed), minlength=len(tasks))
        turn = self._turns(tasks, phase, wanted, *seed)
        order, first = torch.empty_like(turn), torch.empty_like(turn, dtype=torch.bool)
        for t, task in enumerate(tasks):
            here, members = turn == t, torch.nonzero(number == t)[:, 0]
            count = int(here.sum())
            order[here] = members[_of_passes(len(members), int(before[t]), count, *seed, task.number)]
            first[here] = before[t] + torch.arange(count) < len(members)
        return Shown(row[order], number[order], first)

    def _turns(self, tasks: list[Task], phase: int, wanted: Sequence[int], *seed: object) -> Tensor:
        """Whose turn it is at each row of a phase, drawn by the sampling: int64 [wanted[phase]]."""
        if self.sampling == "round-robin":
            batches = sum(-(-count // self.batch) for count in wanted[:phase])
            return (batches + torch.arange(wanted[phase]) // self.batch) % len(tasks)
        rows = torch.tensor([len(task.train) for task in tasks], dtype=torch.float64)
        share, random = rows ** sampling_exponent(self.sampling), generator(*seed, "turns", tasks[phase].number)
        return torch.multinomial(share, wanted[phase], replacement=True, generator=random)


def _of_passes(count: int, before: int, wanted: int, *seed: object) -> Tensor:
    """Of random orders of 0 ... count - 1, pass after pass, those after the first `before`: int64 [wanted]."""
    first, last = before // count, max(before + wanted - 1, before) // count
    orders = [torch.randperm(count, generator=generator(*seed, "pass", k)) for k in range(first, last + 1)]
    return torch.cat(orders)[before - first * count :][:wanted]


def joint(stream: Stream, sampling: str = "proportional") -> Stream:
    """All tasks at once: T phases over all rows, each row with its own task, head and mask.

    sampling: how often a task is drawn: "proportional" (to its rows; every row once an epoch), "uniform",
    "round-robin" (each batch of one task, in turn), or "temperature(t)": in proportion to rows ** (1 / t).
    """
    sampling_exponent(sampling)
    return replace(_paradigm(stream, "joint"), schedule=JointSchedule(sampling, stream.budget.batch))


def sampling_exponent(sampling: str) -> float:
    """The power of a task's rows that its share is in proportion to. Raises ScenarioError for words that say none."""
    if sampling in ("proportional", "uniform", "round-robin"):
        return float(sampling == "proportional")
    match = re.fullmatch(r"temperature\((\d+(?:\.\d+)?)\)", sampling)
    if match and float(match[1]) > 0:
        return 1 / float(match[1])
    raise ScenarioError(
        f"sampling={sampling!r} is not known: it is proportional, uniform, round-robin or temperature(2)"
    )


def isolate(stream: Stream) -> Stream:
    """Each task alone: T runs of one task from the same start, put together; whatever the schedule mixed is apart."""
    return replace(_paradigm(stream, "isolate"), schedule=SequentialSchedule())


def _paradigm(stream: Stream, paradigm: str) -> Stream:
    if stream.paradigm != "continual":
        raise ScenarioError(f"{paradigm} starts from a continual stream, and this one is {stream.paradigm} already")
    return replace(stream, paradigm=paradigm)
