"""Choosing a learning rate: the best of a grid, which grows until the best lies inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scenarios.brief import in_brief

STEP = 10**0.5  # from one rate to the next where a grid grows
TIED = 1e-9  # scores that are equal as sums may differ in the last bits


@dataclass(frozen=True)
class SelectedRates:
    """The winners float64 [...], one for each place of a score; the grid they won on; its scores [R, ...]; whether no
    winner lies at an end of the grid."""

    rates: Tensor
    grid: tuple[float, ...]
    scores: Tensor
    inside: bool
    __repr__ = in_brief


def select_rate(score: Callable[[Sequence[float]], Tensor], grid: Sequence[float], widenings: int = 0) -> SelectedRates:
    """The rate of the highest score, for each place by itself.

    score: rates -> scores [R] or [R, ...], larger is better; what diverged is NaN, and counts as the worst. While a
    winner lies at an end of the grid, the grid grows there by two rates, at most `widenings` times; rates whose scores are known are not scored again. Of rates that tie, the one nearest to the middle of the grid
    wins. A rate of 0 is the least there is: the grid does not grow below it.
    """
    rates = sorted(grid)
    scores = score(rates)
    for widening in range(widenings + 1):
        winners = _winners(scores)
        low, high = bool((winners == 0).any()), bool((winners == len(rates) - 1).any())
        grows_below = low and rates[0] > 0
        if not (grows_below or high) or widening == widenings:
            break
        below = [rates[0] / STEP**2, rates[0] / STEP] if grows_below else []
        above = [rates[-1] * STEP, rates[-1] * STEP**2] if high else []
        new = score([*below, *above])
        scores = torch.cat([new[: len(below)], scores, new[len(below) :]])
        rates = [*below, *rates, *above]
    chosen = torch.tensor(rates, dtype=torch.float64)[winners.cpu()]
    return SelectedRates(chosen, tuple(rates), scores, not (low or high))


def _winners(scores: Tensor) -> Tensor:
    """Places of the best rates, int64 [...], from scores [R, ...]."""
    count = len(scores)
    known = scores.to(torch.float64).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    best = known.amax(0, keepdim=True)
    tied = (known == best) | (known >= best - TIED)
    from_middle = (torch.arange(count, device=scores.device) - (count - 1) / 2).abs()
    far = from_middle.view(-1, *[1] * (scores.ndim - 1)).expand_as(known)
    return torch.where(tied, far, torch.inf).argmin(0)
