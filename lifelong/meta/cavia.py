"""Fast context adaptation, CAVIA (Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson, 2019)."""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta
from lifelong.meta.maml import MAML
from lifelong.models.base import Hook, Model, Net
from scenarios.episodes import Support

WAYS = ("film", "concatenation")


@dataclass(frozen=True, kw_only=True)
class CAVIA(MAML):
    """MAML whose inner steps move a context vector c [Z] alone, from 0 on; the network is shared by all tasks.

    The context acts on the trunk's layers before their rectified linear unit. film: h <- (1 + c D) * h + c V, V and D
    [Z, H] of each layer's H channels or units learned with the network, after the norm where there is one; by layers,
    names with * and commas, as in "block2.norm". concatenation: [x; c] for rows x of numbers, which is h <- h + c V in the
    first layer alone. V and D start at random, since where c and V both are 0, so is every
    gradient. In the authors' code one layer of four is told of images, and maps of c have biases in place of 1 and 0. context: Z. Raises
    InitialisationError for a network that does not show its layers, or has none of these names.
    """

    least: ClassVar[dict[str, int]] = {**MAML.least, "context": 1}

    context: int = 20
    by: str = "film"
    layers: str = "*"
    steps: int = 2
    rate: float = 1.0
    adapts: str = "context"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in WAYS:
            raise InitialisationError(f"CAVIA(by={self.by!r}): it is one of {', '.join(WAYS)}")

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, what the context does to its layers, and rates where they are learned."""
        net = self.fresh(distribution, distribution.train.outputs(self.way), generator)
        meta = {"net": net, "told": self.told(distribution, net, generator)}
        return {**meta, **self.rates_of(self.whole(meta)["net"])}

    def told(self, distribution: TaskDistribution, net: Net, generator: torch.Generator) -> Net:
        """V and D of every layer that is told the context, uniform within 1 / sqrt(Z)."""
        names = ("shift",) if self.by == "concatenation" else ("scale", "shift")
        bound, told = 1 / math.sqrt(self.context), {}
        for layer, width in self.widths(distribution, net).items():
            for name in names:
                value = torch.empty(self.context, width).uniform_(-bound, bound, generator=generator)
                told[f"{layer}.{name}"] = value.to(distribution.device, distribution.dtype)
        return told

    def widths(self, distribution: TaskDistribution, net: Net) -> dict[str, int]:
        """The trunk's layers that are told the context, and how many channels or units each has."""
        model, seen = distribution.model, {}
        if not model.shows_layers:
            raise InitialisationError(f"CAVIA tells layers a context, and {model!r} does not show its layers")

        def note(name: str, x: Tensor, output: Tensor) -> Tensor:
            seen[name] = output.shape[1]
            return output

        first = next(iter(net.values()))
        model.features(net, first.new_zeros(2, *distribution.shape), note)
        seen = {name: width for name, width in seen.items() if f"{name}.norm" not in seen}  # a norm would undo it
        if self.by == "concatenation":
            return dict(list(seen.items())[:1])
        words = [word.strip() for word in self.layers.split(",")]
        chosen = {name: width for name, width in seen.items() if any(fnmatch.fnmatch(name, word) for word in words)}
        if not chosen:
            raise InitialisationError(f"CAVIA(layers={self.layers!r}): the trunk's layers are {', '.join(seen)}")
        return chosen

    def whole(self, meta: Meta) -> Meta:
        """What was learned, the context and what it does among the network's parameters."""
        first = next(iter(meta["told"].values()))
        context = meta.get("context", first.new_zeros(first.shape[0]))
        told = {f"told.{name}": value for name, value in meta["told"].items()}
        return {**meta, "net": {**meta["net"], **told, "context": context}}

    def adapt(self, distribution: TaskDistribution, meta: Meta, support: Support, way: int) -> Meta:
        """What was learned, with the context after the inner steps."""
        adapted = super().adapt(modulated(distribution), self.whole(meta), support, way)["net"]
        return {**meta, "net": {name: adapted[name] for name in meta["net"]}, "context": adapted["context"]}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N] of the network in its context."""
        return super().query_scores(modulated(distribution), self.whole(meta), support, query, way)

    def small(self) -> CAVIA:
        """A context of few numbers."""
        return replace(super().small(), context=3)


def modulated(distribution: TaskDistribution) -> TaskDistribution:
    """The same tasks for the network that is told a context."""
    return replace(distribution, model=Modulated(distribution.model))


@dataclass(frozen=True)
class Modulated:
    """A network whose layers are told a context, which is among its parameters: `context`, `told.<layer>.scale`, `.shift`."""

    model: Model
    task_embedding = False
    shows_layers = True

    @property
    def mixes_rows(self) -> bool:
        """As the network itself."""
        return self.model.mixes_rows

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """The network's own; what the context does is the meta-learner's to draw."""
        return self.model.init(shape, classes, generator)

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """Features [B, F] in the context."""

        def tell(name: str, x: Tensor, output: Tensor) -> Tensor:
            output = output if at is None else at(name, x, output)
            scale, shift = (self._of_layer(net, f"told.{name}.{part}", output.ndim) for part in ("scale", "shift"))
            output = output if scale is None else (1 + scale) * output
            return output if shift is None else output + shift

        return self.model.features(net, x, tell)

    def _of_layer(self, net: Net, name: str, dimensions: int) -> Tensor | None:
        """c D or c V [H, 1, ...] of a layer that is told it."""
        if name not in net:
            return None
        return (net["context"] @ net[name]).view(-1, *[1] * (dimensions - 2))

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]; the head is told nothing."""
        return self.model.head(net, features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights [C, F]."""
        return self.model.head_rows(net)
