"""A uniform sample of everything that came by (Vitter, 1985, algorithm R)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch
from lifelong.core.problem import Problem
from lifelong.memory.drawn import Drawn, drawn

State = dict[str, Any]


@dataclass(frozen=True)
class Reservoir:
    """size: M places. The first M rows take them in order; the n-th row takes place floor(u n), if there is such a place.

    State: row, task int64 [M]; seen, 0-d int64, rows that came by; and the extras, [M, ...].
    """

    size: int

    def draws(self, problem: Problem) -> dict[str, tuple[int, ...]]:
        """A ticket u for each row of the stream."""
        return {"ticket": (problem.batch,)} if self.size else {}

    def init(self, problem: Problem, **extra: Tensor) -> State:
        """An empty memory; extra: what one row brings with it, by name, of the right shape and kind."""
        first = problem.index["rows_train"][0, :1].expand(self.size).clone()
        kept = {name: value.new_zeros(self.size, *value.shape) for name, value in extra.items()}
        seen = torch.zeros((), dtype=torch.int64, device=problem.device)
        return {"row": first, "task": torch.zeros_like(first), "seen": seen, **kept}

    def filled(self, state: State) -> Tensor:
        """Which places hold a row, bool [M]: the first ones."""
        return torch.arange(self.size, device=state["seen"].device) < state["seen"]

    def pick(self, state: State, uniforms: Tensor, rows: int, replacement: bool = True) -> Drawn:
        """R places of those that are filled, as `drawn` takes them."""
        if not replacement:
            return drawn(self.filled(state), uniforms, rows, replacement)
        count = state["seen"].clamp(max=self.size)
        place = (uniforms * count).to(torch.int64).clamp(max=self.size - 1)
        return Drawn(place, (count > 0).expand(len(place)))

    def insert(self, state: State, batch: Batch, ticket: Tensor, **extra: Tensor) -> State:
        """The memory after the stream's rows of a batch came by; ticket [B], and what each row brings, [B, ...]."""
        if not self.size:
            return state
        rows = batch.stream
        fresh = batch.first_seen[rows]
        number = state["seen"] + fresh.cumsum(0)  # [B], of each row among all that came by, from 1 on
        drawn = (ticket * number).to(torch.int64).minimum(number - 1)  # the product may be rounded up to the number
        place = torch.where(number <= self.size, number - 1, drawn)
        enters = fresh & (place < self.size)
        # of the rows that want the same place the last one has it
        at = torch.arange(len(place), device=place.device)
        taken = enters & (place == place[:, None]) & (at > at[:, None])
        enters = enters & ~taken.any(1)
        # a row that does not enter writes again what the first does that enters; where none does, what was there
        source = torch.where(enters, at, enters.to(torch.int8).argmax(0))
        some = enters.any()
        place = torch.where(some, place[source], 0)
        new = {}
        for name, came in {"row": batch.row[rows], "task": batch.task[rows], **extra}.items():
            held = state[name]
            value = torch.where(some, came[source], held[place]).to(held.dtype)
            new[name] = held.index_put((place,), value)
        return {**state, **new, "seen": number[-1]}
