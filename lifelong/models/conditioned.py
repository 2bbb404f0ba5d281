"""Networks that are told the task: four ways in which a task's task_embedding z acts on a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.models.base import Hook, ModelError, Net, linear
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.models.told import check_trunk, laid_out, taken_apart

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
    """A trunk whose layers are told a row's task, by a task_embedding z [Z] at the row's end: one-hot, Z = T.

    The chosen layers of an MLP, before their rectified linear unit, h [B, H_i] being the layer below:
    addition: h W + b + z V. concatenation: [h; z] W' + b, which is addition with the last Z rows of W' as V; it is kept
    as that, and differs in its first draw alone: V like the rest of W'. gates: (1 + z D) * (h W + b). film, feature-wise
    linear modulation: (1 + z D) * (h W + b) + z V. Else V and D [Z, H] are 0 at first, so that the network starts as its
    trunk does alone. Of a Conv4 the same acts on the channels after the norm, before the unit; concatenation is there
    of Z constant planes with the block's input, V [H, Z, 3, 3]. Parameters: the trunk's, `condition<i>.shift` V and
    `condition<i>.scale` D. place: "first", "last" or "all" of the layers. For task-incremental streams alone. Raises
    ModelError unless the trunk is an MLP with hidden layers or a Conv4. (FiLM: Perez et al., 2018.)
    """

    trunk: MLP | Conv4
    by: str = "film"
    place: str = "first"
    task_embedding = True
    shows_layers = True

    def __post_init__(self) -> None:
        check_trunk(self, self.trunk)
        for name, known in (("by", WAYS), ("place", PLACES)):
            if getattr(self, name) not in known:
                raise ModelError(f"Conditioned({name}={getattr(self, name)!r}): it is one of {', '.join(known)}")

    @property
    def mixes_rows(self) -> bool:
        """Where the trunk does."""
        return self.trunk.mixes_rows

    def _told(self) -> list[int]:
        """The layers that z acts on."""
        layers = list(range(self.trunk.depth))
        return {"first": layers[:1], "last": layers[-1:], "all": layers}[self.place]

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters. Raises ModelError unless the shape says how much of a row is the task_embedding."""
        rows, told = laid_out(self, self.trunk, shape)
        joined = self._told() if self.by == "concatenation" else []
        if isinstance(self.trunk, Conv4):
            net = self.trunk.init(rows, classes, generator)
            for i in joined:
                weight = net[f"block{i}.weight"]
                bound = 1 / math.sqrt((weight.shape[1] + told) * 9)
                for name, planes in ((f"block{i}.weight", weight.shape[1]), (f"condition{i}.shift", told)):
                    drawn = torch.empty(len(weight), planes, 3, 3)
                    net[name] = drawn.uniform_(-bound, bound, generator=generator)
        else:
            net = self._perceptron(rows[0], told, classes, joined, generator)
        names = {"addition": ("shift",), "gates": ("scale",), "film": ("scale", "shift")}.get(self.by, ())
        for i in self._told():
            width = self.trunk.channels if isinstance(self.trunk, Conv4) else self.trunk.widths[i]
            net |= {f"condition{i}.{name}": torch.zeros(told, width) for name in names}
        return net

    def _perceptron(self, inputs: int, told: int, classes: int, joined: list[int], generator: torch.Generator) -> Net:
        """The perceptron's parameters, a layer that z is concatenated to drawn as one over both."""
        assert isinstance(self.trunk, MLP)
        net: Net = {}
        for i, width in enumerate(self.trunk.widths):
            linear(net, f"layer{i}", inputs + told * (i in joined), width, generator)
            if i in joined:
                weight, shift = net[f"layer{i}.weight"].split([inputs, told])
                net[f"layer{i}.weight"], net[f"condition{i}.shift"] = weight.clone(), shift.clone()
            inputs = width
        linear(net, "head", inputs, classes, generator)
        return net

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The trunk's features [B, F], from rows [B, F + Z]. Raises ModelError for rows without task_embedding."""
        count = next(len(v) if v.ndim == 2 else v.shape[1] for name, v in net.items() if name.startswith("condition"))
        rows, z = taken_apart(self, self.trunk, net, x, count)

        def within(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            output = leaving if at is None else at(name, entering, leaving)
            return self._conditioned(net, z, name, entering, output)

        return self.trunk.features(net, rows, within)

    def _conditioned(self, net: Net, z: Tensor, name: str, entering: Tensor, output: Tensor) -> Tensor:
        """A layer's output [B, H] or [B, H, H', W'] as z changes it."""
        layer = name.removesuffix(".norm")
        i = layer.removeprefix("layer").removeprefix("block")
        scale, shift = net.get(f"condition{i}.scale"), net.get(f"condition{i}.shift")
        if output.ndim == 2:
            output = output if scale is None else torch.addcmul(output, z @ scale, output)  # (1 + z D) * h
            return output if shift is None else output + z @ shift
        if shift is not None and shift.ndim == 4:
            if name != layer:
                return output
            stride = -(-entering.shape[-1] // output.shape[-1])
            planes = z[:, :, None, None].expand(-1, -1, *entering.shape[-2:])
            return output + F.conv2d(planes, shift, padding=1, stride=stride)
        if name == layer:  # the others act after the norm, which would undo them
            return output
        output = output if scale is None else torch.addcmul(output, (z @ scale)[:, :, None, None], output)
        return output if shift is None else output + (z @ shift)[:, :, None, None]

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return self.trunk.head(net, features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return self.trunk.head_rows(net)
