"""ERACE against a plain loop with a list for a memory."""

from __future__ import annotations

import pytest
import torch

from lifelong.strategies.replay.erace import ERACE
from tests.reference.plain_methods import Rows, descend, detached, leaves, places, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def plain_erace(start, tasks, draws, *, size, rows, replacement, scale=1.0, old_among="seen", new_among="batch"):
    """loss = mean CE(new, among the batch's classes) + mean CE(R drawn rows, among all classes seen so far).

    scale: of the old rows' share; old_among, new_among: who competes, "all" those of the setting, for errors that are planted.
    """
    params = leaves(start)
    optimiser = adam(list(params.values()))
    memory, count, seen = [], 0, set()
    classes = start["head.bias"].shape[0]
    for t, batches in enumerate(tasks):
        for batch, (drawn,) in zip(batches, draws[t], strict=True):
            present = set(batch.y.tolist())
            seen |= present
            among = torch.tensor([c in present for c in range(classes)])
            allowed = batch.allowed & among if new_among == "batch" else batch.allowed
            loss = row_losses(scores(params, batch.x), batch._replace(allowed=allowed)).mean()
            if memory:
                old = [memory[k] for k in places(drawn["place"], len(memory), rows, replacement)]
                again = Rows(*(torch.stack([row[i] for row in old]) for i in range(3)))
                if old_among == "seen":
                    among = torch.tensor([c in seen for c in range(classes)])
                    again = again._replace(allowed=again.allowed & among)
                loss = loss + scale * row_losses(scores(params, again.x), again).mean()
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
    (ERACE(20), "class", 8),
    (ERACE(20, rows=5, replacement=True), "class", 3),
    (ERACE(7, rows=9), "task", 3),
    (ERACE(20), "domain", 3),
]


@pytest.mark.parametrize("strategy, setting, batch", CASES, ids=str)
def test_erace_is_its_plain_loop(strategy, setting, batch):
    """Batches of 3 lack a class now and then, so that in each setting it matters who competes with new rows."""
    run = beside(strategy, stream_of(setting, batch=batch))

    def loop(**planted):
        words = {"size": strategy.size, "rows": strategy.rows or batch, "replacement": strategy.replacement, **planted}
        return plain_erace(run.start, run.tasks, run.draws, **words)

    assert gap(run.net, loop()) < TOLERANCE
    assert gap(run.net, loop(scale=1.001)) > PLANTED
    assert gap(run.net, loop(size=strategy.size - 1)) > PLANTED
    assert gap(run.net, loop(new_among="all")) > PLANTED
    assert setting != "class" or gap(run.net, loop(old_among="all")) > PLANTED
