"""A strategy: a frozen record of hyper-parameters with a few pure verbs; strategies add up with `+`.

Inside a verb there is one learner, no seeds: the fleet adds that axis with `torch.func.vmap`. So a verb returns new
tensors of fixed shapes, writes nothing in place, draws no random numbers (it declares which ones it wants) and takes no
Python decision on the value of a tensor. In a sum each part sees its own parameters, memory, draws and rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.models.base import Model
from lifelong.models.perceptron import MLP
from lifelong.optimisers.base import Optimiser
from scenarios.errors import ConfigurationError
from scenarios.stream import Stream

VERBS = (
    "init", "extend", "objective", "penalty", "grads", "after_step", "at_milestone", "after_task", "prepare", "predict",
)  # fmt: skip
Shapes = dict[str, tuple[int, ...]]


class StrategyError(ConfigurationError):
    """A setting or a sum that no strategy can honour; its message is one line."""


def require(record: Any, condition: bool, needed: str) -> None:
    """Raise a StrategyError that shows the record and says what must hold, unless it does."""
    if not condition:
        raise StrategyError(f"{record!r}: {needed}")


@dataclass(frozen=True)
class Requirements:
    """What a part needs of the run that it is in; everything else it takes as it comes.

    settings: those that it is meant for. paradigm: "joint" for tasks that are learned together, "" where it makes no
    difference. task_ends: that it is told when a task ends. task_id: that answers are asked for with the number of the
    task. validation: rows of each task that nobody trains on. hooks: a network whose layers can be seen. classes: tasks
    that tell classes apart, none that asks for numbers. all_move: that no parameter of the network is held still. instead:
    what to write where this is missing.
    """

    settings: tuple[str, ...] = ("task", "domain", "class")
    paradigm: str = "continual"
    task_ends: bool = False
    task_id: bool = False
    validation: bool = False
    hooks: bool = False
    classes: bool = False
    all_move: bool = False
    instead: str = ""

    def missing(self, stream: Stream) -> str:
        """What the stream lacks, in a few words; empty where it lacks nothing."""
        if self.paradigm == "joint" and stream.paradigm != "joint":
            return "weighs tasks that are learned together: it goes with the baseline joint"
        if self.paradigm and self.paradigm != stream.paradigm:
            return f"learns one task after another: the baseline {stream.paradigm} goes with FineTuning() alone"
        if stream.setting not in self.settings or (self.task_id and stream.setting != "task"):
            fitting = ["task"] if self.task_id else list(self.settings)
            return f"goes with --setting {' or '.join(fitting)} alone, not with {stream.setting}"
        if self.task_ends and not stream.task_ends:
            return "acts when a task ends, and this stream does not say when" + (self.instead and f": {self.instead}")
        if self.classes and stream.asks_numbers:
            return "knows classes alone, and a task of this stream asks for numbers"
        return ""


class Strategy:
    """The verbs, each with a default that does nothing. Fill in the two or three that your method needs.

    optimiser: of the part's own parameters, params["own"]; None: the learner's. milestones: shares of a task, 0 ... 1,
    at which `at_milestone` is called. requires: see `Requirements`. previous_params: `after_step` sees the parameters
    before the step. own_gradient: `grads` computes the main gradient itself, and the backward pass is skipped. alone: why
    parts beside it would go unheard that fill one of `alone_from`; "" where all are heard.

    For tables and pages: keeps: what it stores, in a few words. witness: what outside itself it agrees with, and the test
    that shows it. defaults: whose the numbers are that its fields begin with, as in "published, but for share" or "ours".
    passes: forward and backward passes of a step, each over as many rows as the stream brings, as its definition asks for
    at its defaults; fine-tuning has (1, 1); see `passes_at`. task_passes: what each task after the first adds to them.

    For what is to be expected of a sum: runs_network: it runs the network by itself, beside the batch's own pass. anchors: all
    that it does is hold weights near earlier values.

    sized_by: the field that says how much it keeps, where a comparison gives every method the same bytes; "" for none.

    For the contract: acts_at_once: it acts before the first task has ended; off: settings of its fields with which it
    is plain fine-tuning; checked_with: the network that it is checked on.
    """

    optimiser: ClassVar[Optimiser | None] = None
    milestones: ClassVar[tuple[float, ...]] = ()
    requires: ClassVar[Requirements] = Requirements()
    previous_params: ClassVar[bool] = False
    own_gradient: ClassVar[bool] = False
    alone: ClassVar[str] = ""
    alone_from: ClassVar[tuple[str, ...]] = VERBS
    keeps: ClassVar[str] = ""
    sized_by: ClassVar[str] = ""
    witness: ClassVar[str] = ""
    defaults: ClassVar[str] = ""
    passes: ClassVar[tuple[float, float]] = (1.0, 1.0)
    task_passes: ClassVar[tuple[float, float]] = (0.0, 0.0)
    runs_network: ClassVar[bool] = False
    anchors: ClassVar[bool] = False
    acts_at_once: ClassVar[bool] = False
    off: ClassVar[Mapping[str, Any]] = {}
    checked_with: ClassVar[Model] = MLP(8)

    def passes_at(self, batch: int) -> tuple[float, float]:
        """`passes` with batches of so many rows: the same, but where rows come on top whose number is fixed."""
        return self.passes

    def draws(self, problem: Problem) -> Shapes:
        """The random numbers that it wants at each step, by name; they come as `batch.draws[name]`, in (0, 1)."""
        return {}

    def task_draws(self, problem: Problem) -> Shapes:
        """The same at a task's end and at each milestone: `task.draws[name]`."""
        return {}

    def prepare_draws(self, problem: Problem) -> Shapes:
        """The same for each `prepare`."""
        return {}

    def notes(self, stream: Stream) -> list[str]:
        """Sentences on what to expect of it on a stream."""
        return []

    def notes_beside(self, other: Strategy) -> list[str]:
        """Sentences on what to expect of it in a sum with another part."""
        return []

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Size the memory, once for each seed; may add own parameters as params["own"], a tree of tensors."""
        return params, {}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add rows, weights, class masks or soft targets to the batch."""
        return batch

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """The loss, sum_i w_i l_i, and what the one forward pass made. At most one part may replace it."""
        return problem.objective(params, batch)

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """A scalar added to the loss."""
        return batch.weight.new_zeros(())

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Change the gradient; and leave notes, tensors that its own `after_step` finds as `step.notes`, or {}."""
        return grads, {}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Store, or mend the parameters, after the optimiser's step."""
        return params, memory

    def at_milestone(
        self, problem: Problem, params: Params, memory: Memory, task: FinishedTask, share: float
    ) -> tuple[Params, Memory]:
        """Turn to another phase of a task, when this share of it is over."""
        return params, memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Consolidate at a task's end."""
        return params, memory

    def prepare(self, problem: Problem, params: Params, memory: Memory, draws: Any) -> Memory:
        """Once for each evaluation; the loop predicts with the result and throws it away."""
        return memory

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scores [B, C]; task is -1 where the stream withholds it. At most one part may replace it."""
        return problem.logits(params, x)

    def __add__(self, other: Strategy) -> Strategy:
        try:
            return Sum((*self.parts, *other.parts))
        except AttributeError:  # no strategy
            return NotImplemented

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """The parts of a sum, or the strategy alone."""
        return (self,)


@dataclass(frozen=True)
class FineTuning(Strategy):
    """The empty strategy: plain gradient descent on what the stream brings."""

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """None."""
        return ()


def fills(part: Strategy, verb: str) -> bool:
    """Whether a part says something of its own for this verb."""
    return getattr(type(part), verb) is not getattr(Strategy, verb)


def labels_of(parts: tuple[Strategy, ...]) -> tuple[str, ...]:
    """A name for each part that does not depend on the other parts: class name and occurrence of that name."""
    names = [type(part).__name__ for part in parts]
    return tuple(f"{name}/{names[:i].count(name)}" for i, name in enumerate(names))


@dataclass(frozen=True, repr=False)
class Sum(Strategy):
    """Strategies together: rows are added, losses add, gradients and parameters thread left to right, memories zip.

    The memory of a sum is the tuple of the parts' memories, and so are its draws and its notes; params["own"] has the
    parts' own parameters by their labels. Every verb hands each part a view: its own of all four, and as batch.mine the
    rows that it added.
    """

    summands: tuple[Strategy, ...]

    def __post_init__(self) -> None:
        for part, other in permutations(self.parts, 2):
            if part.alone and any(fills(other, verb) for verb in part.alone_from):
                raise StrategyError(f"{type(part).__name__} {part.alone}, so {other!r} would go unheard: leave one out")
        for verb in ("objective", "predict"):
            owners = [part for part in self.parts if fills(part, verb)]
            if len(owners) > 1:
                raise StrategyError(
                    f"{owners[0]!r} and {owners[1]!r} both replace `{verb}`, and one may: leave one out"
                )
        owners = [part for part in self.parts if part.own_gradient]
        others = [part for part in self.parts if part.own_gradient or fills(part, "objective")]
        if owners and len(others) > 1:
            other = others[1] if others[0] is owners[0] else others[0]
            raise StrategyError(
                f"{owners[0]!r} computes the gradient itself, so {other!r} would go unheard: leave one out"
            )
        early = self.parts[: self.parts.index(owners[0])] if owners else ()
        for part in early:  # what changes a gradient, and keeps account of steps, needs to see the whole of it
            if fills(part, "grads") and fills(part, "after_step"):
                raise StrategyError(f"{part!r} sees the gradient that {owners[0]!r} computes where it stands after it")

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts)) or "FineTuning()"

    def __iter__(self) -> Iterator[Strategy]:
        return iter(self.parts)

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """The parts, in order."""
        return self.summands

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each part."""
        return labels_of(self.parts)

    @property
    def computes_gradient(self) -> bool:
        """Whether any part computes the gradient itself."""
        return any(part.own_gradient for part in self.parts)

    @property
    def wants_previous_params(self) -> bool:
        """Whether any part wants the parameters before the step."""
        return any(part.previous_params for part in self.parts)

    @property
    def finishes(self) -> bool:
        """Whether any part has something to do after the optimiser's step."""
        return any(fills(part, "after_step") for part in self.parts)

    @property
    def shares(self) -> tuple[float, ...]:
        """The milestones of all parts, in order."""
        return tuple(sorted({share for part in self.parts for share in part.milestones}))

    def _filling(self, verb: str) -> list[tuple[int, Strategy, str]]:
        """Place, part and label of those that say something for a verb."""
        return [
            (i, part, label)
            for i, (part, label) in enumerate(zip(self.parts, self.labels, strict=True))
            if fills(part, verb)
        ]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Every part's memory, in order, and the own parameters of those that have some."""
        memories = []
        for part, label in zip(self.parts, self.labels, strict=True):
            seen, memory = part.init(problem, _own(params, label), generator)
            params = _with_own(params, label, seen)
            memories.append(memory)
        return params, tuple(memories)

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Left to right; the rows that a part adds are its own from then on."""
        batch = batch.replace(bounds=(len(batch.row),))
        for i, (part, label) in enumerate(zip(self.parts, self.labels, strict=True)):
            if fills(part, "extend"):
                draws = batch.draws
                seen = part.extend(problem, _own(params, label), memory[i], _view(batch, i))
                batch = seen.replace(draws=draws, part=-1)
            batch = batch.replace(bounds=(*batch.bounds, len(batch.row)))
        return batch

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """That of the part that replaces it, else the weighted loss of the rows."""
        for i, part, label in self._filling("objective"):
            return part.objective(problem, _own(params, label), memory[i], _view(batch, i))
        return problem.objective(params, batch)

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The sum of the parts' penalties."""
        total = batch.weight.new_zeros(())
        for i, part, label in self._filling("penalty"):
            total = total + part.penalty(problem, _own(params, label), memory[i], _view(batch, i), outputs)
        return total

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, tuple[Any, ...]]:
        """Left to right; a part sees the network's gradient as those before it left it."""
        notes: list[Any] = [{} for _ in self.parts]
        for i, part, label in self._filling("grads"):
            seen, notes[i] = part.grads(problem, _own(params, label), memory[i], _view(batch, i), _own(grads, label))
            grads = _with_own(grads, label, seen)
        return grads, tuple(notes)

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Left to right."""
        memories = list(memory)
        for i, part, label in self._filling("after_step"):
            seen = step._replace(
                batch=_view(step.batch, i),
                gradients=_own(step.gradients, label),
                notes=step.notes[i],
                previous=_own(step.previous, label) if part.previous_params else (),
            )
            moved, memories[i] = part.after_step(problem, _own(params, label), memory[i], seen)
            params = _with_own(params, label, moved)
        return params, tuple(memories)

    def at_milestone(
        self, problem: Problem, params: Params, memory: Memory, task: FinishedTask, share: float
    ) -> tuple[Params, Memory]:
        """Left to right, the parts that named this share."""
        memories = list(memory)
        for i, (part, label) in enumerate(zip(self.parts, self.labels, strict=True)):
            if share in part.milestones:
                seen = task._replace(draws=task.draws[i])
                moved, memories[i] = part.at_milestone(problem, _own(params, label), memory[i], seen, share)
                params = _with_own(params, label, moved)
        return params, tuple(memories)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Left to right."""
        memories = list(memory)
        for i, part, label in self._filling("after_task"):
            seen = task._replace(draws=task.draws[i])
            moved, memories[i] = part.after_task(problem, _own(params, label), memory[i], seen)
            params = _with_own(params, label, moved)
        return params, tuple(memories)

    def prepare(self, problem: Problem, params: Params, memory: Memory, draws: Any) -> Memory:
        """Each part by itself."""
        memories = list(memory)
        for i, part, label in self._filling("prepare"):
            memories[i] = part.prepare(problem, _own(params, label), memory[i], draws[i])
        return tuple(memories)

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """That of the part that replaces it, else the network's scores."""
        for i, part, label in self._filling("predict"):
            return part.predict(problem, _own(params, label), memory[i], x, task)
        return problem.logits(params, x)


def _view(batch: Batch, part: int) -> Batch:
    """A batch as one part sees it."""
    return replace(batch, draws=batch.draws[part] if batch.draws else {}, part=part)


def _own(params: Params, label: str) -> Params:
    """Parameters, or gradients, as the part of this label sees them."""
    return {"net": params["net"], "own": params.get("own", {}).get(label, {})}


def _with_own(params: Params, label: str, seen: Params) -> Params:
    """All parameters, after the part of this label handed its view back."""
    parts_own = {**params.get("own", {}), label: seen["own"]} if seen["own"] else params.get("own", {})
    return {**params, "net": seen["net"], **({"own": parts_own} if parts_own else {})}
