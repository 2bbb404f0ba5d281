"""A probe of where forgetting sits: after each task a linear head is fitted anew, on the trunk as it is, for every task so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.probes import TASK_ENDED, Measure
from lifelong.core.problem import Problem
from lifelong.models.base import Net
from lifelong.optimisers.adam import Adam
from scenarios.stream import ScenarioError, Seed, Stream

LINEAR_PROBE = "linear probe accuracy"
CHUNK = 1024  # rows that pass through the trunk together


@dataclass(frozen=True)
class LinearProbeAccuracy:
    """P[i, j]: accuracy on task j of a head that is fitted to it on the trunk after task i, [S, T] at each task's end.

    The head tells the task's own classes apart, whatever the setting. It is fitted to at most `rows` of its training rows
    by `fitted_head`, and answers all of its test rows; NaN for tasks that are still to come. T tasks take T (T + 1) / 2 heads. `lifelong.metrics.drift`
    divides forgetting by it. (After Davari et al., 2022, who measure forgetting of a representation so.)
    """

    rows: int = 1000
    steps: int = 100
    rate: float = 0.05
    every_step = False

    @property
    def name(self) -> str:
        """Of its tensor."""
        return LINEAR_PROBE

    def check(self, stream: Stream, seeds: Sequence[Seed]) -> None:
        """Raise ScenarioError where there is nothing to fit, and where a task asks for numbers."""
        if self.rows < 2 or self.steps < 1 or not self.rate > 0:
            raise ScenarioError(f"{self!r}: it takes at least 2 rows, 1 step, and a rate above 0")
        if stream.asks_numbers:
            raise ScenarioError("a linear probe tells classes apart, and a task of this stream asks for numbers")

    def begin(self, session: Any) -> Measure:
        """Measures after each task. Raises ScenarioError where no network descends a gradient."""
        fleet = session.fleet
        if fleet.learner.rule is None:
            raise ScenarioError(f"{self!r} asks how a trunk drifts, and that of {fleet.learner!r} is not trained")

        def measure(state: Any, moment: str) -> Tensor | None:
            if moment != TASK_ENDED:
                return None
            found = torch.full((len(session.seeds), session.tasks), torch.nan, dtype=torch.float64)
            for s in range(len(session.seeds)):
                problem = replace(fleet.problem, index={name: v[s] for name, v in fleet.problem.index.items()})
                net = {name: value[s] for name, value in state.fleet.params["net"].items()}
                for t in range(state.task + 1):
                    found[s, t] = self.of(problem, net, t)
            return found

        return measure

    def of(self, problem: Problem, net: Net, task: int) -> Tensor:
        """The accuracy, 0-d, of a member's trunk on one task."""
        train, test = (
            problem.index[f"rows_{part}"][task, : int(problem.index[f"count_{part}"][task])]
            for part in ("train", "test")
        )
        if len(train) > self.rows:  # evenly, since rows may lie class by class
            train = train[torch.linspace(0, len(train) - 1, self.rows, device=train.device).long()]
        classes = torch.nonzero(problem.index["classes_of"][task])[:, 0]
        labels = problem.y(train, torch.full_like(train, task))
        train, labels = train[labels >= 0], labels[labels >= 0]
        with torch.no_grad():
            shown, asked = (self._features(problem, net, row, task) for row in (train, test))
        places = torch.searchsorted(classes, labels)
        weight, bias = fitted_head(shown, places, len(classes), self.steps, self.rate)
        answers = classes[(asked @ weight + bias).argmax(1)]
        right = problem.index["label"][task, problem.dataset.y[test]]
        return (answers == right).to(torch.float64).mean()

    def _features(self, problem: Problem, net: Net, row: Tensor, task: int) -> Tensor:
        """[N, F], in pieces."""
        pieces = [problem.features({"net": net}, problem.x(r, torch.full_like(r, task))) for r in row.split(CHUNK)]
        return torch.cat(pieces)


def fitted_head(features: Tensor, labels: Tensor, classes: int, steps: int, rate: float) -> tuple[Tensor, Tensor]:
    """A linear head, weight [F, C] and bias [C], fitted to features [N, F] and labels int64 [N].

    Multinomial logistic regression on features brought to mean 0 and spread 1, from 0, by full-batch steps of Adam; given
    back for the features as they were. A feature that is the same in all rows counts for nothing.
    """
    middle, spread = features.mean(0), features.std(0, correction=0)
    lively = spread > 1e-6 * spread.amax()
    scale = torch.where(lively, 1 / spread.where(lively, torch.ones_like(spread)), torch.zeros_like(spread))
    rows, optimiser = (features - middle) * scale, Adam(rate)
    head = {"weight": features.new_zeros(features.shape[1], classes), "bias": features.new_zeros(classes)}
    state, progress = optimiser.init(head), features.new_zeros(())
    loss = torch.func.grad(lambda h: F.cross_entropy(rows @ h["weight"] + h["bias"], labels))
    for _ in range(steps):
        head, state = optimiser.update(head, loss(head), state, progress)
    weight = head["weight"] * scale[:, None]
    return weight, head["bias"] - middle @ weight
