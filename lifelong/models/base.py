"""What a learner needs of a network: a frozen record whose `init` makes parameters, and pure functions of them."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from scenarios.errors import ConfigurationError

Net = dict[str, Tensor]
# at(name, input, output) -> output sees a layer whose parameters are called name.weight and so on, before its activation,
# and may answer with another output. A linear layer: input [B, in], output [B, out], weight [in, out]. A convolution:
# input [B, K, H, W], weight [out, K, 3, 3]. A norm's affine map is seen as name.norm, with name.scale and name.shift [K].
Hook = Callable[[str, Tensor, Tensor], Tensor]


class ModelError(ConfigurationError):
    """A network that cannot be built or run here; its message is one line."""


class Described(NamedTuple):
    """The shape of a row for a network that is told the task: F features, then Z numbers that describe the task.

    channels, side: of the square images that the F features are, laid out flat; 0 where they are none.
    """

    features: int
    task_embedding: int
    channels: int = 0
    side: int = 0


class Model(Protocol):
    """What a learner needs of a network.

    task_embedding: whether it is told the task of each row, see `Described`. mixes_rows: whether a row's scores depend on
    the rows beside it, as with batch norm by the statistics of the rows at hand.
    """

    @property
    def task_embedding(self) -> bool:
        """Whether it is told the task of each row."""
        ...

    @property
    def mixes_rows(self) -> bool:
        """Whether a row's scores depend on the rows beside it."""
        ...

    @property
    def shows_layers(self) -> bool:
        """Whether `at` sees its layers as `Hook` describes them."""
        ...

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters for rows of this shape and C classes."""
        ...

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """Features [B, F] of rows [B, ...]; `at` sees each layer."""
        ...

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]; `at` sees the layer."""
        ...

    def head_rows(self, net: Net) -> Tensor:
        """The last layer's weights, one row for each class [C, F]."""
        ...


def blocks(net: Net) -> list[str]:
    """The names of a network's blocks in their order, the head last: "layer0" of layer0.weight and layer0.bias."""
    names = dict.fromkeys(name.partition(".")[0] for name in net)
    return [name for name in names if name != "head"] + ["head"] * ("head" in names)


def chosen(net: Net, words: str) -> Net:
    """The parameters that words select: "all", "head", "trunk" (all but the head), "biases", or names with * and commas.

    The biases are what is added: those of linear layers and convolutions, and the shifts of norms.

    Raises ModelError where a word selects none.
    """
    names: set[str] = set()
    for word in (word.strip() for word in words.split(",")):
        if word in ("all", "trunk"):
            found = {name for name in net if word == "all" or not name.startswith("head.")}
        elif word == "biases":
            found = {name for name in net if name.endswith((".bias", ".shift"))}
        else:
            found = {name for name in net if fnmatch.fnmatch(name, word) or name.startswith(word + ".")}
        if not found:
            known = ["all", "trunk", "biases", *dict.fromkeys(name.partition(".")[0] for name in net)]
            raise ModelError(f"no parameter of the network is called {word!r}: there are {', '.join(known)}")
        names |= found
    return {name: value for name, value in net.items() if name in names}


def linear(net: Net, name: str, inputs: int, outputs: int, generator: torch.Generator) -> None:
    """Add a linear layer, weight [inputs, outputs], drawn like torch's: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    net[f"{name}.weight"] = torch.empty(inputs, outputs).uniform_(-bound, bound, generator=generator)
    net[f"{name}.bias"] = torch.empty(outputs).uniform_(-bound, bound, generator=generator)


def apply_linear(net: Net, name: str, x: Tensor, at: Hook | None = None) -> Tensor:
    """x W + b for rows [B, inputs]."""
    output = torch.addmm(net[f"{name}.bias"], x, net[f"{name}.weight"])
    return output if at is None else at(name, x, output)
