"""Meta-learning against finite differences, loops, and closed forms, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.files import Checkpoints
from lifelong.meta.learned import distribution_of_source
from lifelong.meta.maml import MAML
from lifelong.meta.oml import OML
from lifelong.meta.online_head import online_head
from lifelong.meta.pretraining import pretrain, recorded
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.r2d2 import R2D2
from lifelong.meta.reptile import Reptile
from lifelong.meta.supervised import MultiTask, Pretrained
from lifelong.meta.testing import scored
from lifelong.model import MLP, Conv4
from lifelong.optimisers import SGD, Adam, Rated
from scenarios.episodes import Sines, pool
from scenarios.stream import generator
from scenarios.synthetic import blobs

DOUBLE = torch.float64
TABLE = blobs(12, 6, 30)
TASKS = TaskDistribution(MLP(7), pool(TABLE, part="train"), pool(TABLE, part="test"), DOUBLE)
HALF = torch.tensor(0.5, dtype=DOUBLE)  # of the outer loop is over
SMALL = {"way": 3, "shot": 2, "query": 2, "tasks": 4, "iterations": 3}
SECOND_ORDER = (
    MAML(**SMALL, steps=3, rate=0.3),
    MAML(**SMALL, steps=2, rate=0.3, learn_rates=True),
    MAML(**SMALL, steps=2, rate=0.3, adapts="head"),
    MAML(**SMALL, steps=2, rate=0.3, adapts="layer0*", learn_rates=True),
    OML(way=2, shot=2, query=2, remember=3, tasks=2, rate=0.2),
    ProtoNet(way=3, shot=2, query=2, tasks=2),
    Pretrained(batch=8),
    MultiTask(batch=8, groups=3),
    R2D2(way=3, shot=2, query=2, tasks=2),
)
METHODS = (*SECOND_ORDER, MAML(**SMALL, order=1), Reptile(way=3, tasks=2, shot=4, batch=5, inner=SGD(0.1)))


def drawn_by(method, tasks=TASKS, word=0):
    return method.draw(tasks, generator("drawn", word))


@pytest.mark.parametrize("method", SECOND_ORDER, ids=lambda s: repr(s)[:30] + getattr(s, "adapts", ""))
def test_gradient_by_finite_differences(method):
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    _, gradient = method.gradient(TASKS, meta, drawn, HALF)
    leaves, spec = tree_flatten(meta)
    random = generator("direction")
    for _ in range(3):
        direction = [torch.randn(leaf.shape, dtype=DOUBLE, generator=random) for leaf in leaves]
        step = 1e-5

        def loss(sign, direction=direction, step=step):
            moved = [leaf + sign * step * d for leaf, d in zip(leaves, direction, strict=True)]
            return method.loss(TASKS, tree_unflatten(moved, spec), drawn, HALF)

        numeric = (loss(1) - loss(-1)) / (2 * step)
        exact = sum((g * d).sum() for g, d in zip(tree_flatten(gradient)[0], direction, strict=True))
        assert float(numeric) == pytest.approx(float(exact), rel=1e-6)


def test_first_order_is_the_gradient_at_the_adapted_parameters():
    """Taken as constants, inner gradients leave d L(p_k) / d p = L'(p_k)."""
    method = MAML(**SMALL, steps=2, rate=0.3, order=1)
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    _, gradient = method.gradient(TASKS, meta, drawn, HALF)
    expected = plain_maml(meta, drawn, 0.3, 2, first_order=True)[1]
    torch.testing.assert_close(gradient["net"], expected)
    assert not torch.allclose(gradient["net"]["head.weight"], plain_maml(meta, drawn, 0.3, 2)[1]["head.weight"])


def plain_maml(meta, drawn, rate, steps, first_order=False):
    """MAML in a loop over tasks, with autograd and nothing of ours but the network's layers."""
    net = {name: value.clone().requires_grad_() for name, value in meta["net"].items()}

    def logits(p, x):
        return (x.flatten(1) @ p["layer0.weight"] + p["layer0.bias"]).relu() @ p["head.weight"] + p["head.bias"]

    total = 0.0
    for x, y, query_x, query_y in zip(*drawn[:4], strict=True):
        own = dict(net)
        for _ in range(steps):
            gradients = torch.autograd.grad(
                F.cross_entropy(logits(own, x.to(DOUBLE)), y), list(own.values()), create_graph=not first_order
            )
            own = {name: p - rate * g for (name, p), g in zip(own.items(), gradients, strict=True)}
        total = total + F.cross_entropy(logits(own, query_x.to(DOUBLE)), query_y) / len(drawn.classes)
    return total.detach(), dict(zip(net, torch.autograd.grad(total, list(net.values())), strict=True))


