"""How tasks share: layers that are shared or not, springs, cross-stitch, experts; plain networks and limits as witnesses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lifelong.contracts.learners import states, tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, run
from lifelong.core.strategy import FineTuning, StrategyError
from lifelong.models.base import Described, ModelError
from lifelong.models.conditioned import WAYS, Conditioned
from lifelong.models.convolutional import Conv4
from lifelong.models.cross_stitch import CrossStitch
from lifelong.models.mmoe import MMoE
from lifelong.models.perceptron import MLP
from lifelong.models.shared_layers import SharedLayers
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.multitask.soft_sharing import SoftSharing
from scenarios.catalogue import build
from scenarios.joint import joint
from scenarios.stream import Budget
from tests.reference.plain_joint import DOUBLE, RATE, TASKS, Plain, gap

IMAGE = Described(64, 3, 1, 8)
TRUNKS = (MLP(7, 5), Conv4(8, 2))


def net_of(model, shape=IMAGE, classes: int = 6, noise: float = 0.1):
    """A network in float64, away from its start; pixels, tasks, and rows that tell the task."""
    random = torch.Generator().manual_seed(0)
    net = {name: value.to(DOUBLE) for name, value in model.init(shape, classes, random).items()}
    net = {k: v + noise * torch.randn(v.shape, generator=random, dtype=DOUBLE) for k, v in net.items()}
    task = torch.arange(9) % 3
    pixels = torch.randn(9, 64, generator=random, dtype=DOUBLE)
    return net, pixels, task, torch.cat([pixels, torch.eye(3, dtype=DOUBLE)[task]], 1)


def of_task(net, t: int):
    """Task t's network as a plain one."""
    return {name.removeprefix("own."): value[t] if name.startswith("own.") else value for name, value in net.items()}


# --- layers that are shared, and layers that are not ----------------------------------------------------------------


