"""A stream's rows cut into pieces, and the gradient of one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.core.batch import Batch, Params
from lifelong.core.problem import Problem
from lifelong.models.base import Net


def piece(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch, which share the weight equally; those that only fill it up have none."""
    cut = tree_map(lambda leaf: leaf[rows] if leaf.ndim else leaf, batch.replace(draws=()))
    shown = cut.shown.to(cut.weight.dtype)
    return cut.replace(weight=shown / shown.sum().clamp(min=1))


def pieces(batch: Batch, steps: int) -> Iterator[Batch]:
    """The stream's rows, in order, in so many pieces, or in as many as there are rows."""
    count = batch.stream.stop
    most = -(-count // min(steps, count))
    for first in range(0, count, most):
        yield piece(batch, slice(first, min(first + most, count)))


def slope(problem: Problem, params: Params, moving: Net, batch: Batch) -> Net:
    """The gradient of a batch's weighted loss with respect to those weights that move."""

    def loss(net: Net) -> Tensor:
        return problem.objective({**params, "net": {**params["net"], **net}}, batch)[0]

    return torch.func.grad(loss)(moving)
