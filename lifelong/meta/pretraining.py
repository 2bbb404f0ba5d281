"""The outer loop: draw, differentiate, update, validate; for one start or a fleet of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lifelong.meta.stage import Meta, Stage, StageError, Study
from lifelong.meta.testing import Scored, scored
from scenarios.stream import generator

WORTH_RECORDING = 200  # iterations from which recording the gradient, some seconds, is won back


class Diverged(StageError):
    """A loss that is no longer finite; its message is one line."""


@dataclass
class Course:
    """Where the outer loop stands: all that a checkpoint holds. Every leaf of meta and optimiser is [S, ...]."""

    meta: Meta
    optimiser: Any
    iteration: int = 0
    losses: list[Tensor] = field(default_factory=list)
    validated: list[tuple[int, Tensor]] = field(default_factory=list)
    seconds: float = 0.0


class Keeper(Protocol):
    """Who saves the outer loop."""

    def restore(self, course: Course) -> Course:
        """The saved course, or the course as given."""
        ...

    def boundary(self, course: Course) -> None:
        """Called after every iteration."""
        ...


class Tidings(NamedTuple):
    """What a watcher is told."""

    iteration: int
    iterations: int
    loss: float
    validation: Tensor | None


@dataclass(frozen=True)
class Learned:
    """What a stage learned for S seeds: meta, every leaf [S, ...]; losses [S, iterations]; validated: iterations and
    accuracies [S, episodes] (in regression, mean squares); wall seconds of the outer loop."""

    stage: Stage
    meta: Meta
    seeds: tuple[int, ...]
    losses: Tensor
    validated: tuple[tuple[int, Tensor], ...]
    seconds: float


def pretrain(
    stage: Stage,
    study: Study | Sequence[Study],
    seeds: Sequence[int] = (0,),
    *,
    validate_every: int = 0,
    episodes: int = 200,
    watch: Callable[[Tidings], None] | None = None,
    keeper: Keeper | None = None,
) -> Learned:
    """Learn a start for each seed, all from one study or each from its own; `validate_every` iterations, and at the end, score it on validation episodes.

    Random numbers are functions of (seed, "episode", iteration), so the seeds of a fleet, a start alone, and a resumed
    outer loop see the same tasks. Raises Diverged when the loss is no longer finite.
    """
    studies = [study] * len(seeds) if isinstance(study, Study) else list(study)
    study = studies[0]
    stage.check(study)
    course = _begin(stage, study, seeds)
    if keeper:
        course = keeper.restore(course)
    gradients, told = _over_seeds(stage, study, len(seeds)), 0.0
    while course.iteration < stage.iterations:
        began, i = time.perf_counter(), course.iteration
        drawn = [stage.draw(own, generator(seed, "episode", i)) for own, seed in zip(studies, seeds, strict=True)]
        loss, gradient = gradients(course.meta, drawn)
        stage.outer.update_(course.meta, gradient, course.optimiser, i / stage.iterations)
        course.meta = stage.settle(course.meta)
        course.losses.append(loss.detach())
        course.iteration += 1
        course.seconds += time.perf_counter() - began
        if not torch.isfinite(loss).all():
            raise Diverged(f"{stage!r}: the loss is not finite after {course.iteration} iterations: lower its rates")
        due = (validate_every and course.iteration % validate_every == 0) or course.iteration == stage.iterations
        if due and episodes:
            course.validated.append((course.iteration, _validate(stage, study, course.meta, len(seeds), episodes)))
        if watch and (due or time.perf_counter() - told > 0.25):
            told = time.perf_counter()
            last = course.validated[-1][1] if course.validated else None
            watch(Tidings(course.iteration, stage.iterations, float(loss.mean()), last))
        if keeper and course.iteration < stage.iterations:
            keeper.boundary(course)
    losses = torch.stack(course.losses, 1).cpu() if course.losses else torch.zeros(len(seeds), 0)
    return Learned(stage, course.meta, tuple(seeds), losses, tuple(course.validated), course.seconds)


def _begin(stage: Stage, study: Study, seeds: Sequence[int]) -> Course:
    metas = [stage.init(study, generator(seed, "start")) for seed in seeds]
    meta = tree_map(lambda *leaves: torch.stack(leaves), *metas)
    optimisers = [stage.outer.init(own) for own in metas]
    optimiser = tree_map(lambda *leaves: torch.stack(leaves), *optimisers) if tree_leaves(optimisers[0]) else {}
    return Course(meta, optimiser)


def _over_seeds(stage: Stage, study: Study, count: int) -> Callable[[Meta, list[Any]], tuple[Tensor, Meta]]:
    """The stage's gradient for every seed: mapped for networks of matrix products, in turn for convolutions.

    A convolution with weights of its own for each seed and task becomes a grouped one, which is slower than the seeds in
    turn; a matrix product becomes a batched one, which is faster.
    """

    def alone(meta: Meta, drawn: Any) -> tuple[Tensor, Meta]:
        return stage.gradient(study, meta, drawn)

    convolves = any(leaf.ndim > 2 for leaf in tree_leaves(study.model.init(study.shape, 2, torch.Generator())))

    in_turn = count == 1 or convolves
    compute = alone if in_turn else torch.func.vmap(alone)
    if stage.iterations >= WORTH_RECORDING:
        compute = recorded(compute)

    def gradients(meta: Meta, drawn: list[Any]) -> tuple[Tensor, Meta]:
        if in_turn:
            pairs = [compute(tree_map(lambda p, s=s: p[s], meta), drawn[s]) for s in range(count)]
            loss, gradient = zip(*pairs, strict=True)
            return torch.stack(loss), tree_map(lambda *leaves: torch.stack(leaves), *gradient)
        return compute(meta, tree_map(lambda *leaves: torch.stack(leaves), *drawn))

    return gradients


def recorded(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A pure function of tensors whose operations are recorded at its first call, and played back from then on.

    The same numbers to the bit for arguments of the same shapes, without the bookkeeping of Python, grad and vmap: a
    seventh of a MAML iteration of one step.
    """
    held: list[tuple[Any, Any]] = []

    def play(*given: Any) -> Any:
        leaves, spec = tree_flatten(given)
        if not held:
            graph = make_fx(lambda *flat: compute(*tree_unflatten(list(flat), spec)))(*leaves)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            held.append((graph, [leaf.shape for leaf in leaves]))
        graph, shapes = held[0]
        return graph(*leaves) if [leaf.shape for leaf in leaves] == shapes else compute(*given)

    return play


def _validate(stage: Stage, study: Study, meta: Meta, count: int, episodes: int) -> Tensor:
    """Score of every seed on the same validation episodes [S, E]."""
    own = [tree_map(lambda p, s=s: p[s], meta) for s in range(count)]
    scores: list[Scored] = [scored(stage, study, one, study.validation, episodes=episodes) for one in own]
    return torch.stack([one.scores for one in scores])
