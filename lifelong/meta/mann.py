"""A network with an external memory (memory-augmented neural networks; Santoro et al., 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.sequence import SequenceLearner, add_lstm, lstm, read_in_order
from lifelong.models.base import Net, apply_linear, linear

NORM_EPSILON = 1e-6  # beside squared lengths, so that an empty slot is like nothing


class _State(NamedTuple):
    h: Tensor  # [1, H]
    c: Tensor  # [1, H]
    memory: Tensor  # [M, W]
    usage: Tensor  # [M]
    weights: Tensor  # [heads, M], of the last reading
    reading: Tensor  # [1, heads W]


@dataclass(frozen=True)
class MANN(SequenceLearner):
    """An LSTM that writes each row of the support into a memory, where it is least used, and reads by likeness.

    At a row, h from the token and the last reading; for each head a key k = tanh(h A) [W], a strength b = 1 + softplus(h B)
    and a gate a = sigmoid(h C). Read: w = softmax over slots of b cos(k, M_i), reading = sum_i w_i M_i. Then write: the
    least used slots, one for each head, are emptied, and M_i += sum over heads of (a w'_i + (1 - a) l_i) k, w' the weights
    of the row before and l 1 at the least used slots; usage = decay x usage + read and write weights. A query reads and does
    not write: scores are linear in [h; its reading].

    hidden: H; slots: M; width: W. The paper reads after it wrote, has no strength, which leaves reading from 128 slots
    next to even (strengths are the neural Turing machine's; Graves et al., 2014), shows labels a row late, and goes on
    writing at queries.
    """

    least: ClassVar[dict[str, int]] = {**SequenceLearner.least, "hidden": 1, "slots": 1, "width": 1, "heads": 1}

    hidden: int = 200
    slots: int = 128
    width: int = 40
    heads: int = 4
    decay: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads > self.slots:
            raise InitialisationError(f"MANN(heads={self.heads}, slots={self.slots}): each head writes to its own slot")
        if not 0 <= self.decay <= 1:
            raise InitialisationError(f"MANN(decay={self.decay}): usage fades by a factor of 0 to 1")

    def reader(self, inputs: int, outputs: int, generator: torch.Generator) -> Net:
        """The LSTM; `keys`, `strengths` and `gates` of its heads; `answer`, its scores."""
        net: Net = {}
        add_lstm(net, inputs + self.heads * self.width, self.hidden, generator)
        linear(net, "keys", self.hidden, self.heads * self.width, generator)
        linear(net, "strengths", self.hidden, self.heads, generator)
        linear(net, "gates", self.hidden, self.heads, generator)
        linear(net, "answer", self.hidden + self.heads * self.width, outputs, generator)
        return net

    def read(self, reader: Net, shown: Tensor, asked: Tensor, counts: Tensor) -> Tensor:
        """Scores [Q, N]."""
        state = read_in_order(lambda x, s: self._written(reader, x, s), shown, self._empty(asked), counts)
        h, _ = self._controlled(reader, asked, state)
        _, _, reading = self._looked_up(reader, h, state.memory)
        return apply_linear(reader, "answer", torch.cat([h, reading], 1))

    def _empty(self, like: Tensor) -> _State:
        """Nothing read, nothing written."""
        zeros, heads = like.new_zeros, self.heads
        hidden, memory = zeros(1, self.hidden), zeros(self.slots, self.width)
        return _State(hidden, hidden, memory, zeros(self.slots), zeros(heads, self.slots), zeros(1, heads * self.width))

    def _controlled(self, reader: Net, x: Tensor, state: _State) -> tuple[Tensor, Tensor]:
        """The controller's next h and c [B, H], from tokens [B, I]."""
        return lstm(reader, torch.cat([x, state.reading.expand(len(x), -1)], 1), state.h, state.c)

    def _looked_up(self, reader: Net, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys [B, heads, W], weights of the slots [B, heads, M], readings [B, heads W] for h [B, H]."""
        keys = apply_linear(reader, "keys", h).tanh().view(len(h), self.heads, self.width)
        strengths = 1 + F.softplus(apply_linear(reader, "strengths", h))[..., None]
        weights = (strengths * (_unit(keys) @ _unit(memory).T)).softmax(2)
        return keys, weights, (weights @ memory).flatten(1)

    def _written(self, reader: Net, x: Tensor, state: _State) -> _State:
        """The state after one row of the support, a token [1, I]."""
        h, c = self._controlled(reader, x, state)
        keys, weights, reading = self._looked_up(reader, h, state.memory)
        place = state.usage.argsort(stable=True).argsort()  # of each slot, from the least used on
        unused = (place < self.heads).to(x.dtype)
        gates = apply_linear(reader, "gates", h).sigmoid().T  # [heads, 1]
        writing = gates * state.weights + (1 - gates) * unused
        memory = state.memory * (1 - unused)[:, None] + writing.T @ keys[0]
        usage = self.decay * state.usage + weights[0].sum(0) + writing.sum(0)
        return _State(h, c, memory, usage, weights[0], reading)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "an external memory of the support"


def _unit(x: Tensor) -> Tensor:
    """Rows [..., W] brought to length 1, those of length 0 left as they are."""
    return x * (x.square().sum(-1, keepdim=True) + NORM_EPSILON).rsqrt()
