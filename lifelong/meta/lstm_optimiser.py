"""A learned optimiser: the LSTM meta-learner of Ravi and Larochelle (2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch
from lifelong.core.inner_loop import FirstOrder, loss_of
from lifelong.core.learner import Learner, State, merged
from lifelong.core.problem import Problem
from lifelong.meta.adapting import Adapting, check_order, flat, like
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta, params_of
from lifelong.meta.sequence import lstm_cell
from lifelong.models.base import chosen
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.sgd import SGD

SPREAD = 10.0  # how many factors of e below 1 a number's size is told apart
FORGET_BIAS = 5.0  # at first a parameter keeps 99.3 % of itself in a step
SMALL = 0.01  # weights of the gates at first, so that these are their biases


@dataclass(frozen=True, kw_only=True)
class LSTMOptimiser(Adapting):
    """An optimiser that is learned with the start: p_{j+1} = f_j * p_j - i_j * g_j, g_j = grad L(p_j; support).

    The cell's memory is the parameters p themselves, coordinate by coordinate with shared weights: a gate is
    sigmoid(W [h_j, p_j, gate_{j-1}] + b), f forgets, i lets the gradient in, and h_j [H] is a plain LSTM's, whose input are
    g_j and the loss, each as its size and sign (`size_and_sign`). order: 1 takes gradients and losses as constants, as in
    the paper; 2 differentiates through them. rate: i at first. hidden: H. All gates see a step's own loss, before it.
    """

    least: ClassVar[dict[str, int]] = {**Adapting.least, "hidden": 1}

    tasks: int = 4
    query: int = 5
    steps: int = 5
    rate: float = 0.3
    hidden: int = 8
    order: int = 1
    outer: Optimiser = field(default_factory=lambda: Adam(clip=0.25))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self)
        if not 0 < self.rate < 1:
            raise InitialisationError(f"LSTMOptimiser(rate={self.rate}): a gate is between 0 and 1")

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, and the cell: `recurrent` [4 + H, 4 H] and its bias; `forget`, `input` [H + 2] and theirs, 0-d."""
        meta, width = super().init(distribution, generator), self.hidden
        chosen(meta["net"], self.adapts)  # refuses words that select nothing

        def drawn(bound: float, *size: int) -> Tensor:
            return torch.empty(*size).uniform_(-bound, bound, generator=generator)

        cell = {
            "recurrent": drawn(1 / math.sqrt(width), 4 + width, 4 * width),
            "recurrent_bias": torch.zeros(4 * width),
            "forget": drawn(SMALL, width + 2),
            "forget_bias": torch.tensor(FORGET_BIAS),
            "input": drawn(SMALL, width + 2),
            "input_bias": torch.tensor(math.log(self.rate / (1 - self.rate))),
        }
        return {**meta, "cell": {name: p.to(distribution.device, distribution.dtype) for name, p in cell.items()}}

    def inner_learner(self, distribution: TaskDistribution, meta: Meta, way: int) -> tuple[Learner, Any]:
        """A learner whose optimiser is the cell; its state: the cell's weights, h and its memory [P, H], gates [P]."""
        objective = FirstOrder() + distribution.objective if self.order == 1 else distribution.objective
        learner = ByCell(distribution.model, objective, SGD(1.0), self.adapts, self.order)
        moving = flat(learner.trained(params_of(meta)))
        wide = moving.new_zeros(len(moving), self.hidden)
        none = torch.zeros_like(moving)
        return learner, {"cell": meta["cell"], "hidden": wide, "memory": wide, "forget": none, "input": none}

    @property
    def differentiates(self) -> bool:
        """Not in first order, where gradients count as constants."""
        return self.order == 2

    def images(self, distribution: TaskDistribution) -> int:
        """A support image counts at every inner step that it passes the trunk at, twice where that is differentiated too."""
        return self.passed(distribution, 1 if self.adapts == "head" else self.steps * self.order)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return f"{self.test_steps or self.steps} steps of a learned optimiser on {self.adapts}"

    def small(self) -> LSTMOptimiser:
        """Few steps of a narrow cell."""
        return replace(super().small(), steps=2, hidden=2)


@dataclass(frozen=True)
class ByCell(Learner):
    """Gradients and loss as any learner's; the cell, which is the optimiser's state, makes the step of them."""

    order: int = 1

    def step(self, problem: Problem, state: State, batch: Batch) -> State:
        """One step of the cell."""
        step, moving = self.gradients(problem, state, batch), self.trained(state.params)
        loss = step.loss if self.order == 1 else loss_of(problem, state.params, batch)
        moved, optimiser = cell_step(state.optimiser, flat(moving), flat(step.gradients), loss)
        new = merged(state.params, like(moved, moving))
        return self.finish(problem, State(new, optimiser, state.memory), step)


def cell_step(state: Any, p: Tensor, gradient: Tensor, loss: Tensor) -> tuple[Tensor, Any]:
    """p [P] and the cell's state after one step, from the gradient [P] and the loss, 0-d."""
    cell = state["cell"]
    shown = torch.cat(
        [size_and_sign(gradient), size_and_sign(loss).expand(len(p), 2), state["hidden"]], 1
    )  # [P, 4 + H]
    hidden, memory = lstm_cell(shown @ cell["recurrent"] + cell["recurrent_bias"], state["memory"])
    gates = {}
    for name in ("forget", "input"):
        seen = torch.cat([hidden, p[:, None], state[name][:, None]], 1)  # [P, H + 2]
        gates[name] = (seen @ cell[name] + cell[f"{name}_bias"]).sigmoid()
    moved = gates["forget"] * p - gates["input"] * gradient
    return moved, {"cell": cell, "hidden": hidden, "memory": memory, **gates}


def size_and_sign(x: Tensor) -> Tensor:
    """(log |x| / 10, sign x) where |x| >= e^-10, else (-1, e^10 x): [..., 2] of any [...]."""
    least = math.exp(-SPREAD)
    large = x.abs() >= least
    size = torch.where(large, x, torch.ones_like(x)).abs().log() / SPREAD
    return torch.stack([torch.where(large, size, -torch.ones_like(x)), torch.where(large, x.sign(), x / least)], -1)
