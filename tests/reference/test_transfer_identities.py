"""Transfer against what it must equal: EWC with an identity, a head on cached features, plain PyTorch, a formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from lifelong.adaptation.few_shot import FewShot, FewShotEvaluator, few_shot_accuracy
from lifelong.adaptation.methods import (
    FullFineTuning,
    LinearProbe,
    ProbeThenFineTune,
    Scratch,
    SurgicalFineTuning,
    adapted_net,
)
from lifelong.contracts.learners import tiny
from lifelong.core.inner_loop import batch_of, episode_problem
from lifelong.core.learner import Learner
from lifelong.core.loop import Session
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.strategies.regularisation.l2sp import L2SP
from lifelong.transfer.distillation import Distillation, divergence
from scenarios.split import split
from scenarios.stream import Budget, generator
from scenarios.synthetic import blobs
from tests.reference.plain_methods import descend, detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of

DOUBLE = torch.float64


def plain_forward(net: dict, x: torch.Tensor) -> torch.Tensor:
    for name in [n[:-7] for n in net if n.endswith(".weight")]:
        x = x @ net[f"{name}.weight"] + net[f"{name}.bias"]
        x = x if name == "head" else x.relu()
    return x


def after_a_task(strategy, optimiser, stream, identity: float = 1.0) -> dict:
    """A fleet's weights after its first task; identity: what the Fisher of an EWC is on the trunk."""
    session = Session(Learner(MLP(8), strategy, optimiser), stream, [0, 1], dtype=DOUBLE)
    state = session.first_state()
    if isinstance(strategy, EWC):
        net = state.params["net"]
        fisher = {k: torch.full_like(v, 0.0 if k.startswith("head.") else identity) for k, v in net.items()}
        state = state._replace(memory=({"importance": fisher, "centre": tree_map(torch.clone, net)},))
    for batch in session.sampler.batches(0):
        state, _ = session.fleet.step(state, batch, [0.0, 0.0])
    return state.params["net"]


@pytest.mark.parametrize("optimiser", [SGD(0.05, momentum=0.9), Adam(0.01)], ids=repr)
def test_l2sp_is_ewc_with_an_identity_for_its_fisher(optimiser):
    stream = tiny(iterations=30)
    ours = after_a_task(L2SP(strength=0.7), optimiser, stream)
    assert gap(ours, after_a_task(EWC(strength=0.7), optimiser, stream)) < 1e-12
    assert gap(ours, after_a_task(EWC(strength=0.7 * 1.001), optimiser, stream)) > PLANTED
    assert gap(ours, after_a_task(EWC(strength=0.7), optimiser, stream, 1.001)) > PLANTED


def pulled(params, start, strength, decay, planted=""):
    """strength / 2 |trunk - start|^2 + decay / 2 |head|^2."""
    pull = 0.0
    for name, value in params.items():
        if name.startswith("head.") and planted != "the head is held, too":
            pull = pull + decay / 2 * value.square().sum()
        else:
            centre = torch.zeros_like(value) if planted == "towards zero" else start[name]
            pull = pull + strength / 2 * (value - centre).square().sum()
    return pull


ERRORS = (
    {"strength": 0.3 * 1.001},
    {"decay": 0.2 * 1.001},
    {"planted": "the head is held, too"},
    {"planted": "towards zero"},
)


def test_l2sp_is_its_formula():
    """By autograd, along ten steps, as a rule of transfer."""
    net, problem, batch = episode()
    ours = adapted_net(L2SP(0.3, 0.2), Learner(problem.model, optimiser=SGD(0.1)), 10, problem, net, batch)

    def plain(**wrong):
        live = leaves(net)
        optimiser = torch.optim.SGD(live.values(), lr=0.1)
        for _ in range(10):
            pull = pulled(live, net, **{"strength": 0.3, "decay": 0.2, **wrong})
            descend(optimiser, F.cross_entropy(plain_forward(live, batch.x), batch.y) + pull)
        return detached(live)

    assert gap(ours, plain()) < 1e-12
    for wrong in ERRORS:
        assert gap(ours, plain(**wrong)) > PLANTED, wrong


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_l2sp_pulls_towards_the_start_through_the_whole_stream(setting):
    ours = beside(L2SP(0.3, 0.2), stream_of(setting))

    def plain(moves_on=False, **wrong):
        params = leaves(ours.start)
        optimiser, centre = adam(list(params.values())), ours.start
        for batches in ours.tasks:
            for rows in batches:
                pull = pulled(params, centre, **{"strength": 0.3, "decay": 0.2, **wrong})
                descend(optimiser, loss(params, rows) + pull)
            centre = detached(params) if moves_on else centre
        return detached(params)

    assert gap(ours.net, plain()) < TOLERANCE
    for wrong in (*ERRORS, {"moves_on": True}):
        assert gap(ours.net, plain(**wrong)) > PLANTED, wrong


def episode(way: int = 3, rows: int = 12):
    problem = episode_problem(MLP(7, 6), way, DOUBLE)
    random = generator("an episode")
    x = torch.randn(rows, 5, dtype=DOUBLE, generator=random)
    net = {k: v.to(DOUBLE) for k, v in problem.model.init((5,), way, random).items()}
    return net, problem, batch_of(x, torch.arange(rows) % way, way, DOUBLE)


def test_a_probe_is_training_the_head_on_cached_features():
    net, problem, batch = episode()
    ours = adapted_net(LinearProbe(), Learner(problem.model, optimiser=Adam(0.02)), 25, problem, net, batch)
    features = problem.model.features(net, batch.x)
    head = {k: v.clone().requires_grad_() for k, v in net.items() if k.startswith("head.")}
    optimiser = torch.optim.Adam(head.values(), lr=0.02)
    for _ in range(25):
        optimiser.zero_grad()
        F.cross_entropy(features @ head["head.weight"] + head["head.bias"], batch.y).backward()
        optimiser.step()
    for k, v in ours.items():
        if k in head:
            torch.testing.assert_close(v, head[k].detach(), rtol=1e-9, atol=1e-12)
        else:
            assert torch.equal(v, net[k])


