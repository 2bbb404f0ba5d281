"""What all learners in closed form share: the trunk whose features they see, and the rows of a task as they see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.learner import AnyLearner, Learner, State
from lifelong.core.problem import Problem
from lifelong.core.row_gradients import ROWS
from lifelong.core.strategy import FineTuning, Requirements, StrategyError
from lifelong.models.base import Model
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from scenarios.stream import Stream

FEATURES = ("pixels", "net", "first")
Rows = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ClosedForm(AnyLearner, ABC):
    """Learns by sums over the rows of a task at its end, each row once, on features that do not change any more.

    features: "pixels"; "net", those of the network where it starts, at random or from a start's file; or "first", those
    of the network after gradient descent on the first task by the optimiser, on the stream's own loss, and frozen from
    then on. That is the first-session adaptation of Panos et al. (2023) and RanPAC (McDonnell et al., 2023), here of all
    weights; the head that is learned with them is thrown away. Steps of later tasks are not taken.
    Fill in `sums`, `added` and `predict`; `embedded`, where scores are not of the features themselves.
    Raises StrategyError for features of another name.
    """

    features: str = "pixels"
    model: Model = field(default_factory=lambda: MLP(400, 400), kw_only=True)
    optimiser: Optimiser = field(default_factory=Adam, kw_only=True)

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise StrategyError(f"{type(self).__name__}(features={self.features!r}): it is 'pixels', 'net' or 'first'")

    # --- what a learner fills in --------------------------------------------------------------------------------------

    @abstractmethod
    def sums(self, problem: Problem, width: int, generator: torch.Generator) -> Memory:
        """The memory before any row, of features of this width."""

    @abstractmethod
    def added(self, problem: Problem, state: State, task: FinishedTask) -> Memory:
        """The memory after a task's rows."""

    def embedded(self, memory: Memory, features: Tensor) -> Tensor:
        """What is summed, of features [B, F]: [B, D]."""
        return features

    # --- the trunk ----------------------------------------------------------------------------------------------------

    @property
    def adapts(self) -> bool:
        """Whether the trunk is learned on the first task."""
        return self.features == "first"

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """Classes, and that it is told when a task ends."""
        return [(repr(self), Requirements(task_ends=True, classes=True, instead="write NearestClassMean()"))]

    def notes(self, stream: Stream) -> list[str]:
        """What to expect of a trunk of the first task."""
        few = self.adapts and 4 * len(stream[0].classes) < stream.classes
        words = (
            "the sources' first task has half of the classes; a trunk that learned fewer may not tell the others apart"
        )
        return [f"{type(self).__name__}(features='first'): {words} (Goswami et al., 2023)"] if few else []

    @property
    def rule(self) -> Any:
        """The optimiser of the trunk, where that is learned."""
        return self.optimiser if self.adapts else None

    @property
    def finishes(self) -> bool:
        """A step has no second half."""
        return False

    def takes_steps(self, task: int) -> bool:
        """Those of the first task alone, where the trunk is learned."""
        return self.adapts and task == 0

    def at_rate(self, rate: float) -> AnyLearner:
        """The same with another learning rate of the trunk."""
        return replace(self, optimiser=replace(self.optimiser, rate=rate)) if self.adapts else self

    def trained(self, params: Params) -> Params:
        """The whole network, where the trunk is learned."""
        return params if self.adapts else {}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """The sums, and the optimiser's state where there is one; frozen [] is 0 until the first task ends."""
        first = torch.zeros(1, dtype=torch.int64, device=problem.device)
        width = self.seen(problem, params, problem.x(first, first)).shape[1]
        memory = self.sums(problem, width, generator)
        if self.adapts:
            return State(params, self.optimiser.init(params), {**memory, "frozen": problem.zeros()})
        return State(params, {}, memory)

    def gradients(self, problem: Problem, state: State, batch: Batch) -> Step:
        """The plain gradient, where the trunk is learned."""
        if self.adapts:
            return Learner(self.model, FineTuning(), self.optimiser).gradients(problem, state, batch)
        return super().gradients(problem, state, batch)

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """One step of the trunk; nothing once it is frozen."""
        if not self.adapts:
            return state
        gradients, frozen = self.gradients(problem, state, batch).gradients, state.memory["frozen"] > 0
        moved = self.optimiser.update(state.params, gradients, state.optimiser, batch.progress)
        old = (state.params, state.optimiser)
        params, optimiser = tree_map(lambda new, before: torch.where(frozen, before, new), moved, old)
        return State(params, optimiser, state.memory)

    def after_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Add the task's rows to the sums; from now on the trunk stays."""
        memory = {**state.memory, **self.added(problem, state, task)}
        if self.adapts:
            memory["frozen"] = torch.ones_like(memory["frozen"])
        return state._replace(memory=memory)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def seen(self, problem: Problem, params: Params, x: Tensor) -> Tensor:
        """Rows [B, ...] as features [B, F]."""
        return x.flatten(1) if self.features == "pixels" else problem.features(params, x)

    def scored(self, problem: Problem, state: State, x: Tensor) -> Tensor:
        """Rows [B, ...] to be answered, embedded [B, D]."""
        return self.embedded(state.memory, self.seen(problem, state.params, x))

    def labelled(self, problem: Problem, state: State, task: FinishedTask) -> Rows:
        """A task's rows piece by piece: embedded [b, D], and 1 for the class of each [b, C], none for padding or no label."""
        classes = torch.arange(problem.classes, device=task.row.device)
        number = task.number.expand(len(task.row))
        for row, t, valid in zip(*(value.split(ROWS) for value in (task.row, number, task.valid)), strict=True):
            member = (problem.y(row, t)[:, None] == classes) & valid[:, None]
            features = self.seen(problem, state.params, problem.x(row, t))
            yield self.embedded(state.memory, features), member.to(problem.dtype)