def test_tasks_together_are_tasks_in_a_loop():
    method = MAML(**SMALL, steps=3, rate=0.3)
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    loss, gradient = method.gradient(TASKS, meta, drawn, HALF)
    theirs, expected = plain_maml(meta, drawn, 0.3, 3)
    torch.testing.assert_close(loss, theirs)
    torch.testing.assert_close(gradient["net"], expected)


@pytest.mark.parametrize("size", [1, 3])
def test_chunks_of_tasks_give_the_same_gradient(size):
    method = MAML(**SMALL, steps=2, rate=0.3)
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    together, chunked = (s.gradient(TASKS, meta, drawn, HALF) for s in (method, replace(method, chunk=size)))
    torch.testing.assert_close(chunked, together)


def test_maml_without_inner_steps_is_joint_training():
    """At inner rate 0 the meta-gradient is that of all tasks' queries together."""
    method = MAML(**SMALL, steps=3, rate=0.0)
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    _, gradient = method.gradient(TASKS, meta, drawn, HALF)
    net = {name: value.clone().requires_grad_() for name, value in meta["net"].items()}
    x, y = drawn.query_x.flatten(0, 1).to(DOUBLE), drawn.query_y.flatten()
    loss = F.cross_entropy(TASKS.problem(3).logits({"net": net}, x), y)
    torch.testing.assert_close(
        gradient["net"], dict(zip(net, torch.autograd.grad(loss, list(net.values())), strict=True))
    )


def test_anil_with_the_trunk_passed_once_is_the_plain_one():
    once = MAML(**SMALL, steps=3, rate=0.3, adapts="head")
    plain = replace(once, adapts="head.*")  # the same parameters by another word, which takes the general path
    meta, drawn = once.init(TASKS, generator("start")), drawn_by(once)
    torch.testing.assert_close(once.gradient(TASKS, meta, drawn, HALF), plain.gradient(TASKS, meta, drawn, HALF))


@pytest.mark.parametrize("model", [MLP(7), Conv4(8, blocks=2, halving="stride")], ids=repr)
def test_oml_with_the_trunk_passed_once_is_the_plain_one(model):
    table = TABLE
    if isinstance(model, Conv4):
        x = torch.rand(60, 6, 6, generator=generator("images"))
        table = replace(TABLE, x=x, y=torch.arange(60) % 12, train_rows=60)
    images = pool(table)
    tasks = TaskDistribution(model, images, images, DOUBLE)
    method = OML(way=2, shot=2, query=1, remember=3, tasks=2, rate=0.2)
    meta, drawn = method.init(tasks, generator("start")), drawn_by(method, tasks)
    cached, plain = (s.gradient(tasks, meta, drawn, HALF) for s in (method, replace(method, cached=False)))
    torch.testing.assert_close(cached, plain)


@pytest.mark.parametrize("classes", [12, 5])
def test_pretraining_draws_as_many_rows_as_it_says(classes):
    """Of fewer classes than the batch has rows, some are drawn again."""
    own = pool(TABLE, tuple(range(classes)))
    tasks = replace(TASKS, train=own)
    for method in (Pretrained(batch=8), MultiTask(batch=8, groups=2)):
        drawn = drawn_by(method, tasks)
        assert len(drawn.x) == len(drawn.y) == method.images(tasks) == 8
        assert torch.isfinite(method.gradient(tasks, method.init(tasks, generator("start")), drawn, HALF)[0])


def test_images_are_those_that_pass_the_trunk():
    waves = distribution_of_source(MAML(), MLP(5), Sines())
    assert MAML(shot=3, query=2, steps=2, tasks=4).images(TASKS) == 4 * 5 * (3 * 2 * 2 + 2)
    assert MAML(shot=3, query=2, steps=2, tasks=4, order=1).images(TASKS) == 4 * 5 * (3 * 2 + 2)
    assert MAML(shot=3, query=2, steps=2, tasks=4, adapts="head").images(TASKS) == 4 * 5 * (3 + 2)
    assert MAML(shot=3, query=2, steps=2, tasks=4).images(waves) == 4 * (3 * 2 * 2 + 2)
    assert Reptile(shot=10, batch=20, steps=3, tasks=2).images(waves) == 2 * 3 * 10


