"""Gaussian clouds, one or several: data made in milliseconds, for tests and for looking at a method in a small dish."""

from __future__ import annotations

import torch

from scenarios.stream import Dataset, ScenarioError, generator


def blobs(classes: int = 10, features: int = 20, per_class: int = 60, spread: float = 1.0, seed: int = 0) -> Dataset:
    """`classes` Gaussian clouds with centres of unit variance and the given spread; a quarter of the rows are for test."""
    if min(classes, features, per_class - 1) < 1 or spread < 0:
        raise ScenarioError(
            "blobs need at least 1 class, 1 feature and 2 rows of each class, and a spread of at least 0"
        )
    random = generator("blobs", seed)
    centres = torch.randn(classes, features, generator=random)
    noise = torch.randn(per_class, classes, features, generator=random)
    x = (centres + spread * noise).flatten(0, 1)
    y = torch.arange(classes).repeat(per_class)
    train = per_class - max(1, per_class // 4)
    return Dataset("blobs", x, y, train * classes, classes, labels=tuple(range(classes)))


def gaussian(features: int = 50, rows: int = 4000, seed: int = 0) -> Dataset:
    """Rows of independent standard normal numbers, all of one class: for tasks that ask for numbers made of them.

    A quarter of the rows are for test.
    """
    if min(features, rows - 1) < 1:
        raise ScenarioError("gaussian needs at least 1 feature and 2 rows")
    x = torch.randn(rows, features, generator=generator("gaussian", seed))
    return Dataset("gaussian", x, torch.zeros(rows, dtype=torch.int64), rows - max(1, rows // 4), 1)


MADE = {"blobs": blobs, "gaussian": gaussian}
