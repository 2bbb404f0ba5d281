"""Gradient episodic memory, GEM (Lopez-Paz and Ranzato, 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.memory.per_task import KEEP, PerTask
from lifelong.strategies.multitask.gradients import combined, gramian


@dataclass(frozen=True)
class GEM(Strategy):
    """Where a step would raise the loss on the kept rows of any past task, take the nearest direction that raises none.

    g_t: gradient of the mean loss of past task t's kept rows, each among the classes open to it; g: the gradient as the
    parts before this one leave it; each over all parameters that move, as one vector; G [P, parameters]: the g_t. Where some
    g . g_t < 0, g <- g + G'v with v = argmin 1/2 v'(GG' + epsilon I)v + (Gg)'v over v >= margin; else g stays. (Lopez-Paz and
    Ranzato, 2017, eq. 11.) The paper adds the margin to a v >= 0 that was solved for; the authors' code, as is done here,
    bounds v by it, and adds epsilon = 0.001, which keeps the programme solvable where the g_t depend on one another.

    per_task: K rows of each past task, P = T - 1 of them; keep: "last", those that came by last, as in the authors' code,
    or "random". They keep the current task's rows too, but like here constrain by past tasks alone. A step takes the
    gradient of all P tasks at once, of those that are still to come with weight 0. The programme is solved exactly, in
    float64 (see `bounded_minimum`).
    """

    per_task: int = 256
    margin: float = 0.5
    keep: str = "last"
    epsilon: float = 1e-3
    keeps = "rows of each past task"
    sized_by = "per_task"
    runs_network = True
    witness = "a plain float64 loop with SciPy's solution of the programme: tests/reference/witnesses/test_gem.py"
    defaults = "published"
    passes = (5.0, 5.0)  # Split-MNIST: two past tasks in the middle of the stream, 256 rows each beside batches of 128
    off = {"per_task": 0}
    requires = Requirements(task_ends=True, instead="write Replay(weighting='equal')")

    def __post_init__(self) -> None:
        require(self, self.per_task >= 0, "per_task must be at least 0")
        require(self, self.margin >= 0, "margin must be at least 0")
        require(self, self.epsilon > 0, "epsilon must be above 0, or the programme may have no single solution")
        require(self, self.keep in KEEP, f"keep is one of {', '.join(KEEP)}")

    @property
    def memory(self) -> PerTask:
        """What is kept."""
        return PerTask(self.per_task, self.keep)

    def task_draws(self, problem: Problem) -> Shapes:
        """A ticket for each row, where random ones are kept."""
        return self.memory.task_draws(problem)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The memory."""
        return params, self.memory.init(problem)

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Project the network's gradient."""
        if not self.per_task:
            return grads, {}
        row, net = memory["row"], grads["net"]
        number = torch.arange(len(row), device=row.device)[:, None].expand_as(row)

        def of_task(*rows: Tensor) -> Params:
            return problem.gradient(params, *rows)["net"]

        old = torch.func.vmap(of_task)(row, number, self.memory.weights(memory, batch.weight))
        old = {name: old[name] for name in net}  # those that move
        dots = torch.stack([gradient.reshape(1, -1) @ old[name].flatten(1).T for name, gradient in net.items()]).sum(0)[
            0
        ]
        matrix = gramian(old).to(torch.float64) + self.epsilon * torch.eye(len(row), device=row.device)
        v = bounded_minimum(matrix, dots.to(torch.float64), self.margin + torch.zeros_like(matrix[0]))
        wanted = memory["filled"].any(1) & (dots < 0).any()
        return combined(grads, old, torch.where(wanted, v.to(dots.dtype), 0)), {}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Let the stream's rows come by."""
        return params, self.memory.see(memory, step.batch)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Keep rows of this task."""
        return params, self.memory.insert(memory, task)


def bounded_minimum(matrix: Tensor, linear: Tensor, bound: Tensor) -> Tensor:
    """argmin 1/2 v'Av + b'v over v >= bound, A positive definite [n, n], b and bound [n]: exact, in a fixed number of rounds.

    Some v_i lie above their bound, free, and their slope is 0; the others lie on it, and theirs is not negative. Each round
    solves for the free ones, and moves those that break this to the other side: all of them while they become fewer, now
    and then, else the last one alone, which cannot run in circles. (Block principal pivoting: Judice and Pires, 1994.) Once
    none breaks it, nothing moves any more.
    """
    n = len(linear)
    eye, slope_at_bound = torch.eye(n, dtype=matrix.dtype, device=matrix.device), matrix @ bound + linear
    free, fewest, patience = slope_at_bound < 0, linear.new_full((), n + 1), linear.new_full((), 3)
    above = torch.zeros_like(linear)
    for _ in range(10 + 5 * n):
        inside = torch.where(free[:, None] & free, matrix, eye)
        above = torch.linalg.solve_ex(inside, torch.where(free, -slope_at_bound, 0))[0]
        slope = matrix @ above + slope_at_bound
        broken = torch.where(free, above < 0, slope < 0)
        count = broken.sum().to(linear.dtype)
        fewer = count < fewest
        patience = torch.where(fewer, torch.full_like(patience, 3), patience - 1)
        fewest = torch.minimum(fewest, count)
        last = broken & (broken.to(torch.int8).flip(0).cumsum(0).flip(0) == 1)
        free = free ^ torch.where(patience >= 0, broken, last)
    return bound + above.clamp(min=0)
