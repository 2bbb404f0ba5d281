"""Online-aware meta-learning (Javed and White, 2019): features on which a head can learn online without forgetting."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lifelong.core.inner_loop import OnFeatures, batch_of, loss_of
from lifelong.core.learner import Learner
from lifelong.core.problem import Params, Problem, scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta, params_of
from lifelong.meta.online_head import online_head
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.sgd import SGD
from scenarios.brief import in_brief
from scenarios.episodes import Episode


class Trajectory(NamedTuple):
    """T trajectories: x [T, J, ...] and y int64 [T, J], seen one by one, class after class; test_x, test_y: new images
    of the same classes and random ones of others; classes int64 [T, N]; fresh [T, F, N]: new outputs for them."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: Tensor
    fresh: Tensor
    __repr__ = in_brief


@dataclass(frozen=True)
class OML(InitialisationLearner):
    """Learn a trunk such that the head, taught one image at a time and class after class, answers old and new classes.

    The public algorithm as its authors mended it in July 2020. Of N = way classes the outputs are drawn anew; one step of
    `rate` on the head for each of N x shot images, in order; then the cross-entropy on N x query new images of these
    classes and `remember` random images of others is differentiated through every step, for the trunk and the head's
    start. Half of the data's classes sampler trajectories, half the random images. cached: the trunk stands still within a
    trajectory, so its features are computed once; False passes each image through it at its own step, for comparison.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    least: ClassVar[dict[str, int]] = {
        "way": 1, "shot": 1, "query": 1, "tasks": 1, "remember": 1, "iterations": 0,
    }  # fmt: skip

    way: int = 3
    shot: int = 5
    query: int = 5
    tasks: int = 1
    outer: Optimiser = field(default_factory=lambda: Adam(1e-4), kw_only=True)
    rate: float = 0.03
    remember: int = 15
    cached: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate <= 0:
            raise InitialisationError(f"{self!r}: rate is above 0")

    def check(self, distribution: TaskDistribution) -> None:
        """Classes only, enough of them, and a network that scores each image by itself."""
        super().check(distribution)
        if distribution.model.mixes_rows:
            raise InitialisationError("OML learns from one image at a time, which batch norm cannot: use norm='group'")
        source = distribution.train
        half = len(source) // source.turns // 2
        least = max(-(-self.way // source.turns), -(-self.remember // source.turns))
        if half < least:
            words = f"{2 * least} classes, half of them for trajectories; there are {2 * half}"
            raise InitialisationError(f"{self!r} needs {words}")
        source.check(self.way, self.shot, self.query)

    def draw(self, distribution: TaskDistribution, generator: torch.Generator) -> Trajectory:
        """T trajectories and what each is tested on."""
        source = distribution.train
        count = len(source) // source.turns
        other, half = source.some(0, count // 2), source.some(count // 2, count)
        seen = half.draw(self.tasks, self.way, self.shot, self.query, generator)
        random = other.draw(self.tasks, self.remember, 1, 1, generator)
        classes = source.numbers(half, count // 2, seen.classes)
        remembered = source.numbers(other, 0, other.labels(random))
        return Trajectory(
            *class_after_class(seen, classes),
            torch.cat([random.support_x, seen.query_x], 1),
            torch.cat([remembered, classes.gather(1, seen.query_y)], 1),
            classes,
            fresh_outputs(distribution, self.tasks, self.way, generator),
        )

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Trajectory, progress: Tensor) -> Tensor:
        """Mean over trajectories of the loss after the last inner step."""
        return torch.func.vmap(lambda seen: self._after(distribution, meta, seen))(drawn).mean()

    def _after(self, distribution: TaskDistribution, meta: Meta, seen: Trajectory) -> Tensor:
        """The loss of one trajectory's test images by the trunk and the head that learned online."""
        problem = distribution.problem(len(distribution.train))
        params = renewed(params_of(meta), seen.classes, seen.fresh)
        x, test_x = scaled(seen.x, distribution.dtype), scaled(seen.test_x, distribution.dtype)
        if self.cached:
            features = problem.features(params, torch.cat([x, test_x]))
            params, test_x = online_head(params, features[: len(x)], seen.y, self.rate), features[len(x) :]
            problem = replace(problem, model=OnFeatures(distribution.model))
        else:
            learner = Learner(problem.model, optimiser=SGD(self.rate), trainable="head")
            params = learned_online(learner, problem, params, x, seen.y)
        return loss_of(problem, params, batch_of(test_x, seen.test_y, problem.classes, distribution.dtype))

    def images(self, distribution: TaskDistribution) -> int:
        """Every image passes the trunk forward and backward once."""
        return self.tasks * (self.way * (self.shot + self.query) + self.remember)

    def small(self) -> OML:
        """Short trajectories."""
        return replace(self, iterations=3, way=2, shot=2, query=2, remember=3, tasks=2)


def class_after_class(seen: Episode, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The support's rows [T, J, ...] and their labels int64 [T, J] among all classes, in the order in which they come online.

    classes: numbers int64 [T, N] of the episode's classes.
    """
    order = torch.sort(seen.support_y, dim=1, stable=True).indices
    place = torch.arange(len(order), device=order.device)[:, None]
    return seen.support_x[place, order], classes.gather(1, seen.support_y.gather(1, order))


def fresh_outputs(distribution: TaskDistribution, tasks: int, way: int, generator: torch.Generator) -> Tensor:
    """New weights of the outputs of N classes, [T, F, N], drawn with variance 2 / F."""
    width = distribution.model.init(distribution.shape, 1, torch.Generator())["head.weight"].shape[0]
    fresh = torch.randn(tasks, width, way, generator=generator) * (2 / width) ** 0.5
    return fresh.to(distribution.device, distribution.dtype)


def learned_online(learner: Learner, problem: Problem, params: Params, x: Tensor, y: Tensor) -> Params:
    """Parameters after a learner's step on each row of x [J, ...] in turn, labels y int64 [J]."""
    state = learner.init(problem, params, torch.Generator())
    for j in range(len(x)):
        state = learner.step(problem, state, batch_of(x[j : j + 1], y[j : j + 1], problem.classes, problem.dtype))
    return state.params


def renewed(params: Params, classes: Tensor, fresh: Tensor) -> Params:
    """Parameters whose outputs for some classes int64 [N] have new weights, fresh [F, N]; biases are kept."""
    weight = params["net"]["head.weight"]  # [F, C]
    place = (torch.arange(weight.shape[1], device=weight.device)[:, None] == classes).to(weight.dtype)  # [C, N]
    weight = torch.where(place.sum(1) > 0, fresh @ place.T, weight)
    return {**params, "net": {**params["net"], "head.weight": weight}}
