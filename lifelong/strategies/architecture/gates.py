"""Hidden units that are gated by task: what XdG and HAT share."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.batch import Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Strategy
from lifelong.models.base import Hook, Net


def hidden_layers(problem: Problem, params: Params) -> dict[str, int]:
    """The hidden layers in order, and their units, or channels: where a norm follows a convolution, the norm."""
    units: dict[str, int] = {}

    def look(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
        units.pop(name.removesuffix(".norm"), None)
        units[name] = leaving.shape[1]
        return leaving

    row = problem.index["rows_train"][0, :1]
    problem.features(params, problem.x(row, torch.zeros_like(row)), look)
    return units


def gated_by(gates: Net) -> Hook:
    """A hook that multiplies each hidden layer by the gates of each row, at least 0, [B, H]: before or after a rectified
    linear unit is the same."""

    def at(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
        if name not in gates:
            return leaving
        return leaving * gates[name].view(*gates[name].shape, *[1] * (leaving.ndim - 2))

    return at


def ungated(gates: Strategy, other: Strategy) -> list[str]:
    """What is to be expected of a part that runs the network by itself, and so without the gates of another."""
    if not other.runs_network:
        return []
    words = f"{type(other).__name__} runs the network by itself, without the gates of {type(gates).__name__}"
    return [f"{words}; of one with gates of its own, Conditioned(MLP(400, 400), by='gates'), it sees them"]
