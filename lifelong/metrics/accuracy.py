"""Accuracy at the end, along the way, and while a task is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.result import Result
from lifelong.metrics.base import accuracy_curve, accuracy_matrix, curve_areas, diagonal_of, metric


@metric()
def average_accuracy(result: Result) -> Tensor:
    """Mean over tasks of the accuracy at the end: 1/T sum_j a[T, j] (Lopez-Paz and Ranzato, 2017).

    Of `isolate`: 1/T sum_j a[j, j], each task by the network that learned it alone.
    """
    a = accuracy_matrix(result)
    return diagonal_of(a).mean(1) if result.paradigm == "isolate" else a[:, -1].mean(1)


@metric("order")
def average_incremental_accuracy(result: Result) -> Tensor:
    """Mean over t of the mean accuracy on the first t tasks: 1/T sum_t 1/t sum_{j<=t} a[t, j] (Rebuffi et al., 2017)."""
    a = accuracy_matrix(result, 2)
    return torch.stack([a[:, t, : t + 1].mean(1) for t in range(a.shape[1])], 1).mean(1)


@metric("order")
def learning_accuracy(result: Result) -> Tensor:
    """Mean accuracy on each task just after it was learned: 1/T sum_j a[j, j] (Riemer et al., 2019)."""
    return diagonal_of(accuracy_matrix(result, 2)).mean(1)


@metric("curve")
def min_accuracy(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} of the lowest accuracy on j at any evaluation after j ended (De Lange et al., 2023)."""
    accuracy, ended = accuracy_curve(result)
    after = [accuracy[:, _since_end(result, ended, j), j].amin(1) for j in range(result.tasks - 1)]
    return torch.stack(after, 1).mean(1)


def _since_end(result: Result, ended: Tensor, j: int) -> Tensor:
    """Evaluations after task j ended, its own end left out."""
    own_end = (result.when[1:, 0] == j) & (result.when[1:, 2] == 1)
    return (ended > j) & ~own_end


@metric("curve")
def worst_case_accuracy(result: Result) -> Tensor:
    """a[T, T] / T + (1 - 1/T) x min_accuracy (De Lange et al., 2023)."""
    return accuracy_matrix(result, 2)[:, -1, -1] / result.tasks + (1 - 1 / result.tasks) * min_accuracy(result)


@metric("curve")
def average_anytime_accuracy(result: Result) -> Tensor:
    """Mean over evaluations of the mean accuracy on the tasks begun so far (Caccia et al., 2022)."""
    accuracy, _ = accuracy_curve(result)
    begun = result.when[1:, 0] + 1
    return torch.stack([accuracy[:, e, : int(n)].mean(1) for e, n in enumerate(begun)], 1).mean(1)


@metric("curve")
def learning_curve_area(result: Result) -> Tensor:
    """Mean over tasks of the area under the task's accuracy while it is learned, as a share of 1 (after Chaudhry et al., 2019)."""
    accuracy_curve(result)
    return curve_areas(result).mean(1)
