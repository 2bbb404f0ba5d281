"""As many rows of each class as can be (after CBRS, Chrysakis and Moens, 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes
from lifelong.memory.base import RowMemory, State, group_of, groups
from lifelong.memory.drawn import filled_first


@dataclass(frozen=True)
class ClassBalanced(RowMemory):
    """A uniform sample of each class (domain-incremental: of each class and task), all of one size L where there is enough.

    Of n_g rows of group g that came by, min(n_g, L) are kept, those with the smallest tickets; L is the largest number
    for which all find room, sum_g min(n_g, L) <= M, and what is left goes to the first groups that have more. L only
    falls, so that what is kept of a group is a uniform sample of it. CBRS likewise keeps rare classes whole and samples
    the others; it learns which are which from a row at a time, lets a rare class grow at the largest one's cost, and so
    has sizes that differ by chance.

    State: ticket [M]; group int64 [M]; seen int64 [G], the n_g.
    """

    def draws(self, problem: Problem, size: int) -> Shapes:
        """A ticket for each row of the stream."""
        return {"ticket": (problem.batch,)} if size else {}

    def init(self, problem: Problem, size: int, **extra: Tensor) -> State:
        """An empty memory."""
        none = super().init(problem, size, **extra)
        seen = torch.zeros(groups(problem), dtype=torch.int64, device=problem.device)
        # tickets in double precision: they are compared beside the number of their group
        ticket = torch.ones(size, dtype=torch.float64, device=problem.device)
        return {**none, "ticket": ticket, "group": torch.zeros_like(none["row"]), "seen": seen}

    def filled(self, state: State) -> Tensor:
        """The first ones."""
        size = len(state["row"])
        return torch.arange(size, device=state["row"].device) < state["seen"].sum().clamp(max=size)

    def insert(self, problem: Problem, state: State, batch: Batch, draws: Any, **extra: Tensor) -> State:
        """All that was kept and came is put in order of group and ticket; the first of each group stay."""
        rows, size, kinds = batch.stream, len(state["row"]), len(state["seen"])
        if not size:
            return state
        group = group_of(problem, batch.y[rows], batch.task[rows])
        enters = batch.first_seen[rows] & (group >= 0)
        came = {"row": batch.row[rows], "task": batch.task[rows], "ticket": draws["ticket"], "group": group, **extra}
        both = {name: torch.cat([state[name], values.to(state[name].dtype)]) for name, values in came.items()}
        there = torch.cat([self.filled(state), enters])
        kind = torch.where(there, both["group"], kinds)  # what is not there comes last
        order = (kind + both["ticket"]).argsort(stable=True)
        kind = kind[order]
        member = kind[:, None] == torch.arange(kinds, device=kind.device)  # [M + B, G]
        start = (member.sum(0).cumsum(0) - member.sum(0))[kind.clamp(max=kinds - 1)]
        fresh = (group[:, None] == torch.arange(kinds, device=group.device)) & enters[:, None]  # [B, G]
        seen = state["seen"] + fresh.sum(0)
        quota = level_shares(seen, size)
        rank = torch.arange(len(kind), device=kind.device) - start
        stays = (kind < kinds) & (rank < quota[kind.clamp(max=kinds - 1)])
        chosen = order[filled_first(stays)[:size]]
        return {**state, **{name: values[chosen] for name, values in both.items()}, "seen": seen}


def level_shares(count: Tensor, size: int) -> Tensor:
    """How many of each group stay, int64 [G], of so many, int64 [G], in M places: min(n_g, L), the rest to the first groups."""
    ordered = count.sort().values
    kinds = torch.arange(len(count), device=count.device)
    before = ordered.cumsum(0) - ordered
    levels = (size - before) // (len(count) - kinds)  # were the groups from this one on cut, at this height
    cut = (ordered > levels).to(torch.int8)
    first = cut.argmax(0, keepdim=True)  # of one number, which is no index that has to be read back
    level = torch.where(cut.any(), levels[first][0], ordered[-1])
    shares = count.minimum(level)
    more = count > level
    return shares + (more & (more.cumsum(0) <= size - shares.sum()))
