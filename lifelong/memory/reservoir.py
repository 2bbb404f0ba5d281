"""A uniform sample of everything that came by (Vitter, 1985, algorithm R)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes
from lifelong.memory.base import RowMemory, State, written
from lifelong.memory.drawn import Drawn


@dataclass(frozen=True)
class Reservoir(RowMemory):
    """A uniform sample of all rows: the first M take the places in order; the n-th takes place floor(u n), if there is one.

    State: seen, 0-d int64, rows that came by.
    """

    def draws(self, problem: Problem, size: int) -> Shapes:
        """A ticket u for each row of the stream."""
        return {"ticket": (problem.batch,)} if size else {}

    def init(self, problem: Problem, size: int, **extra: Tensor) -> State:
        """An empty memory."""
        seen = torch.zeros((), dtype=torch.int64, device=problem.device)
        return {**super().init(problem, size, **extra), "seen": seen}

    def filled(self, state: State) -> Tensor:
        """The first ones."""
        return torch.arange(len(state["row"]), device=state["seen"].device) < state["seen"]

    def pick(
        self, state: State, uniforms: Tensor, rows: int, replacement: bool = True, among: Tensor | None = None
    ) -> Drawn:
        """With replacement, of all: without a look at the places."""
        if not replacement or among is not None:
            return super().pick(state, uniforms, rows, replacement, among)
        size = len(state["row"])
        count = state["seen"].clamp(max=size)
        place = (uniforms * count).to(torch.int64).clamp(max=size - 1)
        return Drawn(place, (count > 0).expand(len(place)))

    def insert(self, problem: Problem, state: State, batch: Batch, draws: Any, **extra: Tensor) -> State:
        """Each row that the stream shows for the first time has its chance."""
        rows, size = batch.stream, len(state["row"])
        if not size:
            return state
        fresh = batch.first_seen[rows]
        number = state["seen"] + fresh.cumsum(0)  # [B], of each row among all that came by, from 1 on
        drawn = (draws["ticket"] * number).to(torch.int64)
        drawn = drawn.minimum(number - 1)  # the product may be rounded up to the number
        place = torch.where(number <= size, number - 1, drawn)
        came = {"row": batch.row[rows], "task": batch.task[rows], **extra}
        return {**written(state, place, fresh & (place < size), came), "seen": number[-1]}
