"""L2-SP: decay towards the starting point instead of towards zero (Li, Grandvalet and Davoine, 2018)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.learner import Learner
from lifelong.core.problem import Problem
from lifelong.core.strategy import Strategy, require
from lifelong.models.base import Net
from lifelong.strategies.expectations import NOTHING_OF_OLD_TASKS, expected
from scenarios.stream import Stream


@dataclass(frozen=True)
class L2SP(Strategy):
    """Hold the trunk near where the network started, the same for every weight.

    penalty = strength / 2 |trunk - start|^2 + decay / 2 |head|^2: the penalty of EWC with an identity for its Fisher
    and one task, the start. The start is that of the run (`--init`; of a random draw: regenerative regularisation) or,
    where this is a rule of transfer, the network that is adapted; it does not move on at the end of tasks.
    (Li et al., 2018.) What differs from the source: nothing in the formula; decay is 0 unless it is given.
    """

    strength: float = 0.1
    decay: float = 0.0
    keeps = "the start"
    witness = "EWC with an identity for its Fisher, and autograd: tests/reference/test_transfer_identities.py"
    defaults = "the authors' for Stanford Dogs, but for decay"
    off = {"strength": 0.0, "decay": 0.0}
    acts_at_once = True

    def __post_init__(self) -> None:
        require(self, self.strength >= 0 and self.decay >= 0, "strength and decay must be at least 0")

    def notes(self, stream: Stream) -> list[str]:
        """That it is made for something else."""
        return expected(NOTHING_OF_OLD_TASKS, "L2SP", stream)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The trunk as it starts, shaped like the net without its head."""
        trunk = {name: value.clone() for name, value in params["net"].items() if not name.startswith("head.")}
        return params, {"start": trunk}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Add the penalty's: strength x (p - start) on the trunk, decay x p on the head."""
        start, net, quadratic_gradient = memory["start"], params["net"], {}
        for name, gradient in grads["net"].items():  # fixed parameters have none
            if name in start:
                quadratic_gradient[name] = gradient + self.strength * (net[name] - start[name])
            else:
                quadratic_gradient[name] = gradient + self.decay * net[name]
        return {**grads, "net": quadratic_gradient}, {}

    def phases(self, learner: Learner, steps: int, net: Net) -> tuple[tuple[Learner, int], ...]:
        """As a rule of transfer, see `lifelong.adaptation.methods`: all weights train, under this pull."""
        return ((replace(learner, strategy=learner.strategy + self), steps),)
