"""Streaming linear discriminant analysis, SLDA (Hayes and Kanan, 2020): means and one covariance, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.strategy import require
from lifelong.learners.gaussians import PooledGaussians


@dataclass(frozen=True)
class StreamingLDA(PooledGaussians):
    """One Gaussian for each class, all of the same covariance; learns from sums over a task's rows at its end.

    score_c = f' P mu_c - mu_c' P mu_c / 2, P = ((1 - shrinkage) S + shrinkage I)^-1, mu_c the mean of the class's features,
    S [F, F] their covariance within classes, sum over all rows of (f - mu_y)(f - mu_y)' / N (Hayes and Kanan, 2020); minus
    infinity for classes never seen. features: "pixels", "net" or "first", see `lifelong.learners.closed_form`.

    What differs from the source: S is exactly the pooled covariance, so that neither the order of rows nor that of
    tasks matters; the authors' update, a row at a time, has t / (t + 1) with t of all rows seen where n_y / (n_y + 1) of
    the class would make it exact, so a class's first row counts with its square, and they start from S = 1 or from a
    first batch. Rows are learned once each, at a task's end, whatever the number of its iterations. Needs F^2 numbers
    for each seed.
    """

    shrinkage: float = 1e-4
    keeps = "a mean for each class, one covariance"
    witness = "a loop over rows, scikit-learn's LinearDiscriminantAnalysis: tests/reference/test_methods_a.py"
    defaults = "published"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 < self.shrinkage <= 1, "shrinkage lies above 0, up to 1")

    def regularised(self, covariance: Tensor) -> Tensor:
        """Drawn towards the unit matrix."""
        unit = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return (1 - self.shrinkage) * covariance + self.shrinkage * unit
