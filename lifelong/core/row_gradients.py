"""Sums over rows of the squares, or of the absolute values, of each row's own gradient, without forming it where it can
be avoided: importances of weights are such sums.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Outputs
from lifelong.models.base import Hook, Model, Net

Power = Callable[[Tensor], Tensor]
Answers = Callable[..., Tensor]  # answers(outputs, *given)
ROWS = 128  # rows at a time; those of a finished task are padded to a multiple, so that pieces do not depend on it
ROWS_OF_IMAGES = 32  # the same where each row's gradient is formed


def rows_at_once(net: Net) -> int:
    """How many rows are taken together: fewer where a layer is more than a matrix."""
    return ROWS if all(value.ndim <= 2 for value in net.values()) else ROWS_OF_IMAGES


def row_sums(
    model: Model, net: Net, x: Tensor, answers: Answers, given: tuple[Tensor, ...], weight: Tensor, power: Power
) -> Net:
    """sum over rows b and answers k of weight_bk power(d answer_k(x_b) / d p), for each parameter p of the net.

    x: [b, ...]; answers: outputs and what is given of the rows, [b, ...] each -> [b, K], row by row; weight: [b, K];
    power: one for which power(u v) = power(u) power(v), as torch.abs and torch.square. A layer that the network's hook shows is summed by its inputs and the gradients at
    its outputs; what is left is summed from one gradient for each row and answer. (Exact: no approximation.)
    """
    shown: dict[str, torch.Size] = {}

    def look(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
        shown[name] = leaving.shape
        return leaving

    if model.shows_layers:
        _outputs(model, net, x, look)
    seen = {name for name in shown if f"{name}.weight" in net or name.endswith(".norm")}
    probes = {name: x.new_zeros(shown[name]) for name in seen}

    def probed(added: Net) -> tuple[Tensor, Net]:
        entered: Net = {}

        def at(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            if name not in added:
                return leaving
            entered[name] = entering
            return leaving + added[name]

        return answers(_outputs(model, net, x, at), *given), entered

    sums: Net = {}
    if probes:
        _, backward, entered = torch.func.vjp(probed, probes, has_aux=True)  # pyright: ignore[reportAssignmentType] # torch has one type for both its forms
        unit = torch.eye(weight.shape[1], dtype=x.dtype, device=x.device)
        slopes = torch.func.vmap(lambda k: backward(k.expand(len(x), -1))[0])(unit)  # each [K, b, ...]
        for name in probes:
            sums |= _of_layer(name, net, entered[name], slopes[name], weight, power)
    rest = {name: value for name, value in net.items() if name not in sums}
    return {name: {**sums, **_formed(model, net, rest, x, answers, given, weight, power)}[name] for name in net}


def _of_layer(name: str, net: Net, entered: Tensor, slope: Tensor, weight: Tensor, power: Power) -> Net:
    """The sums of one layer's parameters from its input [b, ...] and the gradient at its output [K, b, ...]."""
    if name.endswith(".norm"):
        layer = name.removesuffix(".norm")
        by_channel = {"scale": (slope * entered).sum((-2, -1)), "shift": slope.sum((-2, -1))}
        return {f"{layer}.{part}": torch.einsum("bk,kbc->c", weight, power(g)) for part, g in by_channel.items()}
    kernel = net[f"{name}.weight"]
    if kernel.ndim == 4:
        height = kernel.shape[-1]
        stride = round(entered.shape[-1] / slope.shape[-1])
        patches = F.unfold(entered, height, padding=height // 2, stride=stride)  # [b, K h w, L]
        each = torch.einsum("kbol,bpl->kbop", slope.flatten(3), patches)
        found = {"weight": torch.einsum("bk,kbop->op", weight, power(each)).view(kernel.shape)}
        bias = torch.einsum("bk,kbo->bo", weight, power(slope.sum((-2, -1))))
    else:  # the power of an outer product is the outer product of the powers: one matrix product
        bias = torch.einsum("bk,kbo->bo", weight, power(slope))
        found = {"weight": power(entered).T @ bias}
    if f"{name}.bias" in net:  # over rows by a plain sum: a product with a vector is another kernel in a fleet of one
        found["bias"] = bias.sum(0)
    return {f"{name}.{part}": value for part, value in found.items()}


def _formed(
    model: Model, net: Net, rest: Net, x: Tensor, answers: Answers, given: tuple[Tensor, ...], weight: Tensor,
    power: Power,
) -> Net:  # fmt: skip
    """For any parameter: one gradient for each row and answer."""
    if not rest:
        return {}

    def answer(moving: Net, unit: Tensor, row: Tensor, *about: Tensor) -> Tensor:
        outputs = _outputs(model, {**net, **moving}, row[None])
        return (answers(outputs, *(value[None] for value in about))[0] * unit).sum()

    unit = torch.eye(weight.shape[1], dtype=x.dtype, device=x.device)
    one_row = (None, None, *[0] * (1 + len(given)))
    by_answer = torch.func.vmap(torch.func.grad(answer), (None, 0, *[None] * (1 + len(given))))
    each = torch.func.vmap(by_answer, one_row)(rest, unit, x, *given)
    return {name: torch.einsum("bk,bk...->...", weight, power(value)) for name, value in each.items()}


def _outputs(model: Model, net: Net, x: Tensor, at: Hook | None = None) -> Outputs:
    features = model.features(net, x, at)
    return Outputs(model.head(net, features, at), features)
