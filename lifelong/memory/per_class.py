"""A fixed number of random rows of each class, chosen when its task ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes
from lifelong.memory.base import RowMemory, State, groups
from lifelong.memory.drawn import Drawn, drawn, filled_first


@dataclass(frozen=True)
class PerClass(RowMemory):
    """K = M / G random rows of each class, in domain-incremental streams of each class of each task: G groups in all.

    Where a class comes back in a later task, the rows with the smallest tickets of all its tasks are kept: a uniform
    sample of them.

    State: filled bool, ticket [G K], infinite where the place is empty; order int64 [G K], all places, the filled ones
    first, so that no step sorts them.
    """

    at_task_ends = True

    def places(self, problem: Problem, size: int) -> int:
        """G K."""
        return size // groups(problem) * groups(problem)

    def task_draws(self, problem: Problem, size: int) -> Shapes:
        """A ticket for each row of the finished task."""
        return {"ticket": (problem.task_rows,)} if self.places(problem, size) else {}

    def least(self, problem: Problem) -> int:
        """A place for each group."""
        return groups(problem)

    def init(self, problem: Problem, size: int, **extra: Tensor) -> State:
        """An empty memory."""
        none = super().init(problem, size, **extra)
        filled = torch.zeros_like(none["row"], dtype=torch.bool)
        ticket = torch.full(filled.shape, torch.inf, device=problem.device)
        return {**none, "filled": filled, "ticket": ticket, "order": torch.arange(len(filled), device=problem.device)}

    def filled(self, state: State) -> Tensor:
        """As it is written down."""
        return state["filled"]

    def pick(
        self, state: State, uniforms: Tensor, rows: int, replacement: bool = True, among: Tensor | None = None
    ) -> Drawn:
        """Of all, by the order that is written down."""
        if among is not None:
            return super().pick(state, uniforms, rows, replacement, among)
        return drawn(state["filled"], uniforms, rows, replacement, state["order"])

    def insert_task(
        self, problem: Problem, params: Params, state: State, task: FinishedTask, draws: Any, **extra: Tensor
    ) -> State:
        """Of each class of the task those rows stay that have the smallest tickets [N]."""
        if not len(state["row"]):
            return state
        return kept_smallest(problem, state, task, draws["ticket"].to(state["ticket"].dtype), extra)


def kept_smallest(
    problem: Problem, state: State, task: FinishedTask, ticket: Tensor, extra: dict[str, Tensor]
) -> State:
    """The state of a `PerClass` after a task: of each class those rows with the smallest of its tickets, [N] or [C, N]."""
    count = groups(problem)
    size = len(state["row"]) // count
    y = problem.y(task.row, task.number.expand(len(task.row)))
    member = (y == torch.arange(problem.classes, device=y.device)[:, None]) & task.valid  # [C, N]
    wanted = min(size, len(y))
    smallest, place = torch.where(member, ticket, torch.inf).topk(wanted, dim=1, largest=False)  # [C, wanted]
    came = {"row": task.row, "task": task.number.expand(len(y)), **extra}
    came = {name: _padded(value[place], size) for name, value in came.items()}
    came["ticket"] = torch.cat([smallest, smallest.new_full((len(smallest), size - wanted), torch.inf)], 1)
    ours = task.classes[:, None]
    if problem.setting == "domain":  # the groups of this task alone
        group = torch.arange(count, device=y.device) // problem.classes
        ours = (group == task.number)[:, None]
        came = {name: value.repeat(problem.tasks, *[1] * (value.ndim - 1)) for name, value in came.items()}
    came["ticket"] = came["ticket"].masked_fill(~ours, torch.inf)
    held = {name: state[name].view(count, size, *state[name].shape[1:]) for name in came}
    kept, best = torch.cat([came["ticket"], held["ticket"]], 1).topk(size, dim=1, largest=False)
    filled = kept.isfinite()
    flat = filled.flatten()
    new = {**state, "ticket": kept.flatten(), "filled": flat, "order": filled_first(flat)}
    for name in (name for name in came if name != "ticket"):
        both = torch.cat([came[name], held[name]], 1)
        more = [1] * (both.ndim - 2)
        found = both.gather(1, best.view(*best.shape, *more).expand(-1, -1, *both.shape[2:]))
        # a place that stays empty keeps its row, which has a class
        new[name] = torch.where(filled.view(*best.shape, *more), found, held[name]).flatten(0, 1)
    return new


def _padded(values: Tensor, size: int) -> Tensor:
    """[C, K', ...] with zeros up to K places."""
    more = values.new_zeros(values.shape[0], size - values.shape[1], *values.shape[2:])
    return torch.cat([values, more], 1)
