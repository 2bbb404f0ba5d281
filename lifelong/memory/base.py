"""What a memory of rows is: a policy of which rows are kept, apart from what a strategy does with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes, require
from lifelong.memory.drawn import Drawn, drawn
from lifelong.notation.user_code import misspelt_verbs

State = dict[str, Any]


@dataclass(frozen=True)
class RowMemory:
    """A policy; a strategy says how many rows there is room for, M, and keeps the state. Fill in `insert` or `insert_task`.

    State: row, task int64 [M], and what travels with a row, its extras, [M, ...]; and what the policy adds. A place that
    holds no row yet has some row of the stream's, so that it can be looked up.

    at_task_ends: rows are chosen when a task ends, so that the task that is being learned is not among them; else as
    they come by.
    """

    at_task_ends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise StrategyError for a policy that could keep no row, with the verb that a misspelt method looks like."""
        kind = type(self)
        keeps = kind.insert is not RowMemory.insert or kind.insert_task is not RowMemory.insert_task
        require(self, keeps, f"it keeps no row: fill in insert or insert_task{_meant(kind, 'insert')}")
        says = kind.filled is not RowMemory.filled
        require(self, says, f"it does not say which places hold a row: fill in filled{_meant(kind, 'filled')}")

    def draws(self, problem: Problem, size: int) -> Shapes:
        """The random numbers that `insert` takes, by name."""
        return {}

    def task_draws(self, problem: Problem, size: int) -> Shapes:
        """The random numbers that `insert_task` takes, by name."""
        return {}

    def places(self, problem: Problem, size: int) -> int:
        """M, of which a policy may leave some unused."""
        return size

    def least(self, problem: Problem) -> int:
        """The smallest M that keeps anything."""
        return 1

    def init(self, problem: Problem, size: int, **extra: Tensor) -> State:
        """An empty memory; extra: what one row brings with it, by name, of the right shape and kind."""
        count = self.places(problem, size)
        row = problem.index["rows_train"][0, :1].expand(count).clone()
        kept = {name: value.new_zeros(count, *value.shape) for name, value in extra.items()}
        return {"row": row, "task": torch.zeros_like(row), **kept}

    def filled(self, state: State) -> Tensor:
        """Which places hold a row, bool [M]."""
        raise NotImplementedError

    def pick(
        self, state: State, uniforms: Tensor, rows: int, replacement: bool = True, among: Tensor | None = None
    ) -> Drawn:
        """R places of those that are filled, uniformly, as `drawn` takes them; among, bool [M]: only of these."""
        filled = self.filled(state)
        return drawn(filled if among is None else filled & among, uniforms, rows, replacement)

    def insert(self, problem: Problem, state: State, batch: Batch, draws: Any, **extra: Tensor) -> State:
        """The memory after the stream's rows of a batch came by, each of which brings [B, ...]."""
        return state

    def insert_task(
        self, problem: Problem, params: Params, state: State, task: FinishedTask, draws: Any, **extra: Tensor
    ) -> State:
        """The memory after a task's rows were there to choose from, each of which brings [N, ...]."""
        return state


def _meant(kind: type, verb: str) -> str:
    """What a class calls a method that looks like the verb that is missing."""
    pairs = misspelt_verbs(kind, [name for name in vars(RowMemory) if not name.startswith("_")])
    return "".join(f" ({name!r} looks like {meant!r})" for name, meant in pairs if meant.startswith(verb))


def groups(problem: Problem) -> int:
    """G, the number of groups that are kept apart: classes; in domain-incremental streams classes of each task."""
    return problem.classes * (problem.tasks if problem.setting == "domain" else 1)


def group_of(problem: Problem, y: Tensor, task: Tensor) -> Tensor:
    """The group of rows of these classes and tasks, int64 [B]; -1 where the label is missing."""
    group = y + task * problem.classes if problem.setting == "domain" else y
    return torch.where(y < 0, -1, group)


def written(state: State, place: Tensor, enters: Tensor, came: dict[str, Tensor]) -> State:
    """The state with row b of each of `came` [B, ...] at place[b], int64 [B], where enters[b]; of several the last has it."""
    at = torch.arange(len(place), device=place.device)
    taken = enters & (place == place[:, None]) & (at > at[:, None])
    enters = enters & ~taken.any(1)
    # a row that does not enter writes again what the first does that enters; where none does, what was there
    source = torch.where(enters, at, enters.to(torch.int8).argmax(0))
    some = enters.any()
    place = torch.where(some, place[source], 0)
    new = {}
    for name, values in came.items():
        held = state[name]
        value = torch.where(some, values[source], held[place]).to(held.dtype)
        new[name] = held.index_put((place,), value)
    return {**state, **new}
