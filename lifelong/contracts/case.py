"""A meta-learner in a small size, with tasks and what it learned of them, as a diagnosis looks at it; and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map

from lifelong.contracts.initialisations import tasks_for
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationLearner, Meta
from lifelong.meta.pretraining import pretrain
from scenarios.brief import in_brief
from scenarios.episodes import Episode, Support
from scenarios.stream import generator

ASKED = 20  # episodes that are answered, and answered together


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: what was looked at, what was seen, how to mend it ("" where nothing is wrong)."""

    name: str
    seen: str
    mend: str = ""


@dataclass(frozen=True)
class Case:
    """A meta-learner in a small size, the tasks that it is tried on, what it learned of them, and some episodes.

    meta: after a few iterations, so that what starts at 0 has moved.
    """

    method: InitialisationLearner
    tasks: TaskDistribution
    meta: Meta
    __repr__ = in_brief

    @cached_property
    def drawn(self) -> Any:
        """What an iteration learns from."""
        return self.method.draw(self.tasks, generator("diagnosis", "drawn"))

    @property
    def halfway(self) -> Tensor:
        """The outer loop's progress."""
        return torch.tensor(0.5, dtype=self.tasks.dtype, device=self.tasks.device)

    def loss(self, meta: Meta) -> Tensor:
        """What an iteration minimises."""
        return self.method.loss(self.tasks, meta, self.drawn, self.halfway)

    @cached_property
    def gradient(self) -> Meta:
        """Its gradient, as the method takes it."""
        return self.gradient_by(self.method)

    def gradient_by(self, method: InitialisationLearner) -> Meta:
        """The gradient on the same episodes by another setting of the method."""
        return method.gradient(self.tasks, self.meta, self.drawn, self.halfway)[1]

    @cached_property
    def asked(self) -> Episode:
        """Episodes as it is tested on them."""
        method = self.method
        shot = max(method.tests_shot, 2)
        return self.tasks.validation.draw(ASKED, method.tests_way, shot, 3, generator("diagnosis", "asked"))

    def answers(self, support: Support, query: Tensor) -> Tensor:
        """Scores [T, Q, N] of the queries of T tasks."""
        return answers_of(self.method, self.tasks, self.meta, support, query)


def answers_of(
    method: InitialisationLearner, tasks: TaskDistribution, meta: Meta, support: Support, query: Tensor
) -> Tensor:
    """Scores [T, Q, N] of the queries of T tasks."""

    def of_task(support: Support, query: Tensor) -> Tensor:
        return method.predict(tasks, meta, support, query, method.tests_way)

    with torch.no_grad():  # some tasks at a time: a method may hold all pairs of rows of each
        pieces = [
            tree_map(lambda leaf, i=i: leaf[i : i + ASKED], (support, query)) for i in range(0, len(query), ASKED)
        ]
        return torch.cat([torch.func.vmap(of_task)(*piece) for piece in pieces])


def case_of(subject: InitialisationLearner, tasks: TaskDistribution | None = None) -> Case:
    """A method in its small size, after a few iterations on the contract's tasks or on others."""
    tasks, small = tasks or tasks_for(subject), subject.small()
    return Case(small, tasks, pretrain(small, tasks, (0,), episodes=0).of(0))


def names(meta: Meta) -> list[str]:
    """What each tensor of a tree is called, as in net.layer0.weight."""
    found = [keystr(path) for path, _ in tree_flatten_with_path(meta)[0]]
    return [
        path.replace("']['", ".").replace("['", "").replace("']", "").replace("[", ".").replace("]", "")
        for path in found
    ]
