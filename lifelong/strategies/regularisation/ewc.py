"""Elastic weight consolidation (Kirkpatrick et al., 2017; online: Schwarz et al., 2018; Huszar, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lifelong.core.batch import Batch, FinishedTask, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.strategies.expectations import WITHOUT_OLD_DATA, expected
from lifelong.strategies.regularisation.fisher import KINDS, fisher
from lifelong.strategies.regularisation.quadratic import quadratic_gradient
from scenarios.stream import Stream


@dataclass(frozen=True)
class EWC(Strategy):
    """Hold each weight near its past values, as firmly as it mattered there.

    penalty = strength / 2 x sum_k sum_i F_ki (p_i - p_ki)^2, one term k for each past task. The sum of paraboloids is
    one paraboloid, F = sum_k F_k around c = sum_k F_k p_k / F, so nothing grows. online: one term around the latest
    weights, with F <- decay x F + F_k. fisher: how F_k is estimated, see `fisher`. normalised: F_k is divided by its mean
    over all weights, so that each task counts alike whatever the scale of its loss, and one task holds the net as firmly
    as L2Last of this strength would; Schwarz et al. normalise, and do not say by what.

    What others call online EWC, in these words, with their lambda and gamma:
        Schwarz et al. (2018), eq. 9, and van de Ven:  EWC(gamma x lambda, online=True, decay=gamma)
            (they let the penalty decay at once; Schwarz et al. with normalised=True)
        Mammoth, ewc_on:         EWC(2 x lambda, online=True, decay=gamma, fisher="likelihood")    (without a half)
        Avalanche, mode online:  EWC(2 x lambda, online=True, decay=gamma, fisher="batch")         (without a half)
    Avalanche's mode separate is EWC(2 x lambda, fisher="batch").

    Memory: F and c, each shaped like the net. Raises StrategyError for numbers out of range and an unknown Fisher.
    """

    strength: float = 100.0
    online: bool = False
    decay: float = 1.0
    fisher: str = "exact"
    normalised: bool = False
    off = {"strength": 0.0}
    anchors = True
    runs_network = True
    keeps = "Fisher and centre: two copies of the weights"
    witness = "a plain float64 loop of each named form: tests/reference/witnesses/test_ewc_peers.py"
    defaults = "ours"

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")
        require(self, 0 <= self.decay <= 1, "decay lies in 0 ... 1")
        require(self, self.fisher in KINDS, f"fisher is one of {', '.join(KINDS)}")

    @property
    def requires(self) -> Requirements:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """A Fisher of log p knows classes alone; that of batches takes whatever the loss is."""
        return Requirements(task_ends=True, classes=self.fisher != "batch")

    def task_draws(self, problem: Problem) -> Shapes:
        """One for each row, to draw a label, where the Fisher is sampled."""
        return {"label": (problem.task_rows,)} if self.fisher == "sampled" else {}

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found without old rows."""
        return expected(WITHOUT_OLD_DATA, "EWC", stream)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """importance F and centre c, each shaped like the net."""
        zero = {name: torch.zeros_like(value) for name, value in params["net"].items()}
        return params, {"importance": zero, "centre": {name: value.clone() for name, value in params["net"].items()}}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Add the penalty's: strength x F (p - c)."""
        return quadratic_gradient(grads, params, memory, self.strength), {}

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Add this task's paraboloid."""
        new = fisher(problem, params, task, self.fisher)
        if self.normalised:
            mean = torch.cat([value.flatten() for value in new.values()]).mean()
            new = {name: value / torch.where(mean > 0, mean, 1.0) for name, value in new.items()}
        importance, centre = {}, {}
        for name, p in params["net"].items():
            if self.online:
                importance[name], centre[name] = self.decay * memory["importance"][name] + new[name], p
                continue
            old = memory["importance"][name]
            total = old + new[name]
            mean = (old * memory["centre"][name] + new[name] * p) / torch.where(total > 0, total, 1)
            importance[name], centre[name] = total, torch.where(total > 0, mean, p)  # F = 0: dead pixels
        return params, {"importance": importance, "centre": centre}
