"""A fixed number of rows of each past task: the last that came by, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask
from lifelong.core.problem import Problem

State = dict[str, Any]
KEEP = ("last", "random")


@dataclass(frozen=True)
class PerTask:
    """size: K places for each task but the last, whose rows nobody would look at again: P = max(T - 1, 1) tasks.

    keep: "last" are the last K rows that the stream showed of a task, a ring, where a row may come twice; "random" are
    the K rows with the smallest tickets. State: row int64, filled bool [P, K]; of a ring recent int64, came bool [K].
    """

    size: int
    keep: str = "last"

    def task_draws(self, problem: Problem) -> dict[str, tuple[int, ...]]:
        """A ticket for each row of the finished task."""
        return {"ticket": (problem.task_rows,)} if self.size and self.keep == "random" else {}

    def init(self, problem: Problem) -> State:
        """An empty memory; a place that is empty holds a row of its task, which has a class."""
        past = max(problem.tasks - 1, 1)
        row = problem.index["rows_train"][:past, :1].expand(past, self.size).clone()
        state = {"row": row, "filled": torch.zeros_like(row, dtype=torch.bool)}
        return (
            state if self.keep == "random" else {**state, "recent": row[0].clone(), "came": state["filled"][0].clone()}
        )

    def see(self, state: State, batch: Batch) -> State:
        """The memory after the stream's rows of a batch came by: the ring moves on."""
        if self.keep == "random" or not self.size:
            return state
        row = torch.cat([state["recent"], batch.row[batch.stream]])
        came = torch.cat([state["came"], batch.shown[batch.stream]])
        age = torch.where(came, torch.arange(len(row), device=row.device), -1)
        latest, place = age.topk(self.size)  # the newest first; the oldest has to go first
        return {**state, "recent": row[place].flip(0), "came": latest.flip(0) >= 0}

    def insert(self, state: State, task: FinishedTask) -> State:
        """The memory after a task: its rows go to their places, and the ring starts again."""
        if not self.size:
            return state
        if self.keep == "random":
            wanted = min(self.size, len(task.row))
            ticket = torch.where(task.valid, task.draws["ticket"], torch.inf)
            smallest, place = ticket.topk(wanted, largest=False)
            none = self.size - wanted
            row = torch.cat([task.row[place], task.row.new_zeros(none)])
            came = torch.cat([smallest.isfinite(), task.valid.new_zeros(none)])
        else:
            row = state["recent"]
            # a part that puts exemplars in the place of the stream's rows, as ICaRL, has shown rows of other tasks
            came = state["came"] & ((row[:, None] == task.row) & task.valid).any(1)
            state = {**state, "came": torch.zeros_like(came)}
        ours = (torch.arange(len(state["row"]), device=row.device) == task.number)[:, None]
        return {
            **state,
            "row": torch.where(ours & came, row, state["row"]),
            "filled": torch.where(ours, came, state["filled"]),
        }

    def weights(self, state: State, like: Tensor) -> Tensor:
        """Equal weights of the filled places of each task that add up to 1, or 0 where it has none: [P, K]."""
        filled = state["filled"].to(like.dtype)
        return filled / filled.sum(1, keepdim=True).clamp(min=1)
