"""Products of rows' gradients, without forming them where it can be avoided."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Params
from lifelong.core.problem import Problem
from lifelong.models.base import Net


def gradient_products(problem: Problem, params: Params, rows: Batch) -> Tensor:
    """g_i . g_j for each two rows, [N, N], g_i the gradient of the loss of row i by all parameters of the network.

    A linear layer's gradient for a row is the outer product of its input and the slope at its output, and so the
    product of two is (x_i . x_j + 1) (s_i . s_j), 1 for the bias. All other gradients are formed.
    """
    shown: dict[str, torch.Size] = {}

    def look(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
        weight = params["net"].get(f"{name}.weight")
        if problem.model.shows_layers and weight is not None and weight.ndim == 2:
            shown[name] = leaving.shape
        return leaving

    problem.logits(params, rows.x, look)

    def loss(added: Net) -> tuple[Tensor, Net]:
        entered: Net = {}

        def at(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            if name not in added:
                return leaving
            entered[name] = entering
            return leaving + added[name]

        return problem.loss_rows(problem.logits(params, rows.x, at), rows).sum(), entered

    total = rows.weight.new_zeros(len(rows.row), len(rows.row))
    done: set[str] = set()
    if shown:
        slopes, entered = torch.func.grad(loss, has_aux=True)({name: rows.x.new_zeros(shown[name]) for name in shown})
        for name, slope in slopes.items():
            inputs = entered[name].detach()
            bias = int(f"{name}.bias" in params["net"])
            total = total + (inputs @ inputs.T + bias) * (slope @ slope.T)
            done |= {f"{name}.weight", f"{name}.bias"}
    rest = {name: value for name, value in params["net"].items() if name not in done}
    return total + _formed(problem, params, rest, rows) if rest else total


def _formed(problem: Problem, params: Params, rest: Net, rows: Batch) -> Tensor:
    """The same by some parameters, from one gradient for each row."""

    def loss(moving: Net, row: Tensor, task: Tensor) -> Tensor:
        alone = problem.batch_of_rows(row[None], task[None], rows.weight.new_ones(1))
        return problem.objective({**params, "net": {**params["net"], **moving}}, alone)[0]

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(rest, rows.row, rows.task)
    flat = [gradient.flatten(1) for gradient in each.values()]
    return torch.stack([gradient @ gradient.T for gradient in flat]).sum(0)


def cosines(products: Tensor) -> Tensor:
    """Cosines of the angles between gradients from their products, both [N, N]; 0 where one is 0."""
    length = products.diagonal().clamp(min=0).sqrt()
    lengths = length[:, None] * length
    nonzero = lengths > 0
    return torch.where(nonzero, products / torch.where(nonzero, lengths, 1), 0)
