"""Learners that are no pure functions of tensors: torch modules with dropout or running statistics, networks that grow,
strategies of other libraries. Each member is an object; a fleet of them takes one step after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from lifelong.core.learner import AnyLearner
from lifelong.core.member import LoopedMember
from lifelong.core.problem import Problem


class LoopedLearner(AnyLearner):
    """What makes members; derive a frozen dataclass from it and fill in `member`."""

    looped: ClassVar[bool] = True
    off: ClassVar[Mapping[str, Any]] = {}

    def member(self, problem: Problem, generator: torch.Generator) -> LoopedMember:
        """One member, before learning. Torch's own generator is set to a function of its seed."""
        raise NotImplementedError
