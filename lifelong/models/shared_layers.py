"""How much tasks share: the first few layers of a network, all others one for each task."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lifelong.models.base import Hook, ModelError, Net
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.models.told import OWN, check_trunk, laid_out, own_of, picked, stacked, taken_apart, without_head


@dataclass(frozen=True)
class SharedLayers:
    """A trunk whose first `depth` layers all tasks share; above them each task has layers of its own.

    depth = 0: a network for each task; depth = the trunk's layers, or -1 for them: hard parameter sharing, the trunk itself. A
    head's classes are each task's own in any case, in a task-incremental stream. Layers are those of the trunk, an MLP or a
    Conv4, without its head. alike: all tasks' own layers start from the same draw; else each from one of its own.
    Parameters: the shared ones by their names, the others as `own.NAME` [Z, ...]. Every row goes through every task's
    layers, and its own task's answer is taken: a step costs Z times what is not shared. Raises ModelError for other trunks
    and depths. (Caruana, 1997.)
    """

    trunk: MLP | Conv4 = field(default_factory=lambda: MLP(100, 100))
    depth: int = 1
    alike: bool = True
    task_embedding = True
    shows_layers = False  # a layer would be seen as that of one task

    def __post_init__(self) -> None:
        check_trunk(self, self.trunk)
        if not -1 <= self.depth <= self.trunk.depth:
            raise ModelError(
                f"SharedLayers(depth={self.depth}): {self.trunk!r} has {self.trunk.depth} layers to share, so 0 to that, or -1"
            )

    @property
    def mixes_rows(self) -> bool:
        """Where the trunk does."""
        return self.trunk.mixes_rows

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters. Raises ModelError unless the shape says how much of a row is the task_embedding."""
        rows, told = laid_out(self, self.trunk, shape)
        net = self.trunk.init(rows, classes, generator)
        layers = list(dict.fromkeys(name.partition(".")[0] for name in without_head(net)))
        separate = set(layers[self.depth :]) if self.depth >= 0 else set()
        names = [name for name in net if name.partition(".")[0] in separate]
        if self.alike:
            copies = {name: net[name].expand(told, *net[name].shape).clone() for name in names}
        else:
            copies = stacked(self.trunk, rows, told, generator) if names else {}
        kept = {name: value for name, value in net.items() if name not in names}
        return kept | {OWN + name: copies[name] for name in names}

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The last layer of each row's task [B, F], from rows [B, F + Z]."""
        rows, z = taken_apart(self, self.trunk, net, x)
        stack = own_of(net)
        if not stack:
            return self.trunk.features(net, rows)
        # what is shared depends on no task, and so is computed once
        each = torch.func.vmap(lambda layers: self.trunk.features({**net, **layers}, rows))(stack)
        return picked(z, each)

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return self.trunk.head(net, features)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return self.trunk.head_rows(net)
