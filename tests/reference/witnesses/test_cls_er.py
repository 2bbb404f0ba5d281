"""CLS-ER against a plain loop with a list for a memory and two plain copies of the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lifelong.core.strategy import StrategyError
from lifelong.strategies.replay.cls_er import CLSER
from tests.reference.plain_methods import Rows, descend, detached, leaves, loss, places, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of

RATES = ("strength", "plastic_chance", "stable_chance", "plastic_decay", "stable_decay")


def plain_cls_er(start, tasks, draws, *, size, rows, replacement, worse=False, late=0, **rates):
    """Arani et al. (2022), algorithm 1, with a reservoir that is offered every row that is shown. Planted: worse takes the
    copy that is less sure, late is added to the number of steps."""
    params = leaves(start)
    optimiser = adam(list(params.values()))
    copies = {"plastic": detached(params), "stable": detached(params)}
    memory, seen, steps = [], 0, late
    for batches, luck in zip(tasks, draws, strict=True):
        for batch, (drawn,) in zip(batches, luck, strict=True):
            value = loss(params, batch)
            if memory:
                old = [memory[k] for k in places(drawn["place"], len(memory), rows, replacement)]
                again = Rows(*(torch.stack([row[i] for row in old]) for i in range(3)))
                logits, both = scores(params, again.x), [*row_losses(scores(params, batch.x), batch)]
                value = torch.stack([*both, *row_losses(logits, again)]).mean()
                squares = []
                for b, label in enumerate(again.y.tolist()):
                    among = again.allowed[b]
                    found = {name: scores(copy, again.x[b : b + 1])[0] for name, copy in copies.items()}
                    p = {
                        name: F.softmax(z.masked_fill(~among, -torch.inf), 0)[label].item() for name, z in found.items()
                    }
                    better = "stable" if (p["stable"] > p["plastic"]) != worse else "plastic"
                    squares.append((logits[b][among] - found[better][among]).square().mean())
                value = value + rates["strength"] * torch.stack(squares).mean()
            descend(optimiser, value)
            for b, ticket in enumerate(drawn.get("ticket", torch.zeros(0)).tolist()):
                row, seen = (batch.x[b], batch.y[b], batch.allowed[b]), seen + 1
                if len(memory) < size:
                    memory.append(row)
                elif int(ticket * seen) < size:
                    memory[int(ticket * seen)] = row
            steps += 1
            for name, copy in copies.items():
                if float(drawn[name]) < rates[f"{name}_chance"]:
                    a = min(1 - 1 / (steps + 1), rates[f"{name}_decay"])
                    copies[name] = {key: a * slow + (1 - a) * params[key].detach() for key, slow in copy.items()}
    return {"net": detached(params), **copies}


CASES = [
    (CLSER(20, 0.7, plastic_chance=0.9, stable_chance=0.7, plastic_decay=0.8, stable_decay=0.95), "class"),
    (
        CLSER(20, strength=0.4, rows=5, replacement=True, stable_chance=0.2, plastic_decay=0.85, stable_decay=0.9),
        "task",
    ),
    (CLSER(4, strength=0.6, rows=9, plastic_chance=0.8, plastic_decay=0.7, stable_decay=0.9), "domain"),
    (CLSER(0, plastic_decay=0.8, stable_decay=0.9), "class"),
]


def furthest(ours, theirs):
    return max(gap(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_cls_er_is_its_plain_loop(strategy, setting):
    run = beside(strategy, stream_of(setting))

    def loop(strategy=strategy, **planted):
        rates = {name: getattr(strategy, name) for name in RATES}
        words = {"size": strategy.size, "rows": strategy.rows or 8, "replacement": strategy.replacement}
        return plain_cls_er(run.start, run.tasks, run.draws, **{**words, **rates, **planted})

    ours = {"net": run.net, "plastic": run.memory[0]["plastic"], "stable": run.memory[0]["stable"]}
    assert furthest(ours, loop()) < TOLERANCE
    # a chance of a thousandth more may let the same draws through
    factors = {"strength": 1.001, "plastic_decay": 0.999, "stable_decay": 0.999}
    factors |= {"plastic_chance": 0.5, "stable_chance": 0.5}
    for name in factors if strategy.size else list(factors)[1:]:
        wrong = replace(strategy, **{name: getattr(strategy, name) * factors[name]})
        assert furthest(ours, loop(wrong)) > PLANTED, name
    assert furthest(ours, loop(late=1)) > PLANTED
    if strategy.size:
        assert furthest(ours, loop(worse=True)) > PLANTED
        assert furthest(ours, loop(size=strategy.size - 1)) > PLANTED
    x = run.tasks[0][0].x
    answers = run.scores(x, torch.full((len(x),), -1))
    assert float((answers - scores(ours["stable"], x)).abs().max()) < TOLERANCE
    assert float((answers - scores(ours["plastic"], x)).abs().max()) > PLANTED


def test_what_cannot_be_is_refused():
    for fields in ({"size": -1}, {"strength": -1.0}, {"stable_chance": 1.1}, {"plastic_decay": -0.1}):
        with pytest.raises(StrategyError):
            CLSER(**fields)
