"""Replay and ClassReplay against a plain loop with a list for a memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
import torch

from lifelong.core.strategy import StrategyError
from lifelong.strategies.replay.replay import ClassReplay, Replay
from tests.reference.plain_methods import Rows, descend, detached, leaves, places, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def plain_replay(start, tasks, draws, chosen, *, size, rows, replacement, weighting, scale=1.0, late=0):
    """loss = (1/k) mean L(new) + (1 - 1/k) mean L(R drawn rows), or by another share; all of it on the new rows while there
    are none.

    A reservoir by Vitter's rule, with the tickets; or, where chosen is given, what is chosen of each task at its end.
    scale: of the new rows' share, late: of the count of tasks, for errors that are planted.
    """
    params = leaves(start)
    optimiser = adam(list(params.values()))
    memory, seen = [], 0
    for t, batches in enumerate(tasks):
        for batch, (drawn,) in zip(batches, draws[t], strict=True):
            loss = row_losses(scores(params, batch.x), batch).mean()
            if memory:
                old = [memory[k] for k in places(drawn["place"], len(memory), rows, replacement)]
                named: dict[Any, float] = {
                    "tasks": 1 / (t + 1 + late),
                    "equal": 0.5,
                    "rows": len(batch.y) / (len(batch.y) + len(old)),
                }
                share = named.setdefault(weighting, weighting) * scale
                again = Rows(*(torch.stack([row[i] for row in old]) for i in range(3)))
                loss = share * loss + (1 - share) * row_losses(scores(params, again.x), again).mean()
            descend(optimiser, loss)
            if chosen is not None:
                continue
            for b, ticket in enumerate(drawn["ticket"].tolist()):
                if batch.first[b]:
                    row, seen = (batch.x[b], batch.y[b], batch.allowed[b]), seen + 1
                    if len(memory) < size:
                        memory.append(row)
                    elif int(ticket * seen) < size:
                        memory[int(ticket * seen)] = row
        if chosen is not None:
            memory = chosen(t)
    return detached(params)


def chosen_of(run, each):
    """Of each group of the tasks so far the rows with the smallest tickets, group after group."""

    def chosen(t):
        held = defaultdict(list)
        for number in range(t + 1):
            task = run.finished[number]
            for row, ticket, valid in zip(task.row, task.draws[0]["ticket"], task.valid, strict=True):
                batch = run.problem.batch_of_rows(row[None], torch.tensor([number]), torch.ones(1))
                group = int(batch.y) + number * run.problem.classes * (run.problem.setting == "domain")
                if valid:
                    held[group].append((float(ticket.to(torch.float32)), batch.x[0], batch.y[0], batch.allowed[0]))
        kept = (sorted(held[g], key=lambda row: row[0])[:each] for g in sorted(held))
        return [row[1:] for group in kept for row in group]

    return chosen


CASES = [
    (Replay(20), "class"),
    (Replay(20, rows=5, replacement=False, weighting="equal"), "task"),
    (Replay(4, rows=9), "domain"),
    (Replay(20, rows=5, weighting="rows"), "class"),
    (Replay(6, rows=9, replacement=False, weighting="rows"), "task"),
    (Replay(20, weighting=0.3), "domain"),
    (ClassReplay(3), "class"),
    (ClassReplay(5, rows=4, replacement=False), "domain"),
    (ClassReplay(3, weighting="equal"), "task"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_replay_is_its_plain_loop(strategy, setting):
    run = beside(strategy, stream_of(setting))
    chosen = chosen_of(run, strategy.per_class) if isinstance(strategy, ClassReplay) else None

    def loop(strategy=strategy, **planted):
        return plain_replay(
            run.start, run.tasks, run.draws, chosen, size=strategy.size, rows=strategy.rows or 8,
            replacement=strategy.replacement, weighting=strategy.weighting, **planted,
        )  # fmt: skip

    assert gap(run.net, loop()) < TOLERANCE
    assert gap(run.net, loop(scale=1.001)) > PLANTED
    assert strategy.weighting != "tasks" or gap(run.net, loop(late=1)) > PLANTED
    if chosen is None:
        assert gap(run.net, loop(replace(strategy, size=strategy.size - 1))) > PLANTED


def test_rows_that_count_alike_make_one_batch():
    """The mean over new and old rows together: with as many old ones as new it is halves."""
    rows, equal = (beside(Replay(20, weighting=w), stream_of()) for w in ("rows", "equal"))
    assert gap(rows.net, equal.net) < TOLERANCE


@pytest.mark.parametrize("weighting", ["task", 0.0, 1.0])
def test_a_weighting_that_is_none_is_refused(weighting):
    with pytest.raises(StrategyError, match="weighting is one of tasks, equal, rows"):
        Replay(weighting=weighting)
