"""WA against a plain float64 loop."""

from __future__ import annotations

import pytest
import torch

from lifelong.strategies.replay.wa import WA
from tests.reference.plain_methods import Rows, descend, detached, joined, leaves, places, row_losses, scores
from tests.reference.test_methods_a import kept_rows
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def wa(start, tasks, optimiser, draws, memory, *, rows, replacement, temperature, share=1.0, gamma=1.0, again=False):
    """memory[t]: what is kept while task t is learned. share, gamma: errors planted; again: the teacher unaligned."""
    params, teacher, seen = leaves(start), None, set()
    steps = optimiser(list(params.values()))
    for t, batches in enumerate(tasks):
        new = {c for batch in batches for c in batch.y.tolist()} - seen
        old = sorted(seen)
        for i, batch in enumerate(batches):
            together = Rows(*batch[:3])
            if memory[t] is not None:
                kept = memory[t]
                chosen = places(draws[t][i]["place"], len(kept.y), rows, replacement)
                together = joined(batch, Rows(*(part[chosen] for part in kept[:3])))
            logits = scores(params, together.x)
            total = row_losses(logits, together).mean()
            if teacher is not None:
                target = torch.softmax(scores(teacher, together.x)[:, old] / temperature, 1)
                distilled = -(target * torch.log_softmax(logits[:, old] / temperature, 1)).sum(1).mean()
                weight = share * len(old) / (len(old) + len(new))
                total = (1 - weight) * total + weight * distilled
            descend(steps, total)
        before = detached(params)
        if old:
            length = params["head.weight"].detach().norm(dim=0)
            factor = gamma * length[old].mean() / length[sorted(new)].mean()
            params["head.weight"].data[:, sorted(new)] *= factor
        teacher = before if again else detached(params)
        seen |= new
    return detached(params)


@pytest.mark.parametrize("strategy", [
    WA(5, rows=7), WA(3), WA(4, rows=50, temperature=1.3), WA(5, 6, False, 3.0),
], ids=str)  # fmt: skip
def test_wa_is_its_plain_loop(strategy):
    run = beside(strategy, stream_of("class"))
    memory, filled = kept_rows(run.session, strategy)
    draws = [[{"place": step[0]["place"]} for step in steps] for steps in run.draws]
    if not strategy.replacement:  # a number for each place of ours, of which the loop has those that are filled
        draws = [[{"place": s["place"][here]} for s in steps] for steps, here in zip(draws, filled, strict=True)]
    words = {"rows": strategy.rows or 8, "replacement": strategy.replacement, "temperature": strategy.temperature}
    given = run.start, run.tasks, adam, draws, memory
    assert gap(run.net, wa(*given, **words)) < TOLERANCE
    wrongs = ({"temperature": strategy.temperature * 1.001}, {"share": 1.001}, {"gamma": 1.001}, {"again": True})
    for wrong in wrongs:
        assert gap(run.net, wa(*given, **{**words, **wrong})) > PLANTED, wrong


def test_new_weights_are_as_long_as_old_ones():
    run = beside(WA(5), stream_of("class"))
    length = run.net["head.weight"].norm(dim=0)
    last = run.problem.index["classes_of"][2]
    assert abs(float(length[last].mean() - length[~last].mean())) < 1e-12
