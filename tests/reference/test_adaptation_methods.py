"""Methods of adaptation against loops of plain PyTorch: biases, unfreezing, rates by layer, relative gradient norms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from lifelong.adaptation.layerwise import AutoRGN, GradualUnfreezing, LayerDecay, LayerwiseRates, RelativeGradientNorms
from lifelong.adaptation.methods import BiasTuning, FullFineTuning, LinearProbe, TransferError, adapted_net
from lifelong.core.inner_loop import batch_of, episode_problem
from lifelong.core.learner import Learner
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam, AdamW
from lifelong.optimisers.multiplied import Multiplied
from lifelong.optimisers.sgd import SGD
from scenarios.stream import generator

DOUBLE, STEPS, RATE = torch.float64, 9, 0.02
MODELS = {"MLP": (MLP(7, 6), (5,)), "Conv4": (Conv4(2, groups=1), (16, 16))}


def episode(name: str, way: int = 3, rows: int = 12):
    model, shape = MODELS[name]
    problem, random = episode_problem(model, way, DOUBLE), generator("an adaptation", name)
    x = torch.randn(rows, *shape, dtype=DOUBLE, generator=random)
    net = {k: v.to(DOUBLE) for k, v in model.init(shape, way, random).items()}
    return net, problem, batch_of(x, torch.arange(rows) % way, way, DOUBLE)


class Plain:
    """A network's tensors by name, and stretches of plain torch steps on some of them, each at a rate of its own."""

    def __init__(self, name: str) -> None:
        self.start, self.problem, self.batch = episode(name)
        self.live = {k: v.clone().requires_grad_() for k, v in self.start.items()}

    def loss(self) -> torch.Tensor:
        return F.cross_entropy(self.problem.logits({"net": self.live}, self.batch.x), self.batch.y)

    def train(self, rates: dict[str, float], steps: int, make: Callable = torch.optim.Adam, **options) -> None:
        optimiser = make([{"params": [self.live[k]], "lr": rate} for k, rate in rates.items()], **options)
        for _ in range(steps):
            for value in self.live.values():
                value.grad = None
            self.loss().backward()
            optimiser.step()

    def ours(self, method, optimiser=None, steps: int = STEPS) -> float:
        """The largest difference of any weight after a method's steps, relative to how far it went."""
        learner = Learner(self.problem.model, optimiser=optimiser or Adam(RATE))
        end = adapted_net(method, learner, steps, self.problem, self.start, self.batch)
        gap = [(end[k] - v.detach()).abs().max() for k, v in self.live.items()]
        return float(torch.stack(gap).max() / RATE)


def head_and(names: Sequence[str], net: dict) -> list[str]:
    return [k for k in net if k.startswith("head.") or k.partition(".")[0] in names]


SAME, SEEN = 1e-9, 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_bias_tuning_moves_biases_and_head(name):
    plain = Plain(name)
    moving = [k for k in plain.live if k.startswith("head.") or not k.endswith((".weight", ".scale"))]
    plain.train(dict.fromkeys(moving, RATE), STEPS)
    assert plain.ours(BiasTuning()) < SAME
    assert plain.ours(BiasTuning(), Adam(1.001 * RATE)) > SEEN
    assert plain.ours(LinearProbe()) > SEEN and plain.ours(FullFineTuning()) > SEEN  # one row of names too few, or more


@pytest.mark.parametrize("name", MODELS)
def test_gradual_unfreezing_is_a_fresh_optimiser_for_each_number_of_blocks(name):
    plain = Plain(name)
    below = ["layer1", "layer0"] if name == "MLP" else ["block3", "block2", "block1", "block0"]
    ends = [0, *(round(0.6 * STEPS * (i + 1) / len(below)) for i in range(len(below))), STEPS]
    for i, (first, last) in enumerate(itertools.pairwise(ends)):
        plain.train(dict.fromkeys(head_and(below[:i], plain.live), RATE), last - first)
    assert plain.ours(GradualUnfreezing(0.6)) < SAME
    assert plain.ours(GradualUnfreezing(0.8)) > SEEN and plain.ours(GradualUnfreezing(0.6), Adam(1.001 * RATE)) > SEEN


def test_unfreezing_within_no_steps_is_full_fine_tuning():
    net, problem, batch = episode("MLP")
    learner = Learner(problem.model, optimiser=Adam(RATE))
    for share, same in ((0.0, True), (0.5, False)):
        ends = [adapted_net(m, learner, 8, problem, net, batch) for m in (GradualUnfreezing(share), FullFineTuning())]
        assert all(torch.equal(ends[0][k], ends[1][k]) for k in net) == same
    for steps in (1, 2, 7, 50):
        assert sum(count for _, count in GradualUnfreezing(0.7).phases(learner, steps, net)) == steps


