"""Baselines made from a stream: they change only what is trained on, never what is tested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.stream import InTurn, ScenarioError, Shown, Stream, Task, generator, in_orders


@dataclass(frozen=True)
class Together:
    """The rows of all tasks in every phase, each with its own task; batch: rows of a step, for "round-robin"."""

    sampling: str = "proportional"
    batch: int = 32

    def size(self, tasks: list[Task], phase: int) -> int:
        """A pass over all rows is divided over the phases."""
        return -(-sum(len(task.train) for task in tasks) // len(tasks))

    def shown(self, tasks: list[Task], phase: int, wanted: Sequence[int], *seed: object) -> Shown:
        """Random orders of all rows, or rows in turn of tasks that are drawn by the sampling."""
        row = torch.cat([task.train for task in tasks])
        number = torch.cat([torch.full_like(task.train, t) for t, task in enumerate(tasks)])
        random = generator(*seed, tasks[phase].number)
        if self.sampling == "proportional":
            order = in_orders(len(row), wanted[phase], random)
        else:
            order = self._by_task(number, len(tasks), wanted[phase], random)
        first = (torch.arange(len(order)) < len(row)) & (phase == 0)
        return Shown(row[order], number[order], first)

    def _by_task(self, number: Tensor, tasks: int, wanted: int, random: torch.Generator) -> Tensor:
        """Places in the pool, [wanted]: first the task is drawn, by the sampling, then its rows in turn."""
        if self.sampling == "round-robin":
            task = torch.arange(wanted) // self.batch % tasks
        else:
            share = torch.bincount(number, minlength=tasks).to(torch.float64) ** sampling_exponent(self.sampling)
            task = torch.multinomial(share, wanted, replacement=True, generator=random)
        order = torch.empty(wanted, dtype=torch.int64)
        for t in range(tasks):
            places, members = torch.nonzero(task == t)[:, 0], torch.nonzero(number == t)[:, 0]
            order[places] = members[in_orders(len(members), len(places), random)]
        return order


def joint(stream: Stream, sampling: str = "proportional") -> Stream:
    """All tasks at once: T phases over all rows, each row with its own task, head and mask.

    sampling: how often a task is drawn: "proportional" (to its rows; every row once an epoch), "uniform",
    "round-robin" (each batch of one task, in turn), or "temperature(t)": in proportion to rows ** (1 / t).
    """
    sampling_exponent(sampling)
    return replace(_reading(stream, "joint"), schedule=Together(sampling, stream.budget.batch))


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
    return replace(_reading(stream, "isolate"), schedule=InTurn())


def _reading(stream: Stream, reading: str) -> Stream:
    if stream.reading != "continual":
        raise ScenarioError(f"{reading} starts from a continual stream, and this one is {stream.reading} already")
    return replace(stream, reading=reading)
