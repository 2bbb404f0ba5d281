"""Optimisers as frozen records, each in two forms that a test holds equal: pure, and in place on a fleet's tensors.

Fields that SGD, Adam and AdamW share: rate; weight_decay; schedule, over each task: "constant", "linear" or "cosine" to
zero; clip: the largest norm of a seed's gradient, 0 for none; at_task: moments are "kept" over tasks or "reset" at each
task's end. GivenRates has the rates in its state, where they can be learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from scenarios.refusal import Refusal

SCHEDULES = ("constant", "linear", "cosine")
AT_TASK = ("kept", "reset")


class OptimiserError(Refusal):
    """A setting that no optimiser can honour; its message is one line."""


class Optimiser(Protocol):
    """What the house needs of an optimiser. `progress`, 0 ... 1, says how much of the task is over."""

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
        """The same for a fleet, on stacked tensors [S, ...], in place."""
        ...

    def after_task(self, params: Any, state: Any) -> Any:
        """The state after a task's end: as it was, or a fresh one."""
        ...


class _TaskEnds:
    """What the records below share at a task's end."""

    at_task: str = "kept"
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
        return self.init(params) if self.at_task == "reset" else state


def _check(record: Any) -> None:
    name = type(record).__name__
    if not _is_tensor(record.rate) and not record.rate > 0:
        raise OptimiserError(f"{name}(rate={record.rate}): the learning rate must be above 0")
    if record.schedule not in SCHEDULES:
        raise OptimiserError(f"{name}(schedule={record.schedule!r}): it is one of {', '.join(SCHEDULES)}")
    if record.at_task not in AT_TASK:
        raise OptimiserError(f"{name}(at_task={record.at_task!r}): it is one of {', '.join(AT_TASK)}")
    if record.clip < 0:
        raise OptimiserError(f"{name}(clip={record.clip}): a norm cannot be negative; 0 means no clipping")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _rate(record: Any, progress: Any) -> Any:
    """The learning rate now: constant, or falling to zero over the task, linearly or as half a cosine."""
    if record.schedule == "constant":
        return record.rate
    if record.schedule == "linear":
        return record.rate * (1 - progress)
    cosine = torch.cos(progress * math.pi) if _is_tensor(progress) else math.cos(progress * math.pi)
    return record.rate * 0.5 * (1 + cosine)


def _clipped(gradients: Any, clip: float, stacked: bool) -> Any:
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


@dataclass(frozen=True)
class SGD(_TaskEnds):
    """Stochastic gradient descent: v <- momentum v + g; p <- p - rate v."""

    rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip: float = 0.0
    at_task: str = "kept"

    def __post_init__(self) -> None:
        _check(self)

    def init(self, params: Any) -> Any:
        """Velocities of zero, or nothing without momentum."""
        return {"velocity": tree_map(torch.zeros_like, params)} if self.momentum else {}

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        gradients, rate = _clipped(gradients, self.clip, False), _rate(self, progress)
        if self.weight_decay:
            gradients = tree_map(lambda g, p: g + self.weight_decay * p, gradients, params)
        if self.momentum:
            gradients = tree_map(lambda v, g: self.momentum * v + g, state["velocity"], gradients)
            state = {"velocity": gradients}
        return tree_map(lambda p, g: p - rate * g, params, gradients), state

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet."""
        rate = _rate(self, progress)
        with _aligned(params, state.get("velocity", {})) as (p, v):
            g = _aligned(_clipped(gradients, self.clip, True)).lists[0]
            if self.weight_decay:
                g = list(torch._foreach_add(g, p, alpha=self.weight_decay))
            if self.momentum:
                torch._foreach_mul_(v, self.momentum)
                torch._foreach_add_(v, g)
                g = v
            torch._foreach_sub_(p, torch._foreach_mul(g, rate))


@dataclass(frozen=True)
class Adam(_TaskEnds):
    """Adam (Kingma and Ba, 2015); weight decay is added to the gradient."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip: float = 0.0
    at_task: str = "kept"

    def __post_init__(self) -> None:
        _check(self)

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
class AdamW(_TaskEnds):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    schedule: str = "constant"
    clip: float = 0.0
    at_task: str = "kept"

    def __post_init__(self) -> None:
        _check(self)

    def init(self, params: Any) -> Any:
        """Moments of zero and a count of steps."""
        return _adam_init(params)

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        return _adam(self, params, gradients, state, progress, decoupled=True)

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet, with torch's fused kernel."""
        _adam_fused(self, params, gradients, state, progress, torch._fused_adamw_)


