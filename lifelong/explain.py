"""What each part of a strategy changes, stores and costs, and what to expect of it."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lifelong.fleet import random_start
from lifelong.loop import prepared_fleet
from lifelong.request import Request
from lifelong.storage import stored
from lifelong.strategies.ewc import EWC
from lifelong.strategies.lwf import LwF
from lifelong.strategies.si import SI
from lifelong.strategy import VERBS, Strategy, fills, parts_of

WHAT = {
    "init": "sizes its memory",
    "extend": "adds rows, weights or targets to the batch",
    "objective": "replaces the loss",
    "penalty": "adds to the loss",
    "grads": "changes the gradient",
    "after_step": "stores after each step",
    "after_task": "consolidates at a task's end",
    "prepare": "makes ready for an evaluation",
    "predict": "replaces the answer",
}


def explain(request: Request) -> Group:
    """Tables and sentences about a strategy, its memory measured on the request's scenario."""
    learner, stream, _ = request.build()
    parts: tuple[Strategy, ...] = parts_of(learner.strategy)
    if not parts:
        return Group(Text("FineTuning(): no verb is filled in; plain gradient descent, which forgets."))
    _, state = prepared_fleet(learner, stream, [0], random_start)
    table = Table(title=f"in the order in which they act; memory on {request.scenario}, one seed", title_justify="left")
    table.add_column("part", overflow="fold")
    table.add_column("what it does", overflow="fold")
    table.add_column("memory", justify="right", no_wrap=True)
    for part, memory in zip(parts, state.memory, strict=True):
        verbs = [f"{verb}: {WHAT[verb]}" for verb in VERBS if verb != "init" and fills(part, verb)]
        kept = [memory, state.params.get(type(part).__name__, {})]  # parameters of its own count as well
        size = stored(kept, stream.table, seeds=1)
        table.add_row(Text(repr(part)), "\n".join(verbs), size.text("\n"))
    notes = [Text(f"· {line}") for part in parts for line in _notes(part, learner, stream)]
    order = [
        f"{verb}: " + " → ".join(type(p).__name__ for p in parts if fills(p, verb))
        for verb in VERBS
        if sum(fills(p, verb) for p in parts) > 1 and verb not in ("init",)
    ]
    return Group(table, *[Text(f"order of {line}") for line in order], *notes)


def _notes(part: Any, learner: Any, stream: Any) -> list[str]:
    notes = [f"{type(part).__name__}: {(inspect.getdoc(part) or '').partition(chr(10))[0]}"]
    if part.multi_task:
        notes.append(
            f"{type(part).__name__} acts on tasks that are learned together: run it with --baseline joint. Gains over equal"
            " weights are seldom clear; hold it against the plain joint run on the same seeds."
        )
    if part.replaces_gradient and part.multi_task:
        notes.append("each step takes one forward pass and a backward pass for each task")
    if isinstance(part, EWC) and not hasattr(learner.model, "probed"):
        notes.append("this model offers no layer inputs, so the Fisher takes one gradient for each row and class: slow")
    if isinstance(part, EWC | SI | LwF) and stream.setting == "class":
        notes.append(
            f"{type(part).__name__} in class-incremental streams: expect about 1 / T of the classes to be answered (20 % on"
            " Split-MNIST). That is the published result, not a fault: without old data old classes are not weighed"
            " against new ones. Try --setting task, or add Replay(size=200)."
        )
    return notes
