"""Meta-learning against finite differences, loops, and closed forms, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lifelong.core.inner_loop import batch_of
from lifelong.core.learner import Learner
from lifelong.meta import pretraining
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.files import Checkpoints
from lifelong.meta.graph import GraphNet
from lifelong.meta.infinite_mixture import InfiniteMixturePrototypes
from lifelong.meta.learned import distribution_of_source
from lifelong.meta.maml import MAML
from lifelong.meta.matching import MatchingNet
from lifelong.meta.oml import OML
from lifelong.meta.online_head import online_head
from lifelong.meta.pretraining import begin, events, pretrain, recorded
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.r2d2 import R2D2, ridge_head
from lifelong.meta.reptile import Reptile
from lifelong.meta.supervised import MultiTask, Pretrained
from lifelong.meta.testing import Scored, scored
from lifelong.metrics import estimate
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from scenarios.episodes import Sines, Support, TaskSource, class_pool
from scenarios.errors import ConfigurationError
from scenarios.stream import generator
from scenarios.synthetic import blobs

DOUBLE = torch.float64
TABLE = blobs(12, 6, 30)
TASKS = TaskDistribution(MLP(7), class_pool(TABLE, part="train"), class_pool(TABLE, part="test"), DOUBLE)
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
        weights = dict(net)
        for _ in range(steps):
            gradients = torch.autograd.grad(
                F.cross_entropy(logits(weights, x.to(DOUBLE)), y), list(weights.values()), create_graph=not first_order
            )
            weights = {name: p - rate * g for (name, p), g in zip(weights.items(), gradients, strict=True)}
        total = total + F.cross_entropy(logits(weights, query_x.to(DOUBLE)), query_y) / len(drawn.classes)
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
    dataset = TABLE
    if isinstance(model, Conv4):
        x = torch.rand(60, 6, 6, generator=generator("images"))
        dataset = replace(TABLE, x=x, y=torch.arange(60) % 12, train_rows=60)
    images = class_pool(dataset)
    tasks = TaskDistribution(model, images, images, DOUBLE)
    method = OML(way=2, shot=2, query=1, remember=3, tasks=2, rate=0.2)
    meta, drawn = method.init(tasks, generator("start")), drawn_by(method, tasks)
    cached, plain = (s.gradient(tasks, meta, drawn, HALF) for s in (method, replace(method, cached=False)))
    torch.testing.assert_close(cached, plain)


@pytest.mark.parametrize("classes", [12, 5])
def test_pretraining_draws_as_many_rows_as_it_says(classes):
    """Of fewer classes than the batch has rows, some are drawn again."""
    pool = class_pool(TABLE, tuple(range(classes)))
    tasks = replace(TASKS, train=pool)
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
            def episode_loss(x, y):
                net = head({"net": {"head.weight": weight, "head.bias": bias}}, x, y, 0.3)["net"]
                return net["head.weight"].square().sum() + net["head.bias"].exp().sum()

            return torch.func.vmap(episode_loss)(x, y).sum()

        return torch.func.vmap(torch.func.grad(loss, (0, 1, 2)))(weight, bias, x, y)

    torch.testing.assert_close(gradients(online_head), gradients(chain))


@pytest.mark.parametrize("method", METHODS, ids=lambda s: repr(s)[:30] + getattr(s, "adapts", ""))
def test_a_recorded_gradient_is_the_gradient_to_the_bit(method):
    play = recorded(lambda meta, drawn, progress: method.gradient(TASKS, meta, drawn, progress))
    meta = method.init(TASKS, generator("start"))
    for word in range(3):
        drawn = drawn_by(method, word=word)
        leaves = [
            tree_flatten(outcome)[0] for outcome in (play(meta, drawn, HALF), method.gradient(TASKS, meta, drawn, HALF))
        ]
        assert all(torch.equal(a, b) for a, b in zip(*leaves, strict=True))
        meta = tree_map(lambda p: p + 0.01, meta)


def test_ridge_head_is_the_least_squares_of_the_augmented_rows():
    """The closed form in [R, R] against lstsq of (X; sqrt(strength) I) on (Y; 0), and a plain loop over a task."""
    random = generator("ridge", 0)
    x, y = (torch.randn(size, generator=random, dtype=DOUBLE) for size in ((6, 9), (6, 3)))
    for weight in ((), torch.rand(6, generator=random, dtype=DOUBLE)):
        root = torch.ones(6, 1, dtype=DOUBLE) if isinstance(weight, tuple) else weight.sqrt()[:, None]
        rows = torch.cat([root * x, 0.7**0.5 * torch.eye(9, dtype=DOUBLE)])
        expected = torch.linalg.lstsq(rows, torch.cat([root * y, torch.zeros(9, 3, dtype=DOUBLE)])).solution
        torch.testing.assert_close(ridge_head(x, y, torch.tensor(0.7, dtype=DOUBLE), weight), expected)


def test_r2d2_in_a_loop_over_tasks():
    """Loss and gradient, with autograd and nothing of ours but the network's layers."""
    method = R2D2(way=3, shot=2, query=2, tasks=4)
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    meta["ridge"] = {"log_strength": HALF, "scale": 3 * HALF}
    leaves, spec = tree_flatten(meta)
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    params = tree_unflatten(leaves, spec)
    net, ridge, total = params["net"], params["ridge"], 0.0
    for x, y, query_x, query_y in zip(*drawn[:4], strict=True):
        support, query = ((v.to(DOUBLE) @ net["layer0.weight"] + net["layer0.bias"]).relu() for v in (x, query_x))
        square = support.T @ support + ridge["log_strength"].exp() * torch.eye(7, dtype=DOUBLE)
        head = torch.linalg.inv(square) @ support.T @ F.one_hot(y, 3).to(DOUBLE)  # [F, F], where ours inverts [R, R]
        total = total + F.cross_entropy(query @ head * ridge["scale"], query_y) / 4
    expected = torch.autograd.grad(total, leaves, allow_unused=True)
    loss, gradient = method.gradient(TASKS, meta, drawn, HALF)
    torch.testing.assert_close(loss, total.detach())
    for ours, theirs in zip(tree_flatten(gradient)[0], expected, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs)


