"""The gradient of each task in a batch, and their combination: what surgery is done on."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Params
from lifelong.core.problem import Problem
from lifelong.models.base import Net

GAINS = (
    "{} acts on tasks that are learned together: run it with --baseline joint. Gains over equal weights are seldom clear;"
    " hold it against the plain joint run on the same seeds."
)
PASSES = "each step takes one forward pass and a backward pass for each task"


def members(problem: Problem, batch: Batch) -> Tensor:
    """Which rows of a batch belong to which task, bool [T, B]."""
    return torch.arange(problem.tasks, device=batch.task.device)[:, None] == batch.task


def task_gradients(problem: Problem, params: Params, batch: Batch, grads: Params, share: Tensor) -> Net:
    """The gradient of sum_b share_ib w_b l_b for each task i, every leaf [T, ...]: one forward pass, T backward.

    share: [T, B], how much of each row's weighted loss counts for each task. Only of the parameters that `grads` holds:
    the fixed ones take no part in a conflict.
    """
    moving = {name: params["net"][name] for name in grads["net"]}

    def losses(net: Net) -> Tensor:
        logits = problem.logits({**params, "net": {**params["net"], **net}}, batch.x)
        return share @ (batch.weight * problem.loss_rows(logits, batch))

    backward = torch.func.vjp(losses, moving)[1]
    each_task = torch.eye(problem.tasks, dtype=share.dtype, device=share.device)
    return torch.func.vmap(lambda cotangent: backward(cotangent)[0])(each_task)


def gramian(each: Net) -> Tensor:
    """Inner products of the tasks' gradients over all parameters [T, T], from leaves [T, ...]."""
    flat = [leaf.flatten(1) for leaf in each.values()]
    return torch.stack([leaf @ leaf.T for leaf in flat]).sum(0)


def combined(grads: Params, each: Net, weights: Tensor) -> Params:
    """The gradient with sum_i weights_i g_i added; what other parts' penalties brought stays."""
    net = {name: gradient + torch.tensordot(weights, each[name], 1) for name, gradient in grads["net"].items()}
    return {**grads, "net": net}
