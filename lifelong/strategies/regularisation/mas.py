"""Memory-aware synapses (Aljundi, Babiloni, Elhoseiny, Rohrbach and Tuytelaars, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.row_gradients import row_sums, rows_at_once
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.expectations import WITHOUT_OLD_DATA, expected
from lifelong.strategies.regularisation.quadratic import quadratic_gradient
from scenarios.stream import Stream


@dataclass(frozen=True)
class MAS(Strategy):
    """Hold each weight as firmly as the network's answers depend on it; labels are not looked at.

    penalty = strength x sum_i w_i (p_i - c_i)^2, without a half; at a task's end
    w_i <- decay x w_i + mean over the task's training rows of |d ||f(x)||^2 / d p_i|, and c <- p. f(x) are the scores of
    the classes open to the row, before the softmax; the norm is the Euclidean one. (Aljundi et al., 2018, eq. 2 to 4; they
    add up, decay = 1.) The paper may also measure w on rows without labels of wherever the network will be used; here
    they are the rows that it was trained on. Each row's own gradient counts; common codes take the absolute value of a
    batch's mean gradient, which is smaller, so that strengths do not carry over.
    """

    strength: float = 1.0
    decay: float = 1.0
    keeps = "importance, centre"
    witness = "a plain float64 loop: tests/reference/test_methods_b.py"
    defaults = "the authors' for object recognition"
    off = {"strength": 0.0}
    anchors = True
    runs_network = True
    requires = Requirements(task_ends=True)

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")
        require(self, 0 <= self.decay <= 1, "decay lies in 0 ... 1")

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found without old rows."""
        return expected(WITHOUT_OLD_DATA, "MAS", stream)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """importance w and centre c, each shaped like the net."""
        zero = {name: torch.zeros_like(value) for name, value in params["net"].items()}
        return params, {"importance": zero, "centre": {name: value.clone() for name, value in params["net"].items()}}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Add the penalty's: 2 x strength x w (p - c)."""
        return quadratic_gradient(grads, params, memory, 2 * self.strength), {}

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Add this task's importance, and hold on to the weights as they are now."""
        net, size = params["net"], rows_at_once(params["net"])
        share = task.valid.to(problem.dtype) / task.valid.sum()
        importance = {name: self.decay * value for name, value in memory["importance"].items()}
        for row, weight in zip(task.row.split(size), share.split(size), strict=True):
            number = task.number.expand(len(row))
            x, given = problem.x(row, number), (problem.allowed(number),)
            more = row_sums(problem.model, net, x, squared_length, given, weight[:, None], torch.abs)
            importance = {name: value + more[name] for name, value in importance.items()}
        return params, {"importance": importance, "centre": dict(net)}


def squared_length(outputs: Outputs, allowed: Tensor) -> Tensor:
    """||f(x)||^2 over the classes open to each row, [b, 1]: one answer a row."""
    return torch.where(allowed, outputs.logits, torch.zeros_like(outputs.logits)).square().sum(1, keepdim=True)
