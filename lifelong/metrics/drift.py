"""Where forgetting went: into the head, which no longer fits a trunk that still tells classes apart, or into the trunk.

a[i, j]: accuracy on task j after task i, by the network's own head; P[i, j]: by a linear head that is fitted to task j anew,
on the trunk as it is after task i. For every i > j

    a[j, j] - a[i, j]  =  (P[j, j] - P[i, j])  +  ((P[i, j] - a[i, j]) - (P[j, j] - a[j, j]))
    what was lost      =   trunk drift         +   head drift

Trunk drift is what no linear head can bring back. Head drift is how much further the network's own head has fallen behind
such a head. In a class-incremental stream the own head answers among all classes and the fitted one among those of its
task, so that being drowned out by newer classes counts as the head's. Both may be negative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.core.result import Result
from lifelong.metrics.base import NotMeasured, accuracy_matrix, diagonal_of, metric
from lifelong.probes.linear_probe import LINEAR_PROBE
from scenarios.brief import in_brief


class Drift(NamedTuple):
    """What became of each task after each, [S, T, T]: row i, column j = task j after task i; 0 on the diagonal, NaN before."""

    lost: Tensor
    head: Tensor
    trunk: Tensor
    __repr__ = in_brief


def drift(result: Result) -> Drift:
    """What was lost, and its two parts. Raises NotMeasured where no linear probe was fitted."""
    a = accuracy_matrix(result, 2)
    if LINEAR_PROBE not in result.probes:
        raise NotMeasured("this reads heads that are fitted anew after each task: run with --linear-probe")
    probe = result.probes[LINEAR_PROBE]
    known = torch.ones(a.shape[1:], dtype=torch.bool).tril()
    lost = (diagonal_of(a)[:, None] - a).masked_fill(~known, torch.nan)
    trunk = diagonal_of(probe)[:, None] - probe
    return Drift(lost, lost - trunk, trunk)


def _at_end(values: Tensor) -> Tensor:
    return values[:, -1, :-1].mean(1)


@metric("probe")
def trunk_drift(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (P[j, j] - P[T, j]): of what was lost, what no linear head brings back; see `drift`."""
    return _at_end(drift(result).trunk)


@metric("probe")
def head_drift(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (a[j, j] - a[T, j]) - trunk drift: of what was lost, what a head fitted anew brings back; see `drift`.

    With `trunk_drift` it adds up to minus backward transfer.
    """
    return _at_end(drift(result).head)
