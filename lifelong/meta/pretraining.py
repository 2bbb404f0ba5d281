"""The outer loop: draw, differentiate, update, validate; for one start or a fleet of them.

`events` runs it, and gives what happened in the order in which it happens; saving and showing consume the events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.core.problem import flush_denormals
from lifelong.core.recorded import recorded
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta
from lifelong.meta.testing import scored
from lifelong.models.base import Net
from scenarios.brief import in_brief
from scenarios.stream import generator

WORTH_RECORDING = 200  # iterations from which recording the gradient, some seconds, is won back


class Diverged(InitialisationError):
    """A loss that is no longer finite; its message is one line."""


@dataclass
class PretrainingState:
    """Where the outer loop stands: all that a checkpoint holds. Every leaf of meta and optimiser is [S, ...].

    losses: [S, iterations], of which those up to `iteration` are known; validated: iterations and scores [S, E]; seconds:
    of training, on the wall's clock.
    """

    meta: Meta
    optimiser: Any
    losses: Tensor  # made at once: ten thousand small tensors among the large ones that come and go split the heap
    iteration: int = 0
    validated: list[tuple[int, Tensor]] = field(default_factory=list)
    seconds: float = 0.0
    __repr__ = in_brief


@dataclass(frozen=True)
class Event:
    """Something that happened, the state after it, and how many iterations there will be."""

    state: PretrainingState
    iterations: int
    __repr__ = in_brief


class Begun(Event):
    """Nothing was learned yet, or what was saved was taken up again."""


class Stepped(Event):
    """One iteration is over."""


class Validated(Event):
    """The state was scored on validation episodes: the last of `state.validated`."""


class Done(Event):
    """The last iteration is over, and validated."""


Consumer = Callable[[Event], None]


class Checkpointer(Protocol):
    """Who saves the outer loop; `lifelong.meta.files` has the one that writes to disk."""

    def restore(self, state: PretrainingState) -> PretrainingState:
        """The saved state, or the state as given."""
        ...

    def __call__(self, event: Event) -> None:
        """Save when it is time; raises Stopped after saving when asked to stop."""
        ...


@dataclass(frozen=True)
class Learned:
    """What was learned for S seeds: the outer loop's final state."""

    method: InitialisationLearner
    seeds: tuple[int, ...]
    state: PretrainingState
    __repr__ = in_brief

    @property
    def meta(self) -> Meta:
        """Every leaf [S, ...]."""
        return self.state.meta

    @property
    def losses(self) -> Tensor:
        """[S, iterations]."""
        return self.state.losses[:, : self.state.iteration].cpu()

    @property
    def validated(self) -> tuple[tuple[int, Tensor], ...]:
        """Iterations and scores [S, E]: accuracies, or mean square errors where numbers are predicted."""
        return tuple(self.state.validated)

    def of(self, place: int) -> Meta:
        """What was learned for one of the seeds."""
        return tree_map(lambda leaf: leaf[place], self.meta)


def pretrain(
    method: InitialisationLearner,
    distribution: TaskDistribution | Sequence[TaskDistribution],
    seeds: Sequence[int] = (0,),
    *,
    initial: Net | None = None,
    validate_every: int = 0,
    episodes: int = 200,
    watch: Consumer | None = None,
    checkpointer: Checkpointer | None = None,
) -> Learned:
    """Learn a start for each seed, all from one distribution or each from its own.

    initial: networks [S, ...] whose trunks learning begins from, instead of draws of its own. Every `validate_every`
    iterations, and at the end, the starts are scored on validation episodes. Random numbers are functions of (seed,
    "episode", iteration), so the seeds of a fleet, a start alone, and a resumed outer loop see the same tasks. Raises
    Diverged when the loss is no longer finite.
    """
    distributions = [distribution] * len(seeds) if isinstance(distribution, TaskDistribution) else list(distribution)
    state = begin(method, distributions[0], seeds, initial)
    if checkpointer:
        state = checkpointer.restore(state)
    consumers = [consumer for consumer in (checkpointer, watch) if consumer]
    for event in events(method, distributions, seeds, state, validate_every=validate_every, episodes=episodes):
        for consume in consumers:
            consume(event)
    return Learned(method, tuple(seeds), state)


def begin(
    method: InitialisationLearner, distribution: TaskDistribution, seeds: Sequence[int], initial: Net | None = None
) -> PretrainingState:
    """The state before the first iteration. Raises a ConfigurationError where the distribution cannot serve the method."""
    method.check(distribution)
    metas = [method.init(distribution, generator(seed, "start")) for seed in seeds]
    for s, meta in enumerate(metas):
        if initial is not None:
            meta["net"] = with_trunk(meta["net"], {name: value[s].clone() for name, value in initial.items()})
    meta = tree_map(lambda *leaves: torch.stack(leaves), *metas)
    optimisers = [method.outer.init(alone) for alone in metas]
    optimiser = tree_map(lambda *leaves: torch.stack(leaves), *optimisers) if tree_leaves(optimisers[0]) else {}
    losses = torch.zeros(len(seeds), method.iterations, dtype=distribution.dtype, device=distribution.device)
    return PretrainingState(meta, optimiser, losses)


