"""Choosing a learning rate for adaptation on other tasks than the one it is used for, on rows that no test shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GRID = (0.1, 0.316, 1.0, 3.16, 10.0)  # times the rate that was named
STEP = 3.16  # from one rate of a grid to the next


@dataclass(frozen=True)
class ChosenRates:
    """The winners [T, K] for each task and number of shots; the grid they won on; whether all lie inside it."""

    rates: Tensor
    grid: tuple[float, ...]
    inside: bool


def choose_rate(measure: Callable[[Sequence[float]], Tensor], grid: Sequence[float], widenings: int = 3) -> ChosenRates:
    """For each task the rate with the best mean accuracy on the other tasks (on its own where there is no other).

    measure: rates -> validation accuracies [R, S, T, K]. While a winner lies at an end of the grid, the grid grows there
    by two rates, at most `widenings` times. Of rates that tie, the one nearest to the middle wins.
    """
    rates = sorted(grid)
    scores = measure(rates).nan_to_num(0.0).mean(1)  # [R, T, K]
    for widening in range(widenings + 1):
        winners = _winners(scores)
        low, high = int(winners.min()) == 0, int(winners.max()) == len(rates) - 1
        if not (low or high) or widening == widenings:
            break
        below = [rates[0] / STEP**2, rates[0] / STEP] if low else []
        above = [rates[-1] * STEP, rates[-1] * STEP**2] if high else []
        new = measure([*below, *above]).nan_to_num(0.0).mean(1)
        scores = torch.cat([new[: len(below)], scores, new[len(below) :]])
        rates = [*below, *rates, *above]
    return ChosenRates(torch.tensor(rates, dtype=torch.float64)[winners.cpu()], tuple(rates), not (low or high))


def _winners(scores: Tensor) -> Tensor:
    """Places of the best rates, int64 [T, K], from mean accuracies [R, T, K]."""
    count, tasks = scores.shape[:2]
    others = (scores.sum(1, keepdim=True) - scores) / (tasks - 1) if tasks > 1 else scores
    # sums that are equal may differ in the last bit
    best = others >= others.amax(0, keepdim=True) - 1e-9
    from_middle = (torch.arange(count, device=scores.device) - (count - 1) / 2).abs()[:, None, None]
    return torch.where(best, from_middle, torch.inf).argmin(0)
