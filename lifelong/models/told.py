"""What networks share that are told the task of each row: how a row is laid out, and how it is taken apart again."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lifelong.models.base import Described, ModelError, Net
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP

OWN = "own."  # the names of parameters that each task has for itself, [Z, ...], begin with it


def check_trunk(model: Any, trunk: Any) -> None:
    """Raise ModelError unless a network's trunk has layers that can be told apart: an MLP with hidden layers, or a Conv4."""
    if not (isinstance(trunk, Conv4) or (isinstance(trunk, MLP) and trunk.widths)):
        name = type(model).__name__
        raise ModelError(f"{name}({trunk!r}): its trunk is an MLP with hidden layers, as in MLP(100, 100), or a Conv4")


def laid_out(model: Any, trunk: MLP | Conv4, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The shape of a row as the trunk sees it, and Z. Raises ModelError unless `shape` says how much of a row tells the task."""
    if not isinstance(shape, Described):
        raise ModelError(f"{model!r} is told the task of each row, and here nothing tells it: use {trunk!r}")
    if isinstance(trunk, MLP):
        return (shape.features,), shape.task_embedding
    channels, side = shape.channels, shape.side
    if not side:
        raise ModelError(f"{model!r} takes square images, and a row here is none: use an MLP")
    if shape.task_embedding >= channels * (2 * side + 1):
        raise ModelError(f"{model!r}: {shape.task_embedding} tasks are too many to tell by images of {side} x {side}")
    return (channels, side, side), shape.task_embedding


def taken_apart(model: Any, trunk: MLP | Conv4, net: Net, x: Tensor, told: int | None = None) -> tuple[Tensor, Tensor]:
    """What the trunk sees, [B, F] or [B, K, H, H], and the task_embedding [B, Z], of rows [B, F + Z]; told: Z, where known.

    Raises ModelError for rows that tell no task.
    """
    first = "layer0.weight" if isinstance(trunk, MLP) else "block0.weight"
    weight = net[first] if first in net else net[OWN + first]
    if isinstance(trunk, MLP):
        features, view = weight.shape[-2], (weight.shape[-2],)
    else:
        channels = weight.shape[-3]
        side = math.isqrt(x.shape[1] // channels)
        features, view = channels * side * side, (channels, side, side)
    if told is None:  # where nothing is the tasks' own, the rows alone say how many there are
        stacks = (value.shape[0] for name, value in net.items() if name.startswith((OWN, "gate.")))
        told = next(stacks, max(x.shape[1] - features, 1))
    if x.shape[1] != features + told:
        raise ModelError(f"{model!r} takes rows of {features} numbers and {told} that say which task, not {x.shape[1]}")
    return x[:, :features].view(-1, *view), x[:, features:]


def without_head(net: Net) -> Net:
    """The parameters below the head."""
    return {name: value for name, value in net.items() if not name.startswith("head.")}


def own_of(net: Net) -> Net:
    """What each task has for itself, by the trunk's own names, [Z, ...]."""
    return {name.removeprefix(OWN): value for name, value in net.items() if name.startswith(OWN)}


def stacked(trunk: MLP | Conv4, rows: tuple[int, ...], count: int, generator: torch.Generator) -> Net:
    """So many draws of a trunk without its head, one after another, stacked."""
    nets = [without_head(trunk.init(rows, 1, generator)) for _ in range(count)]
    return {name: torch.stack([net[name] for net in nets]) for name in nets[0]}


def picked(z: Tensor, each: Tensor) -> Tensor:
    """sum_t z_bt h_tb: of features of each task [Z, B, F], those of a row's task [B, F]."""
    return torch.einsum("bz,zbf->bf", z, each)
