"""ShrinkAndPerturb against a plain float64 loop of both forms, and its noise against the normal distribution."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch

from lifelong.optimisers.sgd import SGD
from lifelong.strategies.plasticity.shrink_and_perturb import ShrinkAndPerturb
from tests.reference.plain_methods import descend, detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def standard_normal(uniforms):
    """The inverse of the distribution function, number by number."""
    inverse = NormalDist().inv_cdf
    numbers = [inverse(float(u)) for u in uniforms.flatten()]
    return torch.tensor(numbers, dtype=torch.float64).view(uniforms.shape)


def shaken(params, shrink, noise, draws):
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(shrink * p + noise * standard_normal(draws[name]))


def shrink_and_perturb(ours, optimiser, shrink, noise, every):
    params = leaves(ours.start)
    steps = optimiser(list(params.values()))
    for t, batches in enumerate(ours.tasks):
        for i, rows in enumerate(batches):
            descend(steps, loss(params, rows))
            if every == "step":
                shaken(params, shrink, noise, ours.draws[t][i][0])
        if every == "task":
            shaken(params, shrink, noise, ours.finished[t].draws[0])
    return detached(params)


@pytest.mark.parametrize("every, shrink, noise", [("task", 0.6, 0.05), ("step", 0.99, 0.01)])
def test_both_forms_are_their_plain_loops(every, shrink, noise):
    ours = beside(ShrinkAndPerturb(shrink, noise, every), stream_of("class", iterations=5))
    assert gap(ours.net, shrink_and_perturb(ours, adam, shrink, noise, every)) < TOLERANCE
    assert gap(ours.net, shrink_and_perturb(ours, adam, shrink * 1.001, noise, every)) > PLANTED
    assert gap(ours.net, shrink_and_perturb(ours, adam, shrink, noise * 1.001, every)) > PLANTED


def test_dohare_lets_the_optimiser_shrink():
    """His loop: SGD with weight decay on the loss, then the noise."""

    def sgd(decay):
        return lambda leaves: torch.optim.SGD(leaves, 0.05, weight_decay=decay)

    rule = SGD(0.05, weight_decay=0.1)
    ours = beside(ShrinkAndPerturb(1.0, 0.01, "step"), stream_of("class", iterations=5), optimiser=rule)
    assert gap(ours.net, shrink_and_perturb(ours, sgd(0.1), 1.0, 0.01, "step")) < TOLERANCE
    assert gap(ours.net, shrink_and_perturb(ours, sgd(0.1001), 1.0, 0.01, "step")) > PLANTED
