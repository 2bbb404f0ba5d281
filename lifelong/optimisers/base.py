"""What a learner needs of an optimiser: two forms that a test holds equal, pure, and in place on a fleet's tensors.

Fields that SGD, Adam and AdamW share: rate; weight_decay; schedule, over each task: "constant", "linear" or "cosine" to
zero; clip: the largest norm of a seed's gradient, 0 for none; at_task_end: moments are "kept" over tasks or "reset" at each
task's end.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from scenarios.errors import ConfigurationError

SCHEDULES = ("constant", "linear", "cosine")
AT_TASK_END = ("kept", "reset")


class OptimiserError(ConfigurationError):
    """A setting that no optimiser can honour; its message is one line."""


class Optimiser(Protocol):
    """What a learner needs of an optimiser: a frozen dataclass. `progress`, 0 ... 1, says how much of the task is over."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def rate(self) -> float:
        """The learning rate."""
        ...

    @property
    def scheduled(self) -> bool:
        """Whether its rate depends on progress."""
        ...

    def init(self, params: Any) -> Any:
        """The state before the first step."""
        ...

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner: new parameters and new state."""
        ...

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """The same for a fleet, on stacked tensors [S, ...], in place.

        progress: of all seeds; or [S], of seeds that may have taken unequally many steps.
        """
        ...

    def after_task(self, params: Any, state: Any) -> Any:
        """The state after a task's end: as it was, or a fresh one."""
        ...


class TaskEnds:
    """What the records below share at a task's end."""

    at_task_end: str = "kept"
    schedule: str = "constant"

    @property
    def scheduled(self) -> bool:
        """Whether its rate depends on progress."""
        return self.schedule != "constant"

    def init(self, params: Any) -> Any:
        """The state before the first step."""
        raise NotImplementedError

    def after_task(self, params: Any, state: Any) -> Any:
        """The state after a task's end: as it was, or a fresh one."""
        return self.init(params) if self.at_task_end == "reset" else state


def check_fields(record: Any) -> None:
    """Raise OptimiserError where a field of a record cannot be honoured."""
    name = type(record).__name__
    if not is_tensor(record.rate) and not record.rate > 0:
        raise OptimiserError(f"{name}(rate={record.rate}): the learning rate must be above 0")
    if record.schedule not in SCHEDULES:
        raise OptimiserError(f"{name}(schedule={record.schedule!r}): it is one of {', '.join(SCHEDULES)}")
    if record.at_task_end not in AT_TASK_END:
        raise OptimiserError(f"{name}(at_task_end={record.at_task_end!r}): it is one of {', '.join(AT_TASK_END)}")
    if record.clip < 0:
        raise OptimiserError(f"{name}(clip={record.clip}): a norm cannot be negative; 0 means no clipping")


def is_tensor(value: Any) -> bool:
    """Whether a field is varied, and so a tensor."""
    return isinstance(value, Tensor)


def rate_now(record: Any, progress: Any) -> Any:
    """The learning rate now: constant, or falling to zero over the task, linearly or as half a cosine."""
    if record.schedule == "constant":
        return record.rate
    if record.schedule == "linear":
        return record.rate * (1 - progress)
    cosine = torch.cos(progress * math.pi) if is_tensor(progress) else math.cos(progress * math.pi)
    return record.rate * 0.5 * (1 + cosine)


def kernel_rate(record: Any, progress: Any) -> Any:
    """The learning rate now, in the form in which a fused kernel reads it: on a GPU a float32 tensor."""
    rate = rate_now(record, progress)
    return rate.float() if is_tensor(rate) and rate.device.type == "cuda" else rate


def clipped(gradients: Any, clip: float, stacked: bool) -> Any:
    """Gradients scaled so that their norm over all parameters, of each seed by itself, is at most `clip`."""
    if not clip:
        return gradients
    leaves = tree_leaves(gradients)
    if stacked:
        squares = sum((leaf * leaf).reshape(len(leaf), -1).sum(1) for leaf in leaves)  # [S]
    else:
        squares = sum((leaf * leaf).sum() for leaf in leaves)
    scale = (clip / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1)
    return tree_map(lambda g: g * (scale.view(-1, *[1] * (g.ndim - 1)) if stacked else scale), gradients)


LANES = 16  # floats that a processor's widest vector holds


def are_apart(progress: Any) -> bool:
    """Whether progress is of each seed by itself, [S]."""
    return is_tensor(progress) and progress.ndim == 1


def seeds_apart(tree: Any) -> list[Tensor]:
    """The stacked leaves [S, ...] of a tree, those whose seeds do not fill whole vectors as one tensor for each seed.

    A kernel treats the last few numbers of a tensor apart, and may round them otherwise. Where a seed's numbers do not
    fill whole vectors, which these are would depend on S, and a seed alone would not equal the same seed in a fleet.
    """
    result: list[Tensor] = []
    for leaf in tree_leaves(tree):
        whole = len(leaf) == 1 or leaf[0].numel() % LANES == 0 or leaf.device.type != "cpu"
        result += [leaf] if whole else leaf.unbind(0)
    return result
