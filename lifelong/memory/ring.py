"""The last rows of each class (the ring buffer of Chaudhry et al., 2019, and of the authors' GEM and A-GEM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch
from lifelong.core.problem import Problem
from lifelong.memory.base import RowMemory, State, group_of, groups, written


@dataclass(frozen=True)
class Ring(RowMemory):
    """The last K = M / G rows of each class (domain-incremental: of each class and task), G in all; the oldest makes room.

    State: count, int64 [G], rows of each group that came by: the n-th lies at place n mod K of its group.
    """

    def places(self, problem: Problem, size: int) -> int:
        """G K."""
        return size // groups(problem) * groups(problem)

    def least(self, problem: Problem) -> int:
        """A place for each group."""
        return groups(problem)

    def init(self, problem: Problem, size: int, **extra: Tensor) -> State:
        """An empty memory."""
        count = torch.zeros(groups(problem), dtype=torch.int64, device=problem.device)
        return {**super().init(problem, size, **extra), "count": count}

    def filled(self, state: State) -> Tensor:
        """The first ones of each group."""
        each = len(state["row"]) // len(state["count"])
        return (torch.arange(each, device=state["row"].device) < state["count"][:, None]).flatten()

    def insert(self, problem: Problem, state: State, batch: Batch, draws: Any, **extra: Tensor) -> State:
        """Rows that the stream shows for the first time take the places of the oldest of their group."""
        rows, count = batch.stream, state["count"]
        each = len(state["row"]) // len(count)
        if not each:
            return state
        group = group_of(problem, batch.y[rows], batch.task[rows])
        enters = batch.first_seen[rows] & (group >= 0)
        member = (group[:, None] == torch.arange(len(count), device=count.device)) & enters[:, None]  # [B, G]
        at = group.clamp(min=0)
        before = (member.cumsum(0) - 1).gather(1, at[:, None])[:, 0]  # rows of its group earlier in the batch
        place = at * each + (count[at] + before).clamp(min=0) % each
        came = {"row": batch.row[rows], "task": batch.task[rows], **extra}
        return {**written(state, place, enters, came), "count": count + member.sum(0)}
