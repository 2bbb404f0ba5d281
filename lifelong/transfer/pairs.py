"""Other paradigms of a stream: as a transfer from one task to the next, and as ever longer joint streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifelong.adaptation.methods import TransferError
from lifelong.core import loop
from lifelong.core.initialisation import Initialisation
from lifelong.core.learner import AnyLearner, State
from lifelong.core.loop import Session, check_request, run
from lifelong.core.result import Result
from scenarios.joint import joint
from scenarios.stream import Seed, Stream


def learned(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int | Seed],
    start: Initialisation | None = None,
    **options: Any,
) -> tuple[Result, State]:
    """A run of one chunk of seeds, and its final state [S, ...]. options: as of `Session`."""
    check_request(learner, stream, seeds, str(stream.dataset.x.device))
    return loop.learned(Session(learner, stream, seeds, start, **options))


def transfer_pair(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int | Seed],
    start: Initialisation | None = None,
    **options: Any,
) -> tuple[Result, State]:
    """A stream of two tasks read as transfer: a source is learned on its own, then a target from what it left.

    The result has two evaluations, each [S, 2]: as transferred (the source's accuracy, and what the target gets for
    nothing) and after the target. Optimiser, heads and draws are kept; so it is fine-tuning in the continual paradigm,
    to the bit: a transfer's target accuracy and a continual run's forgetting are columns of one dataset.
    """
    if len(stream) != 2 or stream.paradigm != "continual":
        raise TransferError(f"a transfer has a source and a target: two tasks in a row, not {len(stream)}")
    source = stream[:1]
    assert isinstance(source, Stream)
    _, transferred = learned(learner, source, seeds, start, **options)
    session = Session(learner, stream, seeds, start, **options)
    state = session.begin()
    state.fleet, state.task = transferred, 1
    return loop.learned(session, state)


def joint_upto(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int | Seed],
    start: Initialisation | None = None,
    **options: Any,
) -> list[Result]:
    """The joint runs on tasks 1 ... k, for k = 1 ... T, that `lifelong.metrics.intransigence` compares with."""
    results = []
    for k in range(1, len(stream) + 1):
        part = stream[:k]
        assert isinstance(part, Stream)
        results.append(run(learner, joint(part), seeds, start, **options))
    return results