def test_reptile_after_one_step_of_plain_descent_is_a_gradient():
    """p - p_1 = rate x grad L(p): with one full-batch step Reptile is joint training."""
    method = Reptile(way=3, tasks=4, shot=2, steps=1, batch=6, inner=SGD(0.1))
    meta = method.init(TASKS, generator("start"))
    episode, order = drawn_by(method)
    _, gradient = method.gradient(TASKS, meta, (episode, order), HALF)
    net = {name: value.clone().requires_grad_() for name, value in meta["net"].items()}
    x, y = episode.support_x.flatten(0, 1).to(DOUBLE), episode.support_y.flatten()
    loss = F.cross_entropy(TASKS.problem(3).logits({"net": net}, x), y)
    expected = torch.autograd.grad(loss, list(net.values()))
    torch.testing.assert_close(gradient["net"], {n: 0.1 * g for n, g in zip(net, expected, strict=True)})


def test_prototypes_by_hand():
    method, way = ProtoNet(way=3, shot=2, query=2), 3
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    task = drawn.task(0)
    features = {n: TASKS.problem(way).features(meta, x.to(DOUBLE)) for n, x in task._asdict().items() if "_x" in n}
    means = torch.stack([features["support_x"][task.support_y == c].mean(0) for c in range(way)])
    ours = method.predict(TASKS, meta, task.support, task.query_x, way)
    torch.testing.assert_close(ours, -(torch.cdist(features["query_x"], means) ** 2))


@pytest.mark.parametrize("method", METHODS, ids=lambda s: repr(s)[:30] + getattr(s, "adapts", ""))
def test_a_fleet_of_starts_is_each_alone(method):
    method = replace(method, iterations=3)
    fleet = pretrain(method, TASKS, (1, 4), episodes=0)
    alone = pretrain(method, TASKS, (4,), episodes=0)
    torch.testing.assert_close(tree_map(lambda leaf: leaf[1:], fleet.meta), alone.meta, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda s: repr(s)[:30] + getattr(s, "adapts", ""))
def test_stopped_and_resumed_is_the_same(method, tmp_path):
    method = replace(method, iterations=5)
    whole = pretrain(method, TASKS, (0, 3), validate_every=2, episodes=5)

    class Cut(Exception):
        pass

    class Killed(Checkpoints):
        def __call__(self, event):
            super().__call__(event)
            if event.state.iteration == 3:
                raise Cut

    path = tmp_path / "start.checkpoint.safetensors"
    with pytest.raises(Cut):
        pretrain(method, TASKS, (0, 3), validate_every=2, episodes=5, checkpointer=Killed(path, "w", every=0))
    again = pretrain(method, TASKS, (0, 3), validate_every=2, episodes=5, checkpointer=Checkpoints(path, "w"))
    for a, b in zip(tree_flatten(whole.meta)[0], tree_flatten(again.meta)[0], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.losses, again.losses)
    assert [i for i, _ in whole.validated] == [i for i, _ in again.validated]


def test_zero_shots_are_answered_without_adapting():
    method = MAML(way=3, shot=0, query=4, tasks=2, steps=2, iterations=2)
    learned = pretrain(method, TASKS, (0,), episodes=0)
    found = scored(method, TASKS, learned.of(0), TASKS.validation, query=3, episodes=20)
    assert found.shot == 0 and 0 <= float(found.scores.mean()) <= 1


def test_the_same_episodes_for_every_start():
    a = [TASKS.train.draw(2, 3, 1, 2, generator("test", i)) for i in range(2)]
    b = [TASKS.train.draw(2, 3, 1, 2, generator("test", i)) for i in range(2)]
    leaves = [tree_flatten(episodes)[0] for episodes in (a, b)]
    assert all(torch.equal(x, y) for x, y in zip(*leaves, strict=True))


def test_maml_learns_sines_and_pretraining_does_not():
    """After one step on 10 points the error of MAML is far below that of a net fitted to all waves at once."""
    shared = {"shot": 10, "query": 10, "tasks": 10, "iterations": 800, "outer": Adam(0.005)}
    errors = []
    for method in (MAML(**shared, rate=0.02), Pretrained(batch=200, iterations=800, outer=Adam(0.005))):
        waves = distribution_of_source(method, MLP(40, 40), Sines())
        learned = pretrain(method, waves, (0,), episodes=0)
        meta = learned.of(0)
        tester = MAML(**shared, rate=0.02)  # both adapt by the same rule
        errors.append(float(scored(tester, waves, meta, waves.validation, shot=10, episodes=100).scores.mean()))
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("halving", ["pool", "stride"])
def test_batch_norm_is_torchs_with_any_sign_of_scale_and_twice_differentiable(halving):
    model, random = Conv4(4, blocks=2, groups=1, norm="batch", halving=halving), generator("signs", 0)
    net = {name: value.to(DOUBLE) for name, value in model.init((7, 7), 3, random).items()}
    for i in range(2):
        net[f"block{i}.scale"] = torch.randn(4, generator=random, dtype=DOUBLE)
        net[f"block{i}.shift"] = torch.randn(4, generator=random, dtype=DOUBLE)
    x = torch.randn(6, 7, 7, generator=random, dtype=DOUBLE)

    def plain(net, x):
        x = x[:, None]
        for i in range(2):
            x = F.conv2d(x, net[f"block{i}.weight"], padding=1, stride=2 if halving == "stride" else 1)
            x = F.batch_norm(x, None, None, net[f"block{i}.scale"], net[f"block{i}.shift"], training=True).relu()
            x = F.max_pool2d(x, 2) if halving == "pool" else x
        return x.flatten(1)

    def slopes(features):
        inner = torch.func.grad(lambda net: features(net, x).square().sum())
        outer = torch.func.grad(lambda net: sum(g.square().sum() for g in inner(net).values()))
        return features(net, x), inner(net), outer(net)

    torch.testing.assert_close(slopes(model.features), slopes(plain))


