"""Where a network starts: what every initialisation is, and the plainest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from lifelong.core.batch import Params
from lifelong.core.problem import Problem


class Initialisation(Protocol):
    """Called with a seed's problem, the model's own draw and a generator of that seed's, it returns parameters."""

    def of(self, seed: int) -> Initialisation:
        """The initialisation of one seed."""
        ...

    def __call__(self, problem: Problem, params: Params, generator: torch.Generator) -> Params:
        """The parameters that a learner starts with."""
        ...


@dataclass(frozen=True)
class Random:
    """The network's own random draw."""

    def of(self, seed: int) -> Random:
        """The same for all seeds."""
        return self

    def __call__(self, problem: Problem, params: Params, generator: torch.Generator) -> Params:
        """The parameters as they came."""
        return params
