"""L2Init against a plain float64 loop, written from Kumar et al. (2023)."""

from __future__ import annotations

import pytest

from lifelong.strategies.plasticity.l2_init import L2Init
from tests.reference.plain_methods import descend, detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def l2_init(start, tasks, strength, trunk=False):
    """trunk: a planted error, the head goes free."""
    params = leaves(start)
    steps = adam(list(params.values()))
    for batches in tasks:
        for rows in batches:
            held = [name for name in params if not (trunk and name.startswith("head."))]
            descend(steps, loss(params, rows) + strength * sum(((params[n] - start[n]) ** 2).sum() for n in held))
    return detached(params)


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_l2_init_is_its_plain_loop(setting):
    ours = beside(L2Init(0.02), stream_of(setting))
    assert gap(ours.net, l2_init(ours.start, ours.tasks, 0.02)) < TOLERANCE
    assert gap(ours.net, l2_init(ours.start, ours.tasks, 0.02 * 1.001)) > PLANTED
    assert gap(ours.net, l2_init(ours.start, ours.tasks, 0.02, trunk=True)) > PLANTED
