"""The head's rows, one for each class, whichever way round a network keeps them."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.problem import Problem
from lifelong.models.base import Net


def of_classes(problem: Problem, net: Net, values: Tensor) -> Net:
    """For each entry of the head the value of its class: values [C]; shaped like the head's parameters."""
    rows = problem.model.head_rows(net)
    return with_rows(problem, net, values[:, None].expand_as(rows), values)


def with_rows(problem: Problem, net: Net, rows: Tensor, bias: Tensor) -> Net:
    """The head's parameters whose weights, as rows of classes, are rows [C, F], and whose biases are bias [C]."""
    like, back = torch.func.vjp(problem.model.head_rows, net)[:2]  # a linear map: what takes to rows takes rows back
    weights = back(rows.to(like.dtype))[0]
    head = {name: value for name, value in net.items() if name.startswith("head.")}
    return {name: bias if value.shape == bias.shape else weights[name] for name, value in head.items()}


def bias_of(net: Net, classes: int) -> Tensor | None:
    """The head's biases [C], None where it has none."""
    found = [value for name, value in net.items() if name.startswith("head.") and value.shape == (classes,)]
    return found[0] if found else None
