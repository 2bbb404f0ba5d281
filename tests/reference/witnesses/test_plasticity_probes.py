"""The probes of plasticity against closed forms, the online accuracy against a plain float64 loop; and they touch nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lifelong.contracts.learners import _Killed
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, Stopped, run
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.probes.plasticity import (
    DormantUnits,
    EffectiveRank,
    OnlineAccuracy,
    StableRank,
    WeightMagnitude,
    by_task,
    spectrum,
)
from scenarios.catalogue import build
from scenarios.errors import ConfigurationError
from scenarios.stream import Budget
from tests.reference.plain_methods import descend, leaves, loss, scores
from tests.reference.witnesses.beside import DOUBLE, NET, adam, beside, stream_of

PROBES = (DormantUnits(), DormantUnits(0.025), EffectiveRank(), StableRank(), WeightMagnitude(), OnlineAccuracy())


def problem_of(model, stream):
    return Session(Learner(model), stream, [0], dtype=DOUBLE).fleet.problem


def test_dormant_units_of_a_net_that_is_known():
    """Mean activations 0, 1, 9 in a layer, over their mean 10 / 3: 0, 0.3 and 2.7; and 2, 2 in the next: 1 and 1."""
    net = {
        "layer0.weight": torch.zeros(8, 3, dtype=DOUBLE), "layer0.bias": torch.tensor([-1.0, 1.0, 9.0], dtype=DOUBLE),
        "layer1.weight": torch.zeros(3, 2, dtype=DOUBLE), "layer1.bias": torch.full((2,), 2.0, dtype=DOUBLE),
        "head.weight": torch.ones(2, 6, dtype=DOUBLE), "head.bias": torch.zeros(6, dtype=DOUBLE),
    }  # fmt: skip
    problem, x = problem_of(MLP(3, 2), stream_of()), torch.randn(5, 8, dtype=DOUBLE)
    for threshold, count in ((0.0, 1), (0.29, 1), (0.31, 2), (1.01, 4), (2.71, 5)):
        assert DormantUnits(threshold).of(problem, net, x) == pytest.approx(count / 5)


def test_dormant_channels_of_a_convolution():
    """Of the first block two of four channels are 0 at every place; the second brings the head 4 x 2 x 2 units, all awake."""
    model, stream = Conv4(4, blocks=2, groups=2), build("split-digits")
    problem = problem_of(model, stream)
    net = {name: value.to(DOUBLE) for name, value in model.init((8, 8), 10, torch.Generator().manual_seed(0)).items()}
    net["block0.scale"] = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=DOUBLE)
    net["block1.shift"] = torch.full((4,), 10.0, dtype=DOUBLE)
    x = torch.rand(50, 8, 8, dtype=DOUBLE)
    assert DormantUnits().of(problem, net, x) == pytest.approx(2 / 20)


class Fixed:
    """A network whose features are its rows."""

    def features(self, net, x, at=None):
        return x


@pytest.mark.parametrize("values", [[1.0, 1, 1, 1], [3.0, 1], [1.0, 0, 0], [8.0, 4, 2, 1, 1]])
def test_ranks_of_a_matrix_whose_singular_values_are_known(values):
    values = torch.tensor(values, dtype=DOUBLE)
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=DOUBLE))[0][:, : len(values)] for n in (9, 6))
    problem, x = replace(problem_of(NET, stream_of()), model=Fixed()), left @ torch.diag(values) @ right.T
    share = [float(v / values.sum()) for v in values if v > 0]
    assert float(EffectiveRank().of(problem, {}, x)) == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)))
    for wanted in (0.99, 0.8, 0.5):
        count = next(k for k in range(1, 99) if sum(share[:k]) >= wanted - 1e-9)
        assert float(StableRank(wanted).of(problem, {}, x)) == count
    assert float(spectrum(x).sum()) == pytest.approx(1)


def test_features_that_are_all_0_have_no_rank():
    problem = replace(problem_of(NET, stream_of()), model=Fixed())
    for probe in (EffectiveRank(), StableRank()):
        assert float(probe.of(problem, {}, torch.zeros(5, 3, dtype=DOUBLE))) == 0


def test_weight_magnitude_is_a_mean_over_all_entries():
    net = {"a": torch.tensor([[1.0, -3.0]]), "b": torch.tensor([2.0])}
    assert float(WeightMagnitude().of(problem_of(NET, stream_of()), net, torch.zeros(1))) == pytest.approx(2.0)


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_online_accuracy_is_a_plain_loops(setting):
    """Where all classes compete, whatever was seen; a loop that scores after the step is another."""
    stream = stream_of(setting)
    ours = beside(Learner(NET, optimiser=Adam(0.01)).strategy, stream)
    measured = run(Learner(NET, optimiser=Adam(0.01)), stream, [0, 1], probes=(OnlineAccuracy(),), dtype=DOUBLE)

    def plain(late=False):
        params, values = leaves(ours.start), []
        steps = adam(list(params.values()))
        for rows in (rows for batches in ours.tasks for rows in batches):
            if late:
                descend(steps, loss(params, rows))
            answers = scores(params, rows.x).masked_fill(~rows.allowed, -torch.inf).argmax(1)
            values.append((answers == rows.y).to(DOUBLE).mean())
            if not late:
                descend(steps, loss(params, rows))
        return torch.stack(values)

    online = measured.probes["online accuracy"]
    assert online.shape == (2, 36) and torch.equal(online[1], plain())
    assert not torch.equal(online[1], plain(late=True))
    assert torch.allclose(by_task(online, 3)[1], plain().view(3, 12).mean(1))


def test_they_touch_nothing_and_a_stopped_run_measures_the_same():
    learner, stream = Learner(MLP(8, 6)), stream_of()
    bare, measured = run(learner, stream, [0, 1]), run(learner, stream, [0, 1], probes=PROBES)
    assert torch.equal(bare.accuracy, measured.accuracy) and torch.equal(bare.losses, measured.losses)
    assert [tuple(measured.probes[probe.name].shape) for probe in PROBES] == [(2, 3)] * 5 + [(2, 36)]
    checkpointer = _Killed(17)
    with pytest.raises(Stopped):
        run(learner, stream, [0, 1], probes=PROBES, checkpointer=checkpointer)
    resumed = run(learner, stream, [0, 1], probes=PROBES, checkpointer=checkpointer)
    chunks = run(learner, stream, [0, 1], probes=PROBES, fleet=1)
    for name, values in measured.probes.items():
        assert torch.equal(values, resumed.probes[name]) and torch.equal(values, chunks.probes[name]), name


def test_a_batch_that_is_shown_again_counts_once():
    stream = replace(stream_of(), budget=Budget(iterations=12, batch=8, repeats=3))
    online = run(Learner(NET), stream, [0], probes=(OnlineAccuracy(),)).probes["online accuracy"]
    assert online.shape == (1, 3 * stream.budget.iterations)


def test_what_cannot_be_measured_is_said():
    for probe in (DormantUnits(), EffectiveRank(), WeightMagnitude()):
        with pytest.raises(ConfigurationError, match="trained by gradients"):
            run(NearestClassMean(), stream_of(), [0], probes=(probe,))
    for probe in (DormantUnits(rows=0), DormantUnits(-1.0)):
        with pytest.raises(ConfigurationError, match="must be at least"):
            run(Learner(NET), stream_of(), [0], probes=(probe,))
    with pytest.raises(ConfigurationError, match="of classes"):
        run(Learner(NET), build("regression-digits", setting="task"), [0], probes=(OnlineAccuracy(),))
    assert run(NearestClassMean(), stream_of(), [0], probes=(OnlineAccuracy(),)).probes["online accuracy"].shape[0] == 1
