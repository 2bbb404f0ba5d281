"""A recurrent network that learns by reading (Hochreiter, Younger and Conwell, 2001)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lifelong.meta.sequence import SequenceLearner, add_lstm, lstm, read_in_order
from lifelong.models.base import Net, apply_linear, linear


class _State(NamedTuple):
    h: Tensor  # [1, H]
    c: Tensor  # [1, H]


@dataclass(frozen=True)
class RecurrentLearner(SequenceLearner):
    """An LSTM whose state, after it read the support, is all that was learned: scores are h W + b after one query more.

    hidden: H of the state. The paper shows each label one row late, and asks at every row.
    """

    least: ClassVar[dict[str, int]] = {**SequenceLearner.least, "hidden": 1}

    hidden: int = 128

    def reader(self, inputs: int, outputs: int, generator: torch.Generator) -> Net:
        """The LSTM, and `answer`, its scores."""
        net: Net = {}
        add_lstm(net, inputs, self.hidden, generator)
        linear(net, "answer", self.hidden, outputs, generator)
        return net

    def read(self, reader: Net, shown: Tensor, asked: Tensor, counts: Tensor) -> Tensor:
        """Scores [Q, N]."""
        zero = asked.new_zeros(1, self.hidden)
        state = read_in_order(lambda x, s: lstm(reader, x, *s), shown, _State(zero, zero), counts)
        return apply_linear(reader, "answer", lstm(reader, asked, *state)[0])

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "an LSTM that read the support"
