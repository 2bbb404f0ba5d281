"""A learner: state in, state out. `Learner` descends a gradient; others are found in `lifelong.learners`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Outputs, Params, Step
from lifelong.core.member import LoopedMember
from lifelong.core.problem import Problem
from lifelong.core.strategy import FineTuning, Requirements, Shapes, Strategy, Sum
from lifelong.models.base import Model, chosen
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.grouped import Grouped
from scenarios.brief import in_brief
from scenarios.stream import Stream


class State(NamedTuple):
    """Everything that changes while learning: a tree of tensors of fixed shapes."""

    params: Params
    optimiser: Any
    memory: Any
    __repr__ = in_brief


class Draws(NamedTuple):
    """The random numbers that one part asks for, by name and shape: its name, and for each step, task end, evaluation."""

    name: str
    step: Shapes
    task: Shapes
    prepare: Shapes


class AnyLearner:
    """What the loop needs of anything that learns, with defaults for one that learns in closed form.

    Fill in `init`, `predict`, and `step` or `after_task`. step = finish of what `gradients` made, with `update_` between
    them where a fleet moves its parameters in place. looped: it is no pure function of tensors, see
    `lifelong.core.looped`. requirements: (who, what it needs of the run) for each part. keeps, witness, defaults,
    passes, task_passes, sized_by: as of a `Strategy`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # for type checkers: every learner is a frozen dataclass
    model: Model
    looped: ClassVar[bool] = False
    keeps: ClassVar[str] = ""
    sized_by: ClassVar[str] = ""
    witness: ClassVar[str] = ""
    defaults: ClassVar[str] = ""
    passes: ClassVar[tuple[float, float]] = (0.0, 0.0)
    task_passes: ClassVar[tuple[float, float]] = (0.0, 0.0)
    off: ClassVar[Mapping[str, Any]] = {}
    acts_at_once: ClassVar[bool] = True
    adapts_by_rule: ClassVar[bool] = False  # to a few rows: by a rule of adaptation on its network, or by its own step

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """What its parts need of the run."""
        return []

    @property
    def schedule(self) -> tuple[float, ...]:
        """Shares of a task at which `at_milestone` is called."""
        return ()

    @property
    def rule(self) -> Any:
        """The optimiser, whose settings may differ in a fleet; None where there is none."""
        return None

    @property
    def held_still(self) -> str:
        """The words by which some of the network's parameters do not move; empty where all do."""
        return ""

    @property
    def finishes(self) -> bool:
        """Whether a step has a second half, after the optimiser's."""
        return True

    def takes_steps(self, task: int) -> bool:
        """Whether steps in this task of a stream, counted from 0, change anything; the loop passes over those that do not."""
        return True

    def at_rate(self, rate: float) -> AnyLearner:
        """The same at another learning rate; itself where it has none."""
        return self

    @property
    def wants_previous_params(self) -> bool:
        """Whether the second half of a step sees the parameters before it."""
        return False

    def passes_at(self, batch: int) -> tuple[float, float]:
        """`passes` with batches of so many rows, as of a `Strategy`."""
        return self.passes

    def draws(self, problem: Problem) -> list[Draws]:
        """The random numbers that the loop must bring."""
        return []

    def notes(self, stream: Stream) -> list[str]:
        """Sentences on what to expect of it on a stream."""
        return []

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """The state before the first batch."""
        raise NotImplementedError

    def trained(self, params: Params) -> Params:
        """The parameters that an optimiser moves."""
        return {}

    def gradients(self, problem: Problem, state: State, batch: Batch) -> Step:
        """Everything of a step before the optimiser: here nothing."""
        return Step(batch, {}, (), batch.weight.new_zeros(()))

    def finish(self, problem: Problem, state: State, step: Step) -> State:
        """Everything of a step after the optimiser: here the whole of it."""
        return self.step(problem, state, step.batch)

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """Learn from one batch."""
        return state

    def at_milestone(self, problem: Problem, state: State, task: FinishedTask, share: float) -> State:
        """Turn to another phase of a task."""
        return state

    def after_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Consolidate."""
        return state

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Once for each evaluation; thrown away after it."""
        return state

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Scores [B, C]; never learns."""
        raise NotImplementedError

    def member(self, problem: Problem, generator: torch.Generator) -> LoopedMember:
        """One member of a looped fleet; others have none."""
        raise NotImplementedError


def merged(params: Params, moving: Params) -> Params:
    """All parameters, those that move taken from `moving`."""
    return {**params, **moving, "net": {**params["net"], **moving["net"]}}


@dataclass(frozen=True)
class Learner(AnyLearner):
    """Gradient descent on a model with a strategy.

    trainable: which of the network's parameters move: "all", "head", "trunk" (all but the head), "biases", or names with * and
    commas, as in "layer1*,head". The others get no gradient and no optimiser state. A part's own parameters always
    move, by the part's optimiser where it has one.
    """

    model: Model = field(default_factory=lambda: MLP(400, 400))
    strategy: Strategy = field(default_factory=FineTuning)
    optimiser: Optimiser = field(default_factory=Adam)
    trainable: str = "all"
    adapts_by_rule = True

    @property
    def parts(self) -> Sum:
        """The strategy as a sum of parts."""
        return Sum(self.strategy.parts)

    @property
    def requirements(self) -> list[tuple[str, Requirements]]:
        """What each part needs of the run."""
        return [(repr(part), part.requires) for part in self.parts]

    @property
    def schedule(self) -> tuple[float, ...]:
        """The parts' milestones."""
        return self.parts.shares

    @property
    def rule(self) -> Optimiser:
        """The optimiser of all that moves: the learner's, with groups for parts that bring one of their own."""
        total = self.parts
        groups = tuple((label, part.optimiser) for part, label in zip(total.parts, total.labels, strict=True))
        groups = tuple((label, optimiser) for label, optimiser in groups if optimiser is not None)
        return Grouped(self.optimiser, groups) if groups else self.optimiser

    def at_rate(self, rate: float) -> Learner:
        """The same at another learning rate."""
        return replace(self, optimiser=replace(self.optimiser, rate=rate))

    @property
    def held_still(self) -> str:
        """What `trainable` says, where that is not all."""
        return "" if self.trainable == "all" else f"trainable={self.trainable!r}"

    @property
    def finishes(self) -> bool:
        """Whether any part has something to do after the optimiser."""
        return self.parts.finishes

    @property
    def wants_previous_params(self) -> bool:
        """Whether any part wants the parameters before the step."""
        return self.parts.wants_previous_params

    def draws(self, problem: Problem) -> list[Draws]:
        """What each part of the strategy asks for."""
        total = self.parts
        return [
            Draws(label, part.draws(problem), part.task_draws(problem), part.prepare_draws(problem))
            for part, label in zip(total.parts, total.labels, strict=True)
        ]

    def notes(self, stream: Stream) -> list[str]:
        """What to expect of each part, by itself and beside the others, and which of them are turned off."""
        found = [note for part in self.parts for note in part.notes(stream)]
        for part, other in permutations(self.parts, 2):
            found += part.notes_beside(other)
        for part in self.parts:
            if part.off and all(getattr(part, name) == value for name, value in part.off.items()):
                words = ", ".join(f"{name}={value!r}" for name, value in part.off.items())
                found.append(f"{type(part).__name__}({words}) adds nothing to fine-tuning: it is turned off")
        return found

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> State:
        """Size the memories, start the optimiser."""
        params, memory = self.parts.init(problem, params, generator)
        return State(params, self.rule.init(self.trained(params)), memory)

    def trained(self, params: Params) -> Params:
        """The parameters that move. Raises ModelError where `trainable` names none."""
        return params if self.trainable == "all" else {**params, "net": chosen(params["net"], self.trainable)}

    def gradients(self, problem: Problem, state: State, batch: Batch) -> Step:
        """Everything of a step before the optimiser: rows, loss, penalties, gradients and what was done to them."""
        strategy, (params, _, memory) = self.parts, state
        batch = strategy.extend(problem, params, memory, batch)

        def loss(moving: Params) -> tuple[Tensor, tuple[Tensor, Outputs]]:
            p = merged(params, moving)
            value, outputs = strategy.objective(problem, p, memory, batch)
            penalty = strategy.penalty(problem, p, memory, batch, outputs)
            detached = Outputs(outputs.logits.detach(), outputs.features.detach())
            # where a part computes the main gradient itself, only the penalties' is taken here
            return penalty if strategy.computes_gradient else value + penalty, (value, detached)

        gradients, (value, outputs) = torch.func.grad(loss, has_aux=True)(self.trained(params))
        gradients, notes = strategy.grads(problem, params, memory, batch, gradients)
        return Step(batch, gradients, outputs, value.detach(), notes)

    def finish(self, problem: Problem, state: State, step: Step) -> State:
        """Everything of a step after the optimiser; `state` has the new parameters."""
        params, memory = self.parts.after_step(problem, state.params, state.memory, step)
        return State(params, state.optimiser, memory)

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """One step, pure: the definition of what a fleet does in place."""
        return self.step_and_loss(problem, state, batch)[0]

    def step_and_loss(self, problem: Problem, state: State, batch: Batch) -> tuple[State, Tensor]:
        """One step, pure, and the loss [] before it."""
        step = self.gradients(problem, state, batch)
        moving = self.trained(state.params)
        moving, optimiser = self.rule.update(moving, step.gradients, state.optimiser, batch.progress)
        if self.wants_previous_params:
            step = step._replace(previous=state.params)
        new = State(merged(state.params, moving), optimiser, state.memory)
        return self.finish(problem, new, step), step.loss

    def at_milestone(self, problem: Problem, state: State, task: FinishedTask, share: float) -> State:
        """The parts' `at_milestone`."""
        params, memory = self.parts.at_milestone(problem, state.params, state.memory, task, share)
        return State(params, state.optimiser, memory)

    def after_task(self, problem: Problem, state: State, task: FinishedTask) -> State:
        """Every part's `after_task`; the optimiser is kept or started afresh."""
        params, memory = self.parts.after_task(problem, state.params, state.memory, task)
        return State(params, self.rule.after_task(self.trained(params), state.optimiser), memory)

    def prepare(self, problem: Problem, state: State, draws: Any) -> State:
        """Every part's `prepare`."""
        return state._replace(memory=self.parts.prepare(problem, state.params, state.memory, draws))

    def predict(self, problem: Problem, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Scores [B, C]."""
        return self.parts.predict(problem, state.params, state.memory, x, task)
