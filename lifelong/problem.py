"""What never changes while a run goes on, and the batch that a strategy's verbs hand to one another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.model import Described, Model
from scenarios.stream import Table

Params = dict[str, Any]
Memory = Any


class Batch(NamedTuple):
    """Rows to learn from; every field is [B, ...].

    row: row of the table (-1: generated); task: int64; x: pixels; y: class of the stream; weight: its share of the
    loss; part: 0 = from the stream, i = added by part i of the strategy; slot: its place in that part's memory;
    allowed: bool [B, C], the classes that compete; first_seen: bool, shown for the first time in this task;
    uniforms: [B of the stream, U] numbers in (0, 1) that this part asked for. target [B, C] and soft [B] are there
    only once a part set them: the loss of a row is then (1 - soft) x hard label + soft x target. progress: 0-d, how
    much of the task is over, 0 ... 1.
    """

    row: Tensor
    task: Tensor
    x: Tensor
    y: Tensor
    weight: Tensor
    part: Tensor
    slot: Tensor
    allowed: Tensor
    first_seen: Tensor
    uniforms: Tensor
    progress: Tensor
    target: Any = ()
    soft: Any = ()

    def add(
        self,
        problem: Problem,
        row: Tensor,
        task: Tensor,
        weight: Tensor,
        slot: Tensor | None = None,
        x: Tensor | None = None,
        y: Tensor | None = None,
        target: Tensor | None = None,
        soft: Tensor | None = None,
    ) -> Batch:
        """The batch with R more rows at its end: row, task, weight [R]; pixels and labels are looked up unless given."""
        count = row.shape[0]
        x = problem.x(row, task) if x is None else x
        y = problem.y(row, task) if y is None else y
        targets, softness = self.target, self.soft
        if target is not None or isinstance(targets, Tensor):
            if not isinstance(targets, Tensor):
                targets = torch.zeros_like(self.allowed, dtype=self.weight.dtype)
                softness = torch.zeros_like(self.weight)
            more = torch.zeros_like(targets[:1]).expand(count, -1) if target is None else target
            targets = torch.cat([targets, more])
            softness = torch.cat(
                [
                    softness,
                    torch.zeros_like(weight) if target is None else (torch.ones_like(weight) if soft is None else soft),
                ]
            )
        return self._replace(
            row=torch.cat([self.row, row]),
            task=torch.cat([self.task, task]),
            x=torch.cat([self.x, x]),
            y=torch.cat([self.y, y]),
            weight=torch.cat([self.weight, weight]),
            part=torch.cat([self.part, torch.full_like(row, -1)]),
            slot=torch.cat([self.slot, torch.full_like(row, -1) if slot is None else slot]),
            allowed=torch.cat([self.allowed, problem.allowed(task)]),
            first_seen=torch.cat([self.first_seen, torch.zeros_like(row, dtype=torch.bool)]),
            target=targets,
            soft=softness,
        )


class Outputs(NamedTuple):
    """What the objective's one forward pass made: logits [B, C] and features [B, F]."""

    logits: Tensor
    features: Tensor


class Step(NamedTuple):
    """What happened in one step, for `after_step`.

    batch: with all added rows; gradients: of loss and penalties after `grads`, before clipping; outputs; loss: 0-d;
    previous: the parameters before the step where a part asks for them, else ().
    """

    batch: Batch
    gradients: Params
    outputs: Outputs
    loss: Tensor
    previous: Any = ()


class FinishedTask(NamedTuple):
    """A task at its end, for `after_task`.

    number: 0-d int64; row: int64 [N], padded; valid: bool [N]; classes: bool [C], those of the task;
    uniforms: [N, U] that this part asked for; done: 0-d int64, tasks finished before this one.
    """

    number: Tensor
    row: Tensor
    valid: Tensor
    classes: Tensor
    uniforms: Tensor
    done: Tensor


