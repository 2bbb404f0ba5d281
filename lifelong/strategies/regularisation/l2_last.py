"""The plain L2 baseline beside which EWC was shown (Kirkpatrick et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lifelong.core.batch import Batch, FinishedTask, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.expectations import WITHOUT_OLD_DATA, expected
from scenarios.stream import Stream


@dataclass(frozen=True)
class L2Last(Strategy):
    """Hold every weight near where the last task left it, all as firmly.

    penalty = strength / 2 x |p - c|^2 over all weights, c those at the end of the last task; 0 during the first one.

    It is EWC(online=True) with an identity for its Fisher that does not grow. Kirkpatrick et al. (2017, fig. 2) show that
    it either forgets or stops learning, as its strength goes: they name no strength, so 0.1 is ours. L2SP holds
    the first weights instead and lets the head go; L2Init holds the first weights of the whole net.

    Memory: c, shaped like the net, and whether a task has ended. Raises StrategyError for a negative strength.
    """

    strength: float = 0.1
    off = {"strength": 0.0}
    anchors = True
    requires = Requirements(task_ends=True)
    keeps = "the last weights"
    witness = "a plain float64 loop: tests/reference/witnesses/test_l2_last.py"
    defaults = "ours"

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found without old rows."""
        return expected(WITHOUT_OLD_DATA, "L2Last", stream)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The centre c, and a flag for when it counts."""
        return params, {"centre": {name: p.clone() for name, p in params["net"].items()}, "on": problem.zeros()}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Add the penalty's: strength x (p - c)."""
        net, centre, firmness = params["net"], memory["centre"], memory["on"] * self.strength
        pulled = {name: torch.addcmul(g, firmness, net[name] - centre[name]) for name, g in grads["net"].items()}
        return {**grads, "net": pulled}, {}

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Hold on to the weights as they are now."""
        return params, {"centre": dict(params["net"]), "on": torch.ones_like(memory["on"])}
