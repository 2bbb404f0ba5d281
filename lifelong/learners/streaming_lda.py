"""Streaming linear discriminant analysis, SLDA (Hayes and Kanan, 2020): means and one covariance, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Params
from lifelong.core.learner import AnyLearner, State
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, require
from lifelong.learners.nearest_class_mean import checked_features, features_of, width_of
from lifelong.learners.task_rows import labelled
from lifelong.models.base import Model
from lifelong.models.perceptron import MLP


@dataclass(frozen=True)
class StreamingLDA(AnyLearner):
    """One Gaussian for each class, all of the same covariance; learns from sums over a task's rows at its end.

    score_c = f' P mu_c - mu_c' P mu_c / 2, P = ((1 - shrinkage) S + shrinkage I)^-1, mu_c the mean of the class's features,
    S [F, F] their covariance within classes, sum over all rows of (f - mu_y)(f - mu_y)' / N (Hayes and Kanan, 2020); minus
    infinity for classes never seen. features: "pixels", or "net" for those of the frozen initial network.

    What differs from the source: S is exactly the pooled covariance, so that neither the order of rows nor that of
    tasks matters; the authors' update, a row at a time, has t / (t + 1) with t of all rows seen where n_y / (n_y + 1) of
    the class would make it exact, so a class's first row counts with its square, and they start from S = 1 or from a
    first batch. Rows are learned once each, at a task's end, whatever the number of its iterations. Needs F^2 numbers
    for each seed. (Tasks are put together as Chan, Golub and LeVeque, 1979, put variances together.)
    """

    features: str = "pixels"
    shrinkage: float = 1e-4
    model: Model = field(default_factory=lambda: MLP(400, 400))

    def __post_init__(self) -> None:
        checked_features(self)
        require(self, 0 < self.shrinkage <= 1, "shrinkage lies above 0, up to 1")

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """It learns when a task ends."""
        return [(repr(self), Requirements(task_ends=True, instead="write NearestClassMean()"))]

    @property
    def finishes(self) -> bool:
        """A step does nothing."""
        return False

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """mean [C, F], count [C], and scatter [F, F] = N S."""
        width = width_of(self, problem, params)
        memory = {"mean": problem.zeros(problem.classes, width), "count": problem.zeros(problem.classes)}
        return State(params, {}, {**memory, "scatter": problem.zeros(width, width)})

    def after_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Means first, then squares around them: sums of squares alone would cancel in single precision."""
        old = state.memory
        total, count = torch.zeros_like(old["mean"]), torch.zeros_like(old["count"])
        for f, member in labelled(self, problem, state.params, task):
            total, count = total + member.T @ f, count + member.sum(0)
        mean, scatter = total / count.clamp(min=1)[:, None], old["scatter"]
        for f, member in labelled(self, problem, state.params, task):
            gap = (f - member @ mean) * member.sum(1, keepdim=True)
            scatter = scatter + gap.T @ gap
        both = old["count"] + count
        share, shift = count / both.clamp(min=1), mean - old["mean"]
        scatter = scatter + (shift * (share * old["count"])[:, None]).T @ shift  # of a class seen in several tasks
        mean = old["mean"] + shift * share[:, None]
        return state._replace(memory={"mean": mean, "count": both, "scatter": scatter})

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Solve for the weights [F, C] and offsets [C], once."""
        mean, count, scatter = (state.memory[name] for name in ("mean", "count", "scatter"))
        unit = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
        covariance = scatter / count.sum().clamp(min=1)
        weight = torch.linalg.solve((1 - self.shrinkage) * covariance + self.shrinkage * unit, mean.T)
        return state._replace(memory={"weight": weight, "offset": (mean.T * weight).sum(0) / 2, "count": count})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Linear scores [B, C]."""
        memory = state.memory
        scores = features_of(self, problem, state.params, x) @ memory["weight"] - memory["offset"]
        return scores.masked_fill(memory["count"] == 0, -torch.inf)
