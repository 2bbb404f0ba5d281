"""Gradient projection memory, GPM (Saha, Garg and Roy, 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.models.base import Net
from lifelong.strategies.expectations import expected
from lifelong.strategies.projection.ogd import OF, WITH_ADAM
from scenarios.stream import Stream

BANDS = {
    "class": "GPM in class-incremental streams: expect less than of replay in as many bytes. On Split-MNIST: 66.5 %, replay"
    " 95.5 (our own table, docs/methods.md); its authors split streams with a head for each task (Saha et al., 2021): try"
    " --setting task."
}


@dataclass(frozen=True)
class GPM(Strategy):
    """Learn in each layer only along inputs that old tasks did not have.

    A layer's gradient lies in the span of its inputs. dW <- dW - S dW with S [F, F] the projector onto those that count,
    F inputs, and one that is always 1 for the bias. At the end of task t, R [F, n] being the inputs of `rows` random rows
    of it, the eigenvectors of (I - S) R R' (I - S) with the largest eigenvalues join S, as few as it takes until
    |S R|^2 >= (threshold + growth x t) |R|^2. (Saha et al., 2021, eq. 4 to 9; thresholds as in the authors' code.)

    A convolution's inputs are its patches. Task-incremental streams leave the head alone, whose columns are the tasks' own.
    What no layer's input explains, scale and shift of norms, is fixed after the first task, as the authors do. Their networks
    have no biases; their code stops short of a first task's threshold by one direction, here as in the paper it is reached.
    of: "movement" projects the optimiser's step, too, which keeps the promise with moments carried over tasks, weight decay or
    Adam; "gradient" alone is what the authors do, by plain gradient descent, where it is the same.
    """

    threshold: float = 0.97
    growth: float = 0.003
    rows: int = 300
    of: str = "movement"
    keeps = "for each layer a matrix, inputs x inputs"
    runs_network = True
    witness = "a plain float64 loop with NumPy's singular vectors: tests/reference/witnesses/test_gpm.py"
    defaults = "published for CIFAR-100; rows for permuted MNIST"
    requires = Requirements(task_ends=True, hooks=True)

    def __post_init__(self) -> None:
        require(self, 0 < self.threshold <= 1, "threshold is a share, above 0 and at most 1")
        require(self, self.growth >= 0, "growth must be at least 0")
        require(self, self.rows >= 1, "rows must be at least 1")
        require(self, self.of in OF, f"of is one of {', '.join(OF)}")

    @property
    def previous_params(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """To know the movement."""
        return self.of == "movement"

    def notes(self, stream: Stream) -> list[str]:
        """With which optimiser it does what it says, and what to expect."""
        unmoved = [WITH_ADAM.format("GPM", "GPM()")] if self.of == "gradient" else []
        return unmoved + expected(BANDS, "GPM", stream)

    def task_draws(self, problem: Problem) -> Shapes:
        """A ticket for each row."""
        return {"ticket": (problem.task_rows,)}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """S of each layer, 0 as yet, and tasks done."""
        row = problem.index["rows_train"][0, :1]
        inputs = layer_inputs(problem, params, problem.x(row, torch.zeros_like(row)))
        return params, {
            "span": {name: problem.zeros(x.shape[1], x.shape[1]) for name, x in inputs.items()},
            "done": problem.zeros(),
        }

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Take the old inputs' share out of each layer's gradient."""
        return {**grads, "net": projected(problem, memory, grads["net"])}, {}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """The same with the movement, where that is wanted."""
        if not self.previous_params:
            return params, memory
        net, before = params["net"], step.previous["net"]
        moved = projected(problem, memory, {name: net[name] - before[name] for name in net})
        return {**params, "net": {name: before[name] + moved[name] for name in net}}, memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Let the task's inputs count."""
        count = min(self.rows, len(task.row))
        ticket, place = torch.where(task.valid, task.draws["ticket"], torch.inf).topk(count, largest=False)
        inputs = layer_inputs(problem, params, problem.x(task.row[place], task.number.expand(count)))
        share = self.threshold + self.growth * task.number
        span = {}
        for name, seen in inputs.items():
            valid = ticket.isfinite().repeat_interleave(len(seen) // count)[:, None]
            span[name] = widened(memory["span"][name], torch.where(valid, seen, 0), share)
        return params, {"span": span, "done": memory["done"] + 1}


def layer_inputs(problem: Problem, params: Params, x: Tensor) -> Net:
    """What enters each layer that is projected: [n, F], of images [n x places, F]; at the end 1, where it has a bias."""
    net, inputs = params["net"], {}

    def look(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
        if f"{name}.weight" not in net or (name == "head" and problem.setting == "task"):
            return leaving
        seen, kernel = entering, net[f"{name}.weight"]
        if kernel.ndim == 4:
            stride, side = round(entering.shape[-1] / leaving.shape[-1]), kernel.shape[-1]
            seen = F.unfold(entering, side, padding=side // 2, stride=stride).transpose(1, 2).flatten(0, 1)
        inputs[name] = torch.cat([seen, torch.ones_like(seen[:, :1])], 1) if f"{name}.bias" in net else seen
        return leaving

    problem.logits(params, x, look)
    return inputs


def projected(problem: Problem, memory: Memory, change: Net) -> Net:
    """A change of the network without what lies along old inputs."""
    first, result = memory["done"] == 0, {}
    for name, value in change.items():
        layer, _, part = name.rpartition(".")
        if layer in memory["span"] and part in ("weight", "bias"):
            continue
        free = name.startswith("head.") and problem.setting == "task"
        result[name] = value if free else torch.where(first, value, 0)
    for layer, span in memory["span"].items():
        weight, bias = change.get(f"{layer}.weight"), change.get(f"{layer}.bias")
        if weight is None:  # it is fixed
            continue
        rows = weight.flatten(1).T if weight.ndim == 4 else weight  # [F, outputs]
        if len(span) > len(rows):
            rows = torch.cat([rows, torch.zeros_like(rows[:1]) if bias is None else bias[None]])
        rows = rows - span @ rows
        if bias is not None:
            result[f"{layer}.bias"], rows = rows[-1], rows[:-1]
        kept = rows[: weight[0].numel()] if weight.ndim == 4 else rows[: len(weight)]
        result[f"{layer}.weight"] = kept.T.reshape(weight.shape) if weight.ndim == 4 else kept
    return {name: result.get(name, value) for name, value in change.items()}


def widened(span: Tensor, inputs: Tensor, share: float | Tensor) -> Tensor:
    """The projector [F, F] with the fewest directions more that it takes to hold a share of the inputs' squares, [n, F]."""
    rest = inputs - inputs @ span
    total = inputs.square().sum().clamp(min=torch.finfo(inputs.dtype).tiny)
    energy, directions = torch.linalg.eigh(rest.T @ rest)  # ascending
    energy, directions = energy.flip(0).clamp(min=0), directions.flip(1)
    held = 1 - (energy.sum() - (energy.cumsum(0) - energy)) / total  # before each joins
    rounding = len(span) * torch.finfo(inputs.dtype).eps
    joins = torch.where((held < share) & (energy > rounding * total), directions, 0)
    return span + joins @ joins.T
