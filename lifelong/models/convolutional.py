"""Convolutional networks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.models.base import Hook, ModelError, Net, apply_linear, linear

NORM_EPSILON = 1e-5  # torch's


def batch_normed(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Batch norm [B, C, H, W] by the statistics of these rows.

    Said as a group norm of one row whose groups are the channels: the same numbers, and differentiated twice under
    vmap it takes three quarters of the time.
    """
    rows, channels, height, width = x.shape
    turned = x.transpose(0, 1).reshape(1, channels, -1)
    return F.group_norm(turned, channels, scale, shift).view(channels, rows, height, width).transpose(0, 1)


def pooled_batch_norm(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """2 x 2 maxima of the batch norm of a convolution: [B, K, H, W] to [B, C, H / 2, W / 2].

    A rising function may be taken after the maximum as well as before. So channels of negative scale are turned over
    in the weight, and only the statistics are of the whole images: a meta-gradient is a third faster.
    """
    sign = torch.where(scale < 0, -1.0, 1.0).to(scale.dtype)
    x = F.conv2d(x, weight * sign[:, None, None, None], padding=1)
    share = 1 / (x.shape[0] * x.shape[2] * x.shape[3])
    mean = x.sum((0, 2, 3)) * share
    variance = ((x * x).sum((0, 2, 3)) * share - mean * mean).clamp(min=0)
    factor = scale * sign * (variance + NORM_EPSILON).rsqrt()
    if min(x.shape[-2:]) > 1:
        x = F.max_pool2d(x, 2)
    return torch.addcmul((shift - mean * factor)[:, None, None], x, factor[:, None, None])


@dataclass(frozen=True)
class Conv4:
    """Blocks of 3 x 3 convolution, norm, rectified linear unit and halving (after Vinyals et al., 2016).

    norm: "group" scores each row by itself; "batch" normalises by the statistics of the rows that are scored together
    (no running ones), as few-shot papers do: transductive where those are the rows to be answered. halving: "pool",
    2 x 2 maxima, or "stride", convolutions of stride 2 (Finn et al., 2017, for Omniglot), four times cheaper.
    """

    channels: int = 32
    blocks: int = 4
    groups: int = 8
    norm: str = "group"
    halving: str = "pool"

    def __post_init__(self) -> None:
        for name, known in (("norm", ("group", "batch")), ("halving", ("pool", "stride"))):
            if getattr(self, name) not in known:
                raise ModelError(f"Conv4({name}={getattr(self, name)!r}): it is one of {', '.join(known)}")
        if min(self.channels, self.blocks, self.groups) < 1 or self.channels % self.groups:
            raise ModelError(
                f"Conv4: channels={self.channels} must be a multiple of groups={self.groups}, both at least 1"
            )

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters; rows are images [H, W] or [K, H, W]."""
        if len(shape) not in (2, 3):
            raise ModelError(f"Conv4 takes images, and a row here has shape {shape}: use MLP(...)")
        inputs, size = (shape[0] if len(shape) == 3 else 1), list(shape[-2:])
        net: Net = {}
        for i in range(self.blocks):
            bound = 1 / math.sqrt(inputs * 9)
            weight = torch.empty(self.channels, inputs, 3, 3)
            net[f"block{i}.weight"] = weight.uniform_(-bound, bound, generator=generator)
            net[f"block{i}.scale"] = torch.ones(self.channels)
            net[f"block{i}.shift"] = torch.zeros(self.channels)
            inputs = self.channels
            if self.halving == "stride":
                size = [-(-s // 2) for s in size]
            elif min(size) > 1:  # as `layer` does: where one side is 1, neither is halved
                size = [s // 2 for s in size]
        linear(net, "head", inputs * size[0] * size[1], classes, generator)
        return net

    task_embedding = False
    shows_layers = True

    @property
    def mixes_rows(self) -> bool:
        """With batch norm by the statistics of the rows at hand, it does."""
        return self.norm == "batch"

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The last block, flattened [B, F]."""
        x = x if x.ndim == 4 else x[:, None]
        for i in range(self.blocks):
            x = self.layer(net, i, x, at)
        return x.flatten(1)

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return self.blocks

    def layer(self, net: Net, i: int, x: Tensor, at: Hook | None = None) -> Tensor:
        """Block i of what lies below it, images [B, K, H, W]."""
        weight, scale, shift = (net[f"block{i}.{name}"] for name in ("weight", "scale", "shift"))
        if (self.norm, self.halving) == ("batch", "pool") and at is None:
            return pooled_batch_norm(x, weight, scale, shift).relu()
        output = F.conv2d(x, weight, padding=1, stride=2 if self.halving == "stride" else 1)
        x = self._normed(output, scale, shift) if at is None else self._seen(f"block{i}", x, output, net, at)
        x = x.relu()
        return F.max_pool2d(x, 2) if self.halving == "pool" and min(x.shape[-2:]) > 1 else x

    def _normed(self, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        if self.norm == "group":
            return F.group_norm(x, self.groups, scale, shift)
        return batch_normed(x, scale, shift)

    def _seen(self, name: str, x: Tensor, output: Tensor, net: Net, at: Hook) -> Tensor:
        """A block's norm with a hook at the convolution and at the norm's affine map."""
        normed = self._normed(at(name, x, output), None, None)
        scale, shift = (net[f"{name}.{part}"][:, None, None] for part in ("scale", "shift"))
        return at(f"{name}.norm", normed, normed * scale + shift)

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return apply_linear(net, "head", features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return net["head.weight"].T
