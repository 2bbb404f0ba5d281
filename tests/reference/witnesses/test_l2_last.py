"""L2Last against a plain float64 loop: strength / 2 |p - p_last|^2 from the second task on."""

from __future__ import annotations

import pytest

from lifelong.strategies.regularisation.l2_last import L2Last
from tests.reference.plain_methods import descend, detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def l2_last(start, tasks, strength, at_once=False, stays=False):
    """at_once: the start counts as a task's end; stays: the first centre is kept."""
    params = leaves(start)
    steps = adam(list(params.values()))
    centre = detached(params) if at_once else None
    for batches in tasks:
        for rows in batches:
            total = loss(params, rows)
            if centre is not None:
                total = total + strength / 2 * sum(((params[name] - centre[name]) ** 2).sum() for name in params)
            descend(steps, total)
        if centre is None or not stays:
            centre = detached(params)
    return detached(params)


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_l2_last_is_its_plain_loop(setting):
    ours = beside(L2Last(0.3), stream_of(setting))
    assert gap(ours.net, l2_last(ours.start, ours.tasks, 0.3)) < TOLERANCE
    assert gap(ours.net, l2_last(ours.start, ours.tasks, 0.3 * 1.001)) > PLANTED
    assert gap(ours.net, l2_last(ours.start, ours.tasks, 0.3, at_once=True)) > PLANTED
    assert gap(ours.net, l2_last(ours.start, ours.tasks, 0.3, stays=True)) > PLANTED
