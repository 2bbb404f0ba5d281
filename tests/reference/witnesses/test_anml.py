"""The gated network against the same written out, and meta-gradients against loops with autograd, float64: rows one by one, the
head alone (OML) or all but the gate (ANML) learning online, trunk and gate learning from what that leads to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lifelong.contracts.models import MODEL_CHECKS
from lifelong.core.learner import Learner
from lifelong.core.strategy import FineTuning
from lifelong.meta.anml import ANML
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.learned import LearnedInitialisation, about_learned
from lifelong.meta.oml import OML
from lifelong.meta.online import online_accuracy
from lifelong.meta.pretraining import pretrain
from lifelong.models.anml import Gated
from lifelong.models.base import ModelError
from lifelong.models.conditioned import Conditioned
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.sgd import SGD
from scenarios.episodes import class_pool
from scenarios.stream import ScenarioError, generator
from scenarios.synthetic import blobs
from tests.reference.witnesses.beside import DOUBLE, PLANTED, TOLERANCE, adam, beside, gap, stream_of

NET = Gated(MLP(7, 5), MLP(4))


def scores(net, x, sharp=1.0, late=False):
    """The network written out; `late`: the gate at the scores instead of the features."""
    h = torch.relu(x @ net["layer0.weight"] + net["layer0.bias"])
    h = torch.relu(h @ net["layer1.weight"] + net["layer1.bias"])
    g = torch.relu(x @ net["gate.layer0.weight"] + net["gate.layer0.bias"])
    g = 1 / (1 + torch.exp(-sharp * (g @ net["gate.head.weight"] + net["gate.head.bias"])))
    weight = net["head.weight"]
    return (h @ weight) * g.mean(1, keepdim=True) + net["head.bias"] if late else (h * g) @ weight + net["head.bias"]


def test_it_learns_as_written_out():
    """Plain fine-tuning by Adam of trunk, gate and head together."""
    ours = beside(FineTuning(), stream_of(), model=NET)

    def loop(**wrong):
        net = {name: value.clone().requires_grad_() for name, value in ours.start.items()}
        optimiser = adam(list(net.values()))
        for rows in (rows for steps in ours.tasks for rows in steps):
            optimiser.zero_grad()
            F.cross_entropy(scores(net, rows.x, **wrong).masked_fill(~rows.allowed, -torch.inf), rows.y).backward()
            optimiser.step()
        return {name: value.detach() for name, value in net.items()}

    assert gap(ours.net, loop()) < TOLERANCE
    assert gap(ours.net, loop(sharp=1.001)) > PLANTED
    assert gap(ours.net, loop(late=True)) > PLANTED


def meta_gradient(method, meta, drawn, head_only=True, sharp=1.0):
    """OML's, by plain steps of gradient descent whose graph is kept."""
    start = {name: value.clone().requires_grad_() for name, value in meta["net"].items()}
    total = torch.zeros((), dtype=DOUBLE)
    for i in range(method.tasks):
        net = dict(start)
        weight = torch.eye(start["head.weight"].shape[1], dtype=DOUBLE)
        fresh = drawn.fresh[i] @ weight[drawn.classes[i]]
        renewed = weight[drawn.classes[i]].sum(0) > 0
        net["head.weight"] = torch.where(renewed, fresh, net["head.weight"])
        moving = [name for name in net if name.startswith("head.") or (not head_only and name.startswith("gate."))]
        for x, y in zip(drawn.x[i].to(DOUBLE), drawn.y[i], strict=True):
            loss = F.cross_entropy(scores(net, x[None], sharp), y[None])
            slopes = torch.autograd.grad(loss, [net[name] for name in moving], create_graph=True)
            net |= {name: net[name] - method.rate * slope for name, slope in zip(moving, slopes, strict=True)}
        total = total + F.cross_entropy(scores(net, drawn.test_x[i].to(DOUBLE), sharp), drawn.test_y[i])
    found = torch.autograd.grad(total / method.tasks, list(start.values()), allow_unused=True)
    return dict(zip(start, found, strict=True))


def test_oml_learns_the_gate_from_what_the_head_does_with_it():
    pool = class_pool(blobs(12, 6, 30))
    tasks = TaskDistribution(NET, pool, pool, DOUBLE)
    method = OML(way=2, shot=3, query=2, remember=3, tasks=2, rate=0.2)
    meta = method.init(tasks, generator("start"))
    drawn = method.draw(tasks, generator("drawn"))
    _, ours = method.gradient(tasks, meta, drawn, torch.tensor(0.5, dtype=DOUBLE))
    assert gap(ours["net"], meta_gradient(method, meta, drawn)) < TOLERANCE
    assert gap(ours["net"], meta_gradient(method, meta, drawn, sharp=1.001)) > PLANTED
    assert gap(ours["net"], meta_gradient(method, meta, drawn, head_only=False)) > PLANTED
    assert min(float(ours["net"][name].abs().max()) for name in ours["net"] if name.startswith("gate.")) > PLANTED


