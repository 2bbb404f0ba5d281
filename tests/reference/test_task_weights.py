"""DWA, GradNorm, RLW and FAMO: plain float64 loops from the papers, on the same batches; planted errors are seen."""

from __future__ import annotations

import pytest
import torch

from lifelong.core.learner import Learner
from lifelong.core.loop import Session, learned, run
from lifelong.core.strategy import FineTuning, StrategyError
from lifelong.models.base import Described, ModelError
from lifelong.models.mmoe import MMoE
from lifelong.models.perceptron import MLP
from lifelong.models.shared_layers import SharedLayers
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.multitask.dwa import DWA
from lifelong.strategies.multitask.famo import FAMO
from lifelong.strategies.multitask.gradnorm import GradNorm
from lifelong.strategies.multitask.rlw import RLW
from scenarios.catalogue import build
from scenarios.joint import joint
from scenarios.stream import Budget
from tests.reference.plain_joint import DOUBLE, TASKS, Plain, apart, gap, learner_of, stream_of_three

PLANTED = 1.001


def weighted(plain: Plain, batch, weights) -> torch.Tensor:
    """The gradient of sum_i a_i n_i / B L_i."""
    here, losses = plain.of_tasks(batch)
    shares = [float((batch.task == t).sum()) / len(batch.task) for t in here]
    return plain.gradient(sum(weights[t] * s * loss for t, s, loss in zip(here, shares, losses, strict=True)))


def random_weights(planted: float = 1.0):
    def rule(plain: Plain, batch):
        z = torch.distributions.Normal(0.0, planted).icdf(batch.draws[0]["weights"].to(DOUBLE))
        return weighted(plain, batch, (TASKS * z.exp() / z.exp().sum()).tolist())

    return rule


def test_random_weights():
    assert gap(RLW(), random_weights()) < 1e-9
    assert gap(RLW(), random_weights(PLANTED)) > 1e-6


def averaged(window: int, temperature: float = 2.0):
    """DWA: epochs are windows of steps; a loss that a window did not see keeps its last value."""
    seen: list[list[list[float]]] = [[[] for _ in range(TASKS)]]
    means: list[list[float]] = []
    steps = [0]

    def rule(plain: Plain, batch):
        last = means[-1] if means else [0.0] * TASKS
        before = means[-2] if len(means) > 1 else [0.0] * TASKS
        falls = [a / b if a and b else 1.0 for a, b in zip(last, before, strict=True)]
        weights = TASKS * torch.softmax(torch.tensor(falls, dtype=DOUBLE) / temperature, 0)
        direction = weighted(plain, batch, weights.tolist())
        for t, loss in zip(*plain.of_tasks(batch), strict=True):
            seen[-1][t].append(float(loss.detach()))
        steps[0] += 1
        if steps[0] == window:
            means.append([sum(s) / len(s) if s else last[t] for t, s in enumerate(seen[-1])])
            seen.append([[] for _ in range(TASKS)])
            steps[0] = 0
        return direction

    return rule


