"""Stochastic gradient descent, with momentum or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.optimisers.base import LANES, TaskEnds, are_apart, check_fields, clipped, is_tensor, rate_now


@dataclass(frozen=True)
class SGD(TaskEnds):
    """Stochastic gradient descent: v <- momentum v + g; p <- p - rate v."""

    rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip: float = 0.0
    at_task_end: str = "kept"

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, params: Any) -> Any:
        """Velocities of zero, or nothing without momentum."""
        return {"velocity": tree_map(torch.zeros_like, params)} if self.momentum else {}

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        gradients, rate = clipped(gradients, self.clip, False), rate_now(self, progress)
        if self.weight_decay:
            gradients = tree_map(lambda g, p: g + self.weight_decay * p, gradients, params)
        if self.momentum:
            gradients = tree_map(lambda v, g: self.momentum * v + g, state["velocity"], gradients)
            state = {"velocity": gradients}
        return tree_map(lambda p, g: p - rate * g, params, gradients), state

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet."""
        rate, velocities = rate_now(self, progress), tree_leaves(state.get("velocity", {}))
        gradients = tree_leaves(clipped(gradients, self.clip, True))
        for i, (p, g) in enumerate(zip(tree_leaves(params), gradients, strict=True)):
            if self.weight_decay:
                g = g + p * self.weight_decay
            if self.momentum:
                g = velocities[i].mul_(self.momentum).add_(g)
            if are_apart(rate):
                p.sub_(g * rate.to(p.dtype).view(-1, *[1] * (p.ndim - 1)))
            elif is_tensor(rate) or p[0].numel() % (2 * LANES):
                p.sub_(g * rate)  # by itself: a kernel of product and sum may round a tensor's last numbers otherwise
            else:
                p.add_(g, alpha=-rate)  # two passes over the memory less
