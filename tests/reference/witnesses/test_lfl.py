"""LFL against a plain float64 loop, written from Jung et al. (2016)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.strategies.distillation.lfl import LFL
from tests.reference.plain_methods import descend, detached, features, leaves, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def lfl(start, tasks, classes, strength, fixed_head=True, whole_head=False):
    """classes: of each task; whole_head: the head is fixed for new classes, too."""
    params = leaves(start)
    steps = adam(list(params.values()))
    old, seen = None, []
    for batches, brought in zip(tasks, classes, strict=True):
        for rows in batches:
            total = row_losses(scores(params, rows.x), rows).mean()
            if old is not None:
                moved = features(params, rows.x) - features(old, rows.x)
                total = total + strength * (moved**2).sum() / 2 / len(rows.y)
            before = detached(params)
            descend(steps, total)
            if fixed_head and old is not None:
                fixed = slice(None) if whole_head else seen
                with torch.no_grad():
                    for name in ("head.weight", "head.bias"):
                        params[name][..., fixed] = before[name][..., fixed]
        old, seen = detached(params), sorted({*seen, *brought})
    return detached(params)


CASES = {"domain": [[0, 1]] * 3, "task": [[0, 1], [2, 3], [4, 5]], "class": [[0, 1], [2, 3], [4, 5]]}


@pytest.mark.parametrize("strategy", [LFL(0.3), LFL(0.3, fixed_head=False)], ids=repr)
@pytest.mark.parametrize("setting", CASES)
def test_lfl_is_its_plain_loop(setting, strategy):
    ours = beside(strategy, stream_of(setting))

    def plain(strategy, **planted):
        words = {"strength": strategy.strength, "fixed_head": strategy.fixed_head, **planted}
        return lfl(ours.start, ours.tasks, CASES[setting], **words)

    assert gap(ours.net, plain(strategy)) < TOLERANCE
    assert gap(ours.net, plain(replace(strategy, strength=0.3 * 1.001))) > PLANTED
    assert gap(ours.net, plain(replace(strategy, fixed_head=not strategy.fixed_head))) > PLANTED
    if setting != "domain" and strategy.fixed_head:
        assert gap(ours.net, plain(strategy, whole_head=True)) > PLANTED
