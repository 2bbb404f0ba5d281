"""An initialisation: a frozen record that learns, from data of its own, where learners start.

Its verbs are pure functions of one start, so that many starts are learned as one fleet, and every random number is a
function of place, so that learning can be stopped and resumed at any iteration.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from lifelong.core.inner_loop import nearest_means
from lifelong.core.problem import Params, scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.models.base import Model, Net
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from scenarios.episodes import Support, TaskSource, class_pool
from scenarios.errors import ConfigurationError
from scenarios.machine import MOST
from scenarios.stream import Dataset

Meta = dict[str, Any]  # what is learned: {"net": ...}, and any tree of tensors beside it
Record = TypeVar("Record", bound="InitialisationLearner")


class InitialisationError(ConfigurationError):
    """An initialisation that cannot be honoured; its message is one line."""


@dataclass(frozen=True, kw_only=True)
class InitialisationLearner(ABC):
    """What all initialisations share, and the verbs with their defaults.

    iterations: of the outer loop; outer: its optimiser. data: the data set that it learns from; empty: the scenario's
    background classes. rotations: right angles make classes of their own. per_seed: one start for each seed, else one
    shared by all. allow_overlap: learn even from rows of the stream.

    Declared, for the loop and the contract: kinds: of tasks that it takes; least: the smallest values of fields;
    episodic: whether episodes are all that it learns from; any_way: whether it answers tasks of any number of classes;
    ordered: whether the order of a support's rows matters; transductive: whether an answer may depend on other queries;
    described: whether it needs a descriptor of each class; together: whether `query_scores` passes the support through the
    network beside the queries, in one batch.
    checked_with: the network that it is checked on.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classes", "numbers")
    least: ClassVar[dict[str, int]] = {"iterations": 0}
    episodic: ClassVar[bool] = False
    any_way: ClassVar[bool] = True
    ordered: ClassVar[bool] = False
    transductive: ClassVar[bool] = False
    described: ClassVar[bool] = False
    together: ClassVar[bool] = False
    checked_with: ClassVar[Model] = MLP(7)

    iterations: int = 1000
    outer: Optimiser = field(default_factory=Adam)
    data: str = ""
    rotations: bool = False
    per_seed: bool = False
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        for name in (declared.name for declared in fields(self)):
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InitialisationError(f"{type(self).__name__}({name}={value}): it is a finite number")
            if isinstance(value, int) and value > MOST:
                raise InitialisationError(f"{type(self).__name__}({name}={value}): it is at most {MOST:,}")
        for name, least in self.least.items():
            if getattr(self, name) < least:
                raise InitialisationError(
                    f"{type(self).__name__}({name}={getattr(self, name)}): it is at least {least}"
                )

    def check(self, distribution: TaskDistribution) -> None:
        """Raise a ConfigurationError where the distribution cannot serve."""
        if distribution.kind not in self.kinds:
            name = type(self).__name__
            raise InitialisationError(
                f"{name} tells classes apart, and this is a regression: use MAML, NeuralProcess or Reptile"
            )
        if self.described and not distribution.train.about_size:
            raise InitialisationError(
                f"{type(self).__name__} tells classes by their descriptors, and those of {distribution.train.name} have none:"
                " learn from a source of `scenarios.descriptors`, such as described_by_images(dataset)"
            )

    def pool(
        self, dataset: Dataset, classes: tuple[int, ...] | None = None, part: str = "all", rotations: bool = False
    ) -> TaskSource:
        """What its tasks of a dataset's classes are drawn from, to learn and to be tested."""
        return class_pool(dataset, classes, part, rotations)

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """What is learned, before the first iteration: a network with one output for each class of the data."""
        return {"net": self.fresh(distribution, distribution.train.outputs(len(distribution.train)), generator)}

    def fresh(self, distribution: TaskDistribution, outputs: int, generator: torch.Generator) -> Net:
        """A random draw of the network."""
        net = distribution.model.init(distribution.shape, outputs, generator)
        return {name: value.to(distribution.device, distribution.dtype) for name, value in net.items()}

    @abstractmethod
    def draw(self, distribution: TaskDistribution, generator: torch.Generator) -> Any:
        """What one iteration learns from: a tree of tensors."""

    def gradient(self, distribution: TaskDistribution, meta: Meta, drawn: Any, progress: Tensor) -> tuple[Tensor, Meta]:
        """The loss, 0-d, and its gradient, shaped like `meta`; progress: 0-d, how much of the outer loop is over, 0 ... 1."""
        gradient, loss = torch.func.grad_and_value(lambda m: self.loss(distribution, m, drawn, progress))(meta)
        return loss, gradient

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Any, progress: Tensor) -> Tensor:
        """What is minimised, 0-d."""
        raise NotImplementedError(f"{type(self).__name__} says neither its loss nor its gradient")

    @property
    def differentiates(self) -> bool:
        """Whether `gradient` is the derivative of `loss`."""
        return True

    def project(self, meta: Meta) -> Meta:
        """Mend what an update may have broken, such as a negative learning rate."""
        return meta

    def adapt(self, distribution: TaskDistribution, meta: Meta, support: Support, way: int) -> Meta:
        """What the support of one task teaches, once for all its queries; by default nothing."""
        return meta

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N] of one task's queries, `meta` as `adapt` left it.

        By default those of the nearest class mean of the features; of numbers, the network's own.
        """
        problem, params = distribution.problem(way), params_of(meta)
        if distribution.kind == "numbers":
            return problem.logits(params, scaled(query, distribution.dtype))
        features = [problem.features(params, scaled(x, distribution.dtype)) for x in (support.x, query)]
        return nearest_means(features[0], support.y, features[1], way, support.weight)

    def predict(self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int) -> Tensor:
        """Scores [Q, N] of one task's queries after its support: adapt, then answer."""
        return self.query_scores(distribution, self.adapt(distribution, meta, support, way), support, query, way)

    @property
    def tests_way(self) -> int:
        """Classes of the episodes that it is tested on."""
        return 5

    @property
    def tests_shot(self) -> int:
        """Support images of each class in the episodes that it is tested on."""
        return 1

    @abstractmethod
    def images(self, distribution: TaskDistribution) -> int:
        """Images passed forward and backward in one iteration; twice where a step is differentiated twice."""

    @property
    def answered_by(self) -> str:
        """How it answers, in words."""
        return "nearest class mean of the features"

    def small(self: Record) -> Record:
        """The same in a size at which the contract tries it in a second."""
        return replace(self, iterations=3)


def params_of(meta: Meta) -> Params:
    """The learner's parameters in what was learned."""
    return {"net": meta["net"]}
