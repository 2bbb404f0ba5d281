"""A network that another one gates (Beaulieu et al., 2020: ANML, a neuromodulated meta-learning algorithm)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lifelong.models.base import Hook, Model, ModelError, Net
from lifelong.models.perceptron import MLP

GATE = "gate."  # the names of the gate's parameters, and of its layers where a hook sees them, begin with it


@dataclass(frozen=True)
class Gated:
    """Each feature of one network is let through as far as another network, looking at the same row, says.

    features(x) = trunk(x) * sigmoid(gate(x)), both [B, F]; the head is the trunk's. The gate's last layer has an output
    for each of the trunk's features. So where a row activates few features, few weights of the head learn from it, and
    fewer rows meet in the same ones: `OML` meta-learns trunk and gate for that, while the head alone learns online.

    What differs from the source: there the prediction network's trunk takes the inner steps, too, and only the gate
    stands still until the outer one; at the meta-test, there as here, the head alone learns. Trunk and gate may be any two
    networks that are not told the task, as in Gated(Conv4(64), Conv4(32)); theirs are three convolutions each, of 256
    and 112 channels. Parameters: the trunk's by their own names, the gate's as `gate.NAME`. Raises ModelError otherwise.
    """

    trunk: Model = field(default_factory=lambda: MLP(400, 400))
    gate: Model = field(default_factory=lambda: MLP(100))
    task_embedding = False

    def __post_init__(self) -> None:
        for part in (self.trunk, self.gate):
            if part.task_embedding:
                raise ModelError(f"Gated(...): {part!r} is told the task, and neither trunk nor gate can be")

    @property
    def mixes_rows(self) -> bool:
        """Where either does."""
        return self.trunk.mixes_rows or self.gate.mixes_rows

    @property
    def shows_layers(self) -> bool:
        """Where both do."""
        return self.trunk.shows_layers and self.gate.shows_layers

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters of both."""
        net = self.trunk.init(shape, classes, generator)
        wide = self.trunk.head_rows(net).shape[1]
        return net | {GATE + name: value for name, value in self.gate.init(shape, wide, generator).items()}

    def opened(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """How far each feature is let through, 0 ... 1, [B, F]."""
        gate = {name.removeprefix(GATE): value for name, value in net.items() if name.startswith(GATE)}

        def within(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            return leaving if at is None else at(GATE + name, entering, leaving)

        seen = None if at is None else within
        return self.gate.head(gate, self.gate.features(gate, x, seen), seen).sigmoid()

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The trunk's features, as far as they are let through, [B, F]."""
        return self.trunk.features(net, x, at) * self.opened(net, x, at)

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return self.trunk.head(net, features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return self.trunk.head_rows(net)