def test_a_head_taught_online_by_recursion_is_a_chain_of_steps_for_a_fleet():
    """Under vmap over seeds and trajectories, gradients of features, weights and biases too."""
    random = generator("online", 0)
    x, y = torch.randn(3, 2, 37, 5, dtype=DOUBLE, generator=random), torch.randint(4, (3, 2, 37), generator=random)
    weight = torch.randn(3, 5, 4, dtype=DOUBLE, generator=random)
    bias = torch.randn(3, 4, dtype=DOUBLE, generator=random)

    def chain(params, x, y, rate):
        weight, bias = params["net"]["head.weight"], params["net"]["head.bias"]
        for row, label in zip(x.unbind(), y.unbind(), strict=True):
            slope = (row @ weight + bias).softmax(0) - F.one_hot(label, 4)
            weight, bias = weight - rate * row[:, None] * slope, bias - rate * slope
        return {"net": {"head.weight": weight, "head.bias": bias}}

    def gradients(head):
        def loss(weight, bias, x, y):
            def one(x, y):
                net = head({"net": {"head.weight": weight, "head.bias": bias}}, x, y, 0.3)["net"]
                return net["head.weight"].square().sum() + net["head.bias"].exp().sum()

            return torch.func.vmap(one)(x, y).sum()

        return torch.func.vmap(torch.func.grad(loss, (0, 1, 2)))(weight, bias, x, y)

    torch.testing.assert_close(gradients(online_head), gradients(chain))


@pytest.mark.parametrize("rule", [SGD, Adam], ids=lambda rule: rule.__name__)
def test_a_rate_in_the_state_is_the_rate_in_the_record(rule):
    """Alone and as a fleet whose members have rates of their own, over three steps."""
    random, rates = generator("rates", 0), (0.5, 0.01)
    params = {"w": torch.randn(2, 4, 3, generator=random, dtype=DOUBLE)}
    gradients = [{"w": torch.randn(2, 4, 3, generator=random, dtype=DOUBLE)} for _ in range(3)]
    rated, none = Rated(rule(1.0)), torch.zeros((), dtype=DOUBLE)
    states = [rated.init({"w": params["w"][s]}) | {"rate": torch.tensor(r, dtype=DOUBLE)} for s, r in enumerate(rates)]
    fleet, fleet_state = tree_map(torch.clone, params), tree_map(lambda *s: torch.stack(s), *states)
    for given in gradients:
        rated.update_(fleet, given, fleet_state, 0.0)
    for s, rate in enumerate(rates):
        own = theirs = {"w": params["w"][s]}
        state, their_state = states[s], rule(rate).init(own)
        for given in gradients:
            own, state = rated.update(own, {"w": given["w"][s]}, state, none)
            theirs, their_state = rule(rate).update(theirs, {"w": given["w"][s]}, their_state, none)
        torch.testing.assert_close(own, theirs)
        torch.testing.assert_close(fleet["w"][s], theirs["w"])


@pytest.mark.parametrize("method", METHODS, ids=lambda s: repr(s)[:30] + getattr(s, "adapts", ""))
def test_a_recorded_gradient_is_the_gradient_to_the_bit(method):
    play = recorded(lambda meta, drawn, progress: method.gradient(TASKS, meta, drawn, progress))
    meta = method.init(TASKS, generator("start"))
    for word in range(3):
        drawn = drawn_by(method, word=word)
        leaves = [tree_flatten(own)[0] for own in (play(meta, drawn, HALF), method.gradient(TASKS, meta, drawn, HALF))]
        assert all(torch.equal(a, b) for a, b in zip(*leaves, strict=True))
        meta = tree_map(lambda p: p + 0.01, meta)
