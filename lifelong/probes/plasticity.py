"""Probes of how well a network can still learn: units that sleep, the rank of its features, the size of its weights, and its
accuracy on every batch before it learns it. Each has one number for each member and moment, [S, moments].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lifelong.core.probes import BEFORE_STEP, TASK_ENDED, Measure
from lifelong.core.problem import Problem
from lifelong.models.base import Net
from scenarios.stream import ScenarioError, Seed, Stream


class _AtTaskEnds:
    """What those share that look at a network after each task, on test rows of that task; its first `rows` of them."""

    every_step = False
    rows: int

    def check(self, stream: Stream, seeds: Sequence[Seed]) -> None:
        """Raise ScenarioError where there is no row to look at."""
        if self.rows < 1:
            raise ScenarioError(f"{self!r}: rows must be at least 1")

    def begin(self, session: Any) -> Measure:
        """Measures after each task. Raises ScenarioError where no network descends a gradient."""
        fleet = session.fleet
        if fleet.learner.rule is None:
            raise ScenarioError(
                f"{self!r} looks at a network that is trained by gradients, and {fleet.learner!r} is not"
            )

        def measure(state: Any, moment: str) -> Tensor | None:
            if moment != TASK_ENDED:
                return None
            values = []
            for s in range(len(session.seeds)):
                index = {name: value[s] for name, value in fleet.problem.index.items()}
                row = index["rows_test"][state.task, : int(index["count_test"][state.task])][: self.rows]
                problem = replace(fleet.problem, index=index)
                net = {name: value[s] for name, value in state.fleet.params["net"].items()}
                with torch.no_grad():
                    values.append(self.of(problem, net, problem.x(row, torch.full_like(row, state.task))))
            return torch.stack(values)

        return measure

    def of(self, problem: Problem, net: Net, x: Tensor) -> Tensor:
        """The number, 0-d, of a member's net on its rows [B, ...]."""
        raise NotImplementedError


