"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.optimisers.base import TaskEnds, are_apart, check_fields, clipped, kernel_rate, rate_now, seeds_apart


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
    trees, counts = (params, gradients, state["first"], state["second"]), state["count"]

    def update(leaves: Sequence[list[Tensor]], steps: list[Tensor], rate: Any) -> None:
        kernel(
            *leaves,
            [],
            steps,
            lr=rate,
            beta1=record.beta1,
            beta2=record.beta2,
            weight_decay=record.weight_decay,
            eps=record.epsilon,
            amsgrad=False,
            maximize=False,
        )

    if not are_apart(progress):
        leaves = [seeds_apart(tree) for tree in trees]
        return update(leaves, [counts.flatten()[0]] * len(leaves[0]), kernel_rate(record, progress))
    # seeds that have taken unequally many steps: each with its count, and where it depends on progress its rate
    columns = [[leaf.unbind(0) for leaf in tree_leaves(tree)] for tree in trees]  # of each tree, by leaf and seed
    if not record.scheduled:
        leaves = [[piece for leaf in column for piece in leaf] for column in columns]
        return update(leaves, [*counts.unbind(0)] * len(columns[0]), record.rate)
    for s, (count, rate) in enumerate(zip(counts.unbind(0), kernel_rate(record, progress).unbind(0), strict=True)):
        update([[leaf[s] for leaf in column] for column in columns], [count] * len(columns[0]), rate)
