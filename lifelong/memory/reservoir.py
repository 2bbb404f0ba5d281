"""A uniform sample of everything that came by (Vitter, 1985), by tickets: those with the smallest stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch
from lifelong.core.problem import Problem

State = dict[str, Any]


@dataclass(frozen=True)
class Reservoir:
    """size: M places. Every row draws a ticket when it is first seen; the M smallest tickets of all hold a place.

    State: row, task int64 [M]; ticket [M], infinite where the place is empty; and the extras, [M, ...].
    """

    size: int

    def draws(self, problem: Problem) -> dict[str, tuple[int, ...]]:
        """A ticket for each row of the stream."""
        return {"ticket": (problem.batch,)} if self.size else {}

    def init(self, problem: Problem, **extra: Tensor) -> State:
        """An empty memory; extra: what one row brings with it, by name, of the right shape and kind."""
        first = problem.index["rows_train"][0, :1].expand(self.size).clone()
        ticket = torch.full((self.size,), torch.inf, device=problem.device)
        kept = {name: value.new_zeros(self.size, *value.shape) for name, value in extra.items()}
        return {"row": first, "task": torch.zeros_like(first), "ticket": ticket, **kept}

    def filled(self, state: State) -> Tensor:
        """Which places hold a row, bool [M]."""
        return state["ticket"].isfinite()

    def insert(self, state: State, batch: Batch, ticket: Tensor, **extra: Tensor) -> State:
        """The memory after the stream's rows of a batch came by; ticket [B], and what each row brings, [B, ...]."""
        if not self.size:
            return state
        rows = batch.stream
        fresh = torch.where(batch.first_seen[rows], ticket.to(state["ticket"].dtype), torch.inf)
        kept, place = torch.cat([state["ticket"], fresh]).topk(self.size, largest=False)
        came = {"row": batch.row[rows], "task": batch.task[rows], **extra}
        new = {name: torch.cat([state[name], value])[place] for name, value in came.items()}
        return {**state, "ticket": kept, **new}