@pytest.mark.parametrize("trunk", TRUNKS, ids=repr)
@pytest.mark.parametrize("depth", [0, 1, 2, -1])
def test_each_row_goes_through_the_shared_layers_and_its_own_tasks(trunk, depth):
    model = SharedLayers(trunk, depth)
    net, pixels, task, x = net_of(model)
    rows = pixels if isinstance(trunk, MLP) else pixels.view(-1, 8, 8)
    ours = model.head(net, model.features(net, x))
    for b, t in enumerate(task.tolist()):
        plain = of_task(net, t)
        torch.testing.assert_close(ours[b], trunk.head(plain, trunk.features(plain, rows[b : b + 1]))[0], rtol=1e-9, atol=1e-12)  # fmt: skip
    stacks = sum(name.startswith("own.") for name in net)
    assert stacks == (0 if depth < 0 else (2 - depth) * (len(net) - 2) // 2)


def test_all_shared_is_the_trunk_to_the_bit_and_learns_like_it():
    for depth in (2, -1):
        ours = states(Learner(SharedLayers(MLP(6, 5), depth), FineTuning(), Adam(0.01)), joint(tiny("task")), [0, 1])
        plain = states(Learner(MLP(6, 5), FineTuning(), Adam(0.01)), joint(tiny("task")), [0, 1])
        assert all(torch.equal(value, ours.params["net"][name]) for name, value in plain.params["net"].items())


def test_none_shared_is_a_network_for_each_task():
    """A plain loop over T separate networks of one start, each on its own rows: the same steps."""
    model = SharedLayers(MLP(6), 0)
    stream = joint(tiny("task", iterations=10))
    plain = Plain(FineTuning(), stream, model)
    nets = [{k: v.clone().requires_grad_() for k, v in of_task({k: v.detach() for k, v in plain.net.items()}, t).items()} for t in range(TASKS)]  # fmt: skip
    assert torch.equal(nets[0]["layer0.weight"], nets[2]["layer0.weight"]), "all from the same start"
    for batch in plain.batches():
        for t, net in enumerate(nets):
            mine = batch.task == t
            if mine.any():
                h = (batch.x[mine, :-TASKS] @ net["layer0.weight"] + net["layer0.bias"]).relu()
                scores = (h @ net["head.weight"] + net["head.bias"]).masked_fill(~batch.allowed[mine], -torch.inf)
                loss = F.cross_entropy(scores, batch.y[mine], reduction="sum") / len(mine)
                found = torch.autograd.grad(loss, list(net.values()))
                with torch.no_grad():
                    for value, gradient in zip(net.values(), found, strict=True):
                        value -= RATE * gradient
    ours = states(Learner(model, FineTuning(), SGD(RATE)), stream, [0], DOUBLE).params["net"]
    for t, net in enumerate(nets):
        torch.testing.assert_close(
            ours["own.layer0.weight"][0, t], net["layer0.weight"].detach(), rtol=1e-9, atol=1e-12
        )
        columns = [c for c in range(6) if c in list(stream.tasks_of(0)[t].classes)]
        torch.testing.assert_close(ours["head.weight"][0][:, columns], net["head.weight"][:, columns].detach(), rtol=1e-9, atol=1e-12)  # fmt: skip


# --- springs ------------------------------------------------------------------------------------------------------------


def springs(tie: float):
    def rule(plain: Plain, batch):
        loss = (plain.rows(batch) / len(batch.task)).sum()
        stacks = [value for name, value in plain.net.items() if name.startswith("own.")]
        pairs = [(s, t) for t in range(TASKS) for s in range(t)]
        return plain.gradient(loss + tie / 2 * sum((p[s] - p[t]).square().sum() for p in stacks for s, t in pairs))

    return rule


def test_soft_sharing_is_the_sum_over_pairs_and_a_planted_error_shows():
    model, stream = SharedLayers(MLP(6, 5), 1), joint(tiny("task", iterations=10))
    for tie in (0.0, 0.7):
        assert gap(SoftSharing(tie), springs(tie), stream, model) < 1e-9
    assert gap(SoftSharing(0.7), springs(0.7 * 1.001), stream, model) > 1e-6


def pulled_after(tie: float):
    """A plain step, and then each task's layers (theta + tie mean) / (1 + tie)."""

    def rule(plain: Plain, batch):
        plain.step(plain.gradient((plain.rows(batch) / len(batch.task)).sum()))
        with torch.no_grad():
            for name, value in plain.net.items():
                if name.startswith("own."):
                    value.copy_(torch.stack([(part + tie * value.mean(0)) / (1 + tie) for part in value]))

    return rule


def test_decoupled_soft_sharing_pulls_after_the_step_and_a_planted_error_shows():
    model, stream = SharedLayers(MLP(6, 5), 1), joint(tiny("task", iterations=10))
    assert gap(SoftSharing(0.7, True), pulled_after(0.7), stream, model) < 1e-9
    assert gap(SoftSharing(0.7, True), pulled_after(0.7 * 1.001), stream, model) > 1e-6
    assert gap(SoftSharing(0.7, True), springs(0.7), stream, model) > 1e-6


def learned_net(model, part, rate: float):
    stream = joint(tiny("task", iterations=10))
    return states(Learner(model, part, SGD(rate)), stream, [0], DOUBLE).params["net"]


@pytest.mark.parametrize("decoupled", [False, True])
def test_no_tie_is_separate_networks_and_an_endless_one_is_a_shared_network(decoupled):
    apart, rate = SharedLayers(MLP(6), 0), 0.03
    untied, none = learned_net(apart, SoftSharing(0.0, decoupled), rate), learned_net(apart, FineTuning(), rate)
    for name, value in none.items():
        torch.testing.assert_close(untied[name], value, rtol=1e-12, atol=1e-14)
    # the mean of the tasks' gradients and not their sum: the shared layers at a third of the rate, the heads at the whole
    shared = learned_shared(rate)
    spread, gaps = [], []
    for tie in (1.0, 3.0, 9.0) if not decoupled else (1.0, 1e3, float("inf")):
        tied = learned_net(apart, SoftSharing(tie, decoupled), rate)["own.layer0.weight"][0]
        spread.append(float((tied - tied.mean(0)).norm()))
        gaps.append(float((tied - shared).abs().max()))
    assert spread[0] > 1.8 * spread[1] > 3 * spread[2] or decoupled
    assert gaps[0] > gaps[1] > gaps[2] or decoupled
    assert not decoupled or (spread[2] < 1e-15 and gaps[2] < 1e-12 < 1e-4 < gaps[0])


def learned_shared(rate: float):
    """A plain loop: one shared layer at rate / T, the heads at the rate."""
    plain = Plain(FineTuning(), joint(tiny("task", iterations=10)), MLP(6))
    for batch in plain.batches():
        loss = (plain.rows(batch) / len(batch.task)).sum()
        found = torch.autograd.grad(loss, list(plain.net.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(plain.net.items(), found, strict=True):
                value -= (rate if name.startswith("head.") else rate / TASKS) * gradient
    return plain.net["layer0.weight"].detach()


# --- cross-stitch and experts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trunk", TRUNKS, ids=repr)
def test_cross_stitch_mixes_what_all_tasks_see_after_each_layer(trunk):
    model = CrossStitch(trunk)
    net, pixels, task, x = net_of(model)
    each = [pixels if isinstance(trunk, MLP) else pixels.view(-1, 1, 8, 8)] * 3
    for i in range(2):
        made = [trunk.layer(of_task(net, t), i, h) for t, h in enumerate(each)]
        stitch = net[f"stitch{i}.weight"]
        each = [sum(stitch[t, s] * made[s] for s in range(3)) for t in range(3)]
    expected = torch.stack([each[t][b].flatten() for b, t in enumerate(task.tolist())])
    torch.testing.assert_close(model.features(net, x), expected, rtol=1e-9, atol=1e-12)
    net["stitch0.weight"][0, 1] *= 1.001
    assert (model.features(net, x) - expected).abs().max() > 1e-7


def test_cross_stitch_from_the_identity_starts_as_networks_apart():
    stitched, apart = CrossStitch(MLP(7, 5), start=1.0), SharedLayers(MLP(7, 5), 0)
    net, _, _, x = net_of(stitched, noise=0.0)
    torch.testing.assert_close(stitched.features(net, x), apart.features(net, x), rtol=0, atol=0)
    start = CrossStitch(MLP(7), 0.9).init(IMAGE, 4, torch.Generator())["stitch0.weight"]
    assert torch.allclose(start.diagonal(), torch.tensor(0.9)) and torch.allclose(start.sum(1), torch.ones(3))


@pytest.mark.parametrize("trunk", TRUNKS, ids=repr)
def test_experts_are_mixed_by_the_gate_of_the_rows_task(trunk):
    model = MMoE(trunk, 4)
    net, pixels, task, x = net_of(model)
    rows = pixels if isinstance(trunk, MLP) else pixels.view(-1, 8, 8)
    experts = [{k.removeprefix("expert."): v[e] for k, v in net.items() if k.startswith("expert.")} for e in range(4)]
    made = torch.stack([trunk.features(expert, rows) for expert in experts])
    gates = torch.stack([torch.softmax(pixels[b] @ net["gate.weight"][t], 0) for b, t in enumerate(task.tolist())])
    expected = torch.stack([sum(gates[b, e] * made[e, b] for e in range(4)) for b in range(9)])
    torch.testing.assert_close(model.features(net, x), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.shares(net, x), gates, rtol=1e-9, atol=1e-12)
    net["gate.weight"][0] *= 1.001
    assert (model.features(net, x) - expected).abs().max() > 1e-7


def test_one_expert_is_a_shared_bottom():
    net, pixels, _, x = net_of(MMoE(MLP(7, 5), 1))
    plain = {k.removeprefix("expert."): v[0] for k, v in net.items() if k.startswith("expert.")}
    ours, shared = MMoE(MLP(7, 5), 1).features(net, x), MLP(7, 5).features(plain, pixels)
    torch.testing.assert_close(ours, shared, rtol=1e-12, atol=1e-14)


# --- conditioning of convolutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("trunk", [Conv4(8, 2), Conv4(8, 2, halving="stride", norm="batch")], ids=repr)
def test_conditioned_convolutions_are_their_formula(by, trunk):
    model = Conditioned(trunk, by, "all")
    net, pixels, task, x = net_of(model)
    h, z = pixels.view(-1, 1, 8, 8), torch.eye(3, dtype=DOUBLE)[task]
    stride = 2 if trunk.halving == "stride" else 1
    for i in range(2):
        weight = net[f"block{i}.weight"]
        if by == "concatenation":
            planes = z[:, :, None, None].expand(-1, -1, *h.shape[-2:])
            h, weight = torch.cat([h, planes], 1), torch.cat([weight, net[f"condition{i}.shift"]], 1)
        h = F.conv2d(h, weight, padding=1, stride=stride)
        if trunk.norm == "group":
            h = F.group_norm(h, 8, net[f"block{i}.scale"], net[f"block{i}.shift"])
        else:
            h = F.batch_norm(h, None, None, net[f"block{i}.scale"], net[f"block{i}.shift"], True)
        if by in ("gates", "film"):
            h = (1 + net[f"condition{i}.scale"][task])[:, :, None, None] * h
        if by in ("addition", "film"):
            h = h + net[f"condition{i}.shift"][task][:, :, None, None]
        h = h.relu() if stride == 2 else F.max_pool2d(h.relu(), 2)
    torch.testing.assert_close(model.features(net, x), h.flatten(1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("by", ["addition", "gates", "film"])
def test_conditioned_convolutions_start_as_their_trunk(by):
    ours = Conditioned(Conv4(8, 2), by).init(IMAGE, 4, torch.Generator().manual_seed(3))
    plain = Conv4(8, 2).init((8, 8), 4, torch.Generator().manual_seed(3))
    assert all(torch.equal(ours[name], value) for name, value in plain.items())


MODELS = (SharedLayers(Conv4(8, 2), 1), CrossStitch(MLP(16)), MMoE(MLP(16), 2), Conditioned(Conv4(8, 2)))


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_it_learns_in_a_fleet_as_alone(model):
    stream = joint(build("multi-digits", budget=Budget(iterations=15, batch=32)))
    result = run(Learner(model, FineTuning(), Adam(0.01)), stream, [0, 1])
    alone = run(Learner(model, FineTuning(), Adam(0.01)), stream, [1])
    assert torch.equal(result.accuracy[1:], alone.accuracy)
    assert float(result.at_task_ends[:, -1].mean()) > 0.15


def test_what_cannot_be_is_refused_in_one_line():
    plain = joint(tiny("task"))
    refused = {
        "2 layers to share": lambda: SharedLayers(MLP(4, 4), 3),
        "or a Conv4": lambda: SharedLayers(MLP()),
        "a share, 0 to 1": lambda: CrossStitch(MLP(4), 2.0),
        "at least 1": lambda: MMoE(MLP(4), 0),
        "nothing tells it": lambda: MMoE(MLP(4)).init((10,), 2, torch.Generator()),
        "square images": lambda: Session(Learner(CrossStitch(Conv4(8, 2))), plain, [0]).first_state(),
        "too many to tell": lambda: SharedLayers(Conv4(8, 2)).init(Described(64, 17, 1, 8), 2, torch.Generator()),
        "3 that say which task, not 64": lambda: MMoE(MLP(4)).features(net_of(MMoE(MLP(4)))[0], torch.zeros(2, 64)),
    }
    for words, wrong in refused.items():
        with pytest.raises(ModelError, match=words) as seen:
            wrong()
        assert "\n" not in str(seen.value)
    for wrong, words in ((lambda: SoftSharing(-1.0), "tie must be"), (lambda: run(Learner(MLP(4), SoftSharing()), plain, [0]), "SharedLayers")):  # fmt: skip
        with pytest.raises(StrategyError, match=words):
            wrong()
