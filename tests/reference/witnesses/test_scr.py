"""Supervised contrastive replay against a plain loop over pairs of views."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.core.strategy import StrategyError
from lifelong.strategies.replay.scr import SupervisedContrastiveReplay
from tests.reference.plain_methods import descend, detached, features, leaves, places
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, member, stream_of
from tests.reference.witnesses.plain_exemplars import length_one, nearest

NETS = ("layer0.weight", "layer0.bias", "head.weight", "head.bias")


def contrast(z, y, temperature, inside=False):
    """Khosla et al. (2020), eq. 2, anchor by anchor; planted: inside, the anchor is among those it is told from."""
    total, everyone = 0, torch.arange(len(z))
    for i in range(len(z)):
        alike = torch.exp(z @ z[i] / temperature)
        below = alike.sum() if inside else alike[everyone != i].sum()
        positives = alike[(y == y[i]) & (everyone != i)]
        total = total - torch.log(positives / below).mean()
    return total / len(z)


def plain_scr(start, projection, tasks, draws, *, size, rows, replacement, temperature, erased, **planted):
    """Rows of the stream and of a reservoir, each as it is and with some inputs erased; also the rows that are kept."""
    params = leaves({**start, **projection})
    optimiser = adam(list(params.values()))
    memory, seen = [], 0
    for batches, luck in zip(tasks, draws, strict=True):
        for batch, (drawn,) in zip(batches, luck, strict=True):
            old = [memory[k] for k in places(drawn["place"], len(memory), rows, replacement)] if memory else []
            x = torch.stack([*batch.x, *(row for row, _ in old)])
            y = torch.tensor([*batch.y.tolist(), *(label for _, label in old)])
            views = torch.cat([x, x * (drawn["erased"][: len(x)] >= erased)])
            hidden = torch.relu(features(params, views) @ params["inner.weight"] + params["inner.bias"])
            z = length_one(hidden @ params["outer.weight"] + params["outer.bias"])
            descend(optimiser, contrast(z, y.repeat(2), temperature, **planted))
            for b, ticket in enumerate(drawn["ticket"].tolist()):
                if batch.first[b]:
                    row, seen = (batch.x[b], int(batch.y[b])), seen + 1
                    if len(memory) < size:
                        memory.append(row)
                    elif int(ticket * seen) < size:
                        memory[int(ticket * seen)] = row
    return detached(params), memory


CASES = [
    (SupervisedContrastiveReplay(20, temperature=0.3, width=5), "class"),
    (SupervisedContrastiveReplay(20, erased=0.2, width=7, rows=5, replacement=True), "task"),
    (SupervisedContrastiveReplay(24, temperature=0.5, rows=10, width=4), "domain"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_scr_is_its_plain_loop(strategy, setting):
    """Memories fill up within a batch or two, and none is drawn from before it holds as many as are drawn but the first."""
    run = beside(strategy, stream_of(setting, iterations=6))
    first = member(run.session.first_state()).params["own"]["SupervisedContrastiveReplay/0"]
    ours = {**run.net, **run.own_params["SupervisedContrastiveReplay/0"]}

    def loop(strategy=strategy, **planted):
        words = {name: getattr(strategy, name) for name in ("size", "replacement", "temperature", "erased")}
        words["rows"] = strategy.rows or 8
        return plain_scr(run.start, first, run.tasks, run.draws, **{**words, **planted})

    theirs, kept = loop()
    assert gap(ours, theirs) < TOLERANCE
    assert gap(ours, loop(replace(strategy, temperature=strategy.temperature * 1.001))[0]) > PLANTED
    # a thousandth may erase the same inputs
    assert gap(ours, loop(replace(strategy, erased=strategy.erased * 0.9))[0]) > PLANTED
    assert gap(ours, loop(size=strategy.size - 1)[0]) > PLANTED
    assert gap(ours, loop(inside=True)[0]) > PLANTED
    x = run.tasks[0][0].x
    ready = run.session.fleet.prepare(run.state, run.session.sampler.prepared(2, 0))
    prepared = {name: value[1] for name, value in ready.memory[0].items() if name in ("means", "there")}
    answers = strategy.predict(run.problem, {"net": run.net}, prepared, x, torch.full((len(x),), -1))
    exemplars = {label: [row for row in kept if row[1] == label] for label in {label for _, label in kept}}
    plain = {name: ours[name] for name in NETS}
    difference = answers - nearest(plain, exemplars, x, run.problem.classes)
    assert float(difference.nan_to_num().abs().max()) < TOLERANCE
    less = {label: rows[1:] or rows for label, rows in exemplars.items()}
    assert float((answers - nearest(plain, less, x, run.problem.classes)).nan_to_num().abs().max()) > PLANTED


def test_what_cannot_be_is_refused():
    for fields in ({"size": 0}, {"temperature": 0.0}, {"erased": 1.5}, {"width": 0}):
        with pytest.raises(StrategyError):
            SupervisedContrastiveReplay(**fields)
