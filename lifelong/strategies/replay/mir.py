"""Maximally interfered retrieval, ER-MIR (Aljundi, Caccia, Belilovsky, Caccia, Lin, Charlin and Tuytelaars, 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.learner import merged
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import Drawn, drawn_rows, draws_of
from lifelong.memory.reservoir import Reservoir
from lifelong.strategies.replay.rehearsal import Rehearsal


@dataclass(frozen=True)
class MIR(Rehearsal):
    """Of some rows of the memory, replay those whose loss the coming step would raise most.

    g = gradient of L(stream); v = theta - rate g; of C rows x' drawn from the memory without replacement the R with the
    largest L(x'; v) - L(x'; theta) are replayed: the optimiser gets g + gradient of their mean loss at theta (Aljundi et
    al., 2019a, algorithm 1). C: candidates, 50 in the paper; R: rows, or as many as the stream brings; size: M; memory: which
    rows are kept. Where C or what is filled is at most R, all candidates are replayed.

    rate: of the virtual step, plain descent with the authors' learning rate; where the optimiser is another the step
    that follows is not the virtual one. Its gain depends on how one learns: on online-digits, 200 places, 5 seeds, SGD(0.1)
    75 ± 12 against 58 ± 18 with candidates=10, but Adam(0.001) 23 ± 5 against 36 ± 8; why is open. Both losses weigh alike, so
    that Replay(weighting="equal") is what to compare it with: that has 35 ± 4 there with Adam, and the default, "tasks", 57 ± 2.
    The rate decides little: for a small one the order is that of -g . g', g' the
    gradient of a candidate. In a sum g is the gradient as the parts before it leave it. What differs from the source: the authors'
    code leaves rows of the current task out; here, as in the paper's algorithm, tasks play no part.
    """

    size: int = 1000
    candidates: int = 50
    rate: float = 0.1
    rows: int = 0
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows"
    runs_network: ClassVar[bool] = True
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_mir.py"
    defaults: ClassVar[str] = "published for Split-MNIST"
    passes = (12.0, 2.0)  # in batches of 10, as the authors'
    replacement = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.candidates >= 1, "candidates must be at least 1")
        require(self, self.rate > 0, "rate must be above 0")

    def passes_at(self, batch: int) -> tuple[float, float]:
        """The stream's rows, all candidates at both places, and those of them that are replayed."""
        again = min(self.rows or batch, self.candidates) / batch
        return 1 + 2 * self.candidates / batch + again, 1 + again

    def draws(self, problem: Problem) -> Shapes:
        """Which candidates are drawn, and what the policy asks for."""
        asked = super().draws(problem)
        places = self.memory.places(problem, self.size)
        return {**asked, "place": draws_of(places, self.candidates, self.replacement)} if asked else asked

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Look where the gradient leads, and add that of the rows that would suffer most."""
        if not len(memory["row"]):
            return grads, {}
        draw = self.chosen(problem, params, memory, batch, grads["net"])
        weight = draw.weight(batch.weight.new_ones(()))
        again = problem.gradient(params, *drawn_rows(memory, draw), weight)["net"]
        return {**grads, "net": {name: gradient + again[name] for name, gradient in grads["net"].items()}}, {}

    def chosen(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, gradient: dict[str, Tensor]
    ) -> Drawn:
        """The places of the candidates that a step down this gradient would hurt most."""
        draw = self.memory.pick(memory, batch.draws["place"], self.candidates, self.replacement)
        row, task = drawn_rows(memory, draw)
        rows = problem.batch_of_rows(row, task, batch.weight.new_ones(len(row)))
        moved = {"net": {name: params["net"][name] - self.rate * slope for name, slope in gradient.items()}}
        before, after = (problem.loss_rows(problem.logits(at, rows.x), rows) for at in (params, merged(params, moved)))
        wanted = min(self.rows or len(batch.row[batch.stream]), len(row))
        rise = (after - before).masked_fill(~draw.valid, -torch.inf)
        worst = rise.topk(wanted).indices
        return Drawn(draw.place[worst], draw.valid[worst])
