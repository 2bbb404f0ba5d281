"""ERAML against a plain loop with lists."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lifelong.strategies.replay.eraml import ERAML
from tests.reference.plain_methods import Rows, descend, detached, features, leaves, places, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def contrast(params, batch, memory, drawn, temperature, itself):
    """Mean over new rows of the supervised contrastive loss; 0 where none has both a row of its class and one of another.

    Rows to choose from are listed by class, then by age. itself: a row may be its own positive, an error that is planted.
    """
    pool = memory + [(batch.x[b], batch.y[b]) for b in range(len(batch.y))]
    classes = sorted(set(batch.y.tolist()))
    order = [k for c in classes for k, row in enumerate(pool) if int(row[1]) == c]
    anchors, alike, other = [], [], []
    for b, label in enumerate(batch.y.tolist()):
        same = [k for k in order if int(pool[k][1]) == label and (itself or k != len(memory) + b)]
        rest = [k for k in order if int(pool[k][1]) != label]
        if same and rest:
            anchors.append(b)
            alike.append(pool[same[int(drawn["alike"][b] * len(same))]])
            other.append(pool[rest[int(drawn["other"][b] * len(rest))]])
    if not anchors:
        return torch.zeros(())
    against = alike + other
    f = F.normalize(features(params, batch.x[anchors]))
    g = F.normalize(features(params, torch.stack([row[0] for row in against])))
    total = 0.0
    for i, b in enumerate(anchors):
        p = torch.softmax(g @ f[i] / temperature, 0)
        positives = [k for k, row in enumerate(against) if row[1] == batch.y[b]]
        total = total - p[positives].log().mean()
    return total / len(anchors)


def plain_eraml(start, tasks, draws, *, size, rows, replacement, temperature, scale=1.0, itself=False):
    """loss = contrast of new rows + mean CE(R drawn rows); CE of the new ones while there is nothing to draw.

    scale: of the contrast, for an error that is planted.
    """
    params = leaves(start)
    optimiser = adam(list(params.values()))
    memory, count = [], 0
    for t, batches in enumerate(tasks):
        for batch, (drawn,) in zip(batches, draws[t], strict=True):
            if memory:
                old = [memory[k] for k in places(drawn["place"], len(memory), rows, replacement)]
                again = Rows(*(torch.stack([row[i] for row in old]) for i in range(3)))
                loss = scale * contrast(params, batch, [row[:2] for row in memory], drawn, temperature, itself)
                loss = loss + row_losses(scores(params, again.x), again).mean()
            else:
                loss = row_losses(scores(params, batch.x), batch).mean()
            descend(optimiser, loss)
            for b, ticket in enumerate(drawn["ticket"].tolist()):
                if batch.first[b]:
                    row, count = (batch.x[b], batch.y[b], batch.allowed[b]), count + 1
                    if len(memory) < size:
                        memory.append(row)
                    elif int(ticket * count) < size:
                        memory[int(ticket * count)] = row
    return detached(params)


CASES = [
    (ERAML(20), "class", 8),
    (ERAML(9, temperature=0.5, rows=5, replacement=True), "class", 3),
    (ERAML(7, rows=9), "task", 3),
    (ERAML(20, temperature=0.3), "domain", 8),
]


@pytest.mark.parametrize("strategy, setting, batch", CASES, ids=str)
def test_eraml_is_its_plain_loop(strategy, setting, batch):
    """Some batches of 3 have one class alone, and no negatives."""
    run = beside(strategy, stream_of(setting, iterations=8, batch=batch))

    def loop(**planted):
        words = {name: getattr(strategy, name) for name in ("size", "temperature", "replacement")}
        return plain_eraml(run.start, run.tasks, run.draws, **{**words, "rows": strategy.rows or batch, **planted})

    assert gap(run.net, loop()) < TOLERANCE
    assert gap(run.net, loop(scale=1.001)) > PLANTED
    assert gap(run.net, loop(temperature=strategy.temperature * 1.001)) > PLANTED
    assert gap(run.net, loop(size=strategy.size - 1)) > PLANTED
    assert gap(run.net, loop(itself=True)) > PLANTED
