"""One member of a looped fleet: an object that learns by itself and gives its state as named tensors."""

from __future__ import annotations

from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask
from lifelong.core.problem import Problem


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
