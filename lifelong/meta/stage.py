"""A stage: a frozen record that makes a start for learners out of data of its own.

Its verbs are pure functions of one start, so that many starts are learned as one fleet, and every random number is a
function of place, so that a stage can be stopped and resumed at any iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from lifelong.adaptation.steps import batch_of, episode_problem, loss_of, nearest_means
from lifelong.model import Model, Net
from lifelong.optimisers import Adam, Optimiser
from lifelong.problem import Params, Problem, scaled
from scenarios.episodes import Episode, Pool, Sines
from scenarios.refusal import Refusal

Meta = dict[str, Any]


class Source(Protocol):
    """What episodes are drawn from: `scenarios.episodes` has pools of classes and sine waves."""

    @property
    def hash(self) -> str:
        """What it holds, in 16 hexadecimal digits or words."""
        ...

    def __len__(self) -> int: ...

    def check(self, way: int, shot: int, query: int) -> None:
        """Raise a Refusal where no such episode can be drawn."""
        ...

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T tasks."""
        ...


class StageError(Refusal):
    """A stage that cannot be honoured; its message is one line."""


@dataclass(frozen=True)
class Study:
    """What a stage learns: the network, and what its tasks are drawn from, to learn and to validate.

    shape: of a row. Meta-training never sees the validation classes, and neither sees those of the stream.
    """

    model: Model
    train: Source
    validation: Source
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def regression(self) -> bool:
        """Whether its tasks are functions to fit rather than classes to tell apart."""
        return isinstance(self.train, Sines)

    @property
    def device(self) -> torch.device:
        """Where its tables lie."""
        return torch.device("cpu") if isinstance(self.train, Sines) else self.train.table.x.device  # type: ignore[attr-defined]

    def to(self, device: torch.device | str) -> Study:
        """The same study with its tables on another device."""
        if not (isinstance(self.train, Pool) and isinstance(self.validation, Pool)):
            return self
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))

    def problem(self, outputs: int) -> Problem:
        """An episode's problem."""
        return episode_problem(self.model, 1 if self.regression else outputs, self.dtype)


@dataclass(frozen=True)
class Stage:
    """What all stages share, and the verbs with their defaults.

    data: the data set that it learns from; empty: the scenario's background classes. iterations: of the outer loop.
    outer: its optimiser. way, shot, query: of its episodes. rotations: right angles make classes of their own.
    per_seed: one start for each seed, else one shared by all. allow_overlap: learn even from rows of the stream.
    """

    episodic = True  # whether episodes are all that it learns from
    any_way = True  # whether it answers episodes of other numbers of classes than `way`

    way: int = 5
    shot: int = 1
    query: int = 1
    tasks: int = 16
    iterations: int = 1000
    outer: Optimiser = field(default_factory=Adam)
    data: str = ""
    rotations: bool = False
    per_seed: bool = False
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        for name, least in (("way", 2), ("shot", 0), ("query", 1), ("tasks", 1), ("iterations", 0)):
            if getattr(self, name) < least:
                raise StageError(f"{type(self).__name__}({name}={getattr(self, name)}): it is at least {least}")

    def check(self, study: Study) -> None:
        """Raise a Refusal where the study cannot serve this stage."""
        study.train.check(self.way, self.shot, self.query)

    def init(self, study: Study, generator: torch.Generator) -> Meta:
        """What is learned, before the first iteration: at least {"net": ...}."""
        return {"net": self.fresh(study, study.problem(self.way).classes, generator)}

    def fresh(self, study: Study, outputs: int, generator: torch.Generator) -> Net:
        """A random draw of the network."""
        net = study.model.init(study.shape, outputs, generator)
        return {name: value.to(study.device, study.dtype) for name, value in net.items()}

    def draw(self, study: Study, generator: torch.Generator) -> Any:
        """What one iteration learns from."""
        return study.train.draw(self.tasks, self.way, self.shot, self.query, generator)

    def gradient(self, study: Study, meta: Meta, drawn: Any) -> tuple[Tensor, Meta]:
        """The loss, 0-d, and its gradient, shaped like `meta`."""
        gradient, loss = torch.func.grad_and_value(lambda m: self.loss(study, m, drawn))(meta)
        return loss, gradient

    def loss(self, study: Study, meta: Meta, drawn: Any) -> Tensor:
        """What is minimised, 0-d."""
        raise NotImplementedError

    def settle(self, meta: Meta) -> Meta:
        """Mend what an update may have broken, such as a negative learning rate."""
        return meta

    def answers(self, study: Study, meta: Meta, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Scores [Q, N] of one task's queries after its support; by default those of the nearest class mean."""
        problem = study.problem(way)
        features = [problem.features(params_of(meta), scaled(x, study.dtype)) for x in (support, query)]
        return nearest_means(features[0], labels, features[1], way)

    @property
    def tests_way(self) -> int:
        """Classes of the episodes that it is tested on."""
        return 5

    @property
    def tests_shot(self) -> int:
        """Support images of each class in the episodes that it is tested on."""
        return 1

    def images(self, study: Study) -> int:
        """Images passed forward and backward in one iteration; twice where a step is differentiated twice."""
        return self.tasks * self.ways(study) * (self.shot + self.query)

    def ways(self, study: Study) -> int:
        """Classes of an episode; in regression a task's points are of one kind."""
        return 1 if study.regression else self.way

    @property
    def answered_by(self) -> str:
        """How `answers` answers, in words."""
        return "nearest class mean of the features"


def params_of(meta: Meta) -> Params:
    """The learner's parameters in what a stage learned."""
    return {"net": meta["net"]}


def in_chunks(episode: Episode, size: int) -> list[Episode]:
    """The tasks of an episode, `size` at a time; all together where size is 0."""
    if not size:
        return [episode]
    return [Episode(*parts) for parts in zip(*(value.split(size) for value in episode), strict=True)]


def query_loss(study: Study, params: Params, episode: Episode, way: int) -> Tensor:
    """The loss on one task's queries."""
    return loss_of(study.problem(way), params, batch_of(episode.query_x, episode.query_y, way, study.dtype))
