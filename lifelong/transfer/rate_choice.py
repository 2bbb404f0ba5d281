"""Choosing a learning rate for adaptation on other tasks than the one it is used for, on rows that no test shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lifelong.adaptation.rate_selection import SelectedRates, select_rate

GRID = (0.1, 0.316, 1.0, 3.16, 10.0)  # times the rate that was named


def choose_rate(
    measure: Callable[[Sequence[float]], Tensor], grid: Sequence[float], widenings: int = 3
) -> SelectedRates:
    """For each task the rate with the best mean accuracy on the other tasks (on its own where there is no other), [T, K].

    measure: rates -> validation accuracies [R, S, T, K]; a seed that diverged counts as 0.
    """
    return select_rate(lambda rates: _on_others(measure(rates).nan_to_num(0.0).mean(1)), grid, widenings)


def _on_others(scores: Tensor) -> Tensor:
    """Mean accuracy on the other tasks, [R, T, K], from that on each."""
    tasks = scores.shape[1]
    return (scores.sum(1, keepdim=True) - scores) / (tasks - 1) if tasks > 1 else scores
