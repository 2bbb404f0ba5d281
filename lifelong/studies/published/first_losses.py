"""The first losses of a run: by them a cell of a table shows whether the code still learns as it did when the cell was taken."""

from __future__ import annotations

import functools
import math
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from lifelong.core.evaluator import Evaluator
from lifelong.core.loop import Session, Stepped
from lifelong.notation.expression import parse
from lifelong.runs.request import Request
from scenarios.errors import ConfigurationError

STEPS, TASKS = 10, 2  # iterations of each task, and tasks: penalties and memories act from the second one on
TOLERANCE = 1e-3  # relative: rounding stays far below, other draws and other formulas are far above
APART = ("seeds", "data_root", "device")  # recorded beside the request, or matters of the machine
_TEXTS = {"strategy": "strategies", "model": "models", "optimiser": "optimisers"}


class _Unscored(Evaluator):
    """Scores nothing: who asks for losses alone need not wait for accuracies."""

    def scores(self, prepared: Any, full: bool, task: int) -> tuple[Tensor, int]:
        """Zeros, [S, T], of no rows."""
        return torch.zeros(len(self.seeds), self.tasks, dtype=torch.float64, device=self.device), 0


def first_losses(request: Request) -> str:
    """Training losses of the first steps of the first two tasks, mean over seeds: 20 numbers of 5 digits in one string.

    Where all tasks are learned together, the first 20 steps. On the processor and in float64, whatever the request runs
    on: in float32 Adam makes whole steps of rounding, and another processor then gives other losses within 20 steps.
    """
    learner, stream, start = replace(request, iterations=STEPS, epochs=0.0, device="cpu").build()
    session = Session(learner, stream, request.members, start, dtype=torch.float64)
    session.evaluator = _Unscored(stream, session.seeds, session.fleet, 1)
    losses: list[float] = []
    for event in session.events(session.begin()):
        if isinstance(event, Stepped):
            losses += event.loss.mean(0).tolist()
            if event.last and event.state.task == min(TASKS, session.tasks) - 1:
                break
    return " ".join(f"{loss:.5g}" for loss in losses)


def difference(then: str, now: str) -> str:
    """What tells two strings of losses apart, in a few words; empty where every number came back within TOLERANCE."""
    before, after = ([float(word) for word in losses.split()] for losses in (then, now))
    if len(before) != len(after):
        return f"says {len(before)} first losses, and there are {len(after)}"
    for step, (a, b) in enumerate(zip(before, after, strict=True), 1):
        if not math.isclose(a, b, rel_tol=TOLERANCE) and not (math.isnan(a) and math.isnan(b)):
            return f"its first losses no longer come back: {a:.5g} became {b:.5g} at step {step}"
    return ""


def saved(request: Request) -> dict[str, Any]:
    """A request as a run's folder saves it, without what is recorded apart from it."""
    return {name: value for name, value in request.as_json().items() if name not in APART}


def other_request(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first field in which two saved requests differ, as the one before has it; empty where they ask for the same.

    A field that was not there yet, or is not there any more, asked for nothing else where it is at its default.
    Strategies, models and optimisers are compared as the objects that they build.
    """
    usual = {field.name: field.default for field in fields(Request)}
    for name in sorted({*then, *now}):
        before, after = then.get(name, usual.get(name)), now.get(name, usual.get(name))
        gone = name not in usual and before in ("", 0, -1)
        kind = _TEXTS.get(name)
        same = kind and built(kind, str(before)) and built(kind, str(before)) == built(kind, str(after))
        if before != after and not gone and not same:
            return f"{name} {before!r}"
    return ""


@functools.cache
def built(kind: str, text: str) -> str:
    """The text of what a text builds, with all its fields; empty where it builds nothing (any more)."""
    try:
        return repr(parse(text, kind))
    except ConfigurationError:
        return ""
