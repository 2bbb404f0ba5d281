"""Full context embeddings (Vinyals et al., 2016): features of support and queries that see the whole support.

F features, R support rows, Q queries. All layers are plain tensors, so that seeds and tasks may be mapped over.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lifelong.meta.sequence import lstm_cell
from lifelong.models.base import Net


def context_layers(width: int, generator: torch.Generator) -> Net:
    """Two LSTMs of F cells: along.* [2, ...] goes forwards and backwards along the support, attend.* unrolls for a query.

    Drawn like torch's, uniform within 1 / sqrt(F). The second is told [h, r], so that its hidden weight is [2 F, 4 F].
    """
    bound = 1 / math.sqrt(width)
    shapes = {
        "along.input": (2, width, 4 * width),
        "along.hidden": (2, width, 4 * width),
        "along.bias": (2, 4 * width),
        "attend.input": (width, 4 * width),
        "attend.hidden": (2 * width, 4 * width),
        "attend.bias": (4 * width,),
    }
    return {name: torch.empty(shape).uniform_(-bound, bound, generator=generator) for name, shape in shapes.items()}


def in_context(net: Net, features: Tensor, present: Tensor) -> Tensor:
    """g(x_i, S) = f(x_i) + forwards h_i + backwards h_i [R, F]: a bidirectional LSTM along the support.

    present: bool [R], whether a row is there; the LSTM passes others by as if they were not.
    """
    both, there = torch.stack([features, features.flip(0)]), torch.stack([present, present.flip(0)])
    inputs = both @ net["along.input"] + net["along.bias"][:, None]  # [2, R, 4 F]
    hidden = cell = torch.zeros_like(both[:, :1])
    outputs = []
    for place in range(len(features)):
        gates = inputs[:, place, None] + hidden @ net["along.hidden"]
        after = lstm_cell(gates, cell)
        hidden, cell = (
            torch.where(there[:, place, None, None], *pair) for pair in zip(after, (hidden, cell), strict=True)
        )
        outputs.append(hidden)
    along = torch.cat(outputs, 1)
    return features + along[0] + along[1].flip(0)


def attended(net: Net, query: Tensor, shown: Tensor, log_weight: Tensor, steps: int) -> Tensor:
    """f(q, S) = h_K [Q, F]: K steps of an LSTM that reads the support g [R, F] by attention.

    r_{k-1} = sum_i softmax_i(h_{k-1} . g_i) g_i; h_k = LSTM(f(q), [h_{k-1}, r_{k-1}], c_{k-1}) + f(q); h_0 = f(q), c_0 = 0.
    """
    inputs = query @ net["attend.input"] + net["attend.bias"]
    hidden, cell = query, torch.zeros_like(query)
    for _ in range(steps):
        read = (hidden @ shown.T + log_weight).softmax(1) @ shown
        out, cell = lstm_cell(inputs + torch.cat([hidden, read], 1) @ net["attend.hidden"], cell)
        hidden = out + query
    return hidden
