"""Which entries of a head belong to which classes, whichever way round its weights lie."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.problem import Problem
from lifelong.models.base import Net


def entries_of(problem: Problem, net: Net, classes: Tensor) -> Net:
    """Of each parameter of the head, which entries belong to some classes, bool [C]: masks shaped like the parameters."""
    # what takes the weights to rows of classes takes rows of numbers back
    rows, back = torch.func.vjp(problem.model.head_rows, net)[:2]
    weights = back(classes.to(rows.dtype)[:, None].expand_as(rows))[0]
    head = {name: value for name, value in net.items() if name.startswith("head.")}
    return {name: classes if value.shape == classes.shape else weights[name] > 0 for name, value in head.items()}
