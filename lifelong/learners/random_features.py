"""Random features and ridge regression, after RanPAC (McDonnell, Gong, Parvaneh, Abbasnejad and van den Hengel, 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Memory
from lifelong.core.learner import State
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.learners.closed_form import ClosedForm


@dataclass(frozen=True)
class RandomFeaturesRidge(ClosedForm):
    """Ridge regression of the classes on fixed random features; learns from sums over a task's rows at its end.

    score_c = h' (G + ridge I)^-1 q_c with h = relu(f W) of `width` numbers, W [F, width] standard normal, drawn once for each
    seed; G = sum h h' over all rows so far, q_c = sum of h over those of class c (McDonnell et al., 2023, eq. 5 to 7); minus
    infinity for classes never seen. features: "pixels", "net" or "first", see `lifelong.learners.closed_form`. Sums
    depend neither on the order of rows nor on that of tasks: the answer is that of one regression on all rows.

    What differs from the source: there the features are those of a pre-trained transformer, small additions to which are
    tuned on the first task ("first" tunes all weights), width is 10,000, and ridge is chosen anew in each task on a fifth of its rows, from 1e-8 ... 1e8; here it is a number
    of yours, which grows in proportion to rows and to F. Rows are learned once each, at a task's end, whatever the
    number of its iterations. A ridge below the rounding of G is raised to it, e sqrt(width) max_i G_ii with e of 1.2e-7
    in single precision: of features as large as those of a learned trunk that is some thousands. Needs width x (width + F) numbers for each seed.
    """

    width: int = 1000
    ridge: float = 10.0
    keeps = "a projection, sums of products of features"
    witness = "ridge regression on all rows at once: tests/reference/test_methods_a.py"
    defaults = "ours"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.width >= 1, "width must be at least 1")
        require(self, self.ridge > 0, "ridge must be above 0")

    def sums(self, problem: Problem, width: int, generator: torch.Generator) -> Memory:
        """The projection W [F, width], gram G [width, width], sums q of the classes [C, width], and their counts [C]."""
        projection = torch.randn(width, self.width, generator=generator)
        return {
            "projection": projection.to(problem.device, problem.dtype),
            "gram": problem.zeros(self.width, self.width),
            "sum": problem.zeros(problem.classes, self.width),
            "count": problem.zeros(problem.classes),
        }

    def embedded(self, memory: Memory, features: Tensor) -> Tensor:
        """relu(f W)."""
        return (features @ memory["projection"]).relu()

    def added(self, problem: Problem, state: State, task: FinishedTask) -> Memory:
        """The sums with the task's rows."""
        gram, total, count = (state.memory[name] for name in ("gram", "sum", "count"))
        for hidden, member in self.labelled(problem, state, task):
            counted = hidden * member.sum(1, keepdim=True)
            gram, total, count = gram + counted.T @ hidden, total + member.T @ hidden, count + member.sum(0)
        return {"gram": gram, "sum": total, "count": count}

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Solve for the weights [width, C], once."""
        memory = state.memory
        unit = torch.eye(self.width, dtype=problem.dtype, device=problem.device)
        # rounding of G's sums turns its smallest eigenvalues negative by about so much; less would make answers of noise
        noise = torch.finfo(problem.dtype).eps * self.width**0.5 * memory["gram"].diagonal().max()
        weight = torch.linalg.solve(memory["gram"] + noise.clamp(min=self.ridge) * unit, memory["sum"].T)
        kept = {name: memory[name] for name in ("projection", "count")}
        return state._replace(memory={**kept, "weight": weight})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Linear scores of the random features [B, C]."""
        scores = self.scored(problem, state, x) @ state.memory["weight"]
        return scores.masked_fill(state.memory["count"] == 0, -torch.inf)
