"""ContinualBackprop against a plain float64 loop, written from algorithm 1 of Dohare et al. (2024): unit by unit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.core.learner import Learner
from lifelong.core.loop import check_request
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.plasticity.continual_backprop import ContinualBackprop
from scenarios.catalogue import build
from scenarios.errors import ConfigurationError
from tests.reference.plain_methods import descend, detached, leaves, loss
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def continual_backprop(ours, optimiser, rate, decay, maturity, greatest=False, uncorrected=False, bound=1.0):
    """greatest, uncorrected, bound: planted errors. Returns the net, and how many units were replaced."""
    params = leaves(ours.start)
    steps = optimiser(list(params.values()))
    names = ["layer0", "layer1", "head"]
    widths = [params[f"{name}.weight"].shape[1] for name in names[:-1]]
    utility, age = [[0.0] * width for width in widths], [[0] * width for width in widths]
    due, replaced = [0.0, 0.0], 0
    for t, batches in enumerate(ours.tasks):
        for i, rows in enumerate(batches):
            hidden, x = [], rows.x
            for name in names[:-1]:
                x = torch.relu(x @ params[f"{name}.weight"] + params[f"{name}.bias"])
                hidden.append(x.detach())
            descend(steps, loss(params, rows))
            for depth in range(2):
                weight, bias = params[f"{names[depth]}.weight"], params[f"{names[depth]}.bias"]
                out = params[f"{names[depth + 1]}.weight"]
                for u in range(widths[depth]):
                    age[depth][u] += 1
                    used = float(hidden[depth][:, u].abs().mean() * out[u].detach().abs().sum())
                    utility[depth][u] = decay * utility[depth][u] + (1 - decay) * used
                mature = [u for u in range(widths[depth]) if age[depth][u] > maturity]
                due[depth] += rate * len(mature)
                if due[depth] >= 1 and mature:
                    worth = {u: utility[depth][u] / (1 if uncorrected else 1 - decay ** age[depth][u]) for u in mature}
                    unit = (max if greatest else min)(worth, key=worth.__getitem__)
                    numbers = ours.draws[t][i][0][names[depth]]
                    with torch.no_grad():
                        weight[:, unit] = bound * (2 * numbers.to(weight.dtype) - 1) / len(weight) ** 0.5
                        bias[unit] = 0
                        out[unit] = 0
                    utility[depth][unit], age[depth][unit], due[depth] = 0.0, 0, due[depth] - 1
                    replaced += 1
    return detached(params), replaced


CASES = [ContinualBackprop(0.02, 0.9, 3), ContinualBackprop(0.05, 0.5, 0), ContinualBackprop(0.004, 0.99, 5)]


@pytest.mark.parametrize("sgd", [False, True])
@pytest.mark.parametrize("strategy", CASES, ids=repr)
def test_continual_backprop_is_its_plain_loop(strategy, sgd):
    """Adam's moments stay in both; under SGD there are none."""
    optimiser = (lambda leaves: torch.optim.SGD(leaves, 0.1)) if sgd else adam
    model = MLP(12, 9)
    ours = beside(strategy, stream_of("class"), optimiser=SGD(0.1) if sgd else None, model=model)

    def plain(strategy=strategy, **planted):
        return continual_backprop(ours, optimiser, strategy.rate, strategy.decay, strategy.maturity, **planted)

    net, replaced = plain()
    assert gap(ours.net, net) < TOLERANCE
    assert replaced > 1
    assert gap(ours.net, plain(greatest=True)[0]) > PLANTED
    assert gap(ours.net, plain(bound=1.001)[0]) > PLANTED
    if (
        strategy is CASES[0] and not sgd
    ):  # these choose a unit or a moment, and have to be wrong enough to choose another
        assert gap(ours.net, plain(replace(strategy, rate=0.03))[0]) > PLANTED
        assert gap(ours.net, plain(replace(strategy, maturity=4))[0]) > PLANTED
        assert gap(ours.net, plain(uncorrected=True)[0]) > PLANTED
        assert gap(ours.net, plain(replace(strategy, decay=0.2))[0]) > PLANTED


def test_a_network_that_is_no_chain_is_refused():
    with pytest.raises(ConfigurationError, match="a chain of linear layers"):
        check_request(Learner(Conv4(8, blocks=1), ContinualBackprop()), build("split-digits"), [0], "cpu")