def events(
    method: InitialisationLearner,
    distributions: Sequence[TaskDistribution],
    seeds: Sequence[int],
    state: PretrainingState,
    *,
    validate_every: int = 0,
    episodes: int = 200,
) -> Iterator[Event]:
    """The outer loop from a state on, which it changes: begun, then steps and validations, done."""
    flush_denormals()
    gradients = _over_seeds(method, distributions[0], len(seeds))
    count = method.iterations
    yield Begun(state, count)
    while True:
        if episodes and _is_due(state, count, validate_every):
            scores = _validate(method, distributions[0], state.meta, len(seeds), episodes)
            state.validated.append((state.iteration, scores))
            yield Validated(state, count)
        if state.iteration == count:
            break
        began, place = time.perf_counter(), state.iteration
        drawn = [
            method.draw(distribution, generator(seed, "episode", place))
            for distribution, seed in zip(distributions, seeds, strict=True)
        ]
        loss, gradient = gradients(state.meta, drawn, place / count)
        method.outer.update_(state.meta, gradient, state.optimiser, place / count)
        state.meta = method.project(state.meta)
        state.losses[:, place] = loss.detach()
        state.iteration += 1
        state.seconds += time.perf_counter() - began
        if not torch.isfinite(loss).all():
            raise Diverged(f"{method!r}: the loss is not finite after {state.iteration} iterations: lower its rates")
        yield Stepped(state, count)
    yield Done(state, count)


def _is_due(state: PretrainingState, iterations: int, every: int) -> bool:
    """Whether the state is to be validated, and was not yet."""
    place = state.iteration
    last = state.validated[-1][0] if state.validated else 0
    return place > last and (place == iterations or (every > 0 and place % every == 0))


def _over_seeds(
    method: InitialisationLearner, distribution: TaskDistribution, count: int
) -> Callable[[Meta, list[Any], float], tuple[Tensor, Meta]]:
    """The gradient for every seed: mapped for networks of matrix products, in turn for convolutions.

    A convolution with weights of its own for each seed and task becomes a grouped one, which is slower than the seeds in
    turn; a matrix product becomes a batched one, which is faster.
    """

    def alone(meta: Meta, drawn: Any, progress: Tensor) -> tuple[Tensor, Meta]:
        return method.gradient(distribution, meta, drawn, progress)

    net = distribution.model.init(distribution.shape, 2, torch.Generator())
    in_turn = count == 1 or any(leaf.ndim > 2 for leaf in tree_leaves(net))
    compute = alone if in_turn else torch.func.vmap(alone, in_dims=(0, 0, None))
    if method.iterations >= WORTH_RECORDING:
        compute = recorded(compute, "meta-gradients")

    def gradients(meta: Meta, drawn: list[Any], progress: float) -> tuple[Tensor, Meta]:
        now = torch.tensor(progress, dtype=distribution.dtype, device=distribution.device)
        if in_turn:
            pairs = [compute(tree_map(lambda p, s=s: p[s], meta), drawn[s], now) for s in range(count)]
            loss, gradient = zip(*pairs, strict=True)
            return torch.stack(loss), tree_map(lambda *leaves: torch.stack(leaves), *gradient)
        return compute(meta, tree_map(lambda *leaves: torch.stack(leaves), *drawn), now)

    return gradients


def _validate(
    method: InitialisationLearner, distribution: TaskDistribution, meta: Meta, count: int, episodes: int
) -> Tensor:
    """Score of every seed on the same validation episodes [S, E]."""
    alone = [tree_map(lambda leaf, s=s: leaf[s], meta) for s in range(count)]
    found = [scored(method, distribution, own_meta, distribution.validation, episodes=episodes) for own_meta in alone]
    return torch.stack([of_seed.scores for of_seed in found])


def with_trunk(net: Net, given: Net) -> Net:
    """A network whose parameters but the head's are the given ones. Raises InitialisationError for another network's."""
    trunk = {name: value for name, value in given.items() if not name.startswith("head.")}
    names = {name for name in net if not name.startswith("head.")}
    for name in sorted(names | set(trunk)):
        shapes = [tuple(values[name].shape) if name in values else "missing" for values in (trunk, net)]
        if shapes[0] != shapes[1]:
            raise InitialisationError(
                f"the start is for another network: its {name} is {shapes[0]}, and this one's is {shapes[1]}"
            )
    return {name: trunk[name].to(value.device, value.dtype) if name in trunk else value for name, value in net.items()}
