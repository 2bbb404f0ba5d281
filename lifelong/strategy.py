"""A strategy: a frozen record of hyper-parameters with a few pure verbs; strategies add up with `+`.

Inside a verb there is one learner, no seeds: the fleet adds that axis with `torch.func.vmap`. So a verb returns new
tensors of fixed shapes, writes nothing in place, draws no random numbers (it declares how many uniforms it wants)
and takes no Python decision on the value of a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.problem import Batch, FinishedTask, Memory, Outputs, Params, Problem, Step
from scenarios.refusal import Refusal

VERBS = ("init", "extend", "objective", "penalty", "grads", "after_step", "after_task", "prepare", "predict")


class StrategyError(Refusal):
    """A setting or a sum that no strategy can honour; its message is one line."""


def require(record: Any, condition: bool, what: str) -> None:
    """Raise a StrategyError that shows the record and says what must hold, unless it does."""
    if not condition:
        raise StrategyError(f"{record!r}: {what}")


class Strategy:
    """The verbs, each with a default that does nothing. Fill in the two or three that your method needs.

    uniforms_per_row, uniforms_per_task_row: how many numbers in (0, 1) the loop draws for each row of a stream batch
    and each training row of a finished task. needs_previous_params: `after_step` sees the parameters before the step.
    replaces_gradient: `grads` computes the gradient itself; the main backward pass is skipped. multi_task: it needs
    tasks that are learned together, and goes with the joint reading.
    """

    uniforms_per_row: int = 0
    uniforms_per_task_row: int = 0
    needs_previous_params: bool = False
    replaces_gradient: bool = False
    multi_task: bool = False

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Size the memory, once for each seed; may add own parameters beside `params["net"]`."""
        return params, {}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add rows, weights, class masks or soft targets to the batch."""
        return batch

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """The loss, sum_i w_i l_i, and what the one forward pass made. At most one part may replace it."""
        outputs = problem.outputs(params, batch.x)
        return (batch.weight * problem.loss_rows(outputs.logits, batch)).sum(), outputs

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """A scalar added to the loss."""
        return batch.weight.new_zeros(())

    def grads(self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params) -> Params:
        """Change the gradient."""
        return grads

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Store, or mend the parameters, after the optimiser's step."""
        return params, memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Consolidate at a task's end."""
        return params, memory

    def prepare(self, problem: Problem, params: Params, memory: Memory) -> Memory:
        """Once for each evaluation; the loop predicts with the result and throws it away."""
        return memory

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scores [B, C]; task is -1 where the stream withholds it. At most one part may replace it."""
        return problem.logits(params, x)

    def __add__(self, other: Strategy) -> Strategy:
        if not isinstance(other, Strategy):
            return NotImplemented
        return Sum((*parts_of(self), *parts_of(other)))


@dataclass(frozen=True)
class FineTuning(Strategy):
    """The empty strategy: plain gradient descent on what the stream brings."""


def fills(part: Strategy, verb: str) -> bool:
    """Whether a part says something of its own for this verb."""
    return getattr(type(part), verb) is not getattr(Strategy, verb)


def parts_of(strategy: Strategy) -> tuple[Strategy, ...]:
    """The parts of a sum, or the strategy alone; the empty strategy has none."""
    if isinstance(strategy, Sum):
        return strategy.parts
    return () if isinstance(strategy, FineTuning) else (strategy,)


def labels_of(parts: tuple[Strategy, ...]) -> list[str]:
    """A name for each part that does not depend on the other parts: class name and occurrence of that name."""
    names = [type(part).__name__ for part in parts]
    return [f"{name}/{names[:i].count(name)}" for i, name in enumerate(names)]


@dataclass(frozen=True, repr=False)
class Sum(Strategy):
    """Strategies together: rows are added, losses add, gradients and parameters thread left to right, memories zip.

    The memory of a sum is the tuple of the parts' memories.
    """

    parts: tuple[Strategy, ...]

    def __post_init__(self) -> None:
        for verb in ("objective", "predict"):
            owners = [part for part in self.parts if fills(part, verb)]
            if len(owners) > 1:
                raise StrategyError(
                    f"{owners[0]!r} and {owners[1]!r} both replace `{verb}`, and one may: leave one out"
                )
        owners = [part for part in self.parts if part.replaces_gradient]
        others = [part for part in self.parts if part.replaces_gradient or fills(part, "objective")]
        if owners and len(others) > 1:
            other = others[1] if others[0] is owners[0] else others[0]
            raise StrategyError(
                f"{owners[0]!r} computes the gradient itself, so {other!r} would go unheard: leave one out"
            )

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts)) or "FineTuning()"

    @property
    def replaces_gradient(self) -> bool:  # type: ignore[override]
        """Whether any part computes the gradient itself."""
        return any(part.replaces_gradient for part in self.parts)

    @property
    def needs_previous_params(self) -> bool:  # type: ignore[override]
        """Whether any part wants the parameters before the step."""
        return any(part.needs_previous_params for part in self.parts)

    @property
    def finishes(self) -> bool:
        """Whether any part has something to do after the optimiser's step."""
        return any(fills(part, "after_step") for part in self.parts)

    def _owner(self, verb: str) -> tuple[Strategy, int]:
        for i, part in enumerate(self.parts):
            if fills(part, verb):
                return part, i
        return FineTuning(), -1

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Every part's memory, in order."""
        memories = []
        for part in self.parts:
            params, memory = part.init(problem, params, generator)
            memories.append(memory)
        return params, tuple(memories)

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Left to right; each part sees its own uniforms, and the rows it adds bear its number."""
        uniforms, place = batch.uniforms, 0
        for i, (part, own) in enumerate(zip(self.parts, memory, strict=True)):
            count = part.uniforms_per_row
            if fills(part, "extend"):
                batch = part.extend(problem, params, own, batch._replace(uniforms=uniforms[:, place : place + count]))
                batch = batch._replace(part=torch.where(batch.part == -1, i + 1, batch.part))
            place += count
        return batch._replace(uniforms=uniforms)

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """That of the part that replaces it, else the weighted cross-entropy."""
        part, i = self._owner("objective")
        return part.objective(problem, params, memory[i] if i >= 0 else {}, batch)

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The sum of the parts' penalties."""
        total = batch.weight.new_zeros(())
        for part, own in zip(self.parts, memory, strict=True):
            if fills(part, "penalty"):
                total = total + part.penalty(problem, params, own, batch, outputs)
        return total

    def grads(self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params) -> Params:
        """Left to right; each part sees its own uniforms."""
        place = 0
        for part, own in zip(self.parts, memory, strict=True):
            count = part.uniforms_per_row
            if fills(part, "grads"):
                seen = batch._replace(uniforms=batch.uniforms[:, place : place + count])
                grads = part.grads(problem, params, own, seen, grads)
            place += count
        return grads

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Left to right; each part sees its own uniforms."""
        memories, place = [], 0
        for part, own in zip(self.parts, memory, strict=True):
            count = part.uniforms_per_row
            if fills(part, "after_step"):
                batch = step.batch._replace(uniforms=step.batch.uniforms[:, place : place + count])
                params, own = part.after_step(problem, params, own, step._replace(batch=batch))
            memories.append(own)
            place += count
        return params, tuple(memories)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Left to right; each part sees its own uniforms."""
        memories, place = [], 0
        for part, own in zip(self.parts, memory, strict=True):
            count = part.uniforms_per_task_row
            seen = task._replace(uniforms=task.uniforms[:, place : place + count])
            params, own = part.after_task(problem, params, own, seen)
            memories.append(own)
            place += count
        return params, tuple(memories)

    def prepare(self, problem: Problem, params: Params, memory: Memory) -> Memory:
        """Each part by itself."""
        return tuple(part.prepare(problem, params, own) for part, own in zip(self.parts, memory, strict=True))

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """That of the part that replaces it, else the network's scores."""
        part, i = self._owner("predict")
        return part.predict(problem, params, memory[i] if i >= 0 else {}, x, task)
