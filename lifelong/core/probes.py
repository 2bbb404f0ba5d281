"""Probes: what is measured besides accuracy, without touching what is learned. Each names its own tensor.

A probe is handed to `run`; no other file knows it. `begin` looks at the run once and gives the measurement itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from scenarios.stream import Seed, Stream

BEFORE_TASK, BEFORE_STEP, EVALUATED, TASK_ENDED = "before task", "before step", "evaluated", "task ended"
Measure = Callable[[Any, str], Tensor | None]  # of a `lifelong.core.loop.TrainingState`, at a moment


class Probe(Protocol):
    """Something more to measure."""

    @property
    def every_step(self) -> bool:
        """Whether it measures before each step, too: steps are then taken one by one."""
        ...

    @property
    def name(self) -> str:
        """Of its tensor in the result, [S, moments, ...]."""
        ...

    def check(self, stream: Stream, seeds: Sequence[Seed]) -> None:
        """Raise a ConfigurationError where it cannot be measured on a stream."""
        ...

    def begin(self, session: Any) -> Measure:
        """Of a `lifelong.core.loop.Session`: measure(state, moment) -> [S, ...], or None at moments that it has nothing to say about.

        Moments: before a task begins, before a step where it asked for them, after every evaluation, after a task has ended and was evaluated.
        """
        ...
