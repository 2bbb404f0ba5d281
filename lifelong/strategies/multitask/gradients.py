"""The gradient of each task in a batch, and their combination: what surgery is done on."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy
from lifelong.models.base import Net
from scenarios.stream import Stream

GAINS = (
    "{} acts on tasks that are learned together: run it with --baseline joint. Gains over equal weights are seldom clear;"
    " hold it against the plain joint run on the same seeds."
)
PASSES = "each step takes one forward pass and a backward pass for each task"


WITNESS = "closed forms, a solver and autograd's gradients: tests/reference/test_gradient_surgery.py"


class GradientSurgery(Strategy):
    """What methods share that step along a combination of the tasks' gradients; they fill in `combination`.

    of_means: whether g_i is the gradient of L_i, the mean loss of task i's rows in the batch, and the plain step is a mean
    of them; else it is that of task i's share of the batch, and the plain step is their sum. A row's weight that another
    part scaled, as `TaskWeights` does, scales g_i. ordered: whether the tasks are visited in a random order.
    """

    of_means: ClassVar[bool] = True
    ordered: ClassVar[bool] = False
    keeps = "nothing"
    witness = WITNESS
    task_passes = (0.0, 1.0)
    requires = Requirements(paradigm="joint")
    own_gradient = True

    def draws(self, problem: Problem) -> Shapes:
        """An order of the tasks, where they are visited in one."""
        return {"order": (problem.tasks,)} if self.ordered else {}

    def notes(self, stream: Stream) -> list[str]:
        """What it costs and what to expect."""
        return [GAINS.format(type(self).__name__), PASSES]

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """Weights [T] of the gradients, and notes for `after_step`; gramian [T, T], present bool [T]."""
        raise NotImplementedError

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The combined gradient; penalties' gradients stay as they came."""
        of_task = members(problem, batch)
        share = of_task.to(batch.weight.dtype)
        if self.of_means:
            share = share * batch.weight.shape[0] / of_task.sum(1, keepdim=True).clamp(min=1)
        each = task_gradients(problem, params, batch, grads, share)[1]
        present = (of_task & (batch.weight > 0)).any(1)
        weights, notes = self.combination(gramian(each), present, memory, batch)
        return combined(grads, each, weights), notes


def members(problem: Problem, batch: Batch) -> Tensor:
    """Which rows of a batch belong to which task, bool [T, B]."""
    return torch.arange(problem.tasks, device=batch.task.device)[:, None] == batch.task


def task_losses(problem: Problem, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """L_i, the mean loss of the rows of task i that the batch shows, 0 where it shows none [T]; and where it does, bool [T]."""
    of_task = (members(problem, batch) & batch.shown).to(batch.weight.dtype)
    count = of_task.sum(1)
    return of_task @ problem.loss_rows(logits, batch) / count.clamp(min=1), count > 0


def task_gradients(problem: Problem, params: Params, batch: Batch, grads: Params, share: Tensor) -> tuple[Tensor, Net]:
    """sum_b share_ib w_b l_b for each task i [T], and its gradient, every leaf [T, ...]: one forward pass, T backward.

    share: [T, B], how much of each row's weighted loss counts for each task. Only of the parameters that `grads` holds:
    the fixed ones take no part in a conflict.
    """
    moving = {name: params["net"][name] for name in grads["net"]}

    def losses(net: Net) -> Tensor:
        logits = problem.logits({**params, "net": {**params["net"], **net}}, batch.x)
        return share @ (batch.weight * problem.loss_rows(logits, batch))

    value, backward = torch.func.vjp(losses, moving)[:2]
    each_task = torch.eye(problem.tasks, dtype=share.dtype, device=share.device)
    return value, torch.func.vmap(lambda cotangent: backward(cotangent)[0])(each_task)


def gramian(each: Net) -> Tensor:
    """Inner products of the tasks' gradients over all parameters [T, T], from leaves [T, ...]."""
    flat = [leaf.flatten(1) for leaf in each.values()]
    return torch.stack([leaf @ leaf.T for leaf in flat]).sum(0)


def combined(grads: Params, each: Net, weights: Tensor) -> Params:
    """The gradient with sum_i weights_i g_i added; what other parts' penalties brought stays."""
    net = {name: gradient + torch.tensordot(weights, each[name], 1) for name, gradient in grads["net"].items()}
    return {**grads, "net": net}
