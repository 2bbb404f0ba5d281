"""What each part of a strategy changes, stores and costs, and what to expect of it."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lifelong.core.footprint import estimate_memory
from lifelong.core.initialisation import Random
from lifelong.core.learner import Learner
from lifelong.core.loop import prepared_fleet
from lifelong.core.storage import stored
from lifelong.core.strategy import VERBS, fills
from lifelong.runs.request import Request

WHAT = {
    "init": "sizes its memory",
    "extend": "adds rows, weights or targets to the batch",
    "objective": "replaces the loss",
    "penalty": "adds to the loss",
    "grads": "changes the gradient",
    "after_step": "stores after each step",
    "at_milestone": "turns to another phase of a task",
    "after_task": "consolidates at a task's end",
    "prepare": "makes ready for an evaluation",
    "predict": "replaces the answer",
}


def explain(request: Request) -> Group:
    """Tables and sentences about a strategy, its memory measured on the request's scenario."""
    learner, stream, _ = request.build()
    assert isinstance(learner, Learner)  # a request whose words name a strategy
    parts = tuple(learner.parts)
    if not parts:
        return Group(Text("FineTuning(): no verb is filled in; plain gradient descent, which forgets."))
    estimate_memory(learner, stream, [0])
    _, state = prepared_fleet(learner, stream, [0], Random())
    table = Table(title=f"in the order in which they act; memory on {request.scenario}, one seed", title_justify="left")
    table.add_column("part", overflow="fold")
    table.add_column("what it does", overflow="fold")
    table.add_column("memory", justify="right", no_wrap=True)
    for part, label, memory in zip(parts, learner.parts.labels, state.memory, strict=True):
        verbs = [f"{verb}: {WHAT[verb]}" for verb in VERBS if verb != "init" and fills(part, verb)]
        kept = [memory, state.params.get("own", {}).get(label, {})]  # parameters of its own count as well
        size = stored(kept, stream.dataset, seeds=1)
        table.add_row(Text(repr(part)), "\n".join(verbs), size.text("\n"))
    notes = [Text(f"· {line}") for part in parts for line in _notes(part, learner, stream)]
    order = [
        f"{verb}: " + " → ".join(type(p).__name__ for p in parts if fills(p, verb))
        for verb in VERBS
        if sum(fills(p, verb) for p in parts) > 1 and verb not in ("init",)
    ]
    return Group(table, *[Text(f"order of {line}") for line in order], *notes)


def _notes(part: Any, learner: Any, stream: Any) -> list[str]:
    return [f"{type(part).__name__}: {(inspect.getdoc(part) or '').partition(chr(10))[0]}", *part.notes(stream)]
