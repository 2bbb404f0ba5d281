"""What witnesses of learners in closed form share: our answers after a stream, and the rows that they learned, for a loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scenarios.split import split
from scenarios.stream import Budget
from scenarios.synthetic import blobs
from scenarios.transformed import permuted
from tests.reference.witnesses.beside import DOUBLE, NET, SEED, Beside, adam, beside

WIDTH = 5  # of a row
QUERY = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)


def streams():
    """Tasks of new classes, some of more rows than a piece; others that meet the same classes again and again."""
    budget = Budget(iterations=4, batch=4)
    yield split(blobs(6, WIDTH, 90), 3, "class", budget=budget, validation=0.1)
    yield permuted(blobs(4, WIDTH, 50), 3, "domain", budget=budget)


@dataclass
class Learned:
    """scores: ours of QUERY [Q, C]; features [N, F] and classes [N] of all rows learned, and of QUERY, by plain loops."""

    scores: Tensor
    features: Tensor
    classes: Tensor
    query: Tensor
    run: Beside


def plain_features(net: dict[str, Tensor], x: Tensor) -> Tensor:
    """One hidden layer and its ReLU."""
    return (x @ net["layer0.weight"] + net["layer0.bias"]).clamp(min=0)


def first_task_net(run: Beside) -> dict[str, Tensor]:
    """The network after torch's own Adam went over the first task's batches, cross-entropy among the allowed classes."""
    net = {name: value.clone().requires_grad_() for name, value in run.start.items()}
    optimiser = adam([*net.values()])
    for rows in run.tasks[0]:
        logits = plain_features(net, rows.x) @ net["head.weight"] + net["head.bias"]
        loss = torch.nn.functional.cross_entropy(logits.masked_fill(~rows.allowed, -torch.inf), rows.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: value.detach() for name, value in net.items()}


def learned(learner: Any, stream: Any) -> Learned:
    """Learn a stream, and say what a loop needs."""
    run = beside(replace(learner, model=NET), stream)
    x, y = [], []
    for number, task in enumerate(run.finished):
        row = task.row[task.valid]
        t = torch.full_like(row, number)
        x, y = [*x, run.problem.x(row, t).flatten(1)], [*y, run.problem.y(row, t)]
    state = run.session.fleet.prepare(run.state, ())
    scores = run.session.fleet.answer(state, QUERY)[SEED]
    net = {"pixels": dict, "net": lambda: run.start, "first": lambda: first_task_net(run)}[learner.features]()
    seen = (lambda z: z) if learner.features == "pixels" else (lambda z: plain_features(net, z))
    return Learned(scores, seen(torch.cat(x)), torch.cat(y), seen(QUERY), run)
