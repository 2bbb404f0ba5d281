"""RWalk against a plain float64 loop, written from Chaudhry et al. (2018)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.strategies.regularisation.rwalk import RWalk
from tests.reference.plain_methods import detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def unit(values):
    flat = torch.cat([value.flatten() for value in values.values()])
    return {name: (value - flat.min()) / (flat.max() - flat.min()) for name, value in values.items()}


def rwalk(start, tasks, strength, share, interval, damping, signed=False, half=0.5):
    """signed: the score of an interval may be negative, which the paper does not want."""
    params = leaves(start)
    steps = adam(list(params.values()))
    fisher = {name: torch.zeros_like(value) for name, value in start.items()}
    score = importance = centre = None
    for batches in tasks:
        task_score = {name: torch.zeros_like(value) for name, value in start.items()}
        gathered, begun = [], detached(params)
        for i, rows in enumerate(batches):
            data = loss(params, rows)
            gradients = dict(zip(params, torch.autograd.grad(data, list(params.values())), strict=True))
            before = detached(params)
            total = loss(params, rows)
            if importance is not None:
                total = total + strength * sum((importance[n] * (params[n] - centre[n]) ** 2).sum() for n in params)
            steps.zero_grad()
            total.backward()
            steps.step()
            now = detached(params)
            gathered.append((gradients, {n: now[n] - before[n] for n in now}))
            if len(gathered) == interval or i == len(batches) - 1:
                for n in now:
                    gain = sum(-g[n] * moved[n] for g, moved in gathered)
                    gain = gain if signed else torch.clamp(gain, min=0)
                    task_score[n] += gain / (half * fisher[n] * (now[n] - begun[n]) ** 2 + damping)
                    mean = sum(g[n] ** 2 for g, _ in gathered) / len(gathered)
                    fisher[n] = share * mean + (1 - share) * fisher[n]
                gathered, begun = [], now
        score = task_score if score is None else {n: (score[n] + task_score[n]) / 2 for n in score}
        high, path = unit(fisher), unit(score)
        importance, centre = {n: high[n] + path[n] for n in high}, detached(params)
    return detached(params)


CASES = [
    (RWalk(0.7, interval=5), "task"),
    (RWalk(0.7, interval=5), "domain"),
    (RWalk(0.7, interval=5), "class"),
    (RWalk(0.3, 0.4, interval=4, damping=1e-5), "class"),
    (RWalk(0.7, interval=50), "class"),
    (RWalk(0.7, interval=1, damping=1e-5), "class"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_rwalk_is_its_plain_loop(strategy, setting):
    """12 steps a task: intervals that divide it, that do not, and that are longer."""
    ours = beside(strategy, stream_of(setting))

    def plain(strategy, **planted):
        words = (strategy.strength, strategy.share, strategy.interval, strategy.damping)
        return rwalk(ours.start, ours.tasks, *words, **planted)

    assert gap(ours.net, plain(strategy)) < TOLERANCE
    assert gap(ours.net, plain(replace(strategy, strength=strategy.strength * 1.001))) > PLANTED
    if strategy.damping == 1e-5:  # else the damping is nearly all of it, and goes out of the scaled score
        for name in ("share", "damping"):
            assert gap(ours.net, plain(replace(strategy, **{name: getattr(strategy, name) * 1.001}))) > PLANTED, name
        assert gap(ours.net, plain(strategy, half=0.5005)) > PLANTED
    assert gap(ours.net, plain(strategy, signed=True)) > PLANTED
    if strategy.interval == 5:
        assert gap(ours.net, plain(replace(strategy, interval=4))) > PLANTED
