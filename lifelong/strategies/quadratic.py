"""The penalty that EWC and SI share: a paraboloid around past parameters."""

from __future__ import annotations

import torch
from torch import Tensor


def quadratic(net: dict[str, Tensor], importance: dict[str, Tensor], centre: dict[str, Tensor]) -> Tensor:
    """1/2 sum over all parameters of F (p - c)^2, 0-d; F and c are constants."""
    terms = []
    for name, p in net.items():
        difference = p - centre[name]
        # a dot product: one pass less, forward and backward, than multiplying and summing
        terms.append(torch.dot((importance[name] * difference).flatten(), difference.flatten()))
    return 0.5 * torch.stack(terms).sum()
