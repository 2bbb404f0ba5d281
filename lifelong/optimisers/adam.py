"""Adam and AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.optimisers.base import TaskEnds, check_fields, clipped, kernel_rate, rate_now, seeds_apart


@dataclass(frozen=True)
class Adam(TaskEnds):
    """Adam (Kingma and Ba, 2015); weight decay is added to the gradient."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip: float = 0.0
    at_task_end: str = "kept"

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, params: Any) -> Any:
        """Moments of zero and a count of steps."""
        return _adam_init(params)

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        return _adam(self, params, gradients, state, progress, decoupled=False)

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet, with torch's fused kernel."""
        _adam_fused(self, params, gradients, state, progress, torch._fused_adam_)


@dataclass(frozen=True)
class AdamW(TaskEnds):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    schedule: str = "constant"
    clip: float = 0.0
    at_task_end: str = "kept"

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, params: Any) -> Any:
        """Moments of zero and a count of steps."""
        return _adam_init(params)

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        return _adam(self, params, gradients, state, progress, decoupled=True)

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet, with torch's fused kernel."""
        _adam_fused(self, params, gradients, state, progress, torch._fused_adamw_)


def _adam_init(params: Any) -> Any:
    first = tree_leaves(params)[0]
    # float32 because torch's fused kernels want the count so, whatever the parameters are
    count = torch.zeros((), dtype=torch.float32, device=first.device)
    return {"first": tree_map(torch.zeros_like, params), "second": tree_map(torch.zeros_like, params), "count": count}


def _adam(record: Any, params: Any, gradients: Any, state: Any, progress: Tensor, decoupled: bool) -> tuple[Any, Any]:
    gradients, rate, decay = clipped(gradients, record.clip, False), rate_now(record, progress), record.weight_decay
    if decay and not decoupled:
        gradients = tree_map(lambda g, p: g + decay * p, gradients, params)
    if decay and decoupled:
        params = tree_map(lambda p: p * (1 - rate * decay), params)
    count = state["count"] + 1
    first = tree_map(lambda m, g: record.beta1 * m + (1 - record.beta1) * g, state["first"], gradients)
    second = tree_map(lambda v, g: record.beta2 * v + (1 - record.beta2) * g * g, state["second"], gradients)
    precise = count.to(tree_leaves(first)[0].dtype)
    size = rate / (1 - record.beta1**precise)
    root = (1 - record.beta2**precise).sqrt()
    new = tree_map(lambda p, m, v: p - size * m / (v.sqrt() / root + record.epsilon), params, first, second)
    return new, {"first": first, "second": second, "count": count}


def _adam_fused(record: Any, params: Any, gradients: Any, state: Any, progress: float | Tensor, kernel: Any) -> None:
    state["count"] += 1
    # the kernel reads numbers one after another, and a gradient may be a view
    gradients = tree_map(Tensor.contiguous, clipped(gradients, record.clip, True))
    p, g, first, second = map(seeds_apart, (params, gradients, state["first"], state["second"]))
    kernel(
        p,
        g,
        first,
        second,
        [],
        [state["count"].flatten()[0]] * len(p),  # all seeds have taken as many steps
        lr=kernel_rate(record, progress),
        beta1=record.beta1,
        beta2=record.beta2,
        weight_decay=record.weight_decay,
        eps=record.epsilon,
        amsgrad=False,
        maximize=False,
    )
