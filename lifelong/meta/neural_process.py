"""Conditional neural processes (Garnelo et al., 2018): a set of examples becomes one vector, and answers are read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.metric import embedded
from lifelong.models.base import Net, apply_linear, linear
from scenarios.episodes import Support


@dataclass(frozen=True)
class NeuralProcess(MetaLearner):
    """The support's rows are encoded, averaged, and decoded together with a query: answers g([f(x); r]).

    Of numbers: r [H] = mean of h([f(x_i); y_i]) over the support, and g gives the numbers; the loss is their squared
    distance. Of classes: r_c = mean of h(f(x_i)) over the support of class c, and g gives the one score of class c, as in
    versatile amortised inference (Gordon et al., 2019), so that neither the order of rows nor the labels' names matter, and
    any number of classes is answered. h, g: two layers with a smooth unit between, hidden: H. Without support r = 0.

    The paper predicts a variance beside the mean, puts the r_c of the classes one behind the other, which ties it to
    their number, and has a head of its own in place of the trunk f. The network's own head is never used.
    """

    hidden: int = 128

    least: ClassVar[dict[str, int]] = {**MetaLearner.least, "hidden": 1}
    together: ClassVar[bool] = True

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The trunk, and `process`: encoder h and decoder g."""
        meta = super().init(distribution, generator)
        features, numbers = distribution.model.head_rows(meta["net"]).shape[1], numbers_of(distribution)
        process: Net = {}
        add_two_layers(process, "encoder", (features + numbers, self.hidden, self.hidden), generator)
        add_two_layers(process, "decoder", (features + self.hidden, self.hidden, max(numbers, 1)), generator)
        if not numbers:  # what is added to the scores of all classes alike changes no answer
            del process["decoder.1.bias"]
        return {**meta, "process": {name: leaf.to(distribution.device, distribution.dtype) for name, leaf in process.items()}}  # fmt: skip

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; support and queries pass through the trunk together."""
        (shown, asked), process = embedded(distribution, meta, support, query, way), meta["process"]
        if distribution.kind == "numbers":
            told = two_layers(process, "encoder", torch.cat([shown, support.y.to(shown.dtype)], 1))
            means = set_means(told, torch.ones_like(told[:, :1]), support.weight)
        else:
            told = two_layers(process, "encoder", shown)
            means = set_means(told, F.one_hot(support.y, way).to(told.dtype), support.weight)
        pairs = torch.cat(
            [asked[:, None].expand(-1, len(means), -1), means[None].expand(len(asked), -1, -1)], 2
        )  # [Q, N, F + H], N = 1 of numbers
        answers = two_layers(process, "decoder", pairs.flatten(0, 1)).view(len(asked), len(means), -1)
        return answers[:, 0] if distribution.kind == "numbers" else answers[..., 0]

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "a decoder of the support's mean representation"


def numbers_of(distribution: TaskDistribution) -> int:
    """Numbers that a label consists of: D of numbers, 0 of classes, which are told apart by their rows alone."""
    return distribution.train.outputs(1) if distribution.kind == "numbers" else 0


def set_means(rows: Tensor, member: Tensor, weight: Any = ()) -> Tensor:
    """Weighted means [N, H] of the rows [R, H] of each set; member [R, N] is 1 where a row belongs to a set. Of none: 0."""
    if isinstance(weight, Tensor):
        member = member * weight.to(rows.dtype)[:, None]
    total = member.sum(0)[:, None]
    return (member.T @ rows) / torch.where(total > 0, total, torch.ones_like(total))


def add_two_layers(net: Net, name: str, sizes: tuple[int, int, int], generator: torch.Generator) -> None:
    """Add `<name>.0` and `<name>.1`, linear layers of these sizes."""
    for i in range(2):
        linear(net, f"{name}.{i}", sizes[i], sizes[i + 1], generator)


def two_layers(net: Net, name: str, x: Tensor) -> Tensor:
    """silu(x W + b) V + c for rows [B, I], silu(a) = a sigmoid(a); c is 0 where the net has none.

    A rectified unit that is on for all classes would shift their scores alike: its exact gradient is 0, and what is left of it
    in rounding is all that Adam sees.
    """
    hidden = F.silu(apply_linear(net, f"{name}.0", x))
    return apply_linear(net, f"{name}.1", hidden) if f"{name}.1.bias" in net else hidden @ net[f"{name}.1.weight"]