@dataclass(frozen=True)
class GivenRates(_TaskEnds):
    """Gradient descent whose learning rates are its state, one tensor for each parameter: p <- p - rate x g.

    A state can be learned (Meta-SGD; Li et al., 2017) and can differ within a fleet, where a field cannot.
    """

    rate: float = 0.1
    at_task: str = "kept"

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


@dataclass(frozen=True)
class Grouped:
    """Several optimisers, each for some parameters: `rule` for the network, and one for the own parameters of a part.

    groups: (label of the part, its optimiser). Norms are clipped in each group by itself.
    """

    rule: Optimiser
    groups: tuple[tuple[str, Optimiser], ...]

    @property
    def scheduled(self) -> bool:
        """Whether any of their rates depends on progress."""
        return self.rule.scheduled or any(optimiser.scheduled for _, optimiser in self.groups)

    def _split(self, tree: Any) -> list[tuple[str, Optimiser, Any]]:
        """Name, optimiser and parameters of each group."""
        apart = dict(self.groups)
        own = tree.get("own", {})
        rest = {label: leaves for label, leaves in own.items() if label not in apart}
        first = {**tree, "own": rest} if rest else {name: part for name, part in tree.items() if name != "own"}
        return [("", self.rule, first)] + [(label, rule, own[label]) for label, rule in self.groups]

    def init(self, params: Any) -> Any:
        """The state of each, by label; that of the network as ""."""
        return {label: rule.init(part) for label, rule, part in self._split(params)}

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        moved, states = {}, {}
        pairs = zip(self._split(params), self._split(gradients), strict=True)
        for (label, rule, part), (_, _, gradient) in pairs:
            moved[label], states[label] = rule.update(part, gradient, state[label], progress)
        own = {**moved[""].get("own", {}), **{label: moved[label] for label, _ in self.groups}}
        return {**moved[""], "own": own}, states

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet."""
        pairs = zip(self._split(params), self._split(gradients), strict=True)
        for (label, rule, part), (_, _, gradient) in pairs:
            rule.update_(part, gradient, state[label], progress)

    def after_task(self, params: Any, state: Any) -> Any:
        """Each as its own record says."""
        return {label: rule.after_task(part, state[label]) for label, rule, part in self._split(params)}


LANES = 16  # floats that a processor's widest vector holds


class _aligned:
    """Lists of stacked leaves [S, ...] whose seeds fill whole vectors; what was updated is copied back on exit.

    A kernel treats the last few numbers of a tensor apart, and may round them otherwise. Where a seed's numbers do not
    fill whole vectors, which these are would depend on S, and a seed alone would not equal the same seed in a fleet.
    """

    def __init__(self, *trees: Any) -> None:
        self.live = [tree_leaves(tree) for tree in trees]
        self.lists = [[self._padded(leaf) for leaf in leaves] for leaves in self.live]

    @staticmethod
    def _padded(leaf: Tensor) -> Tensor:
        over = leaf[0].numel() % LANES
        if not over or leaf.device.type != "cpu":
            return leaf
        return nn.functional.pad(leaf.reshape(len(leaf), -1), (0, LANES - over))

    def __enter__(self) -> list[list[Tensor]]:
        return self.lists

    def __exit__(self, *error: object) -> None:
        for live, padded in zip(self.live, self.lists, strict=True):
            for leaf, own in zip(live, padded, strict=True):
                if own is not leaf:
                    leaf.copy_(own[:, : leaf[0].numel()].view(leaf.shape))


def _adam_init(params: Any) -> Any:
    first = tree_leaves(params)[0]
    # float32 because torch's fused kernels want the count so, whatever the parameters are
    count = torch.zeros((), dtype=torch.float32, device=first.device)
    return {"first": tree_map(torch.zeros_like, params), "second": tree_map(torch.zeros_like, params), "count": count}


def _adam(record: Any, params: Any, gradients: Any, state: Any, progress: Tensor, decoupled: bool) -> tuple[Any, Any]:
    gradients, rate, decay = _clipped(gradients, record.clip, False), _rate(record, progress), record.weight_decay
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
    g = _aligned(_clipped(gradients, record.clip, True)).lists[0]
    state["count"] += 1
    with _aligned(params, state["first"], state["second"]) as (p, first, second):
        kernel(
            p,
            g,
            first,
            second,
            [],
            [state["count"].flatten()[0]] * len(p),  # all seeds have taken as many steps
            lr=_rate(record, progress),
            beta1=record.beta1,
            beta2=record.beta2,
            weight_decay=record.weight_decay,
            eps=record.epsilon,
            amsgrad=False,
            maximize=False,
        )
