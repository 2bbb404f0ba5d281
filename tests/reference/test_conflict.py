"""The probe of conflicting gradients: against autograd by hand, with a planted flip; and it touches nothing."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from lifelong.contracts.learners import tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, run
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.models.perceptron import MLP
from lifelong.models.shared_layers import SharedLayers
from lifelong.optimisers.adam import Adam
from lifelong.probes.conflict import GradientConflict, layers_of
from scenarios.errors import ConfigurationError
from scenarios.joint import joint
from tests.reference.plain_joint import DOUBLE


def test_the_shares_are_those_of_autograds_gradients():
    stream = joint(tiny("domain", iterations=5))
    session = Session(Learner(MLP(5, 4)), stream, [0], dtype=DOUBLE)
    problem = dataclasses.replace(
        session.fleet.problem, index={k: v[0] for k, v in session.fleet.problem.index.items()}
    )
    signs = set()
    for seed in range(6):
        random = torch.Generator().manual_seed(seed)
        net = {k: torch.randn(v[0].shape, generator=random, dtype=DOUBLE) for k, v in session.first_state().params["net"].items()}  # fmt: skip
        found = GradientConflict(7).of(problem, {"net": net})
        leaves = {name: value.clone().requires_grad_() for name, value in net.items()}
        gradients = []
        for t in range(3):
            train = stream.tasks_of(0)[t].train
            rows = train[torch.linspace(0, len(train) - 1, 7).long()]
            h = (stream.dataset.x[rows].to(DOUBLE) @ leaves["layer0.weight"] + leaves["layer0.bias"]).relu()
            h = (h @ leaves["layer1.weight"] + leaves["layer1.bias"]).relu()
            y = stream.tasks_of(0)[t].label[stream.dataset.y[rows]]
            loss = torch.nn.functional.cross_entropy(h @ leaves["head.weight"] + leaves["head.bias"], y)
            gradients.append(dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True)))
        for place, layer in enumerate(("layer0", "layer1", "head")):
            dots = [
                sum(float((gradients[i][n] * gradients[j][n]).sum()) for n in net if n.startswith(layer))
                for i, j in ((0, 1), (0, 2), (1, 2))
            ]
            assert float(found[place]) == sum(d < 0 for d in dots) / 3
            signs |= {d < 0 for d in dots}
    assert signs == {True, False}, "conflicts and none: a flipped comparison shows"


def test_it_has_a_moment_for_each_evaluation_and_touches_nothing():
    stream, learner = joint(tiny("task", iterations=6)), Learner(SharedLayers(MLP(6, 5), 1), optimiser=Adam(0.01))
    seen = run(learner, stream, [0, 1], eval_every=3, probes=(GradientConflict(),))
    plain = run(learner, stream, [0, 1], eval_every=3)
    assert torch.equal(seen.accuracy, plain.accuracy)
    shares = seen.probes["gradient conflict"]
    net = Session(learner, stream, [0]).first_state().params["net"]
    assert shares.shape == (2, len(seen.when), len(layers_of(net)))
    layers = layers_of(net)
    assert not shares[..., layers.index("own.layer1")].any() and not shares[..., layers.index("head")].any()
    assert shares[..., layers.index("layer0")].any()


def test_rows_that_lie_class_by_class_are_all_heard():
    stream = joint(tiny("domain", iterations=1))
    session = Session(Learner(MLP(5)), stream, [0], dtype=DOUBLE)
    index = {k: v[0].clone() for k, v in session.fleet.problem.index.items()}
    problem = dataclasses.replace(session.fleet.problem, index=index)
    seen = []

    def gradient(params, rows, task, weight):
        seen.append(problem.y(rows, task))
        return problem.gradient(params, rows, task, weight)

    for t in range(3):
        rows = index["rows_train"][t, : int(index["count_train"][t])]
        index["rows_train"][t, : len(rows)] = rows[problem.y(rows, torch.full_like(rows, t)).argsort()]
    net = {k: v[0] for k, v in session.first_state().params["net"].items()}
    watched = SimpleNamespace(tasks=3, device=problem.device, dtype=problem.dtype, index=index, gradient=gradient)
    GradientConflict(6).of(watched, {"net": net})
    assert len(seen) == 3 and all(len(y) == 6 and len(y.unique()) == 2 for y in seen)


def test_where_it_cannot_be_measured():
    for words, wrong in (
        ("rows must", lambda: run(Learner(MLP(3)), joint(tiny()), [0], probes=(GradientConflict(0),))),
        ("has one", lambda: run(Learner(MLP(3)), tiny()[:1], [0], probes=(GradientConflict(),))),
        ("descends none", lambda: run(NearestClassMean(), tiny(), [0], probes=(GradientConflict(),))),
    ):
        with pytest.raises(ConfigurationError, match=words):
            wrong()
