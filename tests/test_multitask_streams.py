"""Streams for tasks that are learned together: pairs of digits, correlated tasks, tasks on unequal scales, missing labels."""

from __future__ import annotations

import pytest
import torch

from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.models.perceptron import MLP
from scenarios.catalogue import build
from scenarios.correlated import _root, correlated, unbalanced
from scenarios.datasets import load_dataset
from scenarios.joint import joint
from scenarios.overlaid import multi_class, overlaid
from scenarios.stream import Budget, Dataset, ScenarioError
from scenarios.synthetic import blobs, gaussian


def images(size: int = 28, rows: int = 12) -> Dataset:
    x = torch.randint(0, 256, (rows, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset("noise", x, torch.arange(rows) % 3, rows - 4, 3)


def test_two_images_lie_on_a_canvas_of_36_as_in_multimnist():
    dataset = images()
    pairs = overlaid(dataset)
    assert pairs.shape == (28, 28) and pairs.classes == 9 and pairs.train_rows == 8
    for row in range(12):
        left, right = int(pairs.y[row]) // 3, int(pairs.y[row]) % 3
        assert left == int(dataset.y[row])
        part = range(8) if row < 8 else range(8, 12)
        found = []
        for partner in part:  # whose image, by the paper's construction, gives these pixels
            canvas = torch.zeros(36, 36, dtype=torch.uint8)
            canvas[:28, :28] = dataset.x[row]
            canvas[6:34, 6:34] = torch.maximum(canvas[6:34, 6:34], dataset.x[partner])
            kept = [9 * i // 7 for i in range(28)]
            found += [partner] if torch.equal(canvas[kept][:, kept], pairs.x[row]) else []
        assert len(found) == 1 and int(dataset.y[found[0]]) == right


def test_pairs_are_drawn_again_the_same_and_by_another_pairing_otherwise():
    digits = load_dataset("digits")
    first, again, other = overlaid(digits), overlaid(digits), overlaid(digits, pairing=1)
    assert first.content_hash() == again.content_hash() != other.content_hash()
    assert first.content_hash() == "2e1de0d2b8bcce06"


def test_left_and_right_are_two_tasks_with_heads_of_their_own():
    stream = build("multi-digits")
    left, right = stream
    y = stream.dataset.y
    assert torch.equal(left.label[y], y // 10) and torch.equal(right.label[y], 10 + y % 10)
    assert left.classes == tuple(range(10)) and right.classes == tuple(range(10, 20)) and stream.classes == 20
    same = build("multi-digits", setting="domain")
    assert same.classes == 10 and same[1].classes == tuple(range(10))


def test_missing_labels_are_rows_that_a_task_does_not_have():
    whole, partly = (build("multi-digits", missing=share) for share in (0.0, 0.7))
    left, right = (set(task.train.tolist()) for task in partly)
    for rows in (left, right):
        assert abs(len(rows) / len(whole[0].train) - 0.3) < 0.05
    assert left - right and right - left and left & right, "other rows for each"
    assert all(torch.equal(a.test, b.test) for a, b in zip(whole, partly, strict=True))


def test_tasks_of_classes_and_of_numbers_are_learned_together_with_missing_labels():
    stream = joint(build("mixed-digits", missing=0.5, budget=Budget(iterations=40, batch=32)))
    result = run(Learner(MLP(30)), stream, [0])
    assert result.numbers == (1, 3) and torch.isfinite(result.losses).all()
    assert float(result.at_task_ends[0, -1, 0]) > 0.5


@pytest.mark.parametrize("correlation", [-0.4, 0.0, 0.5, 1.0])
def test_the_linear_parts_have_the_correlation(correlation):
    rows = _root(correlation, 3)
    cosines = rows @ rows.T
    expected = torch.full((3, 3), correlation, dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(cosines, expected, rtol=1e-9, atol=1e-9)
    two = torch.tensor([[1.0, 0.0], [correlation, (1 - correlation**2) ** 0.5]], dtype=torch.float64)
    torch.testing.assert_close(_root(correlation, 2), two, rtol=1e-9, atol=1e-9)


def test_correlated_targets_move_together_as_far_as_they_should():
    rows = gaussian(20, 4000)
    apart, alike, same = (correlated(rows, correlation=p, noise=0.0).dataset.targets for p in (0.0, 0.8, 1.0))
    assert abs(float(torch.corrcoef(apart.T)[0, 1])) < 0.1
    assert 0.5 < float(torch.corrcoef(alike.T)[0, 1]) < 0.9
    assert torch.equal(same[:, 0], same[:, 1])
    again = correlated(rows, correlation=0.8, noise=0.0).dataset.targets
    assert torch.equal(alike, again) and not torch.equal(
        alike, correlated(rows, correlation=0.8, draw=1).dataset.targets
    )


def test_unbalanced_tasks_have_the_scales_and_are_of_one_kind():
    stream = unbalanced(gaussian(20, 2000), tasks=3, ratio=10.0, outputs=5)
    targets = stream.dataset.targets
    assert targets.shape == (2000, 15) and stream.classes == 15 and stream[2].columns == tuple(range(10, 15))
    size = targets.view(2000, 3, 5).abs().mean((0, 2))
    torch.testing.assert_close(size[1:] / size[:-1], torch.full((2,), 10.0), rtol=0.1, atol=0)
    alike = torch.corrcoef(targets[:, [0, 5]].T)[0, 1]
    assert 0.7 < alike < 0.98, "spread 0.35 leaves them alike"


def test_what_cannot_be_is_refused_in_one_line():
    rows = gaussian(4, 40)
    refused = {
        "3 tasks have one above -0.50": lambda: correlated(rows, 3, correlation=-0.6),
        "up to 1": lambda: correlated(rows, correlation=1.2),
        "4 features": lambda: correlated(rows, 5, correlation=0.5),
        "ratio above 0": lambda: unbalanced(rows, ratio=0.0),
        "square images": lambda: overlaid(blobs()),
        "share of the labels": lambda: multi_class(images(), missing=1.0),
        "at least 1 feature": lambda: gaussian(0),
    }
    for words, wrong in refused.items():
        with pytest.raises(ScenarioError, match=words) as seen:
            wrong()
        assert "\n" not in str(seen.value)
