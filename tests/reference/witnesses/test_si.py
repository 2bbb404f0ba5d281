"""SI against a plain float64 loop, written from Zenke, Poole and Ganguli (2017), equations 3 to 5."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.optimisers.adam import Adam
from lifelong.strategies.regularisation.si import SI
from tests.reference.plain_methods import detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def si(start, tasks, strength, damping, clip=0.0, planted=""):
    """clip: of the whole gradient's length, 0 for none. planted: the name of an error."""
    params = leaves(start)
    steps = adam(list(params.values()))
    path = {name: torch.zeros_like(value) for name, value in start.items()}
    importance = {name: torch.zeros_like(value) for name, value in start.items()}
    centre = detached(params)
    for batches in tasks:
        for rows in batches:
            data = loss(params, rows)
            pull = sum((importance[name] * (params[name] - centre[name]) ** 2).sum() for name in params)
            before = detached(params)
            steps.zero_grad()
            (data + strength * pull).backward()
            whole = {name: value.grad.clone() for name, value in params.items()}
            if planted == "of the data's loss alone":
                whole = dict(zip(params, torch.autograd.grad(loss(params, rows), list(params.values())), strict=True))
            if clip:
                torch.nn.utils.clip_grad_norm_(params.values(), clip)
            if planted == "after clipping":
                whole = {name: value.grad.clone() for name, value in params.items()}
            steps.step()
            for name, value in params.items():
                path[name] = path[name] - whole[name] * (value.detach() - before[name])
        for name, value in params.items():
            if planted == "steps back count for nothing":
                path[name] = path[name].clamp(min=0)
            new = path[name] / ((value.detach() - centre[name]) ** 2 + damping)
            importance[name] = new if planted == "the last task's importance alone" else importance[name] + new
            if planted != "the path goes on":
                path[name] = torch.zeros_like(path[name])
        if planted != "the centre stays":
            centre = detached(params)
    return detached(params)


ERRORS = (
    "of the data's loss alone",
    "steps back count for nothing",
    "the last task's importance alone",
    "the path goes on",
    "the centre stays",
)


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_si_is_its_plain_loop(setting):
    strategy = SI(3.0)
    ours = beside(strategy, stream_of(setting))

    def plain(strategy, planted=""):
        return si(ours.start, ours.tasks, strategy.strength, strategy.damping, planted=planted)

    assert gap(ours.net, plain(strategy)) < TOLERANCE
    for name in ("strength", "damping"):
        assert gap(ours.net, plain(replace(strategy, **{name: getattr(strategy, name) * 1.001}))) > PLANTED, name
    for planted in ERRORS:
        assert gap(ours.net, plain(strategy, planted)) > PLANTED, planted


def test_the_path_is_of_the_gradient_before_clipping():
    ours = beside(SI(3.0, 0.02), stream_of(), Adam(0.01, clip=0.5))
    assert gap(ours.net, si(ours.start, ours.tasks, 3.0, 0.02, 0.5)) < TOLERANCE
    assert gap(ours.net, si(ours.start, ours.tasks, 3.0, 0.02, 0.5, "after clipping")) > PLANTED
    assert gap(ours.net, si(ours.start, ours.tasks, 3.0, 0.02)) > PLANTED, "that it clips at all"
