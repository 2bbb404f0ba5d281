"""FeCAM (Goswami, Liu, Twardowski and van de Weijer, 2023): a Gaussian of its own covariance for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import FinishedTask, Memory
from lifelong.core.learner import State
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.learners.closed_form import ClosedForm
from lifelong.learners.gaussians import with_rows


@dataclass(frozen=True)
class FeCAM(ClosedForm):
    """Answers the class at the least Mahalanobis distance, each class with a covariance of its own.

    score_c = -(n(t(f)) - n(t(mu_c)))' R_c^-1 (n(t(f)) - n(t(mu_c))), with t(f) = |f|^power, of f's sign (Tukey's
    transform, which makes features less skewed), n(f) = f / |f|, mu_c the mean of the class's features; R_c the
    correlations that belong to S_c + gamma1 V1 I + gamma2 V2 (1 - I), where S_c is the covariance of t(f) over the rows
    of class c, V1 and V2 are the means of its entries on and off the diagonal (Goswami et al., 2023, eq. 5 to 8). Minus
    infinity for classes never seen; a class whose rows are all alike has R_c = I.
    covariance: "class", or "shared" for the mean of all S_c, weighed by rows. correlations: False leaves the
    covariance at its scale. features: "pixels", "net" or "first", see `lifelong.learners.closed_form`. Sums over a
    task's rows, at its end; needs C F^2 numbers for each seed.

    What differs from the source: the authors' code shrinks twice, which is once with gamma (2 + gamma) in place of each
    gamma, 3 in place of 1, where both are alike; its V2 passes over entries that are 0; it answers the first task by the
    learned head's rows; its shared covariance is weighed by classes and goes over classes together.
    """

    power: float = 0.5
    gamma1: float = 1.0
    gamma2: float = 1.0
    covariance: str = "class"
    correlations: bool = True
    keeps = "a mean and a covariance for each class"
    witness = "a plain float64 loop: tests/reference/witnesses/test_fecam.py"
    defaults = "published for CIFAR-100"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.covariance in ("class", "shared"), "covariance is 'class' or 'shared'")
        require(self, self.power > 0, "power must be above 0; 1 leaves features as they are")
        require(self, self.gamma1 > 0, "gamma1 must be above 0: what is inverted would have no inverse")
        require(self, self.gamma1 >= self.gamma2 >= 0, "gamma2 lies between 0 and gamma1")

    def sums(self, problem: Problem, width: int, generator: torch.Generator) -> Memory:
        """sum [C, F] of features; mean [C, F] of transformed ones; count [C]; scatter [C, F, F], or [F, F] if shared."""
        rows = {name: problem.zeros(problem.classes, width) for name in ("sum", "mean")}
        each = (problem.classes,) if self.covariance == "class" else ()
        return {**rows, "count": problem.zeros(problem.classes), "scatter": problem.zeros(*each, width, width)}

    def added(self, problem: Problem, state: State, task: FinishedTask) -> Memory:
        """The sums, means and scatter with a task's rows."""
        total = state.memory["sum"]
        for f, member in self.labelled(problem, state, task):
            total = total + member.T @ f
        transformed = with_rows(
            state.memory, lambda: ((self._transformed(f), m) for f, m in self.labelled(problem, state, task))
        )
        return {**transformed, "sum": total}

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Prototypes [C, F] and precisions R^-1 [C, F, F], or [1, F, F] if shared, once."""
        memory = state.memory
        count = memory["count"].clamp(min=1)
        spread = memory["scatter"] / (count[:, None, None] - 1).clamp(min=1)
        if self.covariance == "shared":
            spread = (memory["scatter"] / (memory["count"].sum() - (memory["count"] > 0).sum()).clamp(min=1))[None]
        prototype = F.normalize(self._transformed(memory["sum"] / count[:, None]), dim=-1)
        precision = torch.linalg.inv(self._shrunk(spread))
        return state._replace(memory={"prototype": prototype, "precision": precision, "count": memory["count"]})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Minus the squared Mahalanobis distances [B, C]."""
        memory = state.memory
        features = F.normalize(self._transformed(self.scored(problem, state, x)), dim=-1)
        gap = features - memory["prototype"][:, None]  # [C, B, F]
        distance = (gap @ memory["precision"] * gap).sum(-1).T
        return (-distance).masked_fill(memory["count"] == 0, -torch.inf)

    def _transformed(self, features: Tensor) -> Tensor:
        """Tukey's transform; of a feature below 0, which the paper has not, that of its absolute value, with its sign."""
        return features.sign() * features.abs() ** self.power

    def _shrunk(self, spread: Tensor) -> Tensor:
        """Covariances [..., F, F] shrunk, and brought to correlations."""
        size = spread.shape[-1]
        unit = torch.eye(size, dtype=spread.dtype, device=spread.device)
        v1 = (spread * unit).sum((-2, -1), keepdim=True) / size
        v2 = (spread * (1 - unit)).sum((-2, -1), keepdim=True) / max(size * (size - 1), 1)
        spread = spread + self.gamma1 * v1 * unit + self.gamma2 * v2 * (1 - unit)
        spread = torch.where(v1 > 0, spread, unit)  # a class of one row, or of none yet
        if not self.correlations:
            return spread
        deviation = spread.diagonal(dim1=-2, dim2=-1).sqrt()
        return spread / (deviation[..., :, None] * deviation[..., None, :])
