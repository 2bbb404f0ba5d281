"""Forgetting, as the papers define it and as the peers compute it."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.result import Result
from lifelong.metrics.base import accuracy_curve, accuracy_matrix, diagonal_of, metric


@metric("order")
def forgetting(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (max_{l<T} a[l, j] - a[T, j]), best over strictly earlier task ends (Chaudhry et al., 2018)."""
    a = accuracy_matrix(result, 2)
    return (a[:, :-1, :-1].amax(1) - a[:, -1, :-1]).mean(1)


@metric("order")
def forgetting_avalanche(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (a[j, j] - a[T, j]): the first value against the last, as Avalanche 0.6 reports it."""
    a = accuracy_matrix(result, 2)
    return (diagonal_of(a)[:, :-1] - a[:, -1, :-1]).mean(1)


@metric("order")
def forgetting_mammoth(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (max_{l<=T} a[l, j] - a[T, j]): the last row counts in the maximum, so it is never negative."""
    a = accuracy_matrix(result, 2)
    return (a[:, :, :-1].amax(1) - a[:, -1, :-1]).mean(1)


@metric("order")
def forgetting_pycil(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (max_{j<=l<=T} a[l, j] - a[T, j]): best since the task was learned, the last row included."""
    a = accuracy_matrix(result, 2)
    last = a.shape[1] - 1
    return torch.stack([a[:, j:, j].amax(1) - a[:, last, j] for j in range(last)], 1).mean(1)


@metric("order")
def backward_transfer(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (a[T, j] - a[j, j]) (Lopez-Paz and Ranzato, 2017, over T-1 tasks as in the paper)."""
    return -forgetting_avalanche(result)


@metric("curve")
def windowed_forgetting(result: Result, window: int = 10) -> Tensor:
    """Mean over tasks of the largest drop between two evaluations at most `window` apart (De Lange et al., 2023)."""
    accuracy, _ = accuracy_curve(result)
    drops = torch.full_like(accuracy[:, 0], -torch.inf)  # [S, T]
    for gap in range(1, min(window, accuracy.shape[1])):
        drops = torch.maximum(drops, (accuracy[:, :-gap] - accuracy[:, gap:]).amax(1))
    return drops.mean(1)


def intransigence(result: Result, joint_upto: list[Result]) -> Tensor:
    """1/T sum_k (a*[k] - a[k, k]), a*[k] the accuracy on task k of a joint run on tasks 1 ... k (Chaudhry et al., 2018)."""
    best = torch.stack([r.at_task_ends[:, -1, k] for k, r in enumerate(joint_upto)], 1)
    return (best - diagonal_of(accuracy_matrix(result))).mean(1)
