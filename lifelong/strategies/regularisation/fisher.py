"""The diagonal of the Fisher information, six ways that differ by orders of magnitude and are named for it."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Outputs, Params
from lifelong.core.problem import Problem, log_softmax
from lifelong.core.row_gradients import row_sums, rows_at_once

KINDS = ("exact", "sampled", "predicted", "empirical", "likelihood", "batch")


def fisher(problem: Problem, params: Params, task: FinishedTask, kind: str) -> dict[str, Tensor]:
    """Mean over the task's rows of the squared gradient of log p_c, for each parameter of the net.

    exact: sum_c p_c g_c^2 over the classes open to the row; sampled: c drawn from p, by the numbers task.draws["label"]
    [N]; predicted: c the class of the greatest p; empirical: c the true label (these are van de Ven's four, "all",
    "sample", "pred" and "true"); likelihood: the true label's square times its p (Mammoth's); batch: the square of a
    batch's mean gradient, mean over batches (Avalanche's, as of 0.6).
    """
    net, number = params["net"], task.number.expand(len(task.row))
    share = task.valid.to(problem.dtype) / task.valid.sum()
    if kind == "batch":
        return _of_batches(problem, params, task, number)
    size = rows_at_once(net)
    total = {name: torch.zeros_like(value) for name, value in net.items()}
    uniforms = task.draws["label"] if kind == "sampled" else share
    for row, t, weight, uniform in zip(*(v.split(size) for v in (task.row, number, share, uniforms)), strict=True):
        x, allowed = problem.x(row, t), problem.allowed(t)
        if kind == "exact":
            p = _probabilities(problem, params, x, allowed)
            more = row_sums(problem.model, net, x, _every_class, (allowed,), p * weight[:, None], torch.square)
        else:
            label = problem.y(row, t).clamp(min=0)
            if kind == "sampled":
                p = _probabilities(problem, params, x, allowed)
                label = (p.cumsum(1) < uniform[:, None] * p.sum(1, keepdim=True)).sum(1)
            elif kind == "predicted":
                label = _probabilities(problem, params, x, allowed).argmax(1)
            elif kind == "likelihood":
                weight = weight * _probabilities(problem, params, x, allowed).gather(1, label[:, None])[:, 0]
            more = row_sums(problem.model, net, x, _one_class, (allowed, label), weight[:, None], torch.square)
        total = {name: value + more[name] for name, value in total.items()}
    return total


def _probabilities(problem: Problem, params: Params, x: Tensor, allowed: Tensor) -> Tensor:
    """p of every class [b, C], 0 for those that are not open to the row."""
    return log_softmax(problem.logits(params, x), allowed).exp()


def _every_class(outputs: Outputs, allowed: Tensor) -> Tensor:
    """log p of every class [b, C]."""
    return log_softmax(outputs.logits, allowed)


def _one_class(outputs: Outputs, allowed: Tensor, label: Tensor) -> Tensor:
    """log p of the row's label [b, 1]: one gradient a row."""
    return log_softmax(outputs.logits, allowed).gather(1, label[:, None])


def _of_batches(problem: Problem, params: Params, task: FinishedTask, number: Tensor) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(value) for name, value in params["net"].items()}
    weights = task.valid.to(problem.dtype)
    count = weights.new_zeros(())
    size = problem.batch
    for row, t, weight in zip(task.row.split(size), number.split(size), weights.split(size), strict=True):
        gradient = problem.gradient(params, row, t, weight / weight.sum().clamp(min=1))["net"]
        total = {name: value + gradient[name] ** 2 for name, value in total.items()}
        count = count + (weight.sum() > 0)
    return {name: value / count for name, value in total.items()}
