"""Learners that are no pure functions of tensors: torch modules with dropout or running statistics, networks that grow,
strategies of other libraries. Each member is an object; a fleet of them takes one step after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask
from lifelong.core.learner import AnyLearner
from lifelong.core.problem import Problem


class LoopedLearner(AnyLearner):
    """What makes members; derive a frozen dataclass from it and fill in `member`."""

    looped: ClassVar[bool] = True
    off: ClassVar[Mapping[str, Any]] = {}

    def member(self, problem: Problem, generator: torch.Generator) -> LoopedMember:
        """One member, before learning. Torch's own generator is set to a function of its seed."""
        raise NotImplementedError


class LoopedMember:
    """One member of a looped fleet. task, steps: where it stands, kept by the fleet.

    It may draw from torch's own generator: before every call that is set to a function of the seed and the place.
    """

    task: int = 0
    steps: int = 0

    def step(self, problem: Problem, batch: Batch) -> Tensor:
        """Learn from one batch, fields [B, ...]; the loss before it, 0-d."""
        raise NotImplementedError

    def at_milestone(self, problem: Problem, task: FinishedTask, share: float) -> None:
        """Turn to another phase of a task."""

    def after_task(self, problem: Problem, task: FinishedTask) -> None:
        """Consolidate."""

    def predict(self, problem: Problem, x: Tensor, task: Tensor) -> Tensor:
        """Scores [B, C]; never learns, and draws nothing."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """All that it has learned, for a file: what `load` takes back at a task's end."""
        raise NotImplementedError

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Stand where these tensors were taken."""
        raise NotImplementedError