@dataclass(frozen=True)
class Problem:
    """Model and table, shared by all seeds, and the rules of one seed (the fleet maps over them).

    rules: `scenarios.stream.rules` without the leading S. rows_per_class and settings of the stream stand beside.
    """

    model: Model
    table: Table
    rules: dict[str, Tensor]
    setting: str
    classes: int
    tasks: int
    iterations: int
    batch: int
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row, as a network's `init` takes it."""
        if "descriptor" in self.rules:
            return Described(math.prod(self.table.shape), self.rules["descriptor"].shape[-1])
        return self.table.shape

    def x(self, row: Tensor, task: Tensor) -> Tensor:
        """Rows as the network sees them in their task: [B, ...], bytes scaled to 0 ... 1.

        A network that takes a task's descriptor [Z] sees flat rows with the descriptor at their end, [B, F + Z].
        """
        x = self.table.x[row]
        if "permutation" in self.rules:
            x = x.flatten(1).gather(1, self.rules["permutation"][task]).view(x.shape)
        x = scaled(x, self.dtype)
        if "angle" in self.rules:
            x = rotate(x, self.rules["angle"][task].to(self.dtype))
        if "descriptor" in self.rules:
            x = torch.cat([x.flatten(1), self.rules["descriptor"][task].to(self.dtype)], 1)
        return x

    def y(self, row: Tensor, task: Tensor) -> Tensor:
        """Classes of the stream, int64 [B]."""
        return self.rules["label"][task, self.table.y[row]]

    def allowed(self, task: Tensor) -> Tensor:
        """The classes that compete for rows of these tasks, bool [B, C]."""
        return self.rules["allowed"][task]

    def features(self, params: Params, x: Tensor) -> Tensor:
        """The network's features [B, F]."""
        return self.model.features(params["net"], x)

    def logits(self, params: Params, x: Tensor) -> Tensor:
        """The network's scores for all classes [B, C]."""
        return self.model.head(params["net"], self.features(params, x))

    def outputs(self, params: Params, x: Tensor) -> Outputs:
        """Scores and features in one forward pass."""
        features = self.features(params, x)
        return Outputs(self.model.head(params["net"], features), features)

    def loss_rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each row over the classes open to it [B], mixed with its soft target where it has one."""
        log_p = log_softmax(logits, batch.allowed)
        rows = -log_p.gather(1, batch.y[:, None])[:, 0]
        if isinstance(batch.target, Tensor):
            soft = -(batch.target * torch.where(batch.allowed, log_p, torch.zeros_like(log_p))).sum(1)
            rows = (1 - batch.soft) * rows + batch.soft * soft
        return rows

    def gradient(self, params: Params, row: Tensor, task: Tensor, weight: Tensor) -> Params:
        """Gradient of the weighted cross-entropy of some rows with respect to all parameters."""
        allowed, x, y = self.allowed(task), self.x(row, task), self.y(row, task)

        def loss(p: Params) -> Tensor:
            log_p = log_softmax(self.logits(p, x), allowed)
            return -(weight * log_p.gather(1, y[:, None])[:, 0]).sum()

        return torch.func.grad(loss)(params)


def scaled(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows as numbers a network can take: bytes become 0 ... 1, anything else keeps its values."""
    return x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)


def log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Log probabilities [B, C] over the classes that compete; minus infinity for the others."""
    return F.log_softmax(logits.masked_fill(~allowed, -torch.inf), 1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn images [B, H, W] or [B, K, H, W] by angles in degrees [B], bilinear, black outside."""
    images = x if x.ndim == 4 else x[:, None]
    radians = angle * (torch.pi / 180)
    zero = torch.zeros_like(radians)
    rows = [radians.cos(), -radians.sin(), zero, radians.sin(), radians.cos(), zero]
    theta = torch.stack(rows, 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False).view(x.shape)


Start = Callable[[Problem, Params, torch.Generator], Params]
