"""GDumb against a plain fit of a fresh network on a list of rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.core.strategy import StrategyError
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.strategies.replay.gdumb import GDumb
from lifelong.strategies.replay.replay import Replay
from tests.reference.plain_methods import Rows, descend, detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, beside, gap, member, stream_of


def shares(count, size):
    """How many rows of each group stay: as many of each as can be, what is left for the first groups that have more."""
    level = max(height for height in range(size + 1) if sum(min(n, height) for n in count) <= size)
    kept = [min(n, level) for n in count]
    for g, n in enumerate(count):
        if n > level and sum(kept) < size:
            kept[g] += 1
    return kept


def balanced(tasks, draws, size, setting, classes):
    """The rows that stay, group after group, of each those with the smallest tickets."""
    came = {}
    for t, batches in enumerate(tasks):
        for batch, (drawn,) in zip(batches, draws[t], strict=True):
            for b, ticket in enumerate(drawn["ticket"].tolist()):
                if batch.first[b]:
                    group = int(batch.y[b]) + t * classes * (setting == "domain")
                    came.setdefault(group, []).append((ticket, batch.x[b], batch.y[b], batch.allowed[b]))
    groups = sorted(came)
    kept = shares([len(came[g]) for g in groups], size)
    return [row for g, n in zip(groups, kept, strict=True) for row in sorted(came[g], key=lambda row: row[0])[:n]]


def plain_fit(start, rows, orders, optimiser, *, size, batch, late=0, scale=1.0):
    """Epochs over the rows in the order of these numbers [epochs, M], with as many batches as M rows fill; planted: the
    first batch of an epoch left out, a factor of the loss."""
    params = leaves(start)
    steps = optimiser(list(params.values()))
    for numbers in orders:
        order = sorted(range(len(rows)), key=lambda place: float(numbers[place]))
        for step in range(late, -(-size // batch)):
            shown = [rows[order[i % len(rows)]][1:] for i in range(step * batch, (step + 1) * batch)]
            descend(steps, scale * loss(params, Rows(*(torch.stack(part) for part in zip(*shown, strict=True)))))
    return detached(params)


def momentum(leaves):
    return torch.optim.SGD(leaves, 0.05, momentum=0.9)


def sgd(leaves):
    return torch.optim.SGD(leaves, 0.1)


def adam(leaves):
    return torch.optim.Adam(leaves, 0.01)


CASES = [
    (GDumb(20, epochs=3, batch=8, descent=SGD(0.1)), "class", sgd),
    (GDumb(300, epochs=1, batch=16, descent=SGD(0.1)), "class", sgd),
    (GDumb(25, epochs=2, batch=4, descent=SGD(0.05, momentum=0.9)), "task", momentum),
    (GDumb(23, epochs=2, batch=5, descent=Adam(0.01)), "domain", adam),
]


@pytest.mark.parametrize(
    "strategy, setting, optimiser", CASES, ids=lambda value: getattr(value, "__name__", None) or str(value)
)
def test_gdumb_is_a_plain_fit(strategy, setting, optimiser):
    """300 rows are more than come, so that a batch begins again from the first row."""
    run = beside(strategy, stream_of(setting))
    assert gap(run.net, run.start) == 0.0
    (luck,) = member(run.session.sampler.prepared(2, 0))
    ready = run.session.fleet.prepare(run.state, run.session.sampler.prepared(2, 0))
    ours = member(ready.memory[0]["fitted"])
    rows = balanced(run.tasks, run.draws, strategy.size, setting, run.problem.classes)

    def loop(**planted):
        words = {"size": strategy.size, "batch": strategy.batch, **planted}
        return plain_fit(run.start, rows, luck["order"], optimiser, **words)

    theirs = loop()
    assert gap(ours, theirs) < TOLERANCE
    assert gap(ours, loop(late=1)) > PLANTED
    assert optimiser is adam or gap(ours, loop(scale=1.001)) > PLANTED
    assert gap(ours, loop(batch=strategy.batch + 1)) > PLANTED
    rows[0], rows[-1] = rows[-1], rows[0]
    assert gap(ours, loop()) > PLANTED


def test_answers_are_the_fitted_networks():
    strategy = GDumb(20, epochs=1)
    run = beside(strategy, stream_of("class"))
    x = run.tasks[0][0].x
    fitted = {name: value + 1 for name, value in run.net.items()}
    ours = strategy.predict(run.problem, {"net": run.net}, {"fitted": fitted}, x, torch.full((8,), -1))
    assert torch.equal(ours, run.problem.logits({"net": fitted}, x))


def test_what_cannot_be_is_refused():
    for name in ("size", "epochs", "batch"):
        with pytest.raises(StrategyError):
            replace(GDumb(), **{name: 0})


def test_a_sum_is_refused_since_the_other_part_would_go_unheard():
    for total in (lambda: GDumb() + Replay(20), lambda: EWC(1.0) + GDumb()):
        with pytest.raises(StrategyError, match="unheard"):
            total()
