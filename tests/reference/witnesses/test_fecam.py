"""FeCAM beside a plain loop, class by class and entry by entry, from the paper's equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lifelong.learners.fecam import FeCAM
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from scenarios.errors import ConfigurationError
from tests.reference.witnesses.beside import PLANTED, TOLERANCE
from tests.reference.witnesses.closed import learned, streams


def tukey(v, power):
    return np.sign(v) * np.abs(v) ** power


def unit(v):
    return v / np.sqrt((v**2).sum(-1, keepdims=True))


def fecam(z, y, query, classes, power=0.5, gamma1=1.0, gamma2=1.0, covariance="class", correlations=True):
    """Scores [Q, C]; a class without rows has minus infinity. All in numpy, with its own covariance and inverse."""
    z, y, query, scores = z.numpy(), y.numpy(), query.numpy(), np.full((len(query), classes), -np.inf)
    of = {c: tukey(z[y == c], power) for c in sorted(set(y.tolist()))}
    for c, rows in of.items():
        spread = np.cov(rows.T)
        if covariance == "shared":
            spread = sum((len(r) - 1) * np.cov(r.T) for r in of.values()) / sum(len(r) - 1 for r in of.values())
        v1 = np.mean(np.diag(spread))
        v2 = np.mean([spread[i, j] for i in range(len(spread)) for j in range(len(spread)) if i != j])
        shrunk = spread + gamma1 * v1 * np.eye(len(spread)) + gamma2 * v2 * (1 - np.eye(len(spread)))
        if correlations:
            shrunk = shrunk / np.outer(np.sqrt(np.diag(shrunk)), np.sqrt(np.diag(shrunk)))
        prototype = unit(tukey(z[y == c].mean(0), power))
        for q, row in enumerate(unit(tukey(query, power))):
            scores[q, c] = -(row - prototype) @ np.linalg.solve(shrunk, row - prototype)
    return torch.from_numpy(scores)


OPTIONS = [
    {},
    {"power": 1.0, "gamma2": 0.0},
    {"gamma1": 2.0, "gamma2": 0.5, "correlations": False},
    {"covariance": "shared", "power": 1.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("features", ["pixels", "net", "first"])
@pytest.mark.parametrize("stream", streams(), ids=lambda stream: stream.setting)
def test_fecam_is_the_plain_loop(stream, features, options):
    seen = learned(FeCAM(features, **options, optimiser=Adam(0.01)), stream)
    theirs = fecam(seen.features, seen.classes, seen.query, stream.classes, **options)
    torch.testing.assert_close(seen.scores, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    usual = {"power": 0.5, "gamma1": 1.0, "gamma2": 1.0, **options}
    for name in ("power", "gamma1", "gamma2"):
        if usual[name]:
            wrong = fecam(
                seen.features, seen.classes, seen.query, stream.classes, **{**usual, name: usual[name] * 1.001}
            )
            assert float((seen.scores - wrong).abs().max()) > PLANTED, name
    for planted in ({"correlations": not options.get("correlations", True)}, {"gamma2": usual["gamma2"] + 0.01}):
        wrong = fecam(seen.features, seen.classes, seen.query, stream.classes, **{**usual, **planted})
        assert float((seen.scores - wrong).abs().max()) > PLANTED, planted
    fewer = fecam(seen.features[1:], seen.classes[1:], seen.query, stream.classes, **options)
    assert float((seen.scores - fewer).abs().max()) > PLANTED, "a row more or less"


def test_shrinking_twice_is_shrinking_once_by_gamma_times_two_plus_gamma():
    """What the docstring says of the authors' code."""
    spread = np.cov(np.random.default_rng(0).normal(size=(5, 40)))
    eye, off = np.eye(5), 1 - np.eye(5)

    def shrunk(s, gamma):
        return s + gamma * np.trace(s) / 5 * eye + gamma * (s * off).sum() / 20 * off

    np.testing.assert_allclose(shrunk(shrunk(spread, 0.7), 0.7), shrunk(spread, 0.7 * 2.7), rtol=1e-12)


@pytest.mark.parametrize("text", [
    "FeCAM(power=0.0)", "FeCAM(gamma1=0.0)", "FeCAM(gamma2=2.0)", "FeCAM(covariance='all')", "FeCAM('first_task')",
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused_in_a_line(text):
    with pytest.raises(ConfigurationError) as refusal:
        parse(text, "learners")
    assert "\n" not in str(refusal.value) and "FeCAM" in str(refusal.value)
