"""Rules of adaptation: what of a network is trained on a new task, in which order, and what holds it back.

A method is a frozen record that divides some steps over learners that it makes of a plain one; `adapted_net` takes them.
`L2SP`, a strategy, is a method as well; those that unfreeze or weigh layers are in `layerwise.py`. The head is always fresh, since the new task has classes of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from lifelong.core.batch import Batch
from lifelong.core.inner_loop import OnFeatures, adapted
from lifelong.core.learner import Learner
from lifelong.core.problem import Problem
from lifelong.models.base import Net
from scenarios.errors import ConfigurationError

Phases = tuple[tuple[Learner, int], ...]


class TransferError(ConfigurationError):
    """A measurement of transfer that cannot be had; its message is one line."""


class AdaptationMethod(Protocol):
    """What an adaptation needs of a method."""

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """The learners that take the steps, one after another, and how many each; made from a plain one for a network."""
        ...


@dataclass(frozen=True)
class Scratch:
    """Train everything from a random draw: what every transfer is measured against."""

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """One learner; whoever adapts starts it from the random draw."""
        return ((learner, steps),)


@dataclass(frozen=True)
class FullFineTuning:
    """Train everything from the given network."""

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """One learner that trains all."""
        return ((learner, steps),)


@dataclass(frozen=True)
class LinearProbe:
    """Train the head alone; the trunk stays, and its features are computed once."""

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """One learner that trains the head."""
        return ((replace(learner, trainable="head"), steps),)


@dataclass(frozen=True)
class BiasTuning:
    """Train the biases of all layers and the head: BitFit (Ben Zaken, Ravfogel and Goldberg, 2022).

    b <- b - rate dL/db for biases and the shifts of norms; every other weight of the trunk stays.
    """

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """One learner that trains the biases and the head."""
        return ((replace(learner, trainable="biases,head"), steps),)


@dataclass(frozen=True)
class ProbeThenFineTune:
    """The first share of the steps trains the head alone, the rest everything (Kumar et al., 2022).

    Steps of the head: round(share x steps). Both phases take the same learning rate; the optimiser starts afresh.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise TransferError(f"{self!r}: the share of the steps that train the head lies in 0 ... 1")

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """The head, then everything."""
        first = round(self.share * steps)
        return ((replace(learner, trainable="head"), first), (learner, steps - first))


@dataclass(frozen=True)
class SurgicalFineTuning:
    """Surgical fine-tuning: train one block of the trunk and leave the others (Lee et al., 2023).

    The paper keeps the source's head, since its tasks share their classes, and trains the block alone; here the head is
    a fresh one, and is trained with the block. block: its parameters' names, as in "layer0" or "layer0,layer1".
    """

    block: str = "layer0"

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """One learner that trains the block and the head. Raises ModelError where the network has no such block."""
        return ((replace(learner, trainable=f"{self.block},head"), steps),)


def check_methods(methods: Sequence[AdaptationMethod], learner: Learner, steps: int, net: Net) -> None:
    """Refuse what cannot adapt a network [...], before anything is learned.

    Raises TransferError for a method of somebody else's whose `phases` is called otherwise, and ModelError for a block that
    the network lacks.
    """
    for method in methods:
        try:
            inspect.signature(method.phases).bind(learner, steps, net)
        except TypeError:
            takes = ", ".join(inspect.signature(method.phases).parameters)
            raise TransferError(f"{method!r}: write phases(self, learner, steps, net); it takes ({takes})") from None
        for phase, _ in method.phases(learner, steps, net):
            phase.trained({"net": net})


def adapted_net(
    method: AdaptationMethod, learner: Learner, steps: int, problem: Problem, net: Net, batch: Batch
) -> Net:
    """The network after a method's steps on one batch, each a full-batch step of `Learner`.

    One network, no seeds: map it. Where the head alone is trained, the rows pass through the trunk once.
    """
    nothing = torch.Generator()  # no part of a method draws
    for phase, count in method.phases(learner, steps, net):
        if not count:
            continue
        where, seen = problem, batch
        if phase.trainable == "head":
            where = replace(problem, model=OnFeatures(problem.model))
            seen = batch.replace(x=problem.features({"net": net}, batch.x))
        state = phase.init(where, {"net": net}, nothing)
        net = adapted(phase, where, state, seen, count).params["net"]
    return net
