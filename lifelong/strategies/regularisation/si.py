"""Synaptic intelligence (Zenke, Poole and Ganguli, 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.expectations import WITHOUT_OLD_DATA, expected
from lifelong.strategies.regularisation.quadratic import quadratic_gradient
from scenarios.stream import Stream


@dataclass(frozen=True)
class SI(Strategy):
    """Hold each weight as firmly as its path so far lowered the loss.

    penalty = strength x sum_i w_i (p_i - c_i)^2; at a task's end w_i <- w_i + path_i / ((p_i - c_i)^2 + damping) and
    c <- p, where path_i sums -gradient x movement over the task's steps, of the whole loss, before clipping. (Zenke et
    al., 2017, eq. 3 to 5.)

    What differs from the source: the authors' code takes the gradient without this penalty, and lets no importance fall
    below 0; here, as in van de Ven's code, it is that of the whole loss, and where a path raised the loss the
    importance sinks. On Split MNIST the authors start a new optimiser with each task: at_task_end="reset".

    Memory: path, importance, centre. Raises StrategyError for numbers out of range.
    """

    strength: float = 10.0
    damping: float = 0.1
    keeps = "path, importance, centre"
    witness = "a plain float64 loop: tests/reference/witnesses/test_si.py"
    defaults = "published for Split-MNIST, task-incremental (van de Ven et al., 2022)"
    previous_params = True
    off = {"strength": 0.0}
    anchors = True
    requires = Requirements(task_ends=True)

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")
        require(self, self.damping > 0, "damping must be above 0")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """path, importance w and centre c, each shaped like the net."""
        zero = {name: torch.zeros_like(value) for name, value in params["net"].items()}
        centre = {name: value.clone() for name, value in params["net"].items()}
        return params, {"path": zero, "importance": {k: v.clone() for k, v in zero.items()}, "centre": centre}

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found without old rows."""
        return expected(WITHOUT_OLD_DATA, "SI", stream)

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Add the penalty's: 2 x strength x w (p - c)."""
        return quadratic_gradient(grads, params, memory, 2 * self.strength), {}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Add this step's share of the path."""
        gradients, previous = step.gradients["net"], step.previous["net"]
        path = {
            name: torch.addcmul(memory["path"][name], gradient, previous[name] - params["net"][name])
            for name, gradient in gradients.items()  # of fixed parameters there is none
        }
        return params, {**memory, "path": {**memory["path"], **path}}

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Turn the path into importance, and start a new one here."""
        importance = {
            name: memory["importance"][name] + memory["path"][name] / ((p - memory["centre"][name]) ** 2 + self.damping)
            for name, p in params["net"].items()
        }
        path = {name: torch.zeros_like(value) for name, value in importance.items()}
        return params, {"path": path, "importance": importance, "centre": dict(params["net"])}
