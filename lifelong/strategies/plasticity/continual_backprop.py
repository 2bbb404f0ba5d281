"""Continual backpropagation (Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood and Sutton, 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.models.base import Net
from lifelong.strategies.expectations import NOTHING_OF_OLD_TASKS, expected
from scenarios.stream import Stream


@dataclass(frozen=True)
class ContinualBackprop(Strategy):
    """Now and then, give up the hidden unit that contributes least, and begin it afresh.

    After each step, in each hidden layer, with h the units' activations on the stream's rows before the step:
        age <- age + 1,    utility <- decay x utility + (1 - decay) x mean |h| x sum_k |w_out|,
        due <- due + rate x (number of units of age > maturity).
    Once due is at least 1, the unit of age > maturity with the least utility / (1 - decay^age) is replaced: its incoming weights
    are drawn afresh, uniform within 1 / sqrt(inputs) as at the start, its bias, outgoing weights, utility and age
    become 0, and due falls by 1. (Dohare et al., 2024, algorithm 1; the division is their code's.)

    At most one unit of a layer is replaced in a step, as in the algorithm; their code replaces all that are due. Adam's
    moments of a replaced unit stay: a strategy does not see the optimiser's state. The authors' Adam sets them to 0; here
    they move the new weights on for some ten steps, by the rate at most in each. SGD without momentum has none. The last
    layer's activations are those of the step; earlier ones take a forward pass of their own.

    Draws: for each hidden layer of n inputs, n numbers a step. Memory: utility and age of each unit, due of each layer.
    Raises StrategyError for numbers out of range, and for a network that is no chain of linear layers.
    """

    rate: float = 0.0001
    decay: float = 0.99
    maturity: int = 100
    off = {"rate": 0.0}
    acts_at_once = True
    requires = Requirements(hooks=True)
    keeps = "utility and age of each hidden unit"
    passes = (2.0, 1.0)
    witness = "a plain float64 loop: tests/reference/witnesses/test_continual_backprop.py"
    defaults = "published"

    def __post_init__(self) -> None:
        require(self, self.rate >= 0 and self.maturity >= 0, "rate and maturity must be at least 0")
        require(self, 0 <= self.decay < 1, "decay is at least 0 and below 1")

    def notes(self, stream: Stream) -> list[str]:
        """That it is made for something else."""
        return expected(NOTHING_OF_OLD_TASKS, "ContinualBackprop", stream)

    def draws(self, problem: Problem) -> Shapes:
        """The incoming weights of a unit that may be replaced, for each hidden layer."""
        net = problem.model.init(problem.shape, problem.classes, torch.Generator())
        return {layer: (len(net[f"{layer}.weight"]),) for layer in layers_of(net)[:-1]}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """utility and age, each [units] by hidden layer; due 0-d by hidden layer."""
        net = params["net"]
        weights = [net[f"{layer}.weight"] for layer in layers_of(net)]
        linear = all(weight.ndim == 2 for weight in weights) and layers_of(net)[-1] == "head"
        chained = linear and all(a.shape[1] == b.shape[0] for a, b in pairwise(weights))
        require(self, chained, "it takes a chain of linear layers, as MLP(400, 400) is")
        zero = {layer: problem.zeros(net[f"{layer}.weight"].shape[1]) for layer in layers_of(net)[:-1]}
        age = {layer: value.clone() for layer, value in zero.items()}
        return params, {"utility": zero, "age": age, "due": {layer: problem.zeros() for layer in zero}}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Leave the gradient, and note mean |h| of each hidden unit: what enters the layer after it."""
        layers, entered = layers_of(params["net"]), {}

        def at(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
            entered[name] = entering
            return leaving

        rows = batch.stream
        problem.logits(params, batch.x[rows], at)
        shown = batch.shown[rows].to(problem.dtype)
        share = shown / shown.sum().clamp(min=1)
        return grads, {layer: share @ entered[after].abs() for layer, after in pairwise(layers)}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Age, weigh, and replace at most one unit of each layer."""
        net = dict(params["net"])
        layers, new = layers_of(net), {name: dict(value) for name, value in memory.items()}
        for layer, after in pairwise(layers):
            weight, bias, out = f"{layer}.weight", f"{layer}.bias", f"{after}.weight"
            age = memory["age"][layer] + 1
            contribution = step.notes[layer] * net[out].abs().sum(1)
            utility = self.decay * memory["utility"][layer] + (1 - self.decay) * contribution
            mature = age > self.maturity
            due = memory["due"][layer] + self.rate * mature.sum().to(age.dtype)
            corrected = (utility / (1 - self.decay**age)).masked_fill(~mature, torch.inf)
            goes = torch.arange(len(age), device=age.device) == corrected.argmin()
            goes = goes & (due >= 1) & mature.any()
            fresh = (2 * step.batch.draws[layer].to(problem.dtype) - 1) / math.sqrt(len(net[weight]))
            net[weight] = torch.where(goes, fresh[:, None], net[weight])
            net[bias] = torch.where(goes, 0.0, net[bias])
            net[out] = torch.where(goes[:, None], 0.0, net[out])
            new["utility"][layer], new["age"][layer] = torch.where(goes, 0.0, utility), torch.where(goes, 0.0, age)
            new["due"][layer] = due - goes.any().to(due.dtype)
        return {**params, "net": net}, new


def layers_of(net: Net) -> list[str]:
    """The names of the layers that have weights, in the order in which rows go through them."""
    return [name.removesuffix(".weight") for name in net if name.endswith(".weight")]
