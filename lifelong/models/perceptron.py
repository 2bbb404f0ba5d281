"""The multilayer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.models.base import Hook, ModelError, Net, apply_linear, linear


@dataclass(frozen=True, init=False, repr=False)
class MLP:
    """A multilayer perceptron with rectified linear units: `MLP(400, 400)` has two hidden layers of 400."""

    widths: tuple[int, ...]

    def __init__(self, *widths: int) -> None:
        if any(not isinstance(width, int) or width < 1 for width in widths):
            raise ModelError(f"MLP takes the widths of its hidden layers, whole numbers of at least 1, not {widths}")
        object.__setattr__(self, "widths", widths)

    def __repr__(self) -> str:
        return f"MLP({', '.join(map(str, self.widths))})"

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters, layer by layer."""
        net: Net = {}
        inputs = math.prod(shape)
        for i, width in enumerate(self.widths):
            linear(net, f"layer{i}", inputs, width, generator)
            inputs = width
        linear(net, "head", inputs, classes, generator)
        return net

    task_embedding = False
    mixes_rows = False
    shows_layers = True

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The last hidden layer [B, F]."""
        x = x.flatten(1)
        for i in range(self.depth):
            x = self.layer(net, i, x, at)
        return x

    @property
    def depth(self) -> int:
        """How many hidden layers there are."""
        return len(self.widths)

    def layer(self, net: Net, i: int, x: Tensor, at: Hook | None = None) -> Tensor:
        """Hidden layer i [B, H_i] of what lies below it [B, H_(i-1)]."""
        return apply_linear(net, f"layer{i}", x, at).relu()

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return apply_linear(net, "head", features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return net["head.weight"].T
