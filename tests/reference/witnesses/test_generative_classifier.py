"""The generative classifier against a loop over classes and rows, float64: training on the same rows and noise, and answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lifelong.learners.generative_classifier import GenerativeClassifier
from tests.reference.witnesses.beside import DOUBLE, PLANTED, TOLERANCE, beside, gap, member, stream_of

SMALL = GenerativeClassifier(0.01, width=7, layers=2, latent=3, samples=4)


def gaussian(uniforms):
    return torch.special.ndtri(uniforms.to(DOUBLE))


def through(vae, names, x):
    for name in names[:-1]:
        x = torch.relu(x @ vae[f"{name}.weight"] + vae[f"{name}.bias"])
    return x @ vae[f"{names[-1]}.weight"] + vae[f"{names[-1]}.bias"]


def encode(vae, x):
    return through(vae, ["encoder0", "encoder1", "mean"], x), through(vae, ["encoder0", "encoder1", "logvariance"], x)


def decode(vae, z):
    return through(vae, ["decoder0", "decoder1", "image"], z)


def loop(start, tasks, draws, rate=0.01, at_once=0, divergence=1.0, spread=0.5, own_rows=True):
    """Each class has its auto-encoder and torch's Adam; a step shows it its own rows alone. Stacked [C, ...] again."""
    count = len(next(iter(start.values())))
    vaes = [{name: value[c].clone().requires_grad_() for name, value in start.items()} for c in range(count)]
    optimisers = [torch.optim.Adam(list(vae.values()), rate) for vae in vaes]
    for steps, numbers in zip(tasks, draws, strict=True):
        for rows, drawn in zip(steps, numbers, strict=True):
            seen = sorted(set(rows.y.tolist()), key=lambda c: (-int((rows.y == c).sum()), c))
            for c in seen[: at_once or None]:
                mine = (rows.y == c) if own_rows else (rows.y >= 0)
                x, noise = rows.x[mine], gaussian(drawn[0]["noise"])[mine]
                mean, logvariance = encode(vaes[c], x)
                image = torch.sigmoid(decode(vaes[c], mean + torch.exp(spread * logvariance) * noise))
                surprise = -(x * image.log() + (1 - x) * (1 - image).log()).sum(1)
                kl = 0.5 * (mean**2 + logvariance.exp() - 1 - logvariance).sum(1)
                optimisers[c].zero_grad()
                ((surprise + divergence * kl).mean() / x.shape[1]).backward()
                optimisers[c].step()
    return {name: torch.stack([vae[name].detach() for vae in vaes]) for name in start}


@pytest.mark.parametrize("setting", ["class", "task", "domain"])
@pytest.mark.parametrize("at_once", [0, 1, 2])
def test_each_class_learns_from_its_rows_alone(setting, at_once):
    ours = beside(replace(SMALL, at_once=at_once), stream_of(setting))
    seen = (ours.start, ours.tasks, ours.draws)
    assert gap(ours.net, loop(*seen, at_once=at_once)) < TOLERANCE
    for wrong in ({"rate": 0.01001}, {"divergence": 1.001}, {"spread": 0.5005}, {"own_rows": False}):
        assert gap(ours.net, loop(*seen, **{"at_once": at_once, **wrong})) > PLANTED, wrong
    if at_once == 1:
        assert gap(ours.net, loop(*seen)) > PLANTED


def score(vae, x, noise, likelihood, wrong=1.0):
    """log p(x) of one row [F] by importance samples, each density written out."""
    mean, logvariance = encode(vae, x)
    weights = []
    for e in noise:
        z = mean + (logvariance / 2).exp() * e
        image = torch.sigmoid(decode(vae, z))
        if likelihood == "gaussian":
            log_p = torch.distributions.Normal(image, 1.0).log_prob(x).sum() + len(x) / 2 * math.log(2 * math.pi)
        else:
            log_p = -F.binary_cross_entropy(image, x, reduction="sum")
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
        posterior = torch.distributions.Normal(mean, (logvariance / 2).exp()).log_prob(z).sum()
        weights.append(wrong * log_p + prior - posterior)
    return torch.logsumexp(torch.stack(weights), 0) - math.log(len(noise))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("samples", [0, 4])
def test_answers_are_the_importance_samples(likelihood, samples):
    """Up to the Gaussian's constant, which all classes share; a class that never came has no score."""
    learner = replace(SMALL, likelihood=likelihood, samples=samples)
    ours = beside(learner, stream_of()[:2])
    uniforms = torch.rand(max(samples, 1), 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    x = torch.rand(5, 8, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    ready = learner.prepare(ours.problem, member(ours.state), [{"noise": uniforms}])
    scores = learner.predict(ours.problem, ready, x, torch.full((5,), -1))
    noise = gaussian(uniforms) if samples else torch.zeros(1, 3, dtype=DOUBLE)
    seen = {int(c) for steps in ours.tasks for rows in steps for c in rows.y}
    assert len(seen) == 4
    for c in range(6):
        vae = {name: value[c] for name, value in ours.net.items()}
        if c not in seen:
            assert (scores[:, c] == -torch.inf).all()
            continue
        expected = torch.stack([score(vae, row, noise, likelihood) for row in x])
        assert (scores[:, c] - expected).abs().max() < TOLERANCE
        wrong = torch.stack([score(vae, row, noise, likelihood, wrong=1.001) for row in x])
        assert (scores[:, c] - wrong).abs().max() > PLANTED
        if samples:
            unlike = torch.stack([score(vae, row, noise[:1], likelihood) for row in x])
            assert (scores[:, c] - unlike).abs().max() > PLANTED
