"""Metrics against matrices worked out by hand."""

from __future__ import annotations

import pytest
import torch

from lifelong import metrics
from lifelong.core.result import Result

# rows: after task 1, 2, 3; columns: tasks
MATRIX = [[0.9, 0.1, 0.2], [0.95, 0.8, 0.3], [0.6, 0.5, 0.7]]
START = [0.5, 0.2, 0.1]


def result(setting="domain", paradigm="continual", between=True) -> Result:
    rows = [START]
    when = [(0, 0, 0, 10)]
    halfway = [[0.7, 0.1, 0.2], [0.4, 0.5, 0.2], [0.3, 0.6, 0.4]]
    for t in range(3):
        if between:
            rows.append(halfway[t])
            when.append((t, 5, 0, 4))
        rows.append(MATRIX[t])
        when.append((t, 10, 1, 10))
    accuracy = torch.tensor([rows, rows], dtype=torch.float64)
    accuracy[1, -1] += 0.1
    untrained = torch.tensor([START, START], dtype=torch.float64)
    return Result(
        accuracy, torch.tensor(when), untrained, torch.zeros(2, 3, 1), torch.full((2, 2), -1), (0, 1), paradigm, setting
    )


@pytest.mark.parametrize("name, expected", [
    ("average_accuracy", (0.6 + 0.5 + 0.7) / 3),
    ("average_incremental_accuracy", (0.9 + (0.95 + 0.8) / 2 + 0.6) / 3),
    ("learning_accuracy", (0.9 + 0.8 + 0.7) / 3),
    ("forgetting", ((0.95 - 0.6) + (0.8 - 0.5)) / 2),
    ("forgetting_avalanche", ((0.9 - 0.6) + (0.8 - 0.5)) / 2),
    ("forgetting_mammoth", ((0.95 - 0.6) + (0.8 - 0.5)) / 2),
    ("forgetting_pycil", ((0.95 - 0.6) + (0.8 - 0.5)) / 2),
    ("backward_transfer", ((0.6 - 0.9) + (0.5 - 0.8)) / 2),
    ("forward_transfer", ((0.1 - 0.2) + (0.3 - 0.1)) / 2),
    ("min_accuracy", (0.3 + 0.5) / 2),
    ("worst_case_accuracy", 0.7 / 3 + (2 / 3) * (0.3 + 0.5) / 2),
    ("windowed_forgetting", ((0.95 - 0.3) + (0.8 - 0.5) + 0.0) / 3),
    ("learning_curve_area", (0.7 + 0.475 + 0.45) / 3),  # each from the evaluation before its task on
    ("average_anytime_accuracy", (0.7 + 0.9 + 0.45 + 0.875 + (0.3 + 0.6 + 0.4) / 3 + 0.6) / 6),
])  # fmt: skip
def test_by_hand(name, expected):
    assert float(metrics.METRICS[name](result())[0]) == pytest.approx(expected)


def test_variants_differ_where_the_last_row_is_best():
    better = result()
    better.accuracy[:, -1, 0] = 1.0
    values = {
        name: float(metrics.METRICS[name](better)[0]) for name in metrics.METRICS if name.startswith("forgetting")
    }
    assert values["forgetting"] == pytest.approx(((0.95 - 1.0) + 0.3) / 2)
    assert values["forgetting_mammoth"] == pytest.approx((0.0 + 0.3) / 2)
    assert values["forgetting_avalanche"] == pytest.approx(((0.9 - 1.0) + 0.3) / 2)


def test_what_has_no_meaning_is_refused_and_names_the_flag():
    with pytest.raises(metrics.NotMeasured, match="degenerate"):
        metrics.forward_transfer(result("class"))
    with pytest.raises(metrics.NotMeasured, match="--eval-every"):
        metrics.min_accuracy(result(between=False))
    for name, needs in metrics.NEEDS.items():
        if needs:
            with pytest.raises(metrics.NotMeasured):
                metrics.METRICS[name](result(paradigm="joint"))


def test_isolate_reads_the_diagonal():
    assert float(metrics.average_accuracy(result(paradigm="isolate"))[0]) == pytest.approx((0.9 + 0.8 + 0.7) / 3)


def test_interval_is_students():
    value = metrics.estimate(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert value.mean == 2.5
    assert value.half_width == pytest.approx(3.182446 * 1.2909944 / 2, rel=1e-6)
    assert metrics.estimate(torch.tensor([1.0])).half_width is None


def test_diverged_seeds_are_left_out_and_paired_differences_share_seeds():
    value = metrics.estimate(torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True]))
    assert value.mean == 2.0 and value.per_seed[1] is None
    a, b = result(), result()
    object.__setattr__(b, "seeds", (1, 2))
    assert len(metrics.paired(metrics.average_accuracy, a, b).per_seed) == 1


def test_intransigence():
    ones = result()
    upto = [result() for _ in range(3)]
    for r in upto:
        r.accuracy[:, -1] = 1.0
    assert float(metrics.intransigence(ones, upto)[0]) == pytest.approx((0.1 + 0.2 + 0.3) / 3)
