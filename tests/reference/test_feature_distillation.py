"""Hints and relations against plain loops over rows, pairs and triples; gradients, limits, planted errors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lifelong.contracts.learners import tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, run
from lifelong.core.strategy import StrategyError, Sum
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.transfer.distillation import Distillation, distil
from lifelong.transfer.feature_distillation import FeatureHints, RelationalDistillation
from lifelong.transfer.pairs import learned
from scenarios.stream import generator
from tests.reference.test_transfer_identities import DOUBLE, episode, plain_forward

SAME, SEEN = 1e-9, 1e-6


def taught(rows: int = 6, width: int = 4):
    """An episode whose rows have a teacher's features; two rows only fill up the batch."""
    net, problem, batch = episode(rows=rows)
    features = torch.randn(rows, width, dtype=DOUBLE, generator=generator("teacher's features"))
    index = {"teacher": features[None, :, :3], "teacher_features": features[None], "teacher_place": torch.arange(rows)[None]}  # fmt: skip
    weight = torch.tensor([0.3, 0.2, 0.1, 0.4, *[0.0] * (rows - 4)], dtype=DOUBLE)
    return net, replace(problem, index=index), batch.replace(row=torch.arange(rows), weight=weight), features


def features_of(net: dict, x: torch.Tensor) -> torch.Tensor:
    return plain_forward({k: v for k, v in net.items() if not k.startswith("head.")}, x)


def ours(part, problem, batch, params):
    """Penalty, and its gradient by the network's first weights."""

    def penalty(net):
        p = {**params, "net": net}
        return part.penalty(problem, p, {}, batch, problem.outputs(p, batch.x))

    gradient, value = torch.func.grad_and_value(penalty)(params["net"])
    return float(value), gradient["layer0.weight"]


def plain_relations(t: torch.Tensor, s: torch.Tensor, rows: range) -> torch.Tensor:
    """25 x distances + 50 x angles, pair by pair and triple by triple."""

    def huber(gap):
        return gap**2 / 2 if abs(float(gap.detach())) < 1 else abs(gap) - 0.5

    pairs = [(i, j) for i in rows for j in rows if i != j]
    total = torch.zeros((), dtype=DOUBLE)
    mean = [sum((f[i] - f[j]).norm() for i, j in pairs) / len(pairs) for f in (t, s)]
    for i, j in pairs:
        total = total + 25 * huber((t[i] - t[j]).norm() / mean[0] - (s[i] - s[j]).norm() / mean[1]) / len(pairs)
    triples = [(i, j, k) for i, j in pairs for k in rows if k not in (i, j)]
    for i, j, k in triples:
        cosines = [(f[i] - f[j]) @ (f[k] - f[j]) / (f[i] - f[j]).norm() / (f[k] - f[j]).norm() for f in (t, s)]
        total = total + 50 * huber(cosines[0] - cosines[1]) / len(triples)
    return total


def test_relations_are_loops_over_pairs_and_triples():
    net, problem, batch, t = taught()
    live = {k: v.clone().requires_grad_() for k, v in net.items()}
    expected = plain_relations(t, features_of(live, batch.x), range(4))
    (gradient,) = torch.autograd.grad(expected, [live["layer0.weight"]])
    value, slope = ours(RelationalDistillation(), problem, batch, {"net": net})
    assert abs(value - float(expected)) < SAME * max(1.0, value) and float((slope - gradient).abs().max()) < 1e-8
    for off in (RelationalDistillation(25.025, 50.0), RelationalDistillation(25.0, 50.05)):
        assert abs(ours(off, problem, batch, {"net": net})[0] - float(expected)) > SEEN
    whole = batch.replace(weight=torch.full((6,), 1 / 6, dtype=DOUBLE))  # rows that only fill up, counted
    assert abs(ours(RelationalDistillation(), problem, whole, {"net": net})[0] - float(expected)) > SEEN


def test_relations_do_not_see_where_features_lie_how_large_they_are_or_how_they_are_turned():
    net, problem, batch, _ = taught(width=6)
    f = features_of(net, batch.x).detach()
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=DOUBLE, generator=generator("a turn")))[0]
    index = problem.index | {"teacher_features": (3 * f @ turn + 5)[None]}
    value, _ = ours(RelationalDistillation(), replace(problem, index=index), batch, {"net": net})
    assert abs(value) < 1e-9


def test_hints_are_the_projected_distance():
    net, problem, batch, t = taught()
    part = FeatureHints(0.7)
    params, _ = part.init(problem, {"net": net}, generator("projector"))
    a, b = params["own"]["projector.weight"], params["own"]["projector.bias"]
    assert a.shape == (6, 4) and a.dtype == DOUBLE
    live = {k: v.clone().requires_grad_() for k, v in net.items()}
    s = features_of(live, batch.x)
    expected = torch.zeros((), dtype=DOUBLE)
    for i in range(4):
        expected = expected + 0.7 / 2 * batch.weight[i] * ((s[i] @ a + b - t[i]) ** 2).sum() / 4
    (gradient,) = torch.autograd.grad(expected, [live["layer0.weight"]])
    value, slope = ours(part, problem, batch, params)
    assert abs(value - float(expected)) < SAME and float((slope - gradient).abs().max()) < SAME
    assert abs(ours(FeatureHints(0.7007), problem, batch, params)[0] - float(expected)) > SEEN


def test_what_teaches_by_features_moves_the_student_and_its_projector():
    stream, seeds, student = tiny("task"), [0, 2], Learner(MLP(5), optimiser=Adam(0.01))
    session = Session(Learner(MLP(9), optimiser=Adam(0.01)), stream, seeds)
    state = learned(session.fleet.learner, stream, seeds)[1]
    labels = Distillation(alpha=1.0)
    ways = [labels, Sum((labels, FeatureHints(5.0))), Sum((labels, RelationalDistillation(5.0, 10.0)))]
    results = [distil(session, state, stream, seeds, student, way, 0.5)["taught"].losses for way in ways]
    assert not torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert all(bool(loss.isfinite().all()) for loss in results)
    none = distil(session, state, stream, seeds, student, Sum((labels, FeatureHints(0.0))), 0.5)["taught"]
    assert math.isclose(float(none.losses.sum()), float(results[0].sum()), rel_tol=1e-6)


def test_without_a_teacher_it_says_who_brings_one():
    for part in (FeatureHints(), RelationalDistillation()):
        with pytest.raises(StrategyError, match="lifelong distil"):
            run(Learner(MLP(4), part), tiny(), [0])