@dataclass(frozen=True)
class PerStep:
    """Gradient descent whose rate of each step is its state, as MAML++ learns them."""

    at_task_end: str = "kept"

    def init(self, params):
        return {"rates": torch.zeros(3), "count": torch.zeros((), dtype=torch.int64)}

    def update(self, params, gradients, state, progress):
        rate = state["rates"][state["count"]]
        return tree_map(lambda p, g: p - rate * g, params, gradients), {**state, "count": state["count"] + 1}


@dataclass(frozen=True)
class RatesOfSteps(MAML):
    """Learns a rate for each inner step: what differs is said by `inner_learner` alone."""

    def init(self, distribution, generator):
        rates = torch.linspace(0.1, 0.3, self.steps, dtype=distribution.dtype)
        return {**super().init(distribution, generator), "steps": {"rates": (rates,)}}

    def inner_learner(self, distribution, meta, way):
        learner, _ = super().inner_learner(distribution, meta, way)
        count = torch.zeros((), dtype=torch.int64)
        return replace(learner, optimiser=PerStep()), {"rates": meta["steps"]["rates"][0], "count": count}


def test_an_inner_learner_of_its_own_is_unrolled_and_differentiated():
    """Rates of each step, against a loop in plain autograd; and through the outer loop, in a fleet."""
    method = RatesOfSteps(**SMALL, steps=3)
    meta, drawn = method.init(TASKS, generator("start")), drawn_by(method)
    _, gradient = method.gradient(TASKS, meta, drawn, HALF)
    leaves = {name: value.clone().requires_grad_() for name, value in meta["net"].items()}
    rates, total = meta["steps"]["rates"][0].clone().requires_grad_(), 0.0

    def logits(p, x):
        return (x.to(DOUBLE) @ p["layer0.weight"] + p["layer0.bias"]).relu() @ p["head.weight"] + p["head.bias"]

    for x, y, query_x, query_y in zip(*drawn[:4], strict=True):
        moved = dict(leaves)
        for step in range(3):
            slopes = torch.autograd.grad(F.cross_entropy(logits(moved, x), y), list(moved.values()), create_graph=True)
            moved = {n: p - rates[step] * g for (n, p), g in zip(moved.items(), slopes, strict=True)}
        total = total + F.cross_entropy(logits(moved, query_x), query_y) / len(drawn.classes)
    expected = torch.autograd.grad(total, [rates, *leaves.values()])
    torch.testing.assert_close(gradient["steps"]["rates"][0], expected[0])
    torch.testing.assert_close(gradient["net"], dict(zip(leaves, expected[1:], strict=True)))
    fleet, alone = (pretrain(method, TASKS, seeds, episodes=0).meta for seeds in ((1, 4), (4,)))
    torch.testing.assert_close(tree_map(lambda leaf: leaf[1:], fleet), alone, rtol=1e-9, atol=1e-12)


