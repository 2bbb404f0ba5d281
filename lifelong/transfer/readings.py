"""Other readings of a stream: as a transfer from one task to the next, and as ever longer joint streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifelong.adaptation.rules import TransferError
from lifelong.feed import in_iterations
from lifelong.fleet import random_start
from lifelong.learner import AnyLearner, State
from lifelong.loop import Course, run
from lifelong.problem import Start
from lifelong.result import Result
from scenarios.baselines import joint
from scenarios.stream import Stream


class Kept:
    """A keeper that holds the final state of each chunk of seeds; with a state to begin from, it begins at that task."""

    def __init__(self, begin: State | None = None, task: int = 0) -> None:
        self.begin, self.task = begin, task
        self.states: list[State] = []

    def restore(self, chunk: int, course: Course) -> Course:
        """The course as given, or from the state of another run on."""
        if self.begin is not None:
            course.state, course.task = self.begin, self.task
        return course

    def boundary(self, chunk: int, course: Course) -> None:
        """Nothing is saved on the way."""

    def finish(self, chunk: int, course: Course, result: Result) -> None:
        """Hold the state."""
        self.states.append(course.state)


def learned(
    learner: AnyLearner, stream: Stream, seeds: Sequence[int], start: Start = random_start, **options: Any
) -> tuple[Result, State]:
    """A run of one chunk of seeds by the house's loop, and its final state [S, ...]. options: as of `run`."""
    keeper = Kept()
    result = run(learner, stream, seeds, start, keeper=keeper, **options)
    return result, keeper.states[0]


def transfer_reading(
    learner: AnyLearner, stream: Stream, seeds: Sequence[int], start: Start = random_start, **options: Any
) -> tuple[Result, State]:
    """A stream of two tasks read as transfer: a source is learned on its own, then a target from what it left.

    The result has two evaluations, each [S, 2]: as transferred (the source's accuracy, and what the target gets for
    nothing) and after the target. Optimiser, heads and draws are kept; so it is fine-tuning in the continual reading,
    to the bit: a transfer's target accuracy and a continual run's forgetting are columns of one table.
    """
    if len(stream) != 2 or stream.reading != "continual":
        raise TransferError(f"a transfer has a source and a target: two tasks in a row, not {len(stream)}")
    stream = in_iterations(stream, list(seeds))
    source = stream[:1]
    assert isinstance(source, Stream)
    _, state = learned(learner, source, seeds, start, **options)
    keeper = Kept(state, task=1)
    result = run(learner, stream, seeds, start, keeper=keeper, **options)
    return result, keeper.states[0]


def joint_upto(
    learner: AnyLearner, stream: Stream, seeds: Sequence[int], start: Start = random_start, **options: Any
) -> list[Result]:
    """The joint runs on tasks 1 ... k, for k = 1 ... T, that `lifelong.metrics.intransigence` compares with."""
    stream = in_iterations(stream, list(seeds))
    results = []
    for k in range(1, len(stream) + 1):
        part = stream[:k]
        assert isinstance(part, Stream)
        results.append(run(learner, joint(part), seeds, start, **options))
    return results
