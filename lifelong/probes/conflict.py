"""A probe of whether tasks pull a network's layers apart: the signs of the cosines between their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Params
from lifelong.core.probes import EVALUATED, Measure
from lifelong.core.problem import Problem
from lifelong.models.base import Net
from scenarios.stream import ScenarioError, Seed, Stream


def layers_of(net: Net) -> list[str]:
    """The layers of a network in order, by the names of their parameters without the last word."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in net))


@dataclass(frozen=True)
class GradientConflict:
    """The share of pairs of tasks whose gradients have a negative cosine, layer by layer: [S, moments, layers].

    g_i: gradient of the mean loss of `rows` of task i's training rows, spread evenly; of each layer in the order of `layers_of`, the
    share of the pairs i < j with g_i . g_j < 0 over its parameters; after every evaluation, so also before learning. A layer that
    no two tasks share has none. A symptom and no proof: hold it beside `multi_task_gains`. (Yu et al., 2020, define the
    conflict; layer by layer Shi et al., 2023, count it.) Costs a pass over T rows at each evaluation.
    """

    rows: int = 200

    every_step = False

    @property
    def name(self) -> str:
        """Of its tensor."""
        return "gradient conflict"

    def check(self, stream: Stream, seeds: Sequence[Seed]) -> None:
        """Raise ScenarioError for fewer than two tasks, and without rows."""
        if self.rows < 1:
            raise ScenarioError(f"{self!r}: rows must be at least 1")
        if len(stream) < 2:
            raise ScenarioError("gradients are in conflict between tasks, and this stream has one")

    def begin(self, session: Any) -> Measure:
        """Measures after each evaluation. Raises ScenarioError where no network descends a gradient."""
        fleet = session.fleet
        if fleet.learner.rule is None:
            raise ScenarioError(f"{self!r} looks at gradients, and {fleet.learner!r} descends none")

        def measure(state: Any, moment: str) -> Tensor | None:
            if moment != EVALUATED:
                return None
            values = []
            for s in range(len(session.seeds)):
                problem = replace(fleet.problem, index={name: value[s] for name, value in fleet.problem.index.items()})
                net = {name: value[s].detach() for name, value in state.fleet.params["net"].items()}
                values.append(self.of(problem, {"net": net}))
            return torch.stack(values)

        return measure

    def of(self, problem: Problem, params: Params) -> Tensor:
        """The shares [layers] of one member's network."""
        each = [self._gradient(problem, params, t) for t in range(problem.tasks)]
        above = torch.ones(problem.tasks, problem.tasks, device=problem.device).triu(1) > 0
        shares = []
        for layer in layers_of(params["net"]):
            names = [name for name in params["net"] if name.rpartition(".")[0] == layer]
            rows = torch.stack([torch.cat([g[name].flatten() for name in names]) for g in each])
            shares.append((rows @ rows.T < 0)[above].to(torch.float64).mean())
        return torch.stack(shares)

    def _gradient(self, problem: Problem, params: Params, task: int) -> Net:
        rows = problem.index["rows_train"][task, : int(problem.index["count_train"][task])]
        if len(rows) > self.rows:  # evenly, since rows may lie class by class
            rows = rows[torch.linspace(0, len(rows) - 1, self.rows, device=rows.device).long()]
        weight = torch.full(rows.shape, 1 / len(rows), dtype=problem.dtype, device=problem.device)
        return problem.gradient(params, rows, torch.full_like(rows, task), weight)["net"]
