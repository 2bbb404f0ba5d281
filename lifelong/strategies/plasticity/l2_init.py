"""Regenerative regularisation, L2 Init (Kumar, Marklund and Van Roy, 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Strategy, require
from lifelong.strategies.expectations import NOTHING_OF_OLD_TASKS, expected
from scenarios.stream import Stream


@dataclass(frozen=True)
class L2Init(Strategy):
    """Decay every weight towards where it started, so that what no task holds goes back to where learning is easy.

    penalty = strength x |p - p_start|^2 over all weights, without a half (Kumar et al., 2023, eq. 1). It needs no end of
    a task, and acts from the first step on.

    It is made against the loss of plasticity, not against forgetting. Kumar et al. try strengths of 0.00001 ... 0.01 with
    Adam and SGD; 0.001 is ours. L2SP holds the trunk alone, with a half; L2Last holds what the last task left.

    Memory: the first weights. Raises StrategyError for a negative strength.
    """

    strength: float = 0.001
    off = {"strength": 0.0}
    acts_at_once = True
    keeps = "the first weights"
    witness = "a plain float64 loop: tests/reference/witnesses/test_l2_init.py"
    defaults = "ours"

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")

    def notes(self, stream: Stream) -> list[str]:
        """That it is made for something else."""
        return expected(NOTHING_OF_OLD_TASKS, "L2Init", stream)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The first weights, shaped like the net."""
        return params, {"start": {name: p.clone() for name, p in params["net"].items()}}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Add the penalty's: 2 x strength x (p - p_start)."""
        net, start, pull = params["net"], memory["start"], 2 * self.strength
        pulled = {name: gradient + pull * (net[name] - start[name]) for name, gradient in grads["net"].items()}
        return {**grads, "net": pulled}, {}
