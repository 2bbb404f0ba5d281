"""Random features and ridge regression, after RanPAC (McDonnell, Gong, Parvaneh, Abbasnejad and van den Hengel, 2023)."""

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
class RandomFeaturesRidge(AnyLearner):
    """Ridge regression of the classes on fixed random features; learns from sums over a task's rows at its end.

    score_c = h' (G + ridge I)^-1 q_c with h = relu(f W) of `width` numbers, W [F, width] standard normal, drawn once for each
    seed; G = sum h h' over all rows so far, q_c = sum of h over those of class c (McDonnell et al., 2023, eq. 5 to 7); minus
    infinity for classes never seen. features: "pixels", or "net" for those of the frozen initial network. Sums
    depend neither on the order of rows nor on that of tasks: the answer is that of one regression on all rows.

    What differs from the source: there the features are those of a pre-trained transformer, tuned on the first task,
    width is 10,000, and ridge is chosen anew in each task on a fifth of its rows, from 1e-8 ... 1e8; here it is a number
    of yours, which grows in proportion to rows and to F. Rows are learned once each, at a task's end, whatever the
    number of its iterations. Needs width x (width + F) numbers for each seed.
    """

    features: str = "pixels"
    width: int = 1000
    ridge: float = 10.0
    model: Model = field(default_factory=lambda: MLP(400, 400))

    def __post_init__(self) -> None:
        checked_features(self)
        require(self, self.width >= 1, "width must be at least 1")
        require(self, self.ridge > 0, "ridge must be above 0")

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """It learns when a task ends."""
        return [(repr(self), Requirements(task_ends=True, instead="write NearestClassMean()"))]

    @property
    def finishes(self) -> bool:
        """A step does nothing."""
        return False

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """The projection W, gram G [width, width], sums q of the classes [C, width], and their counts [C]."""
        projection = torch.randn(width_of(self, problem, params), self.width, generator=generator)
        memory = {
            "projection": projection.to(problem.device, problem.dtype),
            "gram": problem.zeros(self.width, self.width),
            "sum": problem.zeros(problem.classes, self.width),
            "count": problem.zeros(problem.classes),
        }
        return State(params, {}, memory)

    def after_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Add the task's rows to the sums."""
        memory = state.memory
        gram, total, count = memory["gram"], memory["sum"], memory["count"]
        for f, member in labelled(self, problem, state.params, task):
            hidden = (f @ memory["projection"]).relu()
            counted = hidden * member.sum(1, keepdim=True)
            gram, total, count = gram + counted.T @ hidden, total + member.T @ hidden, count + member.sum(0)
        return state._replace(memory={**memory, "gram": gram, "sum": total, "count": count})

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Solve for the weights [width, C], once."""
        memory = state.memory
        unit = torch.eye(self.width, dtype=problem.dtype, device=problem.device)
        weight = torch.linalg.solve(memory["gram"] + self.ridge * unit, memory["sum"].T)
        kept = {name: memory[name] for name in ("projection", "count")}
        return state._replace(memory={**kept, "weight": weight})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Linear scores of the random features [B, C]."""
        hidden = (features_of(self, problem, state.params, x) @ state.memory["projection"]).relu()
        return (hidden @ state.memory["weight"]).masked_fill(state.memory["count"] == 0, -torch.inf)
