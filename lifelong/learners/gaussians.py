"""Means and scatter of classes, summed task by task, and the linear answers of Gaussians that share one covariance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Memory
from lifelong.core.learner import State
from lifelong.core.problem import Problem
from lifelong.learners.closed_form import ClosedForm, Rows


def with_rows(old: Memory, rows: Callable[[], Rows]) -> Memory:
    """mean [C, F], count [C] and scatter, with the rows of one more task: exact, whatever the order of tasks.

    scatter: sum over rows of (f - mu_y)(f - mu_y)', of all classes together [F, F], or of each [C, F, F]. Means first,
    then squares around them: sums of squares alone would cancel in single precision. Tasks are put together as Chan,
    Golub and LeVeque (1979) put variances together.
    """
    each = old["scatter"].ndim == 3
    total, count = torch.zeros_like(old["mean"]), torch.zeros_like(old["count"])
    for f, member in rows():
        total, count = total + member.T @ f, count + member.sum(0)
    mean, scatter = total / count.clamp(min=1)[:, None], old["scatter"]
    for f, member in rows():
        gap = (f - member @ mean) * member.sum(1, keepdim=True)
        weighed = gap * member.T[:, :, None] if each else gap  # [C, b, F] or [b, F]
        scatter = scatter + weighed.mT @ gap
    both = old["count"] + count
    share, shift = count / both.clamp(min=1), mean - old["mean"]
    weighed = shift * (share * old["count"])[:, None]  # of a class seen in several tasks
    scatter = scatter + (weighed[:, :, None] * shift[:, None] if each else weighed.T @ shift)
    return {"mean": old["mean"] + shift * share[:, None], "count": both, "scatter": scatter}


@dataclass(frozen=True)
class PooledGaussians(ClosedForm):
    """One Gaussian for each class, all of one covariance: score_c = f' P mu_c - mu_c' P mu_c / 2, P an inverse of it."""

    @abstractmethod
    def regularised(self, covariance: Tensor) -> Tensor:
        """The covariance [D, D] as it is inverted."""

    def sums(self, problem: Problem, width: int, generator: torch.Generator) -> Memory:
        """mean [C, D], count [C], and scatter [D, D], N times the covariance."""
        memory = {"mean": problem.zeros(problem.classes, width), "count": problem.zeros(problem.classes)}
        return {**memory, "scatter": problem.zeros(width, width)}

    def added(self, problem: Problem, state: State, task: FinishedTask) -> Memory:
        """Means and scatter with a task's rows."""
        return with_rows(state.memory, lambda: self.labelled(problem, state, task))

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Solve for the weights [D, C] and offsets [C], once."""
        mean, count, scatter = (state.memory[name] for name in ("mean", "count", "scatter"))
        kept = {name: value for name, value in state.memory.items() if name not in ("mean", "scatter")}
        weight = torch.linalg.solve(self.regularised(scatter / count.sum().clamp(min=1)), mean.T)
        return state._replace(memory={**kept, "weight": weight, "offset": (mean.T * weight).sum(0) / 2})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Linear scores [B, C]; minus infinity for classes never seen."""
        memory = state.memory
        scores = self.scored(problem, state, x) @ memory["weight"] - memory["offset"]
        return scores.masked_fill(memory["count"] == 0, -torch.inf)