def test_probe_then_tune_has_the_probe_and_full_tuning_for_its_ends():
    net, problem, batch = episode()
    learner = Learner(problem.model, optimiser=Adam(0.02))

    def end(rule):
        return adapted_net(rule, learner, 9, problem, net, batch)

    for share, rule in ((0.0, FullFineTuning()), (1.0, LinearProbe())):
        both = end(ProbeThenFineTune(share)), end(rule)
        assert all(torch.equal(both[0][k], both[1][k]) for k in net), rule
    half = end(ProbeThenFineTune(0.5))
    assert not any(torch.equal(half[k], net[k]) for k in net)


def test_a_block_moves_with_the_head_and_nothing_else():
    net, problem, batch = episode()
    end = adapted_net(SurgicalFineTuning("layer1"), Learner(problem.model, optimiser=SGD(0.1)), 3, problem, net, batch)
    moved = {k for k in net if not torch.equal(net[k], end[k])}
    assert moved == {"layer1.weight", "layer1.bias", "head.weight", "head.bias"}


def plain_few_shot(stream, seed: int, net: dict, t: int, k: int, rate: float, steps: int) -> float:
    """One seed, one task, k rows of each class, by a loop over torch.optim.Adam."""
    task, y = stream.tasks_of(seed)[t], stream.dataset.y
    chosen = []
    for c in task.classes:
        candidates = task.train[task.label[y[task.train]] == c]
        chosen.append(candidates[torch.randperm(len(candidates), generator=generator(seed, "few-shot rows", t, c))[:k]])
    rows = torch.cat(chosen)
    head = MLP(9).init(stream.dataset.shape, stream.classes, generator(seed, "few-shot head"))
    live = {n: (head[n].to(DOUBLE) if n.startswith("head.") else v).clone().requires_grad_() for n, v in net.items()}
    classes = list(task.classes)

    def scores(rows):
        return plain_forward(live, stream.dataset.x[rows].to(DOUBLE))[:, classes]

    def labels(rows):
        return task.label[y[rows]] - classes[0]

    optimiser = torch.optim.Adam(live.values(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(scores(rows), labels(rows)).backward()
        optimiser.step()
    return float((scores(task.test).argmax(1) == labels(task.test)).double().mean())


@pytest.mark.parametrize("setting", ["task", "class"])
def test_few_shot_accuracy_is_a_plain_loop(setting):
    stream = split(blobs(6, 6, 48, spread=2.0), 3, setting, budget=Budget(iterations=2, batch=4))
    session = Session(Learner(MLP(9)), stream, [0, 5], dtype=DOUBLE)
    nets = session.first_state().params["net"]
    protocol = FewShot((1, 4), optimiser=Adam(0.02), steps=15)
    ours = few_shot_accuracy(FewShotEvaluator(stream, [0, 5], session.fleet.problem, protocol), nets)
    theirs = [
        [
            [plain_few_shot(stream, seed, {n: v[s] for n, v in nets.items()}, t, k, 0.02, 15) for k in (1, 4)]
            for t in range(3)
        ]
        for s, seed in enumerate((0, 5))
    ]
    torch.testing.assert_close(ours, torch.tensor(theirs, dtype=DOUBLE), rtol=0, atol=1e-12)
    scratch = few_shot_accuracy(
        FewShotEvaluator(stream, [0, 5], session.fleet.problem, protocol), nets, replace(protocol, method=Scratch())
    )
    assert torch.equal(scratch, ours)  # these networks are the random draws


def test_distillation_is_its_formula_and_gradient():
    """alpha CE(y, softmax(v)) + (1 - alpha) tau^2 KL(softmax(u / tau), softmax(v / tau)); d/dv by hand."""
    net, problem, batch = episode()
    random = generator("teacher")
    u = 3 * torch.randn(12, 3, dtype=DOUBLE, generator=random)
    index = {"teacher": u[None], "teacher_place": torch.arange(12)[None]}
    problem = replace(problem, index=index)
    batch = batch.replace(row=torch.arange(12))
    alpha, tau = 0.3, 2.5
    part = Distillation(alpha, tau)
    gradient, loss = torch.func.grad_and_value(lambda p: part.objective(problem, p, {}, batch)[0])({"net": net})
    v = plain_forward(net, batch.x)
    p, q = (u / tau).softmax(1), (v / tau).softmax(1)
    hard = -v.log_softmax(1)[torch.arange(12), batch.y].mean()
    soft = (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(loss, alpha * hard + (1 - alpha) * tau**2 * soft)
    by_hand = (alpha * (v.softmax(1) - F.one_hot(batch.y, 3)) + (1 - alpha) * tau * (q - p)) / 12  # d loss / d v
    torch.testing.assert_close(gradient["net"]["head.bias"], by_hand.sum(0))
    features = problem.model.features(net, batch.x)
    torch.testing.assert_close(gradient["net"]["head.weight"], features.T @ by_hand)


def test_divergence_leaves_closed_classes_out():
    random = generator("divergence")
    u, v = (torch.randn(4, 5, dtype=DOUBLE, generator=random) for _ in range(2))
    allowed = torch.tensor([True, True, False, True, False]).expand(4, -1)
    ours = divergence(u, v, allowed, 2.0)
    kept = [0, 1, 3]
    theirs = F.kl_div((v[:, kept] / 2).log_softmax(1), (u[:, kept] / 2).softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(ours, theirs)
