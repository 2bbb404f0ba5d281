"""Nearest class mean (Mensink et al., 2013): sums and counts, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory
from lifelong.core.learner import State
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements
from lifelong.learners.closed_form import ClosedForm


@dataclass(frozen=True)
class NearestClassMean(ClosedForm):
    """Answers the class whose mean is nearest; learns by sums and counts, in closed form, from each row's first sight.

    score_c = -|f - mu_c|^2, mu_c = (sum of f over the rows of class c) / (their number), without the -|f|^2 that all
    classes share; minus infinity for classes never seen. features: "pixels", "net" or "first", see
    `lifelong.learners.closed_form`; with "first" rows are learned at a task's end, since their features change until
    then. (Mensink et al., 2013.) What differs from the source: distances are Euclidean, where the authors learn a metric.
    """

    keeps = "a mean for each class"
    witness = "scikit-learn's NearestCentroid: tests/reference/witnesses/test_nearest_class_mean.py"

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """Classes; with a trunk of the first task, that it is told when that ends."""
        return super().requirements if self.adapts else [(repr(self), Requirements(paradigm="", classes=True))]

    @property
    def finishes(self) -> bool:
        """A step adds rows, unless the trunk is learned meanwhile."""
        return not self.adapts

    def takes_steps(self, task: int) -> bool:
        """All, unless a trunk is learned."""
        return super().takes_steps(task) if self.adapts else True

    def sums(self, problem: Problem, width: int, generator: torch.Generator) -> Memory:
        """Sums [C, F] and counts [C] of zero."""
        return {"sum": problem.zeros(problem.classes, width), "count": problem.zeros(problem.classes)}

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """Add the rows seen for the first time to the sums of their classes."""
        if self.adapts:
            return super().step(problem, state, batch)
        classes = torch.arange(problem.classes, device=batch.y.device)
        member = ((batch.y[:, None] == classes) & batch.first_seen[:, None]).to(problem.dtype)  # [B, C]
        added = member.T @ self.seen(problem, state.params, batch.x)
        memory = {"sum": state.memory["sum"] + added, "count": state.memory["count"] + member.sum(0)}
        return state._replace(memory=memory)

    def after_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Nothing is left to add, unless the trunk was learned meanwhile."""
        return super().after_task(problem, state, task) if self.adapts else state

    def added(self, problem: Problem, state: State, task: FinishedTask) -> Memory:
        """The sums with a task's rows."""
        total, count = state.memory["sum"], state.memory["count"]
        for f, member in self.labelled(problem, state, task):
            total, count = total + member.T @ f, count + member.sum(0)
        return {"sum": total, "count": count}

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Divide the sums by the counts, once."""
        count = state.memory["count"]
        return state._replace(memory={"sum": state.memory["sum"] / count.clamp(min=1)[:, None], "count": count})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Minus the squared distance to each mean, without |f|^2 [B, C]."""
        features, means = self.scored(problem, state, x), state.memory["sum"]
        scores = 2 * features @ means.T - (means * means).sum(1)  # |f|^2 is the same for all classes
        return scores.masked_fill(state.memory["count"] == 0, -torch.inf)
