"""Cross-stitch networks: each task's layer sees a learned mixture of all tasks' layers (Misra et al., 2016)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lifelong.models.base import Hook, ModelError, Net
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.models.told import OWN, check_trunk, laid_out, own_of, picked, stacked, taken_apart


@dataclass(frozen=True)
class CrossStitch:
    """A network for each task, sewn together: x_t <- sum_s a_ts x_s after each layer l, with a^l [Z, Z] learned.

    start: a_tt at first, the other a_ts sharing 1 - start equally; 1 is a network for each task that may learn to look at
    the others. One a for a whole layer; the source also has one for each channel. The trunk, an MLP or a Conv4, is
    drawn anew for each task; the source takes networks that were trained on each task. Parameters: `own.NAME` [Z, ...],
    `stitch<l>.weight` a^l. Every row goes through all networks. Raises ModelError for other trunks and starts.
    """

    trunk: MLP | Conv4 = field(default_factory=lambda: MLP(100, 100))
    start: float = 0.9
    task_embedding = True
    shows_layers = False  # a layer would be seen as that of one task

    def __post_init__(self) -> None:
        check_trunk(self, self.trunk)
        if not 0 <= self.start <= 1:
            raise ModelError(f"CrossStitch(start={self.start}): it is a share, 0 to 1")

    @property
    def mixes_rows(self) -> bool:
        """Where the trunk does."""
        return self.trunk.mixes_rows

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters. Raises ModelError unless the shape says how much of a row is the task_embedding."""
        rows, told = laid_out(self, self.trunk, shape)
        heads = {k: v for k, v in self.trunk.init(rows, classes, generator).items() if k.startswith("head.")}
        stack = {OWN + name: value for name, value in stacked(self.trunk, rows, told, generator).items()}
        other = (1 - self.start) / max(told - 1, 1)
        stitch = torch.full((told, told), other).fill_diagonal_(self.start if told > 1 else 1.0)
        return stack | {f"stitch{i}.weight": stitch.clone() for i in range(self.trunk.depth)} | heads

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The last layer of each row's task [B, F], from rows [B, F + Z]."""
        rows, z = taken_apart(self, self.trunk, net, x)
        stack, each = own_of(net), rows
        for i in range(self.trunk.depth):
            layer = torch.func.vmap(
                lambda layers, below, i=i: self.trunk.layer(layers, i, below), (0, 0 if i else None)
            )
            each = torch.tensordot(net[f"stitch{i}.weight"], layer(stack, each), 1)
        return picked(z, each.flatten(2))

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return self.trunk.head(net, features)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return self.trunk.head_rows(net)
