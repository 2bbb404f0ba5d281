"""Gradient descent whose rates are its state, where they can be learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.optimisers.base import TaskEnds


@dataclass(frozen=True)
class PerParameterSGD(TaskEnds):
    """Gradient descent whose learning rates are its state, one tensor for each parameter: p <- p - rate x g.

    A state can be learned (Meta-SGD; Li et al., 2017) and can differ within a fleet, where a field cannot.
    """

    rate: float = 0.1
    at_task_end: str = "kept"

    def init(self, params: Any) -> Any:
        """Every parameter at the same rate."""
        return tree_map(lambda p: torch.full_like(p, self.rate), params)

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        moved = tree_map(lambda p, g, rate: p - rate * g, params, gradients, state)
        return moved, state

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet; a rate may also be [S, 1, ...]."""
        leaves = zip(*map(tree_leaves, (params, gradients, state)), strict=True)
        for p, g, rate in leaves:
            p.sub_(rate * g)