def plain_anml(method, meta, drawn, planted="", sharp=1.0):
    """ANML's loss and gradient by autograd, image by image; planted: what is done wrong."""
    start = {name: value.clone().requires_grad_() for name, value in meta["net"].items()}
    rate, total = method.rate * (1.001 if planted == "rate" else 1), torch.zeros((), dtype=DOUBLE)
    for i in range(method.tasks):
        net, fresh = dict(start), drawn.fresh[i]
        columns = list(start["head.weight"].unbind(1))
        for place, c in enumerate(drawn.classes[i].tolist()):
            columns[c] = fresh[:, place]
        net["head.weight"] = torch.stack(columns, 1) if planted != "old outputs" else start["head.weight"]
        moving = [n for n in net if planted == "gate" or not n.startswith("gate.")]
        moving = [n for n in moving if planted != "head" or n.startswith("head.")]
        for x, y in zip(drawn.x[i].to(DOUBLE), drawn.y[i], strict=True):
            loss = F.cross_entropy(scores(net, x[None], sharp), y[None])
            slopes = torch.autograd.grad(loss, [net[n] for n in moving], create_graph=method.order == 2)
            net |= {n: net[n] - rate * slope for n, slope in zip(moving, slopes, strict=True)}
        x, y = drawn.test_x[i].to(DOUBLE), drawn.test_y[i]
        if planted == "no trajectory":
            x, y = x[: method.remember], y[: method.remember]
        total = total + F.cross_entropy(scores(net, x, sharp), y) / method.tasks
    return total.detach(), dict(zip(start, torch.autograd.grad(total, list(start.values())), strict=True))


@pytest.mark.parametrize("order", [1, 2])
def test_anml_is_the_plain_loop(order):
    """Whole network within, gate without; both learn from where that leads."""
    pool = class_pool(blobs(8, 6, 30))
    tasks = TaskDistribution(NET, pool, pool, DOUBLE)
    method = ANML(way=1, shot=4, remember=5, tasks=2, order=order)
    meta, drawn = method.init(tasks, generator("start")), method.draw(tasks, generator("drawn"))
    value, ours = method.gradient(tasks, meta, drawn, torch.tensor(0.5, dtype=DOUBLE))
    loss, theirs = plain_anml(method, meta, drawn)
    assert gap(ours["net"], theirs) < TOLERANCE and abs(float(value - loss)) < TOLERANCE
    for planted in ("rate", "old outputs", "gate", "head", "no trajectory"):
        assert gap(ours["net"], plain_anml(method, meta, drawn, planted)[1]) > PLANTED, planted
    other = plain_anml(replace(method, order=3 - order), meta, drawn)[1]
    assert gap(ours["net"], other) > PLANTED
    assert min(float(ours["net"][name].abs().max()) for name in ours["net"] if name.startswith("gate.")) > PLANTED


def test_anml_sees_a_class_whole_and_is_asked_for_it_and_for_others():
    """All images of a class, each once; the same again in the test, and images of as many classes as there are."""
    table = blobs(8, 6, 20)
    marked = replace(table, x=torch.stack([table.y.to(DOUBLE), torch.arange(len(table.y)).to(DOUBLE)], 1).repeat(1, 3))
    pool = class_pool(marked)
    drawn = ANML(remember=16, tasks=3).draw(TaskDistribution(NET, pool, pool, DOUBLE), generator("drawn"))
    assert drawn.x.shape[:2] == (3, 20) and torch.equal(drawn.x[..., 0].to(torch.int64), drawn.y)
    assert all(len(set(rows.tolist())) == 20 for rows in drawn.x[..., 1]) and (drawn.y == drawn.classes).all()
    assert torch.equal(drawn.test_x[:, 16:], drawn.x) and torch.equal(drawn.test_y[:, 16:], drawn.y)
    assert torch.equal(drawn.test_x[..., 0].to(torch.int64), drawn.test_y)
    assert all(torch.equal(y[:16].bincount(), torch.full((8,), 2)) for y in drawn.test_y)


def test_what_anml_cannot_learn_from_is_refused():
    pool = class_pool(blobs(8, 6, 20))
    with pytest.raises(InitialisationError, match="learns a gate"):
        ANML().check(TaskDistribution(MLP(7), pool, pool))
    with pytest.raises(ScenarioError, match="21 images"):
        ANML(shot=21).check(TaskDistribution(NET, pool, pool))
    with pytest.raises(InitialisationError, match="order=0"):
        ANML(order=0)


def test_a_start_by_anml_is_tested_online():
    """Its trunk and gate stand still, and a head learns class after class."""
    pools = [class_pool(blobs(count, 6, 40)) for count in (16, 6)]
    learning, testing = (TaskDistribution(Gated(MLP(30), MLP(20)), pool, pool) for pool in pools)
    learned = pretrain(ANML(shot=4, remember=16, tasks=2, iterations=40), learning, episodes=0)
    start = LearnedInitialisation(
        learned.meta, {**about_learned(learned, learning), "starts": "one, shared by all seeds"}
    )
    row, means = online_accuracy(testing, start, 4, ["FineTuning()"], 2)
    assert row["classes"] == 4 and 0.25 < row["mean"] <= 1 and means["mean"] > 0.5
    assert learned.losses[0, -10:].mean() < learned.losses[0, :10].mean()


def test_the_gate_stands_still_where_the_head_alone_learns():
    learner = Learner(NET, optimiser=SGD(0.1), trainable="head")
    params = {"net": NET.init((6,), 4, torch.Generator())}
    assert set(learner.trained(params)["net"]) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("text", ["Gated()", "Gated(MLP(8, 5), MLP(3))", "Gated(Conv4(8, 2), Conv4(8, 1))"])
@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.name.replace(" ", "-"))
def test_it_keeps_the_contract(text, check):
    check.holds(parse(text, "models"))


def test_trunk_or_gate_that_is_told_the_task_is_refused():
    for parts in ((Conditioned(MLP(4)), MLP(3)), (MLP(4), Conditioned(MLP(3)))):
        with pytest.raises(ModelError, match="told the task"):
            Gated(*parts)
    assert Gated(Conv4(8, norm="batch"), MLP(4)).mixes_rows and not NET.mixes_rows
