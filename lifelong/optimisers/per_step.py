"""Gradient descent whose rates, one for each tensor and each step, are its state, where they can be learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.optimisers.base import TaskEnds


@dataclass(frozen=True)
class PerStepSGD(TaskEnds):
    """Gradient descent at another rate in each step: p <- p - rate_j x g in step j, rate [K] for each tensor.

    Its state are the rates that are still to come, which move up by one at each step; the last one repeats, so that more
    steps than K are taken at it. A state can be learned (LSLR; Antoniou, Edwards and Storkey, 2019). steps: K.
    """

    rate: float = 0.1
    steps: int = 5
    at_task_end: str = "kept"

    def init(self, params: Any) -> Any:
        """Every tensor at the same rate in all steps, [K] each."""
        return tree_map(lambda p: p.new_full((self.steps,), self.rate), params)

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        moved = tree_map(lambda p, g, rate: p - rate[0] * g, params, gradients, state)
        return moved, tree_map(lambda rate: torch.cat([rate[1:], rate[-1:]]), state)

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet, whose rates are [S, K]."""
        for p, g, rate in zip(*map(tree_leaves, (params, gradients, state)), strict=True):
            p.sub_(rate[:, 0].view(-1, *[1] * (p.ndim - 1)) * g)
            rate[:, :-1] = rate[:, 1:].clone()
