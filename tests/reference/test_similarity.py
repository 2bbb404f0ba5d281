"""Similarity of tasks against plain loops, SciPy and closed forms; planted errors of a thousandth are seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.transfer.similarity import (
    cosine,
    gradient_cosine,
    h_score,
    leep,
    log_me,
    spearman,
    task2vec_similarity,
    task_embedding,
)
from scenarios.stream import generator

DOUBLE, SAME, SEEN = torch.float64, 1e-9, 1e-5


def sample(rows: int = 40, width: int = 6, classes: int = 3, spread: float = 1.0):
    random = generator("similarity", rows, width)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, width, dtype=DOUBLE, generator=random)
    return centres[labels] + spread * torch.randn(rows, width, dtype=DOUBLE, generator=random), labels


def plain_leep(p: np.ndarray, y: np.ndarray, classes: int) -> float:
    rows, answers = p.shape
    joint = np.zeros((classes, answers))
    for n in range(rows):
        for z in range(answers):
            joint[y[n], z] += p[n, z] / rows
    score = 0.0
    for n in range(rows):
        score += math.log(sum(joint[y[n], z] / joint[:, z].sum() * p[n, z] for z in range(answers))) / rows
    return score


def test_leep_is_a_plain_loop():
    features, y = sample()
    p = features[:, :4].softmax(1)
    expected = plain_leep(p.numpy(), y.numpy(), 3)
    assert abs(float(leep(p, y, 3)) - expected) < SAME
    wrong = p.clone()
    wrong[0] *= 1.001
    assert abs(float(leep(wrong, y, 3)) - expected) > SEEN
    assert abs(float(leep(p, y.roll(1), 3)) - expected) > SEEN


def test_leep_of_known_labels():
    """A source that says the labels under other names scores 0; one that says nothing scores minus their entropy."""
    _, y = sample(30)
    names = torch.eye(3, dtype=DOUBLE)[[2, 0, 1]]
    assert float(leep(names[y], y, 3)) == pytest.approx(0, abs=1e-12)
    assert float(leep(torch.full((30, 5), 0.2, dtype=DOUBLE), y, 3)) == pytest.approx(-math.log(3))


def plain_evidence(f: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """log N(y; 0, F F^T / alpha + I / beta) / N, which names no posterior at all."""
    return stats.multivariate_normal(cov=f @ f.T / alpha + np.eye(len(y)) / beta).logpdf(y) / len(y)


@pytest.mark.parametrize("rows, width", [(40, 6), (12, 20)], ids=["more rows", "more features"])
def test_logme_is_the_largest_evidence_that_scipy_finds(rows, width):
    f, labels = sample(rows, width, spread=3.0)
    if width > rows:  # of lower rank, as features of alike rows are: else all labels are explained without any noise
        f[:, 5:] = f[:, :5].repeat(1, 3)
    best = []
    for c in range(3):
        y = (labels == c).double().numpy()
        tried = [
            optimize.minimize(
                lambda v, y=y: -plain_evidence(f.numpy(), y, math.exp(v[0]), math.exp(v[1])), [start, 1.0],
                method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13},
            ).fun
            for start in (1.0, 3.0)
        ]  # fmt: skip
        best.append(-min(tried))
    ours = float(log_me(f, labels, 3, steps=5000))
    assert abs(ours - np.mean(best)) < 1e-8
    assert abs(float(log_me(1.001 * f, labels, 3, steps=5000)) - ours) < 1e-8  # the prior's scale is chosen too
    other = f.clone()
    other[:, 0] *= 1.001
    assert abs(float(log_me(other, labels, 3, steps=5000)) - ours) > 1e-8
    assert float(log_me(f, labels, 3)) <= ours + SAME and abs(float(log_me(f, labels, 3)) - ours) < 1e-3


def test_logme_prefers_features_that_tell_the_classes_apart():
    y = torch.arange(60) % 3
    noise = torch.randn(60, 5, dtype=DOUBLE, generator=generator("noise"))
    told = torch.eye(3, dtype=DOUBLE)[y]
    scores = [float(log_me(torch.cat([noise, told * size], 1), y, 3)) for size in (0.0, 0.3, 3.0)]
    assert scores == sorted(scores) and scores[2] > scores[0] + 0.5


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_h_score_is_numpy_by_class(shrinkage):
    f, labels = sample()
    x, y = f.numpy(), labels.numpy()
    between = np.zeros((6, 6))
    for c in range(3):
        gap = x[y == c].mean(0) - x.mean(0)
        between += (y == c).mean() * np.outer(gap, gap)
    whole = np.cov(x.T, bias=True)
    whole = (1 - shrinkage) * whole + shrinkage * np.trace(whole) / 6 * np.eye(6)
    expected = np.trace(np.linalg.inv(whole) @ between)
    assert abs(float(h_score(f, labels, 3, shrinkage)) - expected) < SAME
    assert abs(float(h_score(f, labels, 3, shrinkage + 0.001)) - expected) > SEEN
    assert abs(float(h_score(f, labels.roll(1), 3, shrinkage)) - expected) > SEEN


def test_h_score_has_closed_forms():
    """Classes at points: classes - 1. Two classes at ± m with unit spread along one line: m^2 / (m^2 + 1)."""
    y = torch.arange(12) % 3
    assert float(h_score(torch.eye(3, dtype=DOUBLE)[y], y, 3, 0.0)) == pytest.approx(2)
    side, noise = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=DOUBLE), torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=DOUBLE)
    assert float(h_score((2 * side + noise)[:, None], (side < 0).long(), 2, 0.0)) == pytest.approx(4 / 5)


@pytest.mark.parametrize("model, shape", [(MLP(5, 4), (6,)), (Conv4(2, groups=1), (16, 16))], ids=["MLP", "Conv4"])
def test_a_task_embedding_is_a_loop_over_rows_and_answers(model, shape):
    random = generator("task2vec")
    x = torch.randn(7, *shape, dtype=DOUBLE, generator=random)
    net = {k: v.to(DOUBLE) for k, v in model.init(shape, 5, random).items()}
    classes = torch.tensor([1, 3, 4])
    live = {k: v.clone().requires_grad_() for k, v in net.items()}
    names = [k for k in net if k.endswith(".weight") and k != "head.weight"]
    fisher = {k: torch.zeros_like(net[k]) for k in names}
    for n in range(7):
        log_p = model.head(live, model.features(live, x[n : n + 1]))[0, classes].log_softmax(0)
        for k in range(3):
            slopes = torch.autograd.grad(log_p[k], [live[name] for name in names], retain_graph=True)
            for name, slope in zip(names, slopes, strict=True):
                fisher[name] += log_p[k].detach().exp() * slope.square() / 7
    by_unit = [f.mean(0) if f.ndim == 2 else f.mean((1, 2, 3)) for f in fisher.values()]
    expected = torch.cat(by_unit)
    ours = task_embedding(model, net, x, classes)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-14)
    off = task_embedding(model, {**net, "head.weight": 1.001 * net["head.weight"]}, x, classes)
    assert not torch.allclose(off, expected, rtol=1e-5)
    assert not torch.allclose(task_embedding(model, net, x, torch.tensor([1, 3])), expected, rtol=1e-5)


def test_task2vec_similarity_by_hand():
    a, b = torch.tensor([1.0, 3.0, 0.0], dtype=DOUBLE), torch.tensor([3.0, 1.0, 0.0], dtype=DOUBLE)
    assert float(task2vec_similarity(a, b)) == pytest.approx((2 * 0.25 * 0.75) / (0.25**2 + 0.75**2))
    assert float(task2vec_similarity(a, a)) == pytest.approx(1)
    assert float(task2vec_similarity(torch.tensor([1.001, 1.0, 1.0]) * a, b)) != pytest.approx(0.6, abs=1e-5)


def test_gradient_cosine_leaves_the_head_out():
    a = {"layer0.weight": torch.tensor([[3.0, 0.0]]), "layer0.bias": torch.tensor([4.0]), "head.bias": torch.ones(2)}
    b = {"layer0.weight": torch.tensor([[1.0, 0.0]]), "layer0.bias": torch.tensor([0.0]), "head.bias": -torch.ones(2)}
    assert float(gradient_cosine(a, b)) == pytest.approx(0.6)
    assert float(cosine(torch.zeros(3), torch.ones(3))) == 0


def test_rank_correlation_is_scipys_with_ties():
    random = np.random.default_rng(3)
    a, b = random.integers(0, 5, (4, 9)).astype(float), random.normal(size=(4, 9))
    ours = spearman(torch.tensor(a), torch.tensor(b))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(ours, torch.tensor(expected), rtol=0, atol=1e-12)
    assert not torch.allclose(spearman(torch.tensor(-a), torch.tensor(b)), ours)
    assert bool(spearman(torch.ones(4, dtype=DOUBLE), torch.arange(4.0)).isnan())


def test_scores_are_mapped_over_sources():
    f, labels = sample()
    both = torch.stack([f, 2 * f + 1])
    for score in (log_me, h_score, lambda f, y, c: leep(f.softmax(1), y, c)):
        mapped = torch.func.vmap(lambda g, score=score: score(g, labels, 3))(both)
        torch.testing.assert_close(mapped[1], score(both[1], labels, 3), rtol=1e-9, atol=1e-12)
