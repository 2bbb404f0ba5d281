"""FDR against a plain loop with a dictionary of lists for a memory."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from lifelong.strategies.replay.fdr import FDR
from tests.reference.plain_methods import Rows, descend, detached, leaves, places, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def answers(params, x, allowed):
    """Probabilities over the allowed classes, 0 for the others."""
    odds = torch.where(allowed, scores(params, x).exp(), 0)
    return odds / odds.sum(1, keepdim=True)


def plain_fdr(start, tasks, draws, finished, *, rows, replacement, alpha, squared=False, late=0):
    """loss = mean L(new) + alpha x mean |p - p'| over R drawn rows.

    finished: for each task the rows that are kept of each group. squared: the distances; late: p' that many tasks later:
    errors that are planted.
    """
    params = leaves(start)
    optimiser = adam(list(params.values()))
    kept, waiting = defaultdict(list), []
    for t, batches in enumerate(tasks):
        for batch, (drawn,) in zip(batches, draws[t], strict=True):
            loss = row_losses(scores(params, batch.x), batch).mean()
            memory = [row for group in sorted(kept) for row in kept[group]]
            if memory:
                old = [memory[k] for k in places(drawn["place"], len(memory), rows, replacement)]
                x, allowed, before = (torch.stack([row[i] for row in old]) for i in range(3))
                square = ((answers(params, x, allowed) - before) ** 2).sum(1)
                distance = square if squared else torch.stack([s.sqrt() if s > 1e-10 else 0 * s for s in square])
                loss = loss + alpha * distance.mean()
            descend(optimiser, loss)
        waiting.append(finished[t])
        if len(waiting) > late:
            for group, x, allowed in waiting.pop(0):
                kept[group] = list(zip(x, allowed, answers(detached(params), x, allowed), strict=True))
    return detached(params)


def kept_of(run, each):
    """For each task its groups, and of each the rows with the smallest tickets: [(group, x, allowed)]."""
    tasks = []
    for number, task in enumerate(run.finished):
        task_number = torch.full_like(task.row, number)
        rows: Rows = run.problem.batch_of_rows(task.row, task_number, torch.ones(len(task.row)))
        group = rows.y + number * run.problem.classes * (run.problem.setting == "domain")
        ticket = task.draws[0]["ticket"].to(torch.float32)
        found = []
        for g in sorted(set(group[task.valid].tolist())):
            mine = [k for k in range(len(group)) if task.valid[k] and int(group[k]) == g]
            mine = sorted(mine, key=lambda k: float(ticket[k]))[:each]
            found.append((g, rows.x[mine], rows.allowed[mine]))
        tasks.append(found)
    return tasks


CASES = [
    (FDR(3), "class"),
    (FDR(5, alpha=3.0, rows=4), "domain"),
    (FDR(3, alpha=0.7, replacement=True), "task"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_fdr_is_its_plain_loop(strategy, setting):
    run = beside(strategy, stream_of(setting))

    def loop(each=strategy.per_class, **planted):
        words = {"rows": strategy.rows or 8, "replacement": strategy.replacement, "alpha": strategy.alpha, **planted}
        return plain_fdr(run.start, run.tasks, run.draws, kept_of(run, each), **words)

    assert gap(run.net, loop()) < TOLERANCE
    assert gap(run.net, loop(alpha=strategy.alpha * 1.001)) > PLANTED
    assert gap(run.net, loop(each=strategy.per_class - 1)) > PLANTED
    assert gap(run.net, loop(squared=True)) > PLANTED
    assert gap(run.net, loop(late=1)) > PLANTED
