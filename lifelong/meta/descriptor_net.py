"""Zero-shot prototypical networks: classes are told by their descriptors (Snell, Swersky and Zemel, 2017, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.problem import scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import Meta, params_of
from lifelong.meta.neural_process import add_two_layers, two_layers
from lifelong.models.base import Net, apply_linear, linear
from scenarios.descriptors import described_by_images
from scenarios.episodes import Support, TaskSource
from scenarios.stream import Dataset


@dataclass(frozen=True)
class DescriptorNet(MetaLearner):
    """A class is where its descriptor v_c [A] is embedded: scores are -|f(x) - g(v_c) / |g(v_c)||^2, without any support.

    f: the trunk's features, g: a linear map, or two layers where hidden is above 0. The loss is the queries' cross-entropy.
    A support is not looked at. It learns from a source whose classes are described, as `scenarios.descriptors` makes them;
    by name, from a dataset whose classes are each described by the mean of their first `rows` images, which are left out. The network's own head is never used.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    described: ClassVar[bool] = True
    least: ClassVar[dict[str, int]] = {**MetaLearner.least, "hidden": 0, "rows": 1}

    way: int = 20
    shot: int = 0
    query: int = 5
    tasks: int = 1
    hidden: int = 0
    rows: int = 5

    def pool(
        self, dataset: Dataset, classes: tuple[int, ...] | None = None, part: str = "all", rotations: bool = False
    ) -> TaskSource:
        """Of a dataset without descriptors: a class is described by the mean of `rows` images that no episode shows."""
        return described_by_images(dataset, classes, self.rows, rotations, part)

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The trunk, and g: `embedding`."""
        meta = super().init(distribution, generator)
        numbers, features = distribution.train.about_size, distribution.model.head_rows(meta["net"]).shape[1]
        g: Net = {}
        if self.hidden:
            add_two_layers(g, "embedding", (numbers, self.hidden, features), generator)
        else:
            linear(g, "embedding", numbers, features, generator)
        return {**meta, "descriptors": {n: leaf.to(distribution.device, distribution.dtype) for n, leaf in g.items()}}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; support.about: [N, A]."""
        features = distribution.problem(way).features(params_of(meta), scaled(query, distribution.dtype))
        embed = two_layers if self.hidden else apply_linear
        places = F.normalize(embed(meta["descriptors"], "embedding", support.about.to(features.dtype)))
        return -(features[:, None] - places[None]).square().sum(2)

    @property
    def tests_shot(self) -> int:
        """None."""
        return 0

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "nearest embedding of the classes' descriptors"
