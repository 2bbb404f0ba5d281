"""HAT against a plain float64 loop; and, with plain gradient descent, the authors' way: the gradient scaled, not the step."""

from __future__ import annotations

import pytest
import torch

from lifelong.core.strategy import StrategyError
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.architecture.hat import HAT
from tests.reference.plain_methods import detached, leaves, row_losses
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, member, stream_of
from tests.reference.witnesses.test_xdg import gated_scores

LAYERS = ("layer0", "layer1")


def back_of(used):
    """1 - min(A_j, A_i) of each hidden weight, 1 - A_i of each bias and of the first layer."""
    first, second = used
    return {
        "layer0.weight": (1 - first)[None, :], "layer0.bias": 1 - first, "layer1.bias": 1 - second,
        "layer1.weight": 1 - torch.minimum(first[:, None].expand(len(first), len(second)), second[None, :]),
    }  # fmt: skip


def hat(start, embeddings, tasks, optimiser, *, strength, steepness, gradient=False, wrong=""):
    """gradient: scale the gradients, as the authors; else the steps. wrong: an error planted."""
    params, e = leaves(start), leaves(embeddings)
    everything = {**params, **{f"e.{name}": value for name, value in e.items()}}
    steps = optimiser(list(everything.values()))
    used = [torch.zeros(e[name].shape[1], dtype=torch.float64) for name in LAYERS]
    for t, batches in enumerate(tasks):
        back = back_of(used)
        for i, rows in enumerate(batches):
            s = 1 / steepness + (steepness - 1 / steepness) * i / (len(batches) - (wrong == "progress"))
            gates = [torch.sigmoid(s * e[name][t]) for name in LAYERS]
            price = sum((a * (1 - A)).sum() for a, A in zip(gates, used, strict=True))
            price = price / sum((1 - A).sum() for A in used)
            total = row_losses(gated_scores(params, rows.x, gates), rows).mean() + strength * price
            steps.zero_grad()
            total.backward()
            for name in LAYERS:
                value, emphasis = e[name].detach(), steepness / s
                e[name].grad *= emphasis * ((s * value).clamp(-50, 50).cosh() + 1) / (value.cosh() + 1)
            if gradient:
                for name, scale in back.items():
                    params[name].grad *= scale
            before = detached(everything)
            steps.step()
            if not gradient:
                for name, scale in back.items():
                    params[name].data = before[name] + scale * (params[name].data - before[name])
                for name in ("head.weight", "head.bias"):
                    params[name].data = torch.where(rows.allowed[0], params[name].data, before[name])
                for name in LAYERS:
                    row = torch.arange(len(tasks))[:, None] == t
                    e[name].data = torch.where(row, e[name].data, before[f"e.{name}"])
            for name in LAYERS:
                e[name].data = e[name].data.clamp(-6, 6)
        last = [torch.sigmoid(steepness * e[name][t].detach()) for name in LAYERS]
        used = [a if wrong == "last" else torch.maximum(A, a) for A, a in zip(used, last, strict=True)]
    return {**detached(params), **{f"e.{name}": value for name, value in detached(e).items()}}, used


def whole(run):
    return {**run.net, **{f"e.{name}": value for name, value in member(run.state).params["own"]["HAT/0"].items()}}


def started(run):
    embeddings = run.session.first_state().params["own"]["HAT/0"]
    return {name: value[1] for name, value in embeddings.items()}


@pytest.mark.parametrize("way", ["adam", "momentum", "plain"])
@pytest.mark.parametrize("strategy", [HAT(0.75, 4.0), HAT(0.3, 20.0)], ids=str)
def test_hat_is_its_plain_loop(strategy, way):
    ours, theirs = {
        "adam": (None, adam),
        "momentum": (SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
        "plain": (SGD(0.05), lambda p: torch.optim.SGD(p, 0.05)),
    }[way]
    run = beside(strategy, stream_of("task"), ours, MLP(12, 10))
    given = run.start, started(run), run.tasks, theirs
    words = {"strength": strategy.strength, "steepness": strategy.steepness}
    net, used = hat(*given, **words)
    assert gap(whole(run), net) < TOLERANCE
    assert gap(run.memory[0], dict(zip(LAYERS, used, strict=True))) < TOLERANCE
    for name in words:
        assert gap(whole(run), hat(*given, **{**words, name: words[name] * 1.001})[0]) > PLANTED, name
    for wrong in ("progress", "last"):
        assert gap(whole(run), hat(*given, wrong=wrong, **words)[0]) > PLANTED, wrong
    authors = gap(whole(run), hat(*given, gradient=True, **words)[0])
    assert authors < TOLERANCE if way == "plain" else authors > PLANTED
    x, task = run.tasks[0][0].x, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    gates = [[torch.sigmoid(strategy.steepness * net[f"e.{name}"][t]) for name in LAYERS] for t in range(3)]
    told = torch.stack([gated_scores(net, x, each) for each in gates])[task, torch.arange(8)]
    assert float((run.scores(x, task) - told).abs().max()) < 1e-8


def test_it_takes_layers_that_follow_one_another():
    with pytest.raises(StrategyError, match="follow one another"):
        from lifelong.contracts.learners import states
        from lifelong.core.learner import Learner
        from scenarios.catalogue import build

        states(Learner(Conv4(channels=4, blocks=2, groups=2), HAT()), build("split-digits", {}, "task"), [0])
