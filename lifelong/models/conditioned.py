"""Networks that are told the task: four ways in which a task's task_embedding z acts on a hidden layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.models.base import Described, Hook, ModelError, Net, apply_linear, linear
from lifelong.models.perceptron import MLP

WAYS = ("concatenation", "addition", "gates", "film")
PLACES = ("first", "last", "all")


def block_gates(tasks: int, width: int) -> Tensor:
    """Fixed gates, one block of units for each task: [T, T width], 1 in block t of row t, else 0.

    A hidden layer under them, gates [T, H] with H = T width and h' = gates[t] * h, is T layers of their own: with the
    rows of the next layer's weight that belong to block t, a network with one head of a hidden layer for each task. In
    `Conditioned(..., by="gates")` they are the parameter `condition<i>.scale` = gates - 1, and stay fixed with
    `Learner(trainable="layer*, head")`. (Masse, Grant and Freedman, 2018, gate by fixed random subsets.)
    """
    return torch.eye(tasks).repeat_interleave(width, 1)


@dataclass(frozen=True)
class Conditioned:
    """A perceptron whose hidden layers are told a row's task, by a task_embedding z [Z] at the row's end: one-hot, Z = T.

    The chosen hidden layers, before their rectified linear unit, h [B, H_i] being the layer below:
    addition: h W + b + z V. concatenation: [h; z] W' + b, which is addition with the last Z rows of W' as V; it is kept
    as that, and differs in its first draw alone: V like the rest of W'. gates: (1 + z D) * (h W + b). film, feature-wise
    linear modulation: (1 + z D) * (h W + b) + z V. Else V and D [Z, H] are 0 at first, so that the network starts as its
    trunk does alone. Parameters: the trunk's, `condition<i>.shift` V and `condition<i>.scale` D. place: "first", "last"
    or "all" of the hidden layers. For task-incremental streams alone. Raises ModelError unless the trunk is an MLP with
    hidden layers. (FiLM: Perez et al., 2018.)
    """

    trunk: MLP
    by: str = "film"
    place: str = "first"
    task_embedding = True
    mixes_rows = False
    shows_layers = True

    def __post_init__(self) -> None:
        if not (isinstance(self.trunk, MLP) and self.trunk.widths):
            raise ModelError(
                f"Conditioned({self.trunk!r}): its trunk is an MLP with hidden layers, as in MLP(100, 100)"
            )
        for name, known in (("by", WAYS), ("place", PLACES)):
            if getattr(self, name) not in known:
                raise ModelError(f"Conditioned({name}={getattr(self, name)!r}): it is one of {', '.join(known)}")

    def _told(self, layer: int) -> bool:
        """Whether z acts on this hidden layer."""
        last = len(self.trunk.widths) - 1
        return self.place == "all" or layer == (0 if self.place == "first" else last)

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters. Raises ModelError unless the shape says how much of a row is the task_embedding."""
        if not isinstance(shape, Described):
            raise ModelError(f"{self!r} is told the task of each row, and here nothing tells it: use {self.trunk!r}")
        net: Net = {}
        inputs, told = shape
        for i, width in enumerate(self.trunk.widths):
            joined = self.by == "concatenation" and self._told(i)
            linear(net, f"layer{i}", inputs + told * joined, width, generator)
            if joined:
                weight, shift = net[f"layer{i}.weight"].split([inputs, told])
                net[f"layer{i}.weight"], net[f"condition{i}.shift"] = weight.clone(), shift.clone()
            inputs = width
        linear(net, "head", inputs, classes, generator)
        names = {"addition": ("shift",), "gates": ("scale",), "film": ("scale", "shift")}.get(self.by, ())
        for i, width in enumerate(self.trunk.widths):
            if self._told(i):
                net |= {f"condition{i}.{name}": torch.zeros(told, width) for name in names}
        return net

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The last hidden layer [B, H], from rows [B, F + Z]. Raises ModelError for rows without task_embedding."""
        pixels = net["layer0.weight"].shape[0]
        h, z = x[:, :pixels], x[:, pixels:]
        told = next(value.shape[0] for name, value in net.items() if name.startswith("condition"))
        if z.shape[1] != told:
            raise ModelError(
                f"{self!r} takes rows of {pixels} numbers and {told} that say which task, not {x.shape[1]}"
            )
        for i in range(len(self.trunk.widths)):
            h = apply_linear(net, f"layer{i}", h, at)
            scale, shift = net.get(f"condition{i}.scale"), net.get(f"condition{i}.shift")
            h = h if scale is None else torch.addcmul(h, z @ scale, h)  # (1 + z D) * h
            h = h if shift is None else h + z @ shift
            h = h.relu()
        return h

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return apply_linear(net, "head", features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return net["head.weight"].T
