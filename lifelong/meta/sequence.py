"""Sequence learners: the support is read row by row, with its labels, and then each query by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
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
class SequenceLearner(MetaLearner):
    """A network over the trunk's features that is told each row's label, and asked for that of one row more.

    A row of the support is the token [f(x); y; 1], a query [f(x); 0; 0]: f(x) [F] its features, y [N] its label as a unit
    vector, or the numbers themselves. Every query is asked alone after the same support, so none sees another, and the
    labels come with their rows and not a step late. Answers depend on the order of the support, which episodes draw
    at random; rows of weight 0 are passed over. The network's own head is never used.
    """

    any_way: ClassVar[bool] = False
    ordered: ClassVar[bool] = True
    together: ClassVar[bool] = True

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The trunk, and what reads its features."""
        meta = super().init(distribution, generator)
        outputs = distribution.train.outputs(self.way)
        features = distribution.model.head_rows(meta["net"]).shape[1]
        reader = self.reader(features + outputs + 1, outputs, generator)
        return {**meta, "reader": {name: leaf.to(distribution.device, distribution.dtype) for name, leaf in reader.items()}}  # fmt: skip

    @abstractmethod
    def reader(self, inputs: int, outputs: int, generator: torch.Generator) -> Net:
        """Fresh parameters of what reads tokens of `inputs` numbers and answers with N outputs."""

    @abstractmethod
    def read(self, reader: Net, shown: Tensor, asked: Tensor, counts: Tensor) -> Tensor:
        """Scores [Q, N] of the queries' tokens `asked` [Q, I], each alone after the support's tokens `shown` [R, I].

        counts: bool [R]; rows that do not count stand first, and the answers must not depend on them.
        """

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N]; support and queries pass through the trunk together."""
        shown, asked = embedded(distribution, meta, support, query, way)
        outputs = distribution.train.outputs(way)
        told = torch.cat([shown, labels_of(support.y, outputs, shown), torch.ones_like(shown[:, :1])], 1)
        asked = torch.cat([asked, asked.new_zeros(len(query), outputs + 1)], 1)
        counts = torch.ones_like(shown[:, 0], dtype=torch.bool)
        if isinstance(support.weight, Tensor):
            order = (support.weight > 0).to(torch.int8).argsort(stable=True)
            told, counts = told[order], support.weight[order] > 0
        return self.read(meta["reader"], told, asked, counts)

    @property
    def tests_way(self) -> int:
        """It has one output for each class of an episode."""
        return self.way

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot


def labels_of(y: Tensor, outputs: int, like: Tensor) -> Tensor:
    """Labels [R, N] as a network reads them: unit vectors of int64 [R], or the numbers float [R, N] themselves."""
    return (y if y.is_floating_point() else F.one_hot(y, outputs)).to(like.dtype)


def add_lstm(net: Net, inputs: int, hidden: int, generator: torch.Generator) -> None:
    """Add an LSTM: `input.weight` [I, 4 H], `input.bias` [4 H] and `hidden.weight` [H, 4 H], the forget gates open at first."""
    linear(net, "input", inputs, 4 * hidden, generator)
    linear(net, "hidden", hidden, 4 * hidden, generator)
    del net["hidden.bias"]
    net["input.bias"][hidden : 2 * hidden] += 1


def lstm(net: Net, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM on rows x [B, I], from h and c [B, H] or [1, H], to the next ones.

    [i, f, g, o] = x W + h U + b; c' = sigmoid(f) * c + sigmoid(i) * tanh(g); h' = sigmoid(o) * tanh(c').
    """
    return lstm_cell(apply_linear(net, "input", x) + h @ net["hidden.weight"], c)


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Output and cell [..., F] of one step, from what its gates see [..., 4 F]: input, forget, new, output."""
    into, kept, new, out = gates.chunk(4, -1)
    cell = kept.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def read_in_order(step: Callable[[Tensor, Any], Any], tokens: Tensor, state: Any, counts: Tensor) -> Any:
    """The state, a tuple of tensors, after all tokens [R, I] that count, each taken as [1, I] by `step(token, state)`."""
    for place in range(len(tokens)):
        after = step(tokens[place : place + 1], state)
        state = type(state)(*(torch.where(counts[place], new, old) for new, old in zip(after, state, strict=True)))
    return state
