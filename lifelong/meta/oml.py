"""Online-aware meta-learning (Javed and White, 2019): features on which a head can learn online without forgetting."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.adaptation.steps import OnFeatures, batch_of, loss_of
from lifelong.learner import Learner, State
from lifelong.meta.online_head import online_head
from lifelong.meta.stage import Meta, Stage, StageError, Study, params_of
from lifelong.model import mixes_rows
from lifelong.optimisers import SGD, Adam, Optimiser
from lifelong.problem import Params, scaled
from scenarios.episodes import Pool


class Trajectory(NamedTuple):
    """T trajectories: x [T, J, ...] and y int64 [T, J], seen one by one, class after class; test_x, test_y: new images
    of the same classes and random ones of others; classes int64 [T, N]; fresh [T, F, N]: new outputs for them."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: Tensor
    fresh: Tensor


@dataclass(frozen=True)
class OML(Stage):
    """Learn a trunk such that the head, taught one image at a time and class after class, answers old and new classes.

    The public algorithm as its authors mended it in July 2020. Of N = way classes the outputs are drawn anew; one step of
    `rate` on the head for each of N x shot images, in order; then the cross-entropy on N x query new images of these
    classes and `remember` random images of others is differentiated through every step, for the trunk and the head's
    start. Half of the data's classes feed trajectories, half the random images. cached: the trunk stands still within a
    trajectory, so its features are computed once; False passes each image through it at its own step, for comparison.
    """

    episodic = False
    way: int = 3
    shot: int = 5
    query: int = 5
    tasks: int = 1
    outer: Optimiser = field(default_factory=lambda: Adam(1e-4))
    rate: float = 0.03
    remember: int = 15
    cached: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shot < 1 or self.rate <= 0 or self.remember < 1:
            raise StageError(f"{self!r}: shot and remember are at least 1, rate above 0")

    def check(self, study: Study) -> None:
        """Classes only, enough of them, and a network that scores each image by itself."""
        if not isinstance(study.train, Pool):
            raise StageError("OML tells classes apart, and this is a regression: use MAML or Reptile")
        if mixes_rows(study.model):
            raise StageError("OML learns from one image at a time, which batch norm cannot: use norm='group'")
        half = len(study.train.classes) // 2
        least = max(-(-self.way // study.train.turns), -(-self.remember // study.train.turns))
        if half < least:
            raise StageError(f"{self!r} needs {2 * least} classes, half of them for trajectories; there are {2 * half}")
        super().check(study)

    def init(self, study: Study, generator: torch.Generator) -> Meta:
        """A network with one output for each class."""
        return {"net": self.fresh(study, len(study.train), generator)}

    def draw(self, study: Study, generator: torch.Generator) -> Trajectory:
        """T trajectories and what each is tested on."""
        pool = study.train
        assert isinstance(pool, Pool)
        half = len(pool.classes) // 2
        other, own = pool.some(0, half), pool.some(half, len(pool.classes))
        seen = own.draw(self.tasks, self.way, self.shot, self.query, generator)
        random = other.draw(self.tasks, self.remember, 1, 1, generator)
        classes = pool.numbers(own, half, seen.classes)
        test_y = torch.cat([pool.numbers(other, 0, random.classes), classes.repeat_interleave(self.query, 1)], 1)
        width = study.model.init(study.shape, 1, torch.Generator())["head.weight"].shape[0]
        fresh = torch.randn(self.tasks, width, self.way, generator=generator) * (2 / width) ** 0.5
        return Trajectory(
            seen.support_x,
            classes.repeat_interleave(self.shot, 1),
            torch.cat([random.support_x, seen.query_x], 1),
            test_y,
            classes,
            fresh.to(study.device, study.dtype),
        )

    def loss(self, study: Study, meta: Meta, drawn: Trajectory) -> Tensor:
        """Mean over trajectories of the loss after the last inner step."""
        return torch.func.vmap(lambda one: self._after(study, meta, one))(drawn).mean()

    def _after(self, study: Study, meta: Meta, one: Trajectory) -> Tensor:
        """The loss of one trajectory's test images by the trunk and the head that learned online."""
        problem, params = study.problem(len(study.train)), renewed(params_of(meta), one.classes, one.fresh)
        x, test_x = scaled(one.x, study.dtype), scaled(one.test_x, study.dtype)
        if self.cached:
            features = problem.features(params, torch.cat([x, test_x]))
            params, test_x = online_head(params, features[: len(x)], one.y, self.rate), features[len(x) :]
            problem = replace(problem, model=OnFeatures(study.model))
        else:
            learner = Learner(problem.model, optimiser=SGD(self.rate), trains="head")
            state = State(params, {}, ())
            for j in range(len(x)):
                batch = batch_of(x[j : j + 1], one.y[j : j + 1], problem.classes, study.dtype)
                state = learner.step(problem, state, batch)
            params = state.params
        return loss_of(problem, params, batch_of(test_x, one.test_y, problem.classes, study.dtype))

    def images(self, study: Study) -> int:
        """Every image passes the trunk forward and backward once."""
        return self.tasks * (self.way * (self.shot + self.query) + self.remember)


def renewed(params: Params, classes: Tensor, fresh: Tensor) -> Params:
    """Parameters whose outputs for some classes int64 [N] have new weights, fresh [F, N]; biases are kept."""
    weight = params["net"]["head.weight"]  # [F, C]
    place = (torch.arange(weight.shape[1], device=weight.device)[:, None] == classes).to(weight.dtype)  # [C, N]
    weight = torch.where(place.sum(1) > 0, fresh @ place.T, weight)
    return {**params, "net": {**params["net"], "head.weight": weight}}
