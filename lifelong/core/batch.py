"""What a strategy's verbs hand to one another: the rows of a step, what the network made of them, a task at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node, tree_flatten, tree_leaves, tree_unflatten

from scenarios.brief import in_brief

Params = dict[str, Any]
Memory = Any


class LooksUp(Protocol):
    """What a batch needs of a problem where rows are added to it: see `lifelong.core.problem.Problem`."""

    def x(self, row: Tensor, task: Tensor) -> Tensor:
        """Rows as the network sees them."""
        ...

    def y(self, row: Tensor, task: Tensor) -> Tensor:
        """Their classes."""
        ...

    def numbers(self, row: Tensor, task: Tensor) -> Tensor:
        """What tasks of numbers ask of them."""
        ...

    def allowed(self, task: Tensor) -> Tensor:
        """The classes that compete."""
        ...


@dataclass(frozen=True)
class Batch:
    """Rows to learn from: those of the stream first, then what the parts of a strategy added, each part in one run.

    row: int64 [B], row of the dataset, -1 where it was made. task: int64 [B].
    x: [B, ...], as the network sees it. y: int64 [B], class of the stream, -1 where it is missing.
    weight: [B], its share of the loss. allowed: bool [B, C], the classes that compete.
    first_seen: bool [B], shown for the first time in this task.
    shown: bool [B], False for rows that only fill up the last batch of a pass, whose weight is 0.
    progress: 0-d, how much of the task is over, 0 ... 1; 0 throughout where the stream has no task ends.
    draws: numbers in (0, 1) by name, in the shapes that the part asked for.
    target [B, C] and soft [B] are there only once a part set them: the loss of a row is then
    (1 - soft) x hard label + soft x target. numbers [B, C]: what a task of numbers asks for, NaN where nothing is asked.
    bounds: how many rows there were before the first part added any, after it, after the second ...; part: whose view
    this is, -1 for nobody's. Both are Python's, not tensors.
    """

    row: Tensor
    task: Tensor
    x: Tensor
    y: Tensor
    weight: Tensor
    allowed: Tensor
    first_seen: Tensor
    shown: Tensor
    progress: Tensor
    draws: Any = ()
    target: Any = ()
    soft: Any = ()
    numbers: Any = ()
    bounds: tuple[int, ...] = ()
    part: int = -1
    __repr__ = in_brief

    @property
    def stream(self) -> slice:
        """The rows that the stream brought, good for every field and for the outputs."""
        return slice(0, self.bounds[0] if self.bounds else len(self.row))

    @property
    def mine(self) -> slice:
        """The rows that the part whose view this is has added; none before it did."""
        if not 0 <= self.part < len(self.bounds) - 1:
            return slice(len(self.row), len(self.row))
        return slice(self.bounds[self.part], self.bounds[self.part + 1])

    def replace(self, **changes: Any) -> Batch:
        """The batch with some fields changed."""
        return replace(self, **changes)

    def add(
        self,
        problem: LooksUp,
        row: Tensor,
        task: Tensor,
        weight: Tensor,
        *,
        x: Tensor | None = None,
        y: Tensor | None = None,
        allowed: Tensor | None = None,
        target: Tensor | None = None,
        soft: Tensor | None = None,
    ) -> Batch:
        """The batch with R more rows at its end: row, task, weight [R]; the rest is looked up unless it is given."""
        no = torch.zeros_like(row, dtype=torch.bool)
        more = {
            "row": row,
            "task": task,
            "x": problem.x(row, task) if x is None else x,
            "y": problem.y(row, task) if y is None else y,
            "weight": weight,
            "allowed": problem.allowed(task) if allowed is None else allowed,
            "first_seen": no,
            "shown": ~no,
        }
        batch = self
        if isinstance(batch.numbers, Tensor):
            more["numbers"] = problem.numbers(row, task)
        if target is not None or isinstance(batch.target, Tensor):
            batch = batch.softened()
            size = (len(row), batch.target.shape[1])
            more["target"] = batch.target.new_zeros(size) if target is None else target
            whole = torch.ones_like(weight) if soft is None else soft
            more["soft"] = torch.zeros_like(weight) if target is None else whole
        return batch.replace(**{name: torch.cat([getattr(batch, name), value]) for name, value in more.items()})

    def softened(self) -> Batch:
        """The batch with room for soft targets: all hard as yet."""
        if isinstance(self.target, Tensor):
            return self
        return self.replace(
            target=torch.zeros_like(self.allowed, dtype=self.weight.dtype), soft=torch.zeros_like(self.weight)
        )


_TENSORS = tuple(field.name for field in fields(Batch) if field.name not in ("bounds", "part"))
register_pytree_node(
    Batch,
    lambda batch: ([getattr(batch, name) for name in _TENSORS], (batch.bounds, batch.part)),
    lambda leaves, static: Batch(*leaves, *static),
    serialized_type_name="lifelong.core.batch.Batch",
)


class Block(NamedTuple):
    """What the stream shows in K steps, before it is looked up; of members [S, ...] in front, of one step without K.

    row, task: int64 [K, B]. first_seen, shown: bool [K, B]. progress: float64 [K]. draws: by part and name, [K, ...].
    """

    row: Tensor
    task: Tensor
    first_seen: Tensor
    shown: Tensor
    progress: Tensor
    draws: Any
    __repr__ = in_brief

    @property
    def steps(self) -> int:
        """K, of a block of members [S, K, ...]."""
        return self.row.shape[1]

    def columns(self) -> list[tuple[Tensor, ...]]:
        """Each leaf by steps, contiguous: what was recorded of a step must not depend on the block that it is cut from."""
        return [leaf.transpose(0, 1).contiguous().unbind(0) for leaf in tree_leaves(self)]

    def each(self) -> Iterator[Block]:
        """Its steps, one after another, without K."""
        form = tree_flatten(self)[1]
        for step in zip(*self.columns(), strict=True):
            yield tree_unflatten(list(step), form)


class Outputs(NamedTuple):
    """What the objective's one forward pass made: logits [B, C] and features [B, F]."""

    logits: Tensor
    features: Tensor
    __repr__ = in_brief


class Step(NamedTuple):
    """What happened in one step, for `after_step`.

    batch: with all added rows; gradients: of loss and penalties after `grads`, before clipping; outputs; loss: 0-d;
    notes: what the part's `grads` left; previous: the parameters before the step where a part asks for them, else ().
    """

    batch: Batch
    gradients: Params
    outputs: Any
    loss: Tensor
    notes: Any = ()
    previous: Any = ()
    __repr__ = in_brief


class FinishedTask(NamedTuple):
    """A task at its end, for `after_task`, or as far as it is, for `at_milestone`.

    number: 0-d int64; row: int64 [N], its training rows, padded; valid: bool [N], which of them are no padding;
    validation: int64 [V] and validation_valid: bool [V], the rows that nobody trains on; classes: bool [C], those of
    the task; draws: numbers in (0, 1) by name, in the shapes that the part asked for.
    """

    number: Tensor
    row: Tensor
    valid: Tensor
    validation: Tensor
    validation_valid: Tensor
    classes: Tensor
    draws: Any = ()
    __repr__ = in_brief


def normal(uniforms: Tensor) -> Tensor:
    """Standard normal numbers from numbers in (0, 1), by the inverse of the distribution function."""
    return torch.erfinv(2 * uniforms - 1) * 2**0.5
