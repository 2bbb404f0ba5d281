"""A distribution of tasks, as an initialisation learns from it: the network, and what tasks are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.inner_loop import MeanSquares, episode_problem, shares
from lifelong.core.problem import Problem
from lifelong.core.strategy import FineTuning, Strategy
from lifelong.models.base import Model
from scenarios.episodes import TaskSource


def _cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(scores, y, reduction="none")


def _squares(scores: Tensor, y: Tensor) -> Tensor:
    return (scores - y).square().sum(1)


def _right(scores: Tensor, y: Tensor) -> Tensor:
    return (scores.argmax(1) == y).to(torch.float64)


def _mean_squares(scores: Tensor, y: Tensor) -> Tensor:
    return (scores - y).square().mean(1).to(torch.float64)


# for each kind of task: a row's loss, its score, the score's name, and the inner loop's objective
LOSSES = {"classes": _cross_entropy, "numbers": _squares}
SCORES = {"classes": _right, "numbers": _mean_squares}
MEASURES = {"classes": "accuracy", "numbers": "mean square error"}
OBJECTIVES: dict[str, type[Strategy]] = {"classes": FineTuning, "numbers": MeanSquares}


@dataclass(frozen=True)
class TaskDistribution:
    """The network, and what its tasks are drawn from, to learn and to validate.

    Meta-training never sees the validation classes, and neither sees those of the stream.
    """

    model: Model
    train: TaskSource
    validation: TaskSource
    dtype: torch.dtype = torch.float32

    @property
    def kind(self) -> str:
        """What its tasks are: "classes" to tell apart, or "numbers" to predict."""
        return self.train.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return self.train.shape

    @property
    def device(self) -> torch.device:
        """Where its tasks lie."""
        return self.train.device

    @property
    def measure(self) -> str:
        """How answers are scored, in words."""
        return MEASURES[self.kind]

    @property
    def objective(self) -> Strategy:
        """What an inner loop minimises."""
        return OBJECTIVES[self.kind]()

    def to(self, device: torch.device | str) -> TaskDistribution:
        """The same distribution with its tasks on another device."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))

    def problem(self, way: int) -> Problem:
        """That of an episode of N ways."""
        return episode_problem(self.model, self.train.outputs(way), self.dtype)

    def loss(self, scores: Tensor, y: Tensor, weight: Any = ()) -> Tensor:
        """Weighted mean of the rows' losses, 0-d: scores [R, N]; y int64 [R], or float [R, N]; weight [R] or nothing."""
        return (LOSSES[self.kind](scores, y) * shares(weight, len(y), scores.dtype, scores.device)).sum()

    def score(self, scores: Tensor, y: Tensor, weight: Any = ()) -> Tensor:
        """Weighted mean of the rows' scores, float64, 0-d: the share of right answers, or the mean square error."""
        rows = SCORES[self.kind](scores, y)
        return (rows * shares(weight, len(y), rows.dtype, rows.device)).sum()
