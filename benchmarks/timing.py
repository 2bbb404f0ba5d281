"""What the benchmarks share: a step's floor, a session's own steps, work in turn.

Knows torch alone, so that it can time the steps of any commit of this repository: a session is only asked for its events.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

CPU = torch.device("cpu")
ROUNDS = 5
WARM = 3  # steps before the first that counts
ADAM_TRAFFIC = 7  # numbers of each parameter that Adam's step moves: p, g and two moments read, p and moments written
WIDE, NARROW = (784, 400, 400, 10), (784, 100, 100, 10)  # layers of the batch-128 and of the online regime


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """Seconds: of the processor, where it works alone and on one thread, so that others on the machine do not count."""
    wait(device)
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def products(device: torch.device, seeds: int, batch: int, widths: Sequence[int] = WIDE) -> Callable[[], None]:
    """The matrix products of a fleet's step, forward and backward; the rows themselves have no gradient."""
    sizes = list(itertools.pairwise(widths))
    inputs = [torch.randn(seeds, batch, a, device=device) for a, _ in sizes]
    weights = [torch.randn(seeds, a, b, device=device) for a, b in sizes]
    outputs = [torch.randn(seeds, batch, b, device=device) for _, b in sizes]

    def call() -> None:
        for x, w, y in zip(inputs, weights, outputs, strict=True):
            torch.bmm(x, w)
            torch.bmm(x.mT, y)
        for w, y in zip(weights[1:], outputs[1:], strict=True):
            torch.bmm(y, w.mT)

    return call


def parameter_copy(device: torch.device, seeds: int, widths: Sequence[int] = WIDE) -> Callable[[], None]:
    """A copy of a fleet's parameters, layer by layer: 2 of the numbers of each that a step of Adam moves (`ADAM_TRAFFIC`)."""
    sizes = itertools.pairwise(widths)
    source = [torch.randn(seeds, a + 1, b, device=device) for a, b in sizes]
    target = [torch.empty_like(layer) for layer in source]
    return lambda: torch._foreach_copy_(target, source)


def repeated(call: Callable[[], Any], repeats: int, device: torch.device = CPU) -> float:
    """Seconds of one call, mean over some in a row."""
    began = clock(device)
    for _ in range(repeats):
        call()
    return (clock(device) - began) / repeats


class Steps:
    """A session's steps as its loop takes them, batches drawn and losses noted; nothing of a task's end counts.

    after: the tasks that are learned before the first step that counts.
    """

    def __init__(self, session: Any, after: int = 0) -> None:
        self.session, self.after = session, after
        self._begin()

    def _begin(self) -> None:
        self.events = self.session.events(self.session.begin())
        self.state = next(event.state for event in self.events if event.state.task == self.after)
        self._advance(WARM)

    def _advance(self, steps: int) -> int:
        """Take steps, and say how many: more, where the loop takes a block at a time; 0 where the task ended before."""
        task, first = self.state.task, self.state.iteration
        for event in self.events:
            if event.state.task != task:
                return 0
            if event.state.iteration - first >= steps:
                return event.state.iteration - first
        self._begin()  # the stream is over
        return 0

    def seconds(self, steps: int) -> float:
        """Seconds of one step, mean over at least so many in a row. Raises ValueError where no task has as many."""
        for _ in range(3):
            began = clock(self.session.device)
            taken = self._advance(steps)
            if taken:
                return (clock(self.session.device) - began) / taken
        raise ValueError(f"{steps} steps are to be timed together, and no task has as many")


def in_turn(measures: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median over rounds of what each measure says, all of them in turn in each round."""
    seen: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seen[name].append(measure())
    return {name: statistics.median(values) for name, values in seen.items()}


def interleaved(work: dict[str, Callable[[], Any]], repeats: int, device: torch.device = CPU) -> dict[str, float]:
    """Median over rounds of seconds for one call, all kinds of work in turn in each round."""
    for call in work.values():
        repeated(call, WARM, device)
    return in_turn({name: partial(repeated, call, repeats, device) for name, call in work.items()})
