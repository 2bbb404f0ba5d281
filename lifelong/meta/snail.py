"""Temporal convolutions and attention over the support (SNAIL; Mishra et al., 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.sequence import SequenceLearner
from lifelong.models.base import Net, apply_linear, linear


@dataclass(frozen=True)
class SNAIL(SequenceLearner):
    """Attention, convolutions, attention, convolutions, attention over the sequence; each adds its outputs to its inputs'.

    A convolution of dilation d sees the token and that of d before: [z_t; tanh(a) * sigmoid(b)], [a; b] = z_t V + z_{t-d} W + u;
    d = 1, 2, 4, ... as far as a training episode is long. Attention: [z_t; softmax over s <= t of (q_t . k_s / sqrt(K)) v_s].
    Scores are linear in the last token's values. Keys have no bias: it would add the same to all that a query weighs, and
    change nothing.

    filters: of a convolution; keys, values: sizes of the three attentions. The paper's dilations begin with 2.
    """

    least: ClassVar[dict[str, int]] = {**SequenceLearner.least, "filters": 1}

    filters: int = 128
    keys: tuple[int, int, int] = (64, 256, 512)
    values: tuple[int, int, int] = (32, 128, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.keys) != 3 or len(self.values) != 3 or min(*self.keys, *self.values) < 1:
            raise InitialisationError("SNAIL: keys and values are three sizes of at least 1")

    def dilations(self, rows: int) -> tuple[int, ...]:
        """Those that let the last of a sequence of R + 1 tokens see the first."""
        return tuple(2**i for i in range(math.ceil(math.log2(rows + 1))))

    def reader(self, inputs: int, outputs: int, generator: torch.Generator) -> Net:
        """`attention<a>` and `convolution<a>.<i>`, then `answer`."""
        net: Net = {}
        for a, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            linear(net, f"attention{a}.query", inputs, key, generator)
            linear(net, f"attention{a}.key", inputs, key, generator)
            del net[f"attention{a}.key.bias"]
            linear(net, f"attention{a}.value", inputs, value, generator)
            inputs += value
            for i, _ in enumerate(self.dilations(self.shot * outputs) if a < 2 else ()):
                linear(net, f"convolution{a}.{i}", 2 * inputs, 2 * self.filters, generator)
                inputs += self.filters
        linear(net, "answer", inputs, outputs, generator)
        return net

    def read(self, reader: Net, shown: Tensor, asked: Tensor, counts: Tensor) -> Tensor:
        """Scores [Q, N]: the support passes the layers once, and each query as the token after it."""
        counts = counts[:, None]
        for a in range(3):
            shown, asked = _attended(reader, f"attention{a}", shown, asked, counts)
            layers = sum(name.startswith(f"convolution{a}.") for name in reader) // 2
            for i in range(layers):
                shown, asked = _convolved(reader, f"convolution{a}.{i}", shown * counts, asked, 2**i)
        return apply_linear(reader, "answer", asked)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return "attention and convolutions over the support"


def _attended(net: Net, name: str, shown: Tensor, asked: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [R, I] and [Q, I] with what they read of the support before them, and of themselves: [R, I + V], [Q, I + V]."""

    def part(kind: str, x: Tensor) -> Tensor:
        return x @ net[f"{name}.key.weight"] if kind == "key" else apply_linear(net, f"{name}.{kind}", x)

    keys, values, itself = part("key", shown), part("value", shown), torch.eye(len(shown), device=shown.device).bool()
    sharp = 1 / math.sqrt(keys.shape[1])
    hidden = ~(counts.T & torch.ones_like(itself).tril() | itself)
    among = (sharp * part("query", shown) @ keys.T).masked_fill(hidden, -torch.inf).softmax(1) @ values
    queries = part("query", asked)
    others = (sharp * queries @ keys.T).masked_fill(~counts.T, -torch.inf)
    self_score = sharp * (queries * part("key", asked)).sum(1, keepdim=True)
    weights = torch.cat([others, self_score], 1).softmax(1)
    read = weights[:, :-1] @ values + weights[:, -1:] * part("value", asked)
    return torch.cat([shown, among], 1), torch.cat([asked, read], 1)


def _convolved(net: Net, name: str, shown: Tensor, asked: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Tokens [R, I] and [Q, I] with a gated convolution of each and of the token `dilation` before it: [., I + D]."""
    padded = torch.cat([shown.new_zeros(dilation, shown.shape[1]), shown])  # [d + R, I]
    before, last = padded[: len(shown)], padded[len(shown)].expand_as(asked)

    def grown(now: Tensor, then: Tensor) -> Tensor:
        values, gates = apply_linear(net, name, torch.cat([now, then], 1)).chunk(2, 1)
        return torch.cat([now, values.tanh() * gates.sigmoid()], 1)

    return grown(shown, before), grown(asked, last)
