"""Intervals over seeds, paired differences, and shares of the variance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.result import Result
from lifelong.metrics.base import Metric, NotMeasured, available
from scenarios.stream import Seed


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the half-width of its 95 % interval (none with one seed); diverged seeds left out."""

    mean: float
    half_width: float | None
    per_seed: tuple[float | None, ...]

    def text(self, digits: int = 2) -> str:
        """In percent, as in "91.23 ± 0.45"."""
        if self.mean != self.mean:
            return "–"
        width = "" if self.half_width is None else f" ± {100 * self.half_width:.{digits}f}"
        return f"{100 * self.mean:.{digits}f}{width}"


def estimate(values: Tensor, kept: Tensor | None = None) -> Estimate:
    """Student's t interval over seeds: mean ± t(0.975, n - 1) x s / sqrt(n), for values [S]; seeds not kept are left out."""
    kept = torch.ones(len(values), dtype=torch.bool) if kept is None else kept
    used = values[kept].to(torch.float64)
    n = len(used)
    half_width = None
    if n > 1:
        from scipy.special import stdtrit  # Student's quantile, without the seconds that scipy.stats takes to import

        half_width = float(stdtrit(n - 1, 0.975) * used.std(unbiased=True) / n**0.5)
    per_seed = tuple(float(v) if k else None for v, k in zip(values, kept, strict=True))
    return Estimate(float(used.mean()) if n else float("nan"), half_width, per_seed)


def variance_shares(values: Tensor, seeds: Sequence[Seed]) -> dict[str, float]:
    """How much of the variance of values [S] goes with each meaning of a seed: "order", "start", "data", "together".

    seeds: every combination of some seeds of each, once. With m_v the mean over members whose order is v, the share of
    order is var_v(m_v) / var, its sum of squares in a factorial analysis of variance (Fisher, 1925); "together" is what
    no meaning explains by itself. Raises NotMeasured for other seeds, and where all values are equal.
    """
    values, names = values.to(torch.float64), Seed._fields
    levels = [sorted({seed[i] for seed in seeds}) for i in range(len(names))]
    if set(itertools.product(*levels)) != set(seeds) or len(set(seeds)) < len(seeds):
        raise NotMeasured("shares of the variance need every combination of some orders, starts and data, each once")
    total = values.var(correction=0)
    if not total > 0:
        raise NotMeasured("all values are equal, so there is no variance to divide")
    shares: dict[str, float] = {}
    for i, name in enumerate(names):
        means = [values[[seed[i] == level for seed in seeds]].mean() for level in levels[i]]
        shares[name] = float(torch.stack(means).var(correction=0) / total)
    return shares | {"together": 1 - sum(shares.values())}


def paired_p(differences: Tensor) -> float:
    """The p-value of no difference, from the seeds' differences [S], two-sided: Student's t = mean x sqrt(S) / s.

    1 of fewer than two seeds, and where all are 0; 0 where all are the same other number.
    """
    values = differences.to(torch.float64)
    spread = values.std() if len(values) > 1 else values.new_zeros(())
    if not spread > 0:
        return float(len(values) < 2 or not values.any())
    from scipy.special import stdtr

    return float(2 * stdtr(len(values) - 1, -abs(float(values.mean() / spread * len(values) ** 0.5))))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number, step by step (Holm, 1979): the k-th smallest of m times m - k, never falling."""
    corrected, highest = [0.0] * len(p), 0.0
    for k, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - k) * p[place]))
        corrected[place] = highest
    return corrected


def one_setting(result: Result) -> None:
    """Raise NotMeasured where numbers of the learner varied: no mean is taken over settings."""
    if len(set(result.settings)) > 1:
        raise NotMeasured("numbers of the learner varied in this result: take each of result.by_setting()")


def summary(result: Result) -> dict[str, Estimate]:
    """Every metric that the result can give, as an estimate over its seeds. Raises NotMeasured where numbers varied."""
    one_setting(result)
    return {name: estimate(function(result), result.kept) for name, function in available(result).items()}


def paired(metric: Metric, a: Result, b: Result) -> Estimate:
    """metric(a) - metric(b), seed by seed, over the seeds that both have and neither lost. Raises NotMeasured."""
    one_setting(a)
    one_setting(b)
    shared = [seed for seed in a.seeds if seed in b.seeds]
    if not shared:
        raise NotMeasured("the two runs have no seed in common")
    ia = torch.tensor([a.seeds.index(seed) for seed in shared])
    ib = torch.tensor([b.seeds.index(seed) for seed in shared])
    return estimate(metric(a)[ia] - metric(b)[ib], a.kept[ia] & b.kept[ib])
