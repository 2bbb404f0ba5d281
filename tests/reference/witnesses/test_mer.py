"""MER against a plain loop: one row after another, two interpolations, a reservoir of Python's lists, float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.strategies.lookahead.mer import MER
from lifelong.strategies.regularisation.l2sp import L2SP
from tests.reference.plain_methods import Rows, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, beside, gap, stream_of
from tests.reference.witnesses.test_lamaml import kept_after


def loop(ours, strategy, old_first=False):
    """Algorithm 1: batches of the current rows and R of the memory, a step of gradient descent for each row of those."""
    net = {name: value.clone() for name, value in ours.start.items()}
    memory, age = [], 0
    for t, (steps, numbers) in enumerate(zip(ours.tasks, ours.draws, strict=True)):
        for rows, (drawn,) in zip(steps, numbers, strict=True):
            first = dict(net)
            for uniforms in drawn["place"].tolist():
                before = dict(net)
                sequence = [Rows(*rows[:3])]
                for u in uniforms if memory else ():
                    x, y, allowed, _ = memory[int(u * len(memory))]
                    sequence.append(Rows(x[None], y[None], allowed[None]))
                for each in reversed(sequence) if old_first else sequence:
                    leaves = {name: value.requires_grad_() for name, value in net.items()}
                    slopes = torch.autograd.grad(row_losses(scores(leaves, each.x), each).mean(), list(leaves.values()))
                    moves = zip(leaves.items(), slopes, strict=True)
                    net = {name: value.detach() - strategy.rate * slope for (name, value), slope in moves}
                net = {
                    name: before[name].detach() + strategy.beta * (net[name] - before[name].detach()) for name in net
                }
            net = {name: first[name].detach() + strategy.gamma * (net[name] - first[name].detach()) for name in net}
            age = kept_after(memory, age, rows, drawn["ticket"].tolist(), t, strategy.size)
    return net


CASES = [
    (MER(0.1, beta=0.5, gamma=0.7, size=20, rows=3, batches=2), "class", 4),
    (MER(0.1, beta=0.3, gamma=1.0, size=9, rows=5), "task", 1),
    (MER(0.2, beta=1.0, gamma=0.4, size=15, rows=2, batches=3), "domain", 5),
]


@pytest.mark.parametrize("strategy, setting, batch", CASES, ids=str)
def test_it_is_its_plain_loop(strategy, setting, batch):
    ours = beside(strategy, stream_of(setting, iterations=6, batch=batch)[:2])
    assert gap(ours.net, loop(ours, strategy)) < TOLERANCE
    for name in ("rate", "beta", "gamma"):
        wrong = replace(strategy, **{name: getattr(strategy, name) * 1.001})
        assert gap(ours.net, loop(ours, wrong)) > PLANTED, name
    assert gap(ours.net, loop(ours, strategy, old_first=True)) > PLANTED
    assert gap(ours.net, loop(ours, replace(strategy, size=strategy.size - 1))) > PLANTED


def test_gradients_of_other_parts_are_followed_once():
    """In the first step of all a decay of the head goes `rate` times its gradient further than MER alone."""
    strategy, stream = MER(0.1, beta=0.5, size=20, rows=3), stream_of(iterations=1)[:1]
    alone, both = (beside(each, stream) for each in (strategy, L2SP(decay=0.3) + strategy))
    pull = {name: 0.3 * value if name.startswith("head.") else 0 * value for name, value in alone.start.items()}
    assert gap(both.net, {name: value - 0.1 * pull[name] for name, value in alone.net.items()}) < TOLERANCE
    assert gap(both.net, {name: value - 0.1001 * pull[name] for name, value in alone.net.items()}) > PLANTED
