"""FAMO: the worst relative improvement is raised, at the cost of a forward pass (Liu, Feng, Stone and Liu, 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.multitask.gradients import GAINS, task_losses
from scenarios.stream import Stream

SMALLEST = 1e-8  # of a loss whose logarithm is taken


@dataclass(frozen=True)
class FAMO(Strategy):
    """Fast adaptive multi-task optimisation: descend c sum_i z_i log(L_i - bound), z = softmax(xi), 1 / c = sum_i z_i / (L_i - bound).

    So task i counts a_i = T c z_i / (L_i - bound): loss = sum_i a_i n_i / B L_i, L_i the mean loss of the batch's n_i rows of task
    i, of B. After the step the same rows are scored again: delta_i = log(L_i - bound before) - log(L_i - bound after), and xi takes a
    step of Adam at `rate` down J^T delta, J the Jacobian of softmax, with weight decay `decay`: a task that improved much counts
    less next. bound: what no loss falls below. The paper's a_i add up to 1; here to the number of tasks present, so that equal ones are the plain joint
    loss. Of the tasks with rows in the batch; the others' xi get no gradient.
    """

    rate: float = 0.025
    decay: float = 0.001
    bound: float = 0.0
    keeps = "three numbers for each task"
    witness = "its formula, in a plain float64 loop with torch's Adam: tests/reference/test_task_weights.py"
    defaults = "the authors' for NYUv2"
    passes = (2.0, 1.0)
    requires = Requirements(paradigm="joint")

    def __post_init__(self) -> None:
        require(self, self.rate > 0 and self.decay >= 0, "rate must be above 0, decay at least 0")

    def notes(self, stream: Stream) -> list[str]:
        """What to expect."""
        return [GAINS.format("FAMO")]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """xi and its moments [T], 0 at first; steps: it moves after the network, and so not with the network's optimiser."""
        each = {name: problem.zeros(problem.tasks) for name in ("xi", "first", "second")}
        return params, {**each, "steps": problem.zeros()}

    def shares(self, memory: Memory, present: Tensor) -> Tensor:
        """z over the tasks that are present, 0 for the others [T]."""
        each = torch.softmax(memory["xi"], 0) * present
        return each / torch.where(each.sum() > 0, each.sum(), 1)

    def above(self, losses: Tensor) -> Tensor:
        """L - bound, above 0."""
        return (losses - self.bound).clamp(min=0) + SMALLEST

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """sum_b w_b a_i l_b, i the task of row b; the a_i are constants."""
        outputs = problem.outputs(params, batch.x)
        losses, present = task_losses(problem, outputs.logits.detach(), batch)
        each = self.shares(memory, present) / self.above(losses)
        weights = present.sum() * each / torch.where(each.sum() > 0, each.sum(), 1)
        return (batch.weight * weights[batch.task] * problem.loss_rows(outputs.logits, batch)).sum(), outputs

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Score the same rows again; move xi."""
        before, present = task_losses(problem, step.outputs.logits, step.batch)
        after, _ = task_losses(problem, problem.logits(params, step.batch.x), step.batch)
        gained = torch.where(present, self.above(before).log() - self.above(after).log(), 0)  # delta
        share = self.shares(memory, present)
        slope = share * (gained - (share * gained).sum()) + self.decay * memory["xi"]
        return params, self.moved(memory, slope)

    def moved(self, memory: Memory, slope: Tensor) -> Memory:
        """xi after a step of Adam (betas 0.9 and 0.999)."""
        steps = memory["steps"] + 1
        first = 0.9 * memory["first"] + 0.1 * slope
        second = 0.999 * memory["second"] + 0.001 * slope * slope
        # rate times a quotient: a number and a tensor of it then round alike in a varied fleet
        length = (second / (1 - 0.999**steps)).sqrt() + SMALLEST
        xi = memory["xi"] - self.rate * (first / (1 - 0.9**steps) / length)
        return {"xi": xi, "first": first, "second": second, "steps": steps}
