"""Meta-experience replay, MER (Riemer et al., 2019), algorithm 1: Reptile within each replayed batch, and across them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import drawn_rows, draws_of
from lifelong.memory.reservoir import Reservoir
from lifelong.models.base import Net
from lifelong.strategies.lookahead.pieces import piece, slope
from lifelong.strategies.replay.rehearsal import Rehearsal
from scenarios.stream import Stream


@dataclass(frozen=True)
class MER(Rehearsal):
    """Step through the current rows and some old ones, one after another, and go a part of the way to where that leads.

    `batches` times, from w: a step of `rate` against the gradient of the stream's rows, then one for each of R rows of
    the memory; w <- w + beta (w_end - w). After all of them w <- w_0 + gamma (w - w_0), w_0 being where the first began. To
    first order that follows the gradients and wants them to agree (Nichol, Achiam and Schulman, 2018).

    size: M rows, kept as memory says, which the current rows may enter afterwards; rows: R, drawn anew for each batch, with
    replacement, as the authors' code comes to. What differs: there, one row comes at a time; here a batch of the
    stream takes the current row's place, so that `--batch 1` is theirs. beta there is 0.01 ... 0.03, with 10 batches for
    each single row; batches of 10 rows that come once stand still with so small a one. Plain gradient descent, the optimiser goes
    unheard; the gradient of other parts' penalties is followed once, at `rate`, and parts that add rows or look at
    steps are refused. A step costs batches x (1 + R) passes
    that cannot be taken together, all but `batches` of them of one row. Needs no task ends.
    """

    rate: float = 0.1
    beta: float = 0.3
    gamma: float = 1.0
    size: int = 200
    rows: int = 10
    replacement: bool = True
    batches: int = 1
    memory: RowMemory = field(default_factory=Reservoir)
    off = {}
    own_gradient = True
    alone = "takes steps of its own, on the stream's rows and those of its memory"
    alone_from = ("extend", "after_step")
    keeps = "rows"
    witness = "a plain float64 loop: tests/reference/witnesses/test_mer.py"
    defaults = "ours"
    passes = (2.0, 1.0)  # and ten of one row

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, min(self.size, self.batches) >= 1, "size and batches must be at least 1")
        require(self, self.rate > 0, "rate must be above 0")
        require(self, self.beta > 0 and self.gamma > 0, "beta and gamma must be above 0")

    def notes(self, stream: Stream) -> list[str]:
        """That it descends by itself."""
        return ["MER descends at a rate of its own: the optimiser and its learning rate go unheard"]

    def draws(self, problem: Problem) -> Shapes:
        """Which places are replayed, [batches, R], and what the policy asks for."""
        places = draws_of(self.memory.places(problem, self.size), self.rows, self.replacement)
        return {"place": (self.batches, *places), **self.memory.draws(problem, self.size)}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """How far the weights go, which `after_step` lets them; nothing for the optimiser."""
        start = {name: params["net"][name] for name in grads["net"]}
        now, current = start, piece(batch, batch.stream)

        def step(net: Net, rows: Batch) -> Net:
            gradient = slope(problem, params, net, rows)
            return {name: value - self.rate * gradient[name] for name, value in net.items()}

        for places in batch.draws["place"]:
            ahead = step(now, current)
            draw = self.memory.pick(memory, places, self.rows, self.replacement)
            drawn = (*drawn_rows(memory, draw), draw.valid.to(problem.dtype))
            for row, task, weight in zip(*(value.split(1) for value in drawn), strict=True):
                ahead = step(ahead, problem.batch_of_rows(row, task, weight))
            now = {name: value + self.beta * (ahead[name] - value) for name, value in now.items()}
        way = {name: self.gamma * (now[name] - p) - self.rate * grads["net"][name] for name, p in start.items()}
        return {**grads, "net": {name: torch.zeros_like(p) for name, p in start.items()}}, way

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Go; and offer the stream's rows to the memory."""
        params, memory = super().after_step(problem, params, memory, step)
        net = {**params["net"], **{name: params["net"][name] + way for name, way in step.notes.items()}}
        return {**params, "net": net}, memory
