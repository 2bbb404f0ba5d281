"""What something that can be named is; what each part of a strategy changes, stores and costs, and what to expect of it."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch.utils._pytree import tree_leaves

from lifelong.core.footprint import estimate_memory
from lifelong.core.initialisation import Random
from lifelong.core.learner import Learner
from lifelong.core.loop import prepared_fleet
from lifelong.core.storage import stored
from lifelong.core.strategy import VERBS, fills
from lifelong.notation.expression import kind_named, parse
from lifelong.notation.registry import KINDS
from lifelong.runs.memory_budget import kept
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


def explain(expression: str, scenario: str) -> Group:
    """What a strategy, a learner, a network or anything else that can be named is, and what it costs on a scenario."""
    kind = kind_named(expression, KINDS)
    if kind == "strategies":
        return explain_strategy(Request(scenario, strategy=expression, seeds=(0,)))
    thing = parse(expression, kind)
    lines = [repr(thing), f"{KINDS[kind].singular}: {_first_paragraph(thing)}"]
    if kind == "learners":
        learner, stream, _ = Request(scenario, learner=expression, seeds=(0,)).build()
        estimate_memory(learner, stream, [0])
        size = "cannot be counted" if learner.looped else kept(learner, stream).text()
        lines += [f"memory on {scenario}, one seed: {size}", *(f"· {line}" for line in learner.notes(stream))]
    if kind == "models":
        _, stream, _ = Request(scenario, model=expression, seeds=(0,)).build()
        lines += [f"parameters on {scenario}: {_parameters(thing, stream):,}"]
    return Group(*map(Text, lines))


def _first_paragraph(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _parameters(model: Any, stream: Any) -> int:
    """Numbers that a network learns."""
    learner = Learner(model)
    estimate_memory(learner, stream, [0])
    return sum(leaf.numel() for leaf in tree_leaves(prepared_fleet(learner, stream, [0], Random())[1].params["net"]))


def explain_strategy(request: Request) -> Group:
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