def test_a_step_gives_its_loss_too():
    """The same state as `step`, and the loss before it; Reptile reports that of the last inner step."""
    learner, problem = Learner(MLP(7), optimiser=Adam(0.1)), TASKS.problem(3)
    episode = TASKS.train.draw(1, 3, 4, 1, generator("step")).task(0)
    batch = batch_of(episode.support_x, episode.support_y, 3, DOUBLE)
    state = learner.init(problem, {"net": MLP(7).init((6,), 3, generator("net"))}, generator("x"))
    state = tree_map(lambda leaf: leaf.to(DOUBLE) if leaf.is_floating_point() else leaf, state)
    after, loss = learner.step_and_loss(problem, state, batch)
    for a, b in zip(tree_flatten(after)[0], tree_flatten(learner.step(problem, state, batch))[0], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(loss, F.cross_entropy(problem.logits(state.params, batch.x), batch.y))
    method = Reptile(way=3, tasks=1, shot=4, batch=12, steps=1)
    meta, (drawn, order) = {"net": state.params["net"]}, method.draw(TASKS, generator("drawn"))
    found, _ = method.gradient(TASKS, meta, (drawn, order), HALF)
    torch.testing.assert_close(
        found, F.cross_entropy(problem.logits(meta, drawn.support_x[0].to(DOUBLE)), drawn.support_y[0])
    )


@dataclass(frozen=True)
class VariableShot(TaskSource):
    """Tasks of one to K shots and some queries, padded to one shape with rows of noise that estimate_memory nothing."""

    pool: TaskSource
    name = "variable shot"
    hash = "variable shot"
    shape = (6,)

    def __len__(self):
        return len(self.pool)

    def check(self, way, shot, query):
        self.pool.check(way, shot, query)

    def draw(self, tasks, way, shot, query, generator):
        episode = self.pool.draw(tasks, way, shot, query, generator)
        parts = {}
        for part in ("support", "query"):
            x, y = getattr(episode, f"{part}_x"), getattr(episode, f"{part}_y")
            order = torch.rand(y.shape, generator=generator).argsort(1)
            first = torch.zeros_like(y, dtype=torch.bool)  # of each class one row counts at least
            for n in range(way if y.shape[1] else 0):
                first[torch.arange(tasks), (y == n).to(torch.int64).argmax(1)] = True
            kept = first | (order < y.shape[1] // 2)
            parts |= {f"{part}_x": torch.where(kept[..., None], x, 1e3), f"{part}_weight": kept.to(torch.float32)}
        about = torch.nn.functional.one_hot(episode.classes, len(self.pool)).to(torch.float32)
        return episode._replace(**parts, about=about)


VARIABLE = TaskDistribution(MLP(7), VariableShot(class_pool(TABLE)), VariableShot(class_pool(TABLE)), DOUBLE)


@pytest.mark.parametrize(
    "method",
    [
        ProtoNet(way=3, shot=3, query=4, tasks=3),
        R2D2(way=3, shot=3, query=4, tasks=3),
        MAML(way=3, shot=3, query=4, tasks=3, steps=2),
        MatchingNet(way=3, shot=3, query=4, tasks=3),
        MatchingNet(way=3, shot=3, query=4, tasks=3, full_context=True),
        InfiniteMixturePrototypes(way=3, shot=3, query=4, tasks=3, concentration=1.0),
        GraphNet(way=3, shot=3, query=4, tasks=3),
    ],
    ids=lambda method: type(method).__name__,
)
def test_rows_that_weigh_nothing_are_as_if_they_were_not_there(method):
    """Tasks of different shots in tensors of one shape: the loss is that of each task's own rows, one after another."""
    meta, drawn = method.init(VARIABLE, generator("start")), method.draw(VARIABLE, generator("drawn"))
    losses = []
    for place in range(3):
        task = drawn.task(place)
        shown, asked = task.support_weight > 0, task.query_weight > 0
        assert not shown.all() and not asked.all()
        support = Support(task.support_x[shown], task.support_y[shown])
        scores = method.predict(VARIABLE, meta, support, task.query_x[asked], 3)
        losses.append(F.cross_entropy(scores, task.query_y[asked]))
    torch.testing.assert_close(method.loss(VARIABLE, meta, drawn, HALF), torch.stack(losses).mean())
    found = scored(method, VARIABLE, meta, VARIABLE.validation, way=3, shot=3, query=4, episodes=10)
    assert 0 <= float(found.scores.mean()) <= 1


def test_reptile_counts_rows_by_their_weights():
    """One full-batch step of plain descent is the gradient of the weighted loss."""
    method = Reptile(way=3, tasks=1, shot=4, steps=1, batch=12, inner=SGD(0.1))
    meta, (drawn, order) = method.init(VARIABLE, generator("start")), method.draw(VARIABLE, generator("drawn"))
    _, gradient = method.gradient(VARIABLE, meta, (drawn, order), HALF)
    kept = drawn.support_weight[0] > 0

    def loss(net):
        return F.cross_entropy(
            VARIABLE.problem(3).logits({"net": net}, drawn.support_x[0][kept].to(DOUBLE)), drawn.support_y[0][kept]
        )

    torch.testing.assert_close(gradient["net"], tree_map(lambda g: 0.1 * g, torch.func.grad(loss)(meta["net"])))


@dataclass(frozen=True)
class FromDescriptors(ProtoNet):
    """Zero shots: a class is what its task_embedding says."""

    least: ClassVar[dict] = MetaLearner.least

    def init(self, distribution, generator):
        meta = super().init(distribution, generator)
        return {**meta, "map": torch.randn(12, 7, generator=generator, dtype=DOUBLE)}

    def query_scores(self, distribution, meta, support, query, way):
        features = distribution.problem(way).features(meta, query.to(DOUBLE))
        return features @ (support.about.to(DOUBLE) @ meta["map"]).T


def test_descriptors_of_the_classes_reach_the_answers_and_are_learned_from():
    method = FromDescriptors(way=3, shot=0, query=4, tasks=4, iterations=60, outer=Adam(0.05))
    learned = pretrain(method, VARIABLE, (0,), episodes=0)
    assert float(learned.losses[0, -5:].mean()) < float(learned.losses[0, :5].mean()) / 2


@dataclass(frozen=True)
class Annealed(ProtoNet):
    """Its loss is how much of the outer loop is over."""

    def loss(self, distribution, meta, drawn, progress):
        return progress + 0 * super().loss(distribution, meta, drawn, progress)


@pytest.mark.parametrize("worth", [1, 200])
def test_the_loss_is_told_how_much_of_the_outer_loop_is_over(worth, monkeypatch):
    """Recorded, too: progress is no constant of the recording."""
    monkeypatch.setattr(pretraining, "WORTH_RECORDING", worth)
    learned = pretrain(Annealed(way=3, tasks=2, iterations=4), TASKS, (0, 1), episodes=0)
    torch.testing.assert_close(learned.losses, torch.tensor([[0, 0.25, 0.5, 0.75]] * 2, dtype=DOUBLE))


def test_events_come_in_the_order_of_execution_and_bear_the_state():
    method = ProtoNet(way=3, tasks=2, iterations=4)
    state = begin(method, TASKS, (0,))
    seen = [
        (type(event).__name__, event.state.iteration)
        for event in events(method, [TASKS], (0,), state, validate_every=2, episodes=3)
    ]
    steps = [("Stepped", 1), ("Stepped", 2), ("Validated", 2), ("Stepped", 3), ("Stepped", 4), ("Validated", 4)]
    assert seen == [("Begun", 0), *steps, ("Done", 4)]
    whole = pretrain(method, TASKS, (0,), validate_every=2, episodes=3)
    assert all(torch.equal(a, b) for a, b in zip(*(tree_flatten(s.meta)[0] for s in (state, whole.state)), strict=True))


def test_learning_begins_from_given_trunks():
    """The heads stay the seeds' own draws; a trunk of another network is refused."""
    given = {name: torch.stack([v, 2 * v]) for name, v in MLP(7).init((6,), 9, generator("given")).items()}
    method = ProtoNet(way=3, tasks=2, iterations=0)
    learned, alone = (pretrain(method, TASKS, (0, 1), episodes=0, initial=i).meta["net"] for i in (given, None))
    assert torch.equal(learned["layer0.weight"], given["layer0.weight"].to(DOUBLE))
    assert torch.equal(learned["head.weight"], alone["head.weight"])
    with pytest.raises(ConfigurationError, match="another network"):
        pretrain(method, TASKS, (0,), initial={"layer0.weight": torch.zeros(1, 6, 8)})


@pytest.mark.parametrize("method", [ProtoNet(), MAML(steps=2), Reptile(test_steps=2)], ids=lambda m: type(m).__name__)
def test_each_query_apart_is_the_plain_pass_where_rows_are_not_mixed(method):
    """And where they are, each query beside the support, which passes once: in pieces the same as one after another."""
    x = torch.rand(60, 8, 8, generator=generator("images"))
    dataset = replace(TABLE, x=x, y=torch.arange(60) % 6, train_rows=60, classes=6, labels=())
    for norm in ("group", "batch"):
        source = class_pool(dataset)
        tasks = TaskDistribution(Conv4(4, blocks=2, groups=2, norm=norm), source, source, DOUBLE)
        meta = method.init(tasks, generator("start"))
        size = {"way": 5, "shot": 1, "query": 4, "episodes": 12}
        plain, apart = (scored(method, tasks, meta, source, inductive=i, **size) for i in (False, True))
        assert apart.mode == "inductive" and plain.mode == ("inductive" if norm == "group" else "transductive")
        if norm == "group":
            assert torch.equal(plain.scores, apart.scores)
            continue
        words = ("test episodes", source.hash, 5, 1, 4, 10)
        task = source.draw(2, 5, 1, 4, generator(*words)).task(1)
        with torch.no_grad():
            company = task.support_x[:0] if isinstance(method, ProtoNet) else task.support_x
            alone = [
                method.predict(tasks, meta, task.support, torch.cat([company, row[None]]), 5)[-1]
                for row in task.query_x
            ]
        score = (torch.stack(alone).argmax(1) == task.query_y).to(DOUBLE).mean()
        torch.testing.assert_close(apart.scores[11], score)


def test_oml_sees_class_after_class_with_their_own_labels():
    dataset = replace(TABLE, x=TABLE.y.to(DOUBLE)[:, None].expand(-1, 6).clone())  # each row bears its class
    tasks = TaskDistribution(MLP(7), class_pool(dataset), class_pool(dataset), DOUBLE)
    drawn = OML(way=3, shot=4, query=2, remember=4, tasks=5).draw(tasks, generator("drawn"))
    assert torch.equal(drawn.x[..., 0].to(torch.int64), drawn.y)
    assert torch.equal(drawn.test_x[..., 0].to(torch.int64), drawn.test_y)
    assert torch.equal(drawn.y, drawn.classes.repeat_interleave(4, 1))


def test_oml_of_one_class_at_a_time():
    """As ANML draws them: way is at least 1 where the head is that of all classes."""
    method = OML(way=1, shot=3, query=2, remember=3, iterations=2)
    assert torch.isfinite(pretrain(method, TASKS, (0,), episodes=0).losses).all()
    with pytest.raises(ConfigurationError, match="at least 2"):
        ProtoNet(way=1)


def test_the_interval_of_a_test_is_that_of_the_metrics():
    found = Scored(torch.tensor([0.2, 0.4, 0.9], dtype=DOUBLE), 5, 1, 1, "", "")
    assert found.half_width == estimate(found.scores).half_width == pytest.approx(4.302653 * 0.3605551 / 3**0.5)


def test_a_test_tells_how_many_episodes_were_answered():
    told, method = [], ProtoNet(way=3)
    meta = method.init(TASKS, generator("start"))
    scored(method, TASKS, meta, TASKS.train, way=3, query=4, episodes=12, tell=lambda *words: told.append(words))
    assert told[0] == (0, 12) and told[-1] == (12, 12) and len(told) > 2