@dataclass(frozen=True)
class DormantUnits(_AtTaskEnds):
    """The share of hidden units that are dormant: mean |h_i| over rows / its mean over the layer's units <= threshold.

    Sokar, Agarwal, Castro and Evci (2023), definition 3.1; threshold 0 counts the dead, which no row wakes; they use 0.025, too.
    A unit is what enters the next layer: of a convolution a channel, of which all places count; before the head each feature.
    """

    threshold: float = 0.0
    rows: int = 1000

    @property
    def name(self) -> str:
        """It says the threshold."""
        return f"dormant units at {self.threshold:g}"

    def check(self, stream: Stream, seeds: Sequence[Seed]) -> None:
        """Raise ScenarioError for a threshold below 0, and where there is no row to look at."""
        super().check(stream, seeds)
        if self.threshold < 0:
            raise ScenarioError(f"{self!r}: threshold must be at least 0")

    def begin(self, session: Any) -> Measure:
        """Raises ScenarioError where the network does not show its layers."""
        if not session.fleet.problem.model.shows_layers:
            raise ScenarioError(f"{self!r} looks at layers, and {session.fleet.problem.model!r} does not show them")
        return super().begin(session)

    def of(self, problem: Problem, net: Net, x: Tensor) -> Tensor:
        """The share, over all units of all hidden layers."""
        activity: list[Tensor] = []

        def at(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            if not name.endswith(".norm"):
                activity.append(entering.abs().transpose(0, 1).flatten(1).mean(1))
            return leaving

        problem.logits({"net": net}, x, at)
        sleeping = [mean <= self.threshold * mean.mean() for mean in activity[1:]]  # the first is the row itself
        return torch.cat(sleeping).to(torch.float64).mean()


@dataclass(frozen=True)
class EffectiveRank(_AtTaskEnds):
    """The effective rank of the features: exp of the entropy of the singular values of [B, F], over their sum.

    Roy and Vetterli (2007), equation 1 to 3. Between 1 and the rank; of features that are all 0 it is 0 here.
    """

    rows: int = 1000

    @property
    def name(self) -> str:
        """Of its tensor."""
        return "effective rank"

    def of(self, problem: Problem, net: Net, x: Tensor) -> Tensor:
        """0 log 0 is 0."""
        share = spectrum(problem.features({"net": net}, x))
        return torch.where(share.sum() > 0, torch.special.entr(share).sum().exp(), 0.0)


@dataclass(frozen=True)
class StableRank(_AtTaskEnds):
    """The fewest singular values of the features [B, F] whose sum is at least `share` of all: srank, delta = 1 - share.

    Kumar, Agarwal, Ghosh and Levine (2021), with delta = 0.01; Dohare et al. (2024) call it the stable rank.
    """

    share: float = 0.99
    rows: int = 1000

    @property
    def name(self) -> str:
        """Of its tensor."""
        return f"stable rank at {self.share:g}"

    def of(self, problem: Problem, net: Net, x: Tensor) -> Tensor:
        """How many sums fall short of the share, and 1; 0 where all features are 0."""
        share = spectrum(problem.features({"net": net}, x))
        # what rounding leaves of a sum is no singular value more
        short = share.cumsum(0) < self.share - 1e-12
        return torch.where(share.sum() > 0, (short.sum() + 1).to(torch.float64).clamp(max=len(share)), 0.0)


@dataclass(frozen=True)
class WeightMagnitude(_AtTaskEnds):
    """The mean of |p| over all weights and biases (Dohare et al., 2024)."""

    rows: int = 1

    @property
    def name(self) -> str:
        """Of its tensor."""
        return "weight magnitude"

    def of(self, problem: Problem, net: Net, x: Tensor) -> Tensor:
        """It looks at no row."""
        return torch.cat([value.flatten() for value in net.values()]).abs().mean()


@dataclass(frozen=True)
class OnlineAccuracy:
    """Accuracy on each batch of the stream just before the first step on it; the moments are the batches, [S, batches].

    Its mean is prequential accuracy, what Dohare et al. (2024) and Kumar et al. (2023) call online accuracy, where rows come once;
    `by_task` gives a mean for each task. Answers are those of an evaluation at that place, among the classes that it would
    leave open. Steps are taken one by one, each with a prediction before it: about half as long again and more.
    """

    every_step = True

    @property
    def name(self) -> str:
        """Of its tensor."""
        return "online accuracy"

    def check(self, stream: Stream, seeds: Sequence[Seed]) -> None:
        """Raise ScenarioError where seeds take unequally many steps, and where a task asks for numbers."""
        steps = {tuple(stream.steps(stream.tasks_of(seed.order))) for seed in seeds}
        if len(steps) > 1:
            raise ScenarioError("online accuracy takes seeds that go the same number of steps: give --iterations")
        if stream.asks_numbers:
            raise ScenarioError("online accuracy is of classes, and a task of this stream asks for numbers")

    def begin(self, session: Any) -> Measure:
        """Measures before each step that brings a new batch."""

        def measure(state: Any, moment: str) -> Tensor | None:
            if moment != BEFORE_STEP or state.iteration % session.stream.budget.repeats:
                return None
            shown = next(session.sampler.block(state.task, state.iteration).each())
            prepared = session.fleet.prepare(state.fleet, session.sampler.prepared(state.task, state.iteration))
            right = session.evaluator.right(prepared, shown.row, shown.task, state.task) & shown.shown
            return right.sum(1) / shown.shown.sum(1)

        return measure


def by_task(values: Tensor, tasks: int) -> Tensor:
    """Means over equally long tasks: [S, moments] to [S, T]."""
    return values.view(len(values), tasks, -1).mean(2)


def spectrum(features: Tensor) -> Tensor:
    """The singular values of features [B, F], largest first, divided by their sum; zeros where there is nothing."""
    values = torch.linalg.svdvals(features.to(torch.float64))
    total = values.sum()
    return torch.where(total > 0, values / torch.where(total > 0, total, 1.0), 0.0)
