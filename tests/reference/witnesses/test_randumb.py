"""RanDumb beside a plain loop over rows; its features beside the kernel that they stand for."""

from __future__ import annotations

import math

import pytest
import torch

from lifelong.learners.randumb import RanDumb
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from scenarios.errors import ConfigurationError
from tests.reference.witnesses.beside import DOUBLE, PLANTED, TOLERANCE
from tests.reference.witnesses.closed import QUERY, learned, streams

WIDTH, GAMMA, RIDGE = 12, 0.7, 0.03


def embedded(z, directions, phases, gamma):
    """directions [F, D] with variance 2 / F; one cosine after another."""
    size, result = len(phases), torch.zeros(len(z), len(phases), dtype=DOUBLE)
    for d in range(size):
        result[:, d] = math.sqrt(2 / size) * torch.cos(math.sqrt(gamma) * (z @ directions[:, d]) + phases[d])
    return result


def randumb(z, y, query, classes, drawn, gamma=GAMMA, ridge=RIDGE):
    """Scores [Q, C]: half the difference of squared Mahalanobis distances, to each mean and to 0."""
    h, q = (embedded(rows, drawn["directions"], drawn["phases"], gamma) for rows in (z, query))
    means = {c: h[y == c].mean(0) for c in sorted(set(y.tolist()))}
    spread = sum(torch.outer(row - means[c], row - means[c]) for row, c in zip(h, y.tolist(), strict=True)) / len(h)
    inverse = torch.linalg.inv(spread + ridge * torch.eye(len(spread), dtype=DOUBLE))
    scores = torch.full((len(q), classes), -torch.inf, dtype=DOUBLE)
    for c, mean in means.items():
        for i, row in enumerate(q):
            scores[i, c] = (row @ inverse @ row - (row - mean) @ inverse @ (row - mean)) / 2
    return scores


@pytest.mark.parametrize("features", ["pixels", "net", "first"])
@pytest.mark.parametrize("stream", streams(), ids=lambda stream: stream.setting)
def test_randumb_is_the_plain_loop(stream, features):
    seen = learned(RanDumb(features, WIDTH, GAMMA, RIDGE, optimiser=Adam(0.01)), stream)
    arguments = (seen.features, seen.classes, seen.query, stream.classes, seen.run.memory)
    torch.testing.assert_close(seen.scores, randumb(*arguments), rtol=TOLERANCE, atol=TOLERANCE)
    for wrong in ({"gamma": GAMMA * 1.001}, {"ridge": RIDGE * 1.001}):
        assert float((seen.scores - randumb(*arguments, **wrong)).abs().max()) > PLANTED, wrong
    fewer = randumb(seen.features[1:], seen.classes[1:], *arguments[2:])
    assert float((seen.scores - fewer).abs().max()) > PLANTED, "a row more or less"


def test_its_features_stand_for_the_kernel():
    """z(f) . z(g) against exp(-gamma |f - g|^2 / F), to within the luck of 40,000 cosines; another gamma is told apart."""
    learner = RanDumb(width=40_000, gamma=GAMMA)

    class Problem:
        classes, dtype, device = 2, DOUBLE, "cpu"

        def zeros(self, *shape):
            return torch.zeros(1, dtype=DOUBLE).expand(shape)

    drawn = learner.sums(Problem(), QUERY.shape[1], torch.Generator().manual_seed(0))  # pyright: ignore
    z = learner.embedded(drawn, QUERY)
    squares = torch.cdist(QUERY, QUERY) ** 2 / QUERY.shape[1]
    kernel, other = ((-gamma * squares).exp() for gamma in (GAMMA, 1.2 * GAMMA))
    assert float((z @ z.T - kernel).abs().max()) < 0.02 < float((kernel - other).abs().max())


@pytest.mark.parametrize("text", ["RanDumb(width=0)", "RanDumb(gamma=0.0)", "RanDumb(ridge=0.0)", "RanDumb('x')"])
def test_settings_that_mean_nothing_are_refused_in_a_line(text):
    with pytest.raises(ConfigurationError) as refusal:
        parse(text, "learners")
    assert "\n" not in str(refusal.value) and "RanDumb" in str(refusal.value)
