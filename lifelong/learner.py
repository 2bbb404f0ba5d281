"""A learner: state in, state out. `Learner` is the one that descends a gradient; others need only the same methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lifelong.model import MLP, Model, chosen
from lifelong.optimisers import Adam, Optimiser
from lifelong.problem import Batch, FinishedTask, Outputs, Params, Problem, Step
from lifelong.strategy import FineTuning, Strategy, StrategyError, Sum, labels_of, parts_of


class State(NamedTuple):
    """Everything that changes while learning: a tree of tensors of fixed shapes."""

    params: Params
    optimiser: Any
    memory: Any


class Draws(NamedTuple):
    """The random numbers one part asks for: its name, how many per row of a batch and per row of a finished task."""

    name: str
    per_row: int
    per_task_row: int


class AnyLearner(Protocol):
    """What the loop needs of anything that learns."""

    model: Any

    def draws(self) -> list[Draws]:
        """The random numbers that the loop must bring."""
        ...

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """The state before the first batch."""
        ...

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """Learn from one batch."""
        ...

    def end_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Consolidate."""
        ...

    def prepare(self, problem: Problem, state: State) -> State:
        """Once for each evaluation; thrown away after it."""
        ...

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Scores [B, C]; never learns."""
        ...


def merged(params: Params, moving: Params) -> Params:
    """All parameters, those that move taken from `moving`."""
    return {**params, **moving, "net": {**params["net"], **moving["net"]}}


@dataclass(frozen=True)
class Learner:
    """Gradient descent on a model with a strategy.

    trains: which of the network's parameters move: "all", "head", "trunk" (all but the head), or names with * and
    commas, as in "layer1*,head". The others get no gradient and no optimiser state.
    """

    model: Model = field(default_factory=lambda: MLP(400, 400))
    strategy: Strategy = field(default_factory=FineTuning)
    optimiser: Optimiser = field(default_factory=Adam)
    trains: str = "all"

    @property
    def sum(self) -> Sum:
        """The strategy as a sum of parts."""
        return Sum(parts_of(self.strategy))

    def draws(self) -> list[Draws]:
        """What each part of the strategy asks for."""
        parts = parts_of(self.strategy)
        rows = zip(labels_of(parts), parts, strict=True)
        return [Draws(name, part.uniforms_per_row, part.uniforms_per_task_row) for name, part in rows]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """Size the memories, start the optimiser."""
        params, memory = self.sum.init(problem, params, generator)
        return State(params, self.optimiser.init(self.trained(params)), memory)

    def trained(self, params: Params) -> Params:
        """The parameters that move; parts' own ones always do. Raises ModelError where `trains` names none."""
        return params if self.trains == "all" else {**params, "net": chosen(params["net"], self.trains)}

    def gradients(self, problem: Problem, state: State, batch: Batch) -> Step:
        """Everything of a step before the optimiser: rows, loss, penalties, gradients and what was done to them."""
        strategy, (params, _, memory) = self.sum, state
        batch = strategy.extend(problem, params, memory, batch)

        def loss(moving: Params) -> tuple[Tensor, tuple[Tensor, Outputs]]:
            p = merged(params, moving)
            value, outputs = strategy.objective(problem, p, memory, batch)
            penalty = strategy.penalty(problem, p, memory, batch, outputs)
            detached = Outputs(outputs.logits.detach(), outputs.features.detach())
            # where a part computes the main gradient itself, only the penalties' is taken here
            return penalty if strategy.replaces_gradient else value + penalty, (value, detached)

        gradients, (value, outputs) = torch.func.grad(loss, has_aux=True)(self.trained(params))
        gradients = strategy.grads(problem, params, memory, batch, gradients)
        return Step(batch, gradients, outputs, value.detach())

    def finish(self, problem: Problem, state: State, step: Step) -> State:
        """Everything of a step after the optimiser; `state` has the new parameters."""
        params, memory = self.sum.after_step(problem, state.params, state.memory, step)
        return State(params, state.optimiser, memory)

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """One step, pure: the definition of what a fleet does in place."""
        return self.step_and_loss(problem, state, batch)[0]

    def step_and_loss(self, problem: Problem, state: State, batch: Batch) -> tuple[State, Tensor]:
        """One step, and the loss, 0-d, at the parameters before it."""
        step = self.gradients(problem, state, batch)
        moving = self.trained(state.params)
        moving, optimiser = self.optimiser.update(moving, step.gradients, state.optimiser, batch.progress)
        params = merged(state.params, moving)
        if self.sum.needs_previous_params:
            step = step._replace(previous=state.params)
        return self.finish(problem, State(params, optimiser, state.memory), step), step.loss

    def end_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Every part's `after_task`; the optimiser is kept or started afresh."""
        params, memory = self.sum.after_task(problem, state.params, state.memory, task)
        fresh = self.optimiser.at_task == "reset"
        return State(params, self.optimiser.init(self.trained(params)) if fresh else state.optimiser, memory)

    def prepare(self, problem: Problem, state: State) -> State:
        """Every part's `prepare`."""
        return state._replace(memory=self.sum.prepare(problem, state.params, state.memory))

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Scores [B, C]."""
        return self.sum.predict(problem, state.params, state.memory, x, task)


@dataclass(frozen=True)
class NearestClassMean:
    """Answers the class whose mean is nearest; learns by sums and counts, in closed form, from each row's first sight.

    score_c = -|f - mu_c|^2, mu_c = (sum of f over the rows of class c) / (their number); minus infinity for classes
    never seen. features: "pixels", or "net" for those of the frozen initial network. (Mensink et al., 2013.)
    """

    features: str = "pixels"
    model: Model = field(default_factory=lambda: MLP(400, 400))

    def __post_init__(self) -> None:
        if self.features not in ("pixels", "net"):
            raise StrategyError(f"NearestClassMean(features={self.features!r}): it is 'pixels' or 'net'")

    def _features(self, problem: Problem, params: Params, x: Tensor) -> Tensor:
        return x.flatten(1) if self.features == "pixels" else problem.features(params, x)

    def draws(self) -> list[Draws]:
        """None: nothing here is random."""
        return []

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """Sums [C, F] and counts [C] of zero."""
        x = problem.x(
            torch.zeros(1, dtype=torch.int64, device=problem.table.x.device),
            torch.zeros(1, dtype=torch.int64, device=problem.table.x.device),
        )
        width = self._features(problem, params, x).shape[1]
        sums = torch.zeros(problem.classes, width, dtype=problem.dtype, device=x.device)
        return State(params, {}, {"sum": sums, "count": sums.new_zeros(problem.classes)})

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """Add the rows seen for the first time to the sums of their classes."""
        classes = torch.arange(problem.classes, device=batch.y.device)
        member = ((batch.y[:, None] == classes) & batch.first_seen[:, None]).to(problem.dtype)  # [B, C]
        added = member.T @ self._features(problem, state.params, batch.x)
        memory = {"sum": state.memory["sum"] + added, "count": state.memory["count"] + member.sum(0)}
        return state._replace(memory=memory)

    def end_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Nothing to do."""
        return state

    def prepare(self, problem: Problem, state: State) -> State:
        """Divide the sums by the counts, once."""
        count = state.memory["count"]
        return state._replace(memory={"sum": state.memory["sum"] / count.clamp(min=1)[:, None], "count": count})

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Minus the squared distance to each mean [B, C]."""
        features, means = self._features(problem, state.params, x), state.memory["sum"]
        scores = 2 * features @ means.T - (means * means).sum(1)  # |f|^2 is the same for all classes
        return scores.masked_fill(state.memory["count"] == 0, -torch.inf)
