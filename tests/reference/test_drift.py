"""Head and trunk drift: definitions by hand, the fitted head by plain torch, limits that are known beforehand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from lifelong import metrics
from lifelong.contracts.learners import equal, tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.core.result import Result
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.probes.linear_probe import LINEAR_PROBE, LinearProbeAccuracy, fitted_head
from lifelong.runs.execute import probes_of
from lifelong.runs.request import Request
from lifelong.transfer.pairs import learned
from scenarios.errors import ConfigurationError
from scenarios.joint import joint
from scenarios.stream import generator

DOUBLE, SAME, SEEN = torch.float64, 1e-9, 1e-6
LEARNER, PROBE = Learner(MLP(8), optimiser=Adam(0.02)), LinearProbeAccuracy(rows=24, steps=20)


def features_of(rows: int = 30, width: int = 5, classes: int = 3):
    random = generator("a head")
    labels = torch.arange(rows) % classes
    f = torch.randn(rows, width, dtype=DOUBLE, generator=random) * torch.tensor([1.0, 9.0, 0.1, 1.0, 0.0], dtype=DOUBLE)
    return f + labels[:, None] + 4, labels


def test_the_fitted_head_is_plain_logistic_regression():
    f, y = features_of()
    f[:, 4] = 2.5  # the same in all rows
    z = (f[:, :4] - f[:, :4].mean(0)) / f[:, :4].std(0, correction=0)
    weight, bias = torch.zeros(4, 3, dtype=DOUBLE, requires_grad=True), torch.zeros(3, dtype=DOUBLE, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(z @ weight + bias, y).backward()
        optimiser.step()
    expected = (z @ weight + bias).detach()

    def gap(features, labels, rate=0.05):
        w, b = fitted_head(features, labels, 3, 40, rate)
        return float((f @ w + b - expected).abs().max())

    assert gap(f, y) < SAME
    assert gap(f, y, 0.05 * 1.001) > SEEN and gap(f, y.roll(1)) > SEEN
    assert gap(f, torch.cat([y[:1] + 1, y[1:]])) > SEEN  # one wrong row


def result_of(a, probe) -> Result:
    """Of one seed, from the accuracies after each task."""
    accuracy = torch.tensor([[[0.0] * len(a), *a]], dtype=DOUBLE)
    when = torch.tensor([(0, 0, 0, 10), *((t, 5, 1, 10) for t in range(len(a)))])
    probes = {} if probe is None else {LINEAR_PROBE: torch.tensor([probe], dtype=DOUBLE)}
    nothing = torch.zeros(1, len(a), 1)
    return Result(accuracy, when, accuracy[:, 0], nothing, torch.full((1, 2), -1), (0,), probes=probes)


def test_drift_by_hand():
    nan = float("nan")
    a = [[0.9, 0.0, 0.0], [0.6, 0.8, 0.0], [0.3, 0.5, 1.0]]
    probe = [[0.95, nan, nan], [0.9, 0.85, nan], [0.85, 0.75, 1.0]]
    result = result_of(a, probe)
    assert float(metrics.trunk_drift(result)) == pytest.approx(((0.95 - 0.85) + (0.85 - 0.75)) / 2)
    assert float(metrics.head_drift(result)) == pytest.approx(((0.6 - 0.1) + (0.3 - 0.1)) / 2)
    parts = metrics.drift(result)
    assert float(parts.lost[0, 1, 0]) == pytest.approx(0.3) and float(parts.trunk[0, 1, 0]) == pytest.approx(0.05)
    torch.testing.assert_close(parts.head + parts.trunk, parts.lost, equal_nan=True)
    assert bool(parts.lost[0, 0, 1:].isnan().all()) and not parts.head.diagonal(dim1=1, dim2=2).any()
    both = metrics.head_drift(result) + metrics.trunk_drift(result)
    torch.testing.assert_close(both, -metrics.backward_transfer(result))
    assert {"head_drift", "trunk_drift"} <= set(metrics.summary(result))
    off = [*probe[:2], [0.851, 0.75, 1.0]]
    assert float(metrics.trunk_drift(result_of(a, off))) != pytest.approx(0.1, abs=1e-4)


def test_what_was_not_probed_says_the_flag():
    with pytest.raises(metrics.NotMeasured, match="--linear-probe"):
        metrics.trunk_drift(result_of([[0.9, 0.0], [0.6, 0.8]], None))
    with pytest.raises(metrics.NotMeasured, match="joint"):
        metrics.head_drift(run(LEARNER, joint(tiny()), [0], probes=[PROBE]))


@pytest.mark.parametrize("setting", ["task", "class", "domain"])
def test_probing_touches_nothing_and_a_trunk_that_stays_does_not_drift(setting):
    stream = tiny(setting)
    plain, probed = learned(LEARNER, stream, [0, 1]), learned(LEARNER, stream, [0, 1], probes=[PROBE])
    equal(plain[1], probed[1], "states with and without a probe")
    assert not bool((metrics.trunk_drift(probed[0]) == 0).all())
    frozen = run(dataclasses.replace(LEARNER, trainable="head"), stream, [0, 1], probes=[PROBE])
    assert not metrics.trunk_drift(frozen).any()
    torch.testing.assert_close(metrics.head_drift(frozen), -metrics.backward_transfer(frozen))


def test_the_accuracy_is_of_a_head_fitted_by_hand():
    stream = tiny("class")
    result, state = learned(LEARNER, stream, [0, 3], probes=[PROBE], dtype=DOUBLE)
    task, y = stream.tasks_of(3)[1], stream.dataset.y
    net = {name: value[1] for name, value in state.params["net"].items()}
    train = task.train[torch.linspace(0, len(task.train) - 1, 24).long()] if len(task.train) > 24 else task.train
    shown, asked = (LEARNER.model.features(net, stream.dataset.x[rows].to(DOUBLE)) for rows in (train, task.test))
    weight, bias = fitted_head(shown, task.label[y[train]] - task.classes[0], len(task.classes), 20, 0.05)
    right = (asked @ weight + bias).argmax(1) == task.label[y[task.test]] - task.classes[0]
    assert float(result.probes[LINEAR_PROBE][1, -1, 1]) == pytest.approx(float(right.double().mean()))


def test_what_cannot_be_probed_is_refused():
    with pytest.raises(ConfigurationError, match="not trained"):
        run(NearestClassMean(model=MLP(8)), tiny(), [0], probes=[PROBE])
    with pytest.raises(ConfigurationError, match="at least 2 rows"):
        run(LEARNER, tiny(), [0], probes=[LinearProbeAccuracy(rows=0)])


def test_a_request_asks_for_it():
    assert probes_of(Request("split-blobs", linear_probe=True)) == (LinearProbeAccuracy(),)
    assert probes_of(Request("split-blobs")) == ()
    assert "--linear-probe" in Request("split-blobs", linear_probe=True).command