RULES = {
    "Adam": (Adam(RATE), torch.optim.Adam, {}),
    "AdamW": (AdamW(RATE, weight_decay=0.1), torch.optim.AdamW, {"weight_decay": 0.1}),
    "SGD": (SGD(RATE, momentum=0.9, weight_decay=0.1), torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_layerwise_rates_are_groups_of_a_plain_optimiser(name, rule):
    plain, (optimiser, make, options) = Plain(name), RULES[rule]
    order = ["head", "layer1", "layer0"] if name == "MLP" else ["head", "block3", "block2", "block1", "block0"]
    plain.train({k: RATE / 2.6 ** order.index(k.partition(".")[0]) for k in plain.live}, STEPS, make, **options)
    assert plain.ours(LayerwiseRates(), optimiser) < SAME
    assert (
        plain.ours(LayerwiseRates(2.6 * 1.001), optimiser) > SEEN
        and plain.ours(LayerwiseRates(1 / 2.6), optimiser) > SEEN
    )


def test_equal_rates_in_all_layers_are_full_fine_tuning():
    plain = Plain("MLP")
    plain.train(dict.fromkeys(plain.live, RATE), STEPS)
    assert plain.ours(LayerwiseRates(1.0)) < SAME


@pytest.mark.parametrize("rule", ["Adam", "SGD"])
@pytest.mark.parametrize("name", MODELS)
def test_auto_rgn_asks_each_tensor_anew(name, rule):
    """Fresh optimiser every 4 steps; rate x (|g| / |p|) / max, norms' scales and shifts left out."""
    plain, (optimiser, make, options) = Plain(name), RULES[rule]
    moving = [k for k in plain.live if not k.endswith((".scale", ".shift"))]
    for first in range(0, STEPS, 4):
        gradients = torch.autograd.grad(plain.loss(), [plain.live[k] for k in moving])
        ratio = {k: float(g.norm() / plain.live[k].detach().norm()) for k, g in zip(moving, gradients, strict=True)}
        rates = {k: RATE * r / max(ratio.values()) for k, r in ratio.items()}
        plain.train(rates, min(4, STEPS - first), make, **options)
    assert plain.ours(AutoRGN(4), optimiser) < SAME
    assert plain.ours(AutoRGN(5), optimiser) > SEEN  # asked at other steps
    off = type(optimiser)(**{**vars(optimiser), "rate": 1.001 * RATE})
    assert plain.ours(AutoRGN(4), off) > SEEN


def test_what_has_no_size_or_no_gradient_is_no_number_divided_by_0():
    net = {"layer0.weight": torch.zeros(2, 2), "head.weight": torch.ones(2, 2)}
    none = RelativeGradientNorms().of(net, tree_map(torch.zeros_like, net))
    assert none == {"layer0.weight": 1.0, "head.weight": 0.0}


@pytest.mark.parametrize("by", [LayerDecay(3.0), RelativeGradientNorms()], ids=repr)
@pytest.mark.parametrize("rule", ["Adam", "SGD"])
def test_the_two_forms_of_a_multiplied_rule_are_equal(by, rule):
    random, optimiser = generator("two forms"), Multiplied(RULES[rule][0], by)
    params = {
        "net": {k: torch.randn(3, 2, 4, dtype=DOUBLE, generator=random) for k in ("layer0.weight", "head.weight")}
    }
    pure, place = params, tree_map(torch.clone, params)
    state = torch.func.vmap(optimiser.init)(params)
    state_ = tree_map(torch.clone, state)
    for _ in range(3):
        gradients = tree_map(lambda p: torch.randn(p.shape, dtype=DOUBLE, generator=random), params)
        step = torch.func.vmap(lambda p, g, s: optimiser.update(p, g, s, torch.zeros((), dtype=DOUBLE)))
        pure, state = step(pure, gradients, state)
        optimiser.update_(place, gradients, state_, 0.0)
    for k, value in pure["net"].items():
        torch.testing.assert_close(place["net"][k], value, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(pure["net"]["layer0.weight"], params["net"]["layer0.weight"])


def test_what_cannot_be_is_refused():
    for make in (lambda: GradualUnfreezing(1.5), lambda: LayerwiseRates(0.0), lambda: AutoRGN(0)):
        with pytest.raises(TransferError):
            make()
