"""Orthogonal gradient descent, OGD (Farajtabar, Azizi, Mott and Li, 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.models.base import Net
from lifelong.strategies.expectations import expected
from scenarios.stream import Stream

REST = 1e-4  # of a gradient's length: what is left of it below this is rounding, and no direction
WITH_ADAM = (
    "{} makes gradients orthogonal to what old answers depend on, and Adam divides each weight's by its own scale, so that"
    " the steps are not: use --optimiser 'SGD(0.05)', which is what the authors do, or write {}."
)
OF = ("gradient", "movement")
BANDS = {
    "class": "OGD in class-incremental streams: expect about 1 / T of the classes, unless another part brings old rows. On"
    " split-digits: 19.9 %, as fine-tuning (our own table, docs/methods.md); its authors split streams with a head for"
    " each task (Farajtabar et al., 2020): try --setting task."
}


@dataclass(frozen=True)
class OGD(Strategy):
    """Step at right angles to all directions in which the right answers' scores of old rows would change.

    g <- g - sum_m (g . u_m) u_m. At a task's end, of `per_task` random rows of it the gradient of the score of the row's
    class; Gram-Schmidt makes these the next directions u_m: each less its share along all directions before it, at
    length 1. (Farajtabar et al., 2020, algorithm 1, in the variant that they advise, OGD-GTL.) What is left of a gradient
    below 0.0001 of its length makes no direction. of: "movement" projects the optimiser's step, too: the same for plain gradient
    descent, which is the authors' and where "gradient" will do, and what keeps the promise with moments or Adam. Directions are vectors over the whole network: with `trainable` other
    than "all" they no longer stand at right angles to the part that moves.

    Memory: M = (T - 1) x per_task directions of the network's size, the last task's are never asked for. The authors keep 200 rows
    of each task, for networks a fifth as large.
    """

    per_task: int = 40
    of: str = "movement"
    keeps = "40 directions of the network's size for each past task"
    runs_network = True
    witness = "a plain float64 loop: tests/reference/witnesses/test_ogd.py"
    defaults = "ours"
    off = {"per_task": 0}
    requires = Requirements(task_ends=True, classes=True)

    def __post_init__(self) -> None:
        require(self, self.per_task >= 0, "per_task must be at least 0")
        require(self, self.of in OF, f"of is one of {', '.join(OF)}")

    @property
    def previous_params(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """To know the movement."""
        return self.of == "movement" and self.per_task > 0

    def notes(self, stream: Stream) -> list[str]:
        """With which optimiser it does what it says, and what to expect."""
        unmoved = [WITH_ADAM.format("OGD", "OGD()")] if self.of == "gradient" else []
        return unmoved + expected(BANDS, "OGD", stream)

    def task_draws(self, problem: Problem) -> Shapes:
        """A ticket for each row."""
        return {"ticket": (problem.task_rows,)} if self.per_task else {}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """No direction yet: zeros [M, ...] for each parameter."""
        count = max(problem.tasks - 1, 1) * self.per_task
        return params, {name: value.new_zeros(count, *value.shape) for name, value in params["net"].items()}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Take out of the network's gradient what lies along the directions."""
        return {**grads, "net": without(grads["net"], memory)} if self.per_task else grads, {}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """The same with the movement, where that is wanted."""
        if not self.previous_params:
            return params, memory
        net, before = params["net"], step.previous["net"]
        # of weights that are fixed there is no gradient, and what the others' movement has along old directions is not theirs
        moved = without({name: net[name] - before[name] for name in step.gradients["net"]}, memory)
        return {**params, "net": {**net, **{name: before[name] + value for name, value in moved.items()}}}, memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Add the task's directions."""
        if not self.per_task:
            return params, memory
        count = min(self.per_task, len(task.row))
        ticket, place = torch.where(task.valid, task.draws["ticket"], torch.inf).topk(count, largest=False)
        new = score_gradients(problem, params, task.row[place], task.number.expand(count), ticket.isfinite())
        old = torch.cat([directions.flatten(1) for directions in memory.values()], 1)  # [M, parameters]
        new = torch.cat([gradient.flatten(1) for gradient in new.values()], 1)
        new = upright(new, old)
        slot = torch.arange(len(old), device=old.device) - task.number * self.per_task
        ours = (slot >= 0) & (slot < count)
        found = torch.where(ours[:, None], new[slot.clamp(0, count - 1)], old)
        pieces = found.split([directions[0].numel() for directions in memory.values()], 1)
        return params, {name: piece.view_as(memory[name]) for name, piece in zip(memory, pieces, strict=True)}


def without(change: Net, directions: Net) -> Net:
    """A change of the network without what lies along the directions, each [M, ...]."""
    found = {name: directions[name].flatten(1) for name in change}
    # products of matrices, of one row: those with a vector round otherwise alone than in a fleet
    along = torch.stack([change[name].view(1, -1) @ u.T for name, u in found.items()]).sum(0)  # [1, M]
    return {name: change[name] - (along @ u).view_as(change[name]) for name, u in found.items()}


def score_gradients(problem: Problem, params: Params, row: Tensor, number: Tensor, valid: Tensor) -> Net:
    """The gradient of the score of each row's class, 0 for rows that are none: each leaf [K, ...]."""
    x, y = problem.x(row, number), problem.y(row, number)
    scale = (valid & (y >= 0)).to(problem.dtype)

    def score(net: Net, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return scale * problem.logits({**params, "net": net}, x[None])[0].gather(0, y[None])[0]

    return torch.func.vmap(torch.func.grad(score), (None, 0, 0, 0))(params["net"], x, y.clamp(min=0), scale)


def upright(new: Tensor, old: Tensor) -> Tensor:
    """Vectors [K, n] made orthogonal to old directions [M, n] and to one another, of length 1, or 0 where nothing is left."""
    length = new.norm(dim=1)
    for _ in range(2):  # once leaves rounding errors
        new = new - new @ old.T @ old
    at = torch.arange(len(new), device=new.device)
    for k in range(len(new)):
        rest = new[k].norm()
        unit = torch.where(rest > REST * length[k], new[k] / rest.clamp(min=torch.finfo(new.dtype).tiny), 0)
        later = torch.where(at > k, (new * unit).sum(1), 0)  # what the vectors that follow have along it
        new = torch.where((at == k)[:, None], unit, new - later[:, None] * unit)
    return new
