"""Separate networks against a plain float64 loop, and against the baseline that learns each task alone."""

from __future__ import annotations

import torch

from lifelong.core.learner import Learner
from lifelong.core.loop import run as run_stream
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.architecture.separate_networks import SeparateNetworks
from scenarios.joint import isolate
from tests.reference.plain_methods import descend, detached, leaves, loss, scores
from tests.reference.witnesses.beside import NET, PLANTED, TOLERANCE, adam, beside, gap, stream_of


def separate(start, tasks, optimiser, fresh=True):
    """One network after another, under one optimiser. fresh: whether each begins at the start."""
    params, nets = leaves(start), []
    steps = optimiser(list(params.values()))
    for batches in tasks:
        for name, value in params.items():
            value.data = start[name].clone() if fresh else value.data
        for rows in batches:
            descend(steps, loss(params, rows))
        nets.append(detached(params))
    return nets


def test_separate_networks_are_their_plain_loop():
    for ours, theirs in ((None, adam), (SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9))):
        run = beside(SeparateNetworks(), stream_of("task"), ours)
        nets = separate(run.start, run.tasks, theirs)
        assert gap(run.net, nets[-1]) < TOLERANCE
        for t in range(2):
            assert gap({name: value[t] for name, value in run.memory[0]["kept"].items()}, nets[t]) < TOLERANCE
        assert gap(run.net, separate(run.start, run.tasks, theirs, fresh=False)[-1]) > PLANTED
        x, task = run.tasks[0][0].x, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
        told = torch.stack([scores(net, x) for net in nets])[task, torch.arange(8)]
        assert float((run.scores(x, task) - told).abs().max()) < TOLERANCE
        assert float((run.scores(x, task.flip(0)) - told).abs().max()) > PLANTED


def test_with_plain_descent_they_are_those_that_the_baseline_learns():
    """Where no moments are carried on, each task is answered at the end as by the network that learned it alone."""
    stream = stream_of("task")
    kept = run_stream(Learner(NET, SeparateNetworks(), SGD(0.05)), stream, [0, 1])
    alone = run_stream(Learner(NET, optimiser=SGD(0.05)), isolate(stream), [0, 1])
    assert torch.equal(kept.accuracy[:, -1], torch.stack([alone.accuracy[:, t + 1, t] for t in range(3)], 1))
    assert torch.equal(kept.losses, alone.losses)
