"""MIR against a plain loop that takes the virtual step, and sorts a list of candidates."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lifelong.strategies.replay.mir import MIR
from tests.reference.plain_methods import Rows, detached, leaves, loss, places, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def slopes(params, rows):
    """Gradient of the mean loss of some rows, by name."""
    return dict(zip(params, torch.autograd.grad(loss(params, rows), list(params.values())), strict=True))


def stacked(rows):
    return Rows(*(torch.stack([row[i] for row in rows]) for i in range(3)))


def plain_mir(start, tasks, draws, *, size, candidates, rate, rows, scale=1.0, least=False, told=None):
    """The step: gradient of the new rows + that of the R candidates whose loss a step down the first would raise most.

    scale: of the second, least: the R smallest rises, for errors that are planted. told: how many were chosen of how many.
    """
    params = leaves(start)
    optimiser = adam(list(params.values()))
    memory, seen = [], 0
    for t, batches in enumerate(tasks):
        for batch, (drawn,) in zip(batches, draws[t], strict=True):
            gradient = slopes(params, batch)
            if memory:
                virtual = {name: (p - rate * gradient[name]).detach() for name, p in params.items()}
                at = places(drawn["place"], len(memory), candidates, False)
                offered = stacked([memory[k] for k in at])
                later, now = (row_losses(scores(detached(net), offered.x), offered) for net in (virtual, params))
                rise = dict(zip(at, (later - now).tolist(), strict=True))
                worst = sorted(at, key=lambda k: rise[k], reverse=not least)[:rows]
                if told is not None:
                    told[len(worst), len(at)] += 1
                again = slopes(params, stacked([memory[k] for k in worst]))
                gradient = {name: slope + scale * again[name] for name, slope in gradient.items()}
            for name, p in params.items():
                p.grad = gradient[name]
            optimiser.step()
            for b, ticket in enumerate(drawn["ticket"].tolist()):
                if batch.first[b]:
                    row, seen = (batch.x[b], batch.y[b], batch.allowed[b]), seen + 1
                    if len(memory) < size:
                        memory.append(row)
                    elif int(ticket * seen) < size:
                        memory[int(ticket * seen)] = row
    return detached(params)


CASES = [
    (MIR(40, candidates=15), "class"),
    (MIR(30, candidates=12, rate=0.5, rows=3), "task"),
    (MIR(20, candidates=9, rate=2.0, rows=4), "domain"),
    (MIR(4, candidates=50), "class"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_mir_is_its_plain_loop(strategy, setting):
    run = beside(strategy, stream_of(setting))

    def loop(**planted):
        words = {name: getattr(strategy, name) for name in ("size", "candidates", "rate")}
        return plain_mir(run.start, run.tasks, run.draws, **{**words, "rows": strategy.rows or 8, **planted})

    told = Counter()
    assert gap(run.net, loop(told=told)) < TOLERANCE
    assert gap(run.net, loop(scale=1.001)) > PLANTED
    assert gap(run.net, loop(size=strategy.size - 1)) > PLANTED
    if strategy.size > 4:
        assert sum(n for (chosen, of), n in told.items() if chosen < of) > 25  # there was something to choose
        assert gap(run.net, loop(least=True)) > PLANTED
        assert gap(run.net, loop(candidates=strategy.candidates - 1)) > PLANTED
        assert gap(run.net, loop(rate=-strategy.rate)) > PLANTED
    else:
        assert max(of for _, of in told) == 4  # all that are there


@pytest.mark.parametrize("rate, matters", [(2.0, True), (1e-9, False)])
def test_the_length_of_the_virtual_step_decides_where_it_is_long(rate, matters):
    """Short ones order the candidates by the product of two gradients, whatever their length."""
    strategy = MIR(20, candidates=12, rate=rate, rows=4)
    run = beside(strategy, stream_of("domain"))
    nearby = 1e-3 if matters else 1e-8
    other = plain_mir(run.start, run.tasks, run.draws, size=20, candidates=12, rate=nearby, rows=4)
    assert (gap(run.net, other) > PLANTED) == matters
