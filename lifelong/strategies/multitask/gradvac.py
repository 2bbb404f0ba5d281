"""Gradient Vaccine: gradients are turned until their cosines are what they usually are (Wang et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.strategies.multitask.gradients import GradientSurgery, members
from lifelong.strategies.multitask.surgery import gradvac


@dataclass(frozen=True)
class GradVac(GradientSurgery):
    """PCGrad with a target for each pair of tasks, a running mean of their cosine, instead of 0; see `surgery.gradvac`.

    rho_ij <- (1 - beta) rho_ij + beta cos(g_i', g_j), from 0, in each step in which both have rows; a step uses those from
    before it. So pairs that agree on the whole are pulled together also where they merely agree less. beta = 0 is
    `PCGrad`. g_i, their sum and the random order are as there. (Wang et al., 2021, algorithm 1.)

    What differs from the source: the authors keep a target for each layer, here there is one for the whole network; all i
    visit the others in one order, as in `PCGrad`; and a target stays below 0.9999, for 1 would ask for a turn without end.
    """

    beta: float = 0.01
    defaults = "as other implementations have it"
    of_means = False
    ordered = True
    keeps = "a cosine for each pair of tasks"

    def __post_init__(self) -> None:
        require(self, 0 <= self.beta <= 1, "beta must be between 0 and 1")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """target rho [T, T], 0 at first."""
        return params, {"target": problem.zeros(problem.tasks, problem.tasks)}

    def combination(self, gramian: Tensor, present: Tensor, memory: Memory, batch: Batch) -> tuple[Tensor, Any]:
        """The weights of the sum of the turned gradients; the cosines that were met are for `after_step`."""
        return gradvac(gramian, batch.draws["order"].argsort(), memory["target"])

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Move the targets towards what was met."""
        here = (members(problem, step.batch) & (step.batch.weight > 0)).any(1)
        rate = self.beta * (here & here[:, None]).to(problem.dtype)
        # a target of 1 would ask for a turn without end
        return params, {"target": ((1 - rate) * memory["target"] + rate * step.notes).clamp(max=1 - 1e-4)}
