"""Whether a difference that was paired over seeds is more than chance, alone or among many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.metrics import Estimate, estimate, holm

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """A paired difference, its p-value corrected for how many were asked about (Holm, 1979), and what follows."""

    difference: Estimate
    p: float

    @property
    def sign(self) -> str:
        """ "positive" or "negative" where that is established at 5 %, else "open"."""
        if not self.p < LEVEL:
            return "open"
        return "positive" if self.difference.mean > 0 else "negative"


def p_of_no_difference(values: Tensor, kept: Tensor | None = None) -> float:
    """Two-sided p of mean 0 for differences [S], t = mean sqrt(S) / s with S - 1 degrees of freedom (Student, 1908).

    Differences without any spread have no t: theirs is the p of the sign test, 2^(1 - S), or 1 where they are 0. On few
    test rows a few seeds may agree by chance. One seed says nothing, and p is 1.
    """
    kept = torch.ones(len(values), dtype=torch.bool) if kept is None else kept
    used = values[kept].to(torch.float64)
    n = len(used)
    if n < 2:
        return 1.0
    from scipy.special import stdtr  # without the seconds that scipy.stats takes to import

    mean, spread = float(used.mean()), float(used.std(unbiased=True))
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return 1.0 if abs(mean) <= 1e-12 else 2.0 ** (1 - n)
    return float(2 * stdtr(n - 1, -abs(mean) * n**0.5 / spread))


def verdicts(differences: Sequence[Tensor], kept: Tensor | None = None) -> list[Verdict]:
    """Of each of N differences [S], with p-values corrected for all N together."""
    corrected = holm([p_of_no_difference(values, kept) for values in differences])
    return [Verdict(estimate(values, kept), p) for values, p in zip(differences, corrected, strict=True)]
