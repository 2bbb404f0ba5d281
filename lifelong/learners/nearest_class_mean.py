"""Nearest class mean (Mensink et al., 2013): sums and counts, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Params
from lifelong.core.learner import AnyLearner, State
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, StrategyError
from lifelong.models.base import Model
from lifelong.models.perceptron import MLP

FEATURES = ("pixels", "net")


def checked_features(record: Any) -> None:
    """Raise StrategyError unless a record's `features` names what there is."""
    if record.features not in FEATURES:
        raise StrategyError(f"{type(record).__name__}(features={record.features!r}): it is 'pixels' or 'net'")


def features_of(record: Any, problem: Problem, params: Params, x: Tensor) -> Tensor:
    """Rows [B, ...] as a closed-form learner sees them [B, F]: pixels, or features of the initial network."""
    return x.flatten(1) if record.features == "pixels" else problem.features(params, x)


def width_of(record: Any, problem: Problem, params: Params) -> int:
    """F, found with one row."""
    first = torch.zeros(1, dtype=torch.int64, device=problem.device)
    return features_of(record, problem, params, problem.x(first, first)).shape[1]


@dataclass(frozen=True)
class NearestClassMean(AnyLearner):
    """Answers the class whose mean is nearest; learns by sums and counts, in closed form, from each row's first sight.

    score_c = -|f - mu_c|^2, mu_c = (sum of f over the rows of class c) / (their number); minus infinity for classes
    never seen. features: "pixels", or "net" for those of the frozen initial network. (Mensink et al., 2013.)
    """

    features: str = "pixels"
    model: Model = field(default_factory=lambda: MLP(400, 400))

    def __post_init__(self) -> None:
        checked_features(self)

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """Classes."""
        return [(repr(self), Requirements(paradigm="", classes=True))]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """Sums [C, F] and counts [C] of zero."""
        width = width_of(self, problem, params)
        return State(
            params, {}, {"sum": problem.zeros(problem.classes, width), "count": problem.zeros(problem.classes)}
        )

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """Add the rows seen for the first time to the sums of their classes."""
        classes = torch.arange(problem.classes, device=batch.y.device)
        member = ((batch.y[:, None] == classes) & batch.first_seen[:, None]).to(problem.dtype)  # [B, C]
        added = member.T @ features_of(self, problem, state.params, batch.x)
        memory = {"sum": state.memory["sum"] + added, "count": state.memory["count"] + member.sum(0)}
        return state._replace(memory=memory)

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Divide the sums by the counts, once."""
        count = state.memory["count"]
        return state._replace(memory={"sum": state.memory["sum"] / count.clamp(min=1)[:, None], "count": count})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Minus the squared distance to each mean [B, C]."""
        features, means = features_of(self, problem, state.params, x), state.memory["sum"]
        scores = 2 * features @ means.T - (means * means).sum(1)  # |f|^2 is the same for all classes
        return scores.masked_fill(state.memory["count"] == 0, -torch.inf)
