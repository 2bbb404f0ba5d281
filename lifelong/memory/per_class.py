"""A fixed number of random rows of each class, chosen when its task ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask
from lifelong.core.problem import Problem
from lifelong.memory.drawn import Drawn, drawn, filled_first

State = dict[str, Any]


@dataclass(frozen=True)
class PerClass:
    """size: K places for each class, or in domain-incremental streams for each class of each task: G groups in all.

    Where a class comes back in a later task, the rows with the smallest tickets of all its tasks are kept: a uniform
    sample of them.

    State: row, task int64, filled bool, ticket [G, K], infinite where the place is empty; order int64 [G K], all places,
    the filled ones first, so that no step sorts them; and the extras, [G, K, ...].
    """

    size: int

    def task_draws(self, problem: Problem) -> dict[str, tuple[int, ...]]:
        """A ticket for each row of the finished task."""
        return {"ticket": (problem.task_rows,)} if self.size else {}

    def groups(self, problem: Problem) -> int:
        """G."""
        return problem.classes * (problem.tasks if problem.setting == "domain" else 1)

    def init(self, problem: Problem, **extra: Tensor) -> State:
        """An empty memory; extra: what one row brings with it, by name, of the right shape and kind."""
        shape = (self.groups(problem), self.size)
        first = problem.index["rows_train"][0, :1].expand(shape).clone()
        kept = {name: value.new_zeros(*shape, *value.shape) for name, value in extra.items()}
        return {
            "row": first, "task": torch.zeros_like(first), "filled": torch.zeros_like(first, dtype=torch.bool),
            "ticket": torch.full(shape, torch.inf, device=problem.device),
            "order": torch.arange(first.numel(), device=problem.device), **kept,
        }  # fmt: skip

    def filled(self, state: State) -> Tensor:
        """Which places hold a row, bool [G K]."""
        return state["filled"].flatten()

    def pick(self, state: State, uniforms: Tensor, rows: int, replacement: bool = True) -> Drawn:
        """R places of those that are filled, as `drawn` takes them."""
        return drawn(self.filled(state), uniforms, rows, replacement, state["order"])

    def insert(self, problem: Problem, state: State, task: FinishedTask, ticket: Tensor, **extra: Tensor) -> State:
        """The memory after a task: of each of its classes the rows with the smallest tickets [N]; extras [N, ...]."""
        if not self.size:
            return state
        y = problem.y(task.row, task.number.expand(len(task.row)))
        member = (y == torch.arange(problem.classes, device=y.device)[:, None]) & task.valid  # [C, N]
        wanted = min(self.size, len(y))
        ticket = ticket.to(state["ticket"].dtype)
        smallest, place = torch.where(member, ticket, torch.inf).topk(wanted, dim=1, largest=False)  # [C, wanted]
        came = {"row": task.row, "task": task.number.expand(len(y)), **extra}
        came = {name: _padded(value[place], self.size) for name, value in came.items()}
        came["ticket"] = torch.cat([smallest, smallest.new_full((len(smallest), self.size - wanted), torch.inf)], 1)
        ours = task.classes[:, None]
        if problem.setting == "domain":  # the groups of this task alone
            group = torch.arange(self.groups(problem), device=y.device) // problem.classes
            ours = (group == task.number)[:, None]
            came = {name: value.repeat(problem.tasks, *[1] * (value.ndim - 1)) for name, value in came.items()}
        came["ticket"] = came["ticket"].masked_fill(~ours, torch.inf)
        kept, best = torch.cat([came["ticket"], state["ticket"]], 1).topk(self.size, dim=1, largest=False)
        filled = kept.isfinite()
        new = {**state, "ticket": kept, "filled": filled, "order": filled_first(filled.flatten())}
        for name in (name for name in came if name != "ticket"):
            both = torch.cat([came[name], state[name]], 1)
            more = [1] * (both.ndim - 2)
            found = both.gather(1, best.view(*best.shape, *more).expand(-1, -1, *both.shape[2:]))
            # a place that stays empty keeps its row, which has a class
            new[name] = torch.where(new["filled"].view(*best.shape, *more), found, state[name])
        return new


def _padded(values: Tensor, size: int) -> Tensor:
    """[C, K', ...] with zeros up to K places."""
    more = values.new_zeros(values.shape[0], size - values.shape[1], *values.shape[2:])
    return torch.cat([values, more], 1)
