"""The diagonal of the Fisher information, four ways that differ by orders of magnitude and are named for it."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.problem import FinishedTask, Params, Problem, log_softmax

KINDS = ("exact", "sampled", "empirical", "batch")
CHUNK = 256  # rows at a time: each takes C gradients of every layer, for every seed


def fisher(problem: Problem, params: Params, task: FinishedTask, kind: str) -> dict[str, Tensor]:
    """Mean over the task's rows of the squared gradient of log p_c, for each parameter of the net.

    exact: sum_c p_c g_c^2 over the classes open to the row; sampled: c drawn from p; empirical: c the true label;
    batch: the square of a batch's mean gradient, mean over batches (as Avalanche 0.6 computes it).
    """
    number = task.number.expand(task.row.shape[0])
    share = task.valid.to(problem.dtype) / task.valid.sum()
    if kind == "batch":
        return _of_batches(problem, params, task, number)
    size = CHUNK if hasattr(problem.model, "probed") else 32
    total = {name: torch.zeros_like(value) for name, value in params["net"].items()}
    uniforms = task.uniforms[:, 0] if kind == "sampled" else share
    pieces = zip(*(values.split(size) for values in (task.row, number, share, uniforms)), strict=True)
    for row, t, weight, uniform in pieces:
        x, allowed, y = problem.x(row, t), problem.allowed(t), problem.y(row, t)
        p = log_softmax(problem.logits(params, x), allowed).exp()  # [b, C]
        if kind == "exact":
            chosen = p
        else:
            label = (p.cumsum(1) < uniform[:, None] * p.sum(1, keepdim=True)).sum(1) if kind == "sampled" else y
            chosen = (torch.arange(problem.classes, device=x.device) == label[:, None]).to(p.dtype)
        squares = _probed if hasattr(problem.model, "probed") else _per_row
        more = squares(problem, params["net"], x, allowed, chosen * weight[:, None])
        total = {name: value + more[name] for name, value in total.items()}
    return total


def _probed(problem: Problem, net: dict[str, Tensor], x: Tensor, allowed: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """For linear layers: the square of an outer product is the outer product of the squares, so one matrix product.

    weight [b, C]: how much the squared gradient of each class of each row counts.
    """
    layers = {name[: -len(".weight")]: value.shape[1] for name, value in net.items() if name.endswith(".weight")}
    probes = {name: x.new_zeros(x.shape[0], width) for name, width in layers.items()}

    def answer(zero: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        logits, inputs = problem.model.probed(net, x, zero)  # type: ignore[attr-defined]
        return log_softmax(logits, allowed), inputs

    _, backward, inputs = torch.func.vjp(answer, probes, has_aux=True)  # type: ignore[misc]
    each_class = torch.eye(problem.classes, dtype=x.dtype, device=x.device)
    deltas = torch.func.vmap(lambda c: backward(c.expand(x.shape[0], -1))[0])(each_class)  # each [C, b, out]
    squares = {}
    for name in layers:
        squared = torch.einsum("bc,cbo->bo", weight, deltas[name] ** 2)
        squares[f"{name}.weight"] = (inputs[name] ** 2).T @ squared
        squares[f"{name}.bias"] = squared.sum(0)
    return squares


def _per_row(problem: Problem, net: dict[str, Tensor], x: Tensor, allowed: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """For any model: one gradient for each row and class."""

    def one(own: dict[str, Tensor], row: Tensor, mask: Tensor, each_class: Tensor) -> Tensor:
        log_p = log_softmax(problem.logits({"net": own}, row[None]), mask[None])[0]
        return torch.where(each_class > 0, log_p, torch.zeros_like(log_p)).sum()

    by_class = torch.func.vmap(torch.func.grad(one), (None, None, None, 0))
    each = torch.func.vmap(by_class, (None, 0, 0, None))
    gradients = each(net, x, allowed, torch.eye(problem.classes, dtype=x.dtype, device=x.device))  # [b, C, ...]
    return {name: torch.einsum("bc,bc...->...", weight, value**2) for name, value in gradients.items()}


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