def test_dynamic_weight_average():
    for window in (2, 5):
        assert gap(DWA(window=window), averaged(window)) < 1e-9
        assert gap(DWA(window=window), averaged(window, 2 * PLANTED)) > 1e-6
    stream = stream_of_three()
    rows = sum(len(task.train) for task in stream.tasks_of(0))
    assert gap(DWA(), averaged(-(-rows // 8))) < 1e-9, "an epoch of all tasks is the window where none is named"


def balanced(alpha: float, rate: float = 0.025, layer: str = "layer0.weight"):
    """GradNorm by autograd: the gradient of the norms' own loss with respect to the weights, targets held constant."""
    weights = torch.ones(TASKS, dtype=DOUBLE, requires_grad=True)
    adam = torch.optim.Adam([weights], rate)
    first: dict[int, float] = {}

    def rule(plain: Plain, batch):
        direction = weighted(plain, batch, weights.detach().tolist())
        here, losses = plain.of_tasks(batch)
        for t, loss in zip(here, losses, strict=True):
            first.setdefault(t, float(loss.detach()))
        lengths = [plain.gradient(loss, (layer,)).norm() for loss in losses]
        norms = torch.stack([weights[t] * length for t, length in zip(here, lengths, strict=True)])
        left = torch.tensor(
            [float(loss.detach()) / first[t] for t, loss in zip(here, losses, strict=True)], dtype=DOUBLE
        )
        target = (norms.mean() * (left / left.mean()) ** alpha).detach()
        adam.zero_grad()
        (norms - target).abs().sum().backward()
        adam.step()
        with torch.no_grad():
            weights.clamp_(min=1e-3)
            weights.mul_(TASKS / weights.sum())
        return direction

    return rule


def test_gradient_norms():
    assert gap(GradNorm(alpha=0.0), balanced(0.0)) < 1e-9
    # the weights go by the signs of G_i - target_i: alpha shows where it turns one, and that takes the weights near their targets
    to = apart(GradNorm(alpha=1.5), stream_of_three(iterations=100))
    assert to(balanced(1.5)) < 1e-9
    assert to(balanced(1.5 * PLANTED)) > 1e-6
    assert gap(GradNorm(rate=0.01), balanced(1.5, 0.01 * PLANTED)) > 1e-6
    assert gap(GradNorm(layer="layer0.weight"), balanced(1.5)) < 1e-9
    assert gap(GradNorm(layer="layer0.bias"), balanced(1.5, layer="layer0.bias")) < 1e-9


def famo(decay: float = 0.001, bound: float = 0.0, late: float = 1.0):
    """FAMO with torch's Adam and autograd's Jacobian of softmax."""
    xi = torch.zeros(TASKS, dtype=DOUBLE, requires_grad=True)
    adam = torch.optim.Adam([xi], 0.025, weight_decay=decay)

    def rule(plain: Plain, batch):
        here, losses = plain.of_tasks(batch)
        share = torch.softmax(xi[here], 0)
        before = torch.stack(losses)
        c = 1 / (share.detach() / (before.detach() - bound + 1e-8)).sum()
        total = c * (share.detach() * (before - bound + 1e-8).log()).sum()
        # a mean over tasks, each by its share of the batch
        counts = torch.tensor([float((batch.task == t).sum()) for t in here], dtype=DOUBLE)
        by_loss = torch.autograd.grad(total, losses, retain_graph=True)
        scale = len(here) * counts / len(batch.task)
        plain.step(sum(s * a * plain.gradient(loss) for s, a, loss in zip(scale, by_loss, losses, strict=True)))
        after = torch.stack(plain.of_tasks(batch)[1]).detach()
        gained = (before.detach() - bound + 1e-8).log() - late * (after - bound + 1e-8).log()
        adam.zero_grad()
        xi.grad = torch.autograd.grad(share, xi, gained)[0]
        adam.step()

    return rule


def test_fast_adaptive_optimisation():
    assert gap(FAMO(), famo()) < 1e-9
    assert gap(FAMO(decay=0.1, bound=-0.5), famo(0.1, -0.5)) < 1e-9
    assert gap(FAMO(), famo(late=PLANTED)) > 1e-6
    assert gap(FAMO(bound=-0.5), famo(bound=-0.5 * PLANTED)) > 1e-6
    assert gap(FAMO(decay=0.1), famo(0.1 * PLANTED)) > 1e-6


def test_a_gradnorm_weight_never_falls_below_its_floor():
    part = GradNorm(rate=5.0)
    state = learned(Session(learner_of(part), stream_of_three(), [0, 1], dtype=DOUBLE))[1]
    weights = state.params["own"]["GradNorm/0"]["weights"]
    assert (weights > 0).all() and torch.allclose(weights.sum(1), torch.full((2,), 3.0, dtype=DOUBLE))


def test_the_last_shared_layer_is_none_of_a_tasks_own():
    shared = SharedLayers(MLP(4, 5, 6), 2).init(Described(7, 3), 4, torch.Generator())
    assert list(GradNorm().shared(shared)) == ["layer1.weight"]
    assert list(GradNorm().shared(MMoE(MLP(4, 5)).init(Described(7, 3), 4, torch.Generator()))) == [
        "expert.layer1.weight"
    ]
    assert list(GradNorm(layer="layer0").shared(shared)) == ["layer0.weight", "layer0.bias"]


def test_what_cannot_be_is_refused():
    refused = {
        "temperature must": lambda: DWA(temperature=0.0),
        "alpha must": lambda: GradNorm(alpha=-1.0),
        "floor between": lambda: GradNorm(floor=0.0),
        "rate must": lambda: FAMO(rate=0.0),
        "nothing to share": lambda: run(Learner(MLP(), GradNorm(), SGD(0.1)), stream_of_three(), [0]),
    }
    for words, wrong in refused.items():
        with pytest.raises(StrategyError, match=words) as seen:
            wrong()
        assert "\n" not in str(seen.value)
    with pytest.raises(ModelError, match="no parameter"):
        run(learner_of(GradNorm(layer="nowhere")), stream_of_three(), [0])
    with pytest.raises(StrategyError, match="replace `objective`"):
        FAMO() + FAMO()


def test_on_its_toy_gradnorm_gives_the_task_of_scale_100_the_small_weight():
    """Chen et al. (2018), section 4, alpha 0.12: and the task of scale 1, drowned with equal weights, is learned."""
    stream = joint(build("unbalanced", tasks=2, ratio=100.0, budget=Budget(iterations=100, batch=64)))
    score = {}
    for part in (FineTuning(), GradNorm(alpha=0.12)):
        result, state = learned(Session(Learner(MLP(40, 40), part, Adam(0.002)), stream, [0]))
        score[part] = float(result.at_task_ends[0, -1, 0])
    of_scale_1, of_scale_100 = state.params["own"]["GradNorm/0"]["weights"][0].tolist()
    assert of_scale_1 > 1.9 and of_scale_100 < 0.1
    equal, by_norms = score.values()
    assert by_norms > equal + 0.2, score
