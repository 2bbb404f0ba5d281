"""Feature-wise modulation by the support: conditional neural adaptive processes, in small (Requeima et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.inner_loop import nearest_means
from lifelong.core.problem import scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import InitialisationError, Meta, params_of
from lifelong.meta.neural_process import add_two_layers, numbers_of, set_means, two_layers
from lifelong.models.base import Hook, Net
from scenarios.episodes import Support


@dataclass(frozen=True)
class FiLMNet(MetaLearner):
    """One network for all tasks; the support sets no more than a scale and a shift of each of its channels.

    z [H] = mean of h(f(x_i)) over the support, of numbers h([f(x_i); y_i]), f the trunk as it is; then each layer's output
    becomes (1 + z A) * output + z B, a norm's where there is one, A and B from 0 on. Classes are answered by the nearest
    mean of the modulated features, numbers by the network's own head. h: two layers, hidden: H.

    The paper's trunk is pre-trained and kept, its encoder a network of its own, its heads generated for each class.
    """

    least: ClassVar[dict[str, int]] = {**MetaLearner.least, "hidden": 1}
    together: ClassVar[bool] = True

    hidden: int = 64

    def check(self, distribution: TaskDistribution) -> None:
        """The layers must be seen, and a class without support has no mean."""
        super().check(distribution)
        if not distribution.model.shows_layers:
            raise InitialisationError(f"FiLMNet modulates layers, and {distribution.model!r} does not show its own: use MLP or Conv4")  # fmt: skip
        if distribution.kind == "classes" and self.shot < 1:
            raise InitialisationError("FiLMNet(shot=0): a class without support has no mean: use shot=1 or more")

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network; `film`: the encoder h, and for each layer `<name>.scale` A and `<name>.shift` B [H, K]."""
        meta = super().init(distribution, generator)
        features = distribution.model.head_rows(meta["net"]).shape[1]
        film: Net = {}
        add_two_layers(film, "encoder", (features + numbers_of(distribution), self.hidden, self.hidden), generator)
        for name, channels in _channels(distribution, meta).items():
            film |= {f"{name}.{part}": torch.zeros(self.hidden, channels) for part in ("scale", "shift")}
        return {**meta, "film": {name: leaf.to(distribution.device, distribution.dtype) for name, leaf in film.items()}}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; modulated support and queries pass through the network together."""
        problem, net, numbers = distribution.problem(way), params_of(meta)["net"], distribution.kind == "numbers"
        shown, rows = (scaled(x, distribution.dtype) for x in (support.x, torch.cat([support.x, query])))
        told = problem.features(params_of(meta), shown)
        told = torch.cat([told, support.y.to(told.dtype)], 1) if numbers else told
        told = two_layers(meta["film"], "encoder", told)
        at = modulation(meta["film"], set_means(told, torch.ones_like(told[:, :1]), support.weight))
        if numbers:
            asked = distribution.model.features(net, rows[len(support.y) :], at)
            return distribution.model.head(net, asked)
        features = distribution.model.features(net, rows, at)
        shown, asked = features.split([len(support.y), len(query)])
        return nearest_means(shown, support.y, asked, way, support.weight)

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "nearest class mean, or the head's numbers, of features that the support modulates"


def modulation(film: Net, z: Tensor) -> Hook:
    """What modulates the layers that `film` has a scale for, by z [1, H]; convolutions' outputs are [B, K, H, W]."""

    def at(name: str, x: Tensor, output: Tensor) -> Tensor:
        if f"{name}.scale" not in film:
            return output
        shape = (1, -1) + (1,) * (output.ndim - 2)
        scale, shift = ((z @ film[f"{name}.{part}"]).view(shape) for part in ("scale", "shift"))
        return torch.addcmul(output + shift, scale, output)

    return at


def _channels(distribution: TaskDistribution, meta: Meta) -> dict[str, int]:
    """Channels of each layer up to the features, by name; of a layer with a norm, the norm's alone."""
    seen: dict[str, int] = {}

    def at(name: str, x: Tensor, output: Tensor) -> Tensor:
        seen[name] = output.shape[1]
        return output

    row = torch.zeros(2, *distribution.shape, dtype=distribution.dtype, device=distribution.device)
    distribution.model.features(meta["net"], row, at)
    return {name: channels for name, channels in seen.items() if f"{name}.norm" not in seen}
