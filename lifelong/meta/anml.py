"""A neuromodulated meta-learning algorithm, ANML (Beaulieu et al., 2020): a gate that stands still while a network learns online."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.inner_loop import FirstOrder, batch_of, loss_of
from lifelong.core.learner import Learner
from lifelong.core.problem import scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta, params_of
from lifelong.meta.oml import Trajectory, class_after_class, fresh_outputs, learned_online, renewed
from lifelong.meta.supervised import rows_of_classes
from lifelong.models.anml import GATE, Gated
from lifelong.models.base import Model
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.sgd import SGD


@dataclass(frozen=True)
class ANML(InitialisationLearner):
    """Learn a network and its gate such that the network, shown a class image by image, keeps what it knew of others.

    Of N = way classes the outputs are drawn anew; p_{j+1} = p_j - rate x grad CE(p_j, gate; image j) for each of their
    N x shot images, class after class, p all of the network but the gate. The loss is the cross-entropy of (p_J, gate) on the
    same images and `remember` random ones of all classes; its gradient moves p_0 and the gate. Goes with `Gated`; when
    tested, trunk and gate are frozen, and the head alone learns online. order: 2 differentiates through every inner step,
    as the paper has it; 1 takes inner gradients as constants, as the public code does.

    What differs from the source: random images are drawn class by class, so that no class has two more than another; their
    batch norm, which sees one image at a time, is the network's own norm. OML (`OML`) moves the head alone in its inner
    steps, and is asked for new images. La-MAML and MER (`LaMAML`, `MER` of the strategies) look ahead in the same way, but
    within the stream that they are tested on: they are no start, and go with any. (Beaulieu et al., 2020.)
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    least: ClassVar[dict[str, int]] = {"way": 1, "shot": 1, "tasks": 1, "remember": 1, "iterations": 0}
    checked_with: ClassVar[Model] = Gated(MLP(7), MLP(3))

    way: int = 1
    shot: int = 20
    tasks: int = 1
    outer: Optimiser = field(default_factory=lambda: Adam(1e-3), kw_only=True)
    rate: float = 0.1
    remember: int = 64
    order: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2):
            raise InitialisationError(f"ANML(order={self.order}): it is 2, or 1 for the first-order approximation")
        if self.rate <= 0:
            raise InitialisationError(f"{self!r}: rate is above 0")

    def check(self, distribution: TaskDistribution) -> None:
        """Classes only, with enough images, and a network that has a gate and scores each image by itself."""
        super().check(distribution)
        if distribution.model.mixes_rows:
            raise InitialisationError("ANML learns from one image at a time, which batch norm cannot: use norm='group'")
        net = distribution.model.init(distribution.shape, 1, torch.Generator())
        if not any(name.startswith(GATE) for name in net):
            raise InitialisationError(f"ANML learns a gate: write --model 'Gated({distribution.model!r}, MLP(100))'")
        distribution.train.check(self.way, self.shot - 1, 1)

    def draw(self, distribution: TaskDistribution, generator: torch.Generator) -> Trajectory:
        """T trajectories; they are tested on their own images and on random ones."""
        source = distribution.train
        seen = source.draw(self.tasks, self.way, self.shot, 0, generator)
        x, y = class_after_class(seen, seen.classes)
        random = [rows_of_classes(distribution, self.remember, generator) for _ in range(self.tasks)]
        test_x = torch.cat([torch.stack([rows.x for rows in random]), x], 1)
        test_y = torch.cat([torch.stack([rows.y for rows in random]), y], 1)
        return Trajectory(
            x, y, test_x, test_y, seen.classes, fresh_outputs(distribution, self.tasks, self.way, generator)
        )

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Trajectory, progress: Tensor) -> Tensor:
        """Mean over trajectories of the loss after the last inner step."""
        return torch.func.vmap(lambda seen: self._after(distribution, meta, seen))(drawn).mean()

    def _after(self, distribution: TaskDistribution, meta: Meta, seen: Trajectory) -> Tensor:
        """The loss of one trajectory's test images by the network that learned it."""
        problem, strategy = distribution.problem(len(distribution.train)), distribution.objective
        params = renewed(params_of(meta), seen.classes, seen.fresh)
        moving = ",".join(name for name in params["net"] if not name.startswith(GATE))
        strategy = FirstOrder() + strategy if self.order == 1 else strategy
        learner = Learner(problem.model, strategy, SGD(self.rate), moving)
        params = learned_online(learner, problem, params, scaled(seen.x, distribution.dtype), seen.y)
        return loss_of(problem, params, batch_of(seen.test_x, seen.test_y, problem.classes, distribution.dtype))

    @property
    def differentiates(self) -> bool:
        """Not in first order, where inner gradients count as constants."""
        return self.order == 2

    def images(self, distribution: TaskDistribution) -> int:
        """Each image passes forward and backward at its own step, twice where that is differentiated, and in the test."""
        return self.tasks * (self.way * self.shot * (self.order + 1) + self.remember)

    def small(self) -> ANML:
        """Short trajectories."""
        return replace(self, iterations=3, way=2, shot=2, remember=3, tasks=2)
