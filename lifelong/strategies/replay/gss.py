"""Gradient-based sample selection, GSS-Greedy (Aljundi, Lin, Goujaud and Bengio, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes, require
from lifelong.memory.base import written
from lifelong.memory.drawn import drawn_rows, draws_of
from lifelong.memory.reservoir import Reservoir
from lifelong.strategies.expectations import expected
from lifelong.strategies.replay.replay import _Replay
from lifelong.strategies.replay.row_products import cosines, gradient_products
from scenarios.stream import Stream

FIRST_COSINE = 0.1  # of rows that there was nothing to compare with, as in the authors' code
BANDS = {
    "class": "GSS lets a row into a full memory only where its gradient opposes all those it is compared with. Where the"
    " first task fills it, in class-incremental streams expect less than of Replay: on split-digits with 200 places"
    " 69.7 %, Replay 94.1 (our own table, docs/methods.md).",
    "domain": "GSS lets a row into a full memory only where its gradient opposes all those it is compared with: where the"
    " first task fills it expect less than of Replay. On permuted-digits with 200 places: 72.0 %, Replay 83.7 (our own"
    " table, docs/methods.md).",
}


@dataclass(frozen=True)
class GSS(_Replay):
    """Replay from a memory whose rows' gradients point in different directions.

    A row's score is c = 1 + the largest cosine of its gradient with those of n rows drawn from the memory, after the
    step. While there is room it enters. Then, if c < 1, a place i is drawn with probability C_i / sum_j C_j, C the
    scores as they were when the rows entered, and the row takes it with probability C_i / (C_i + c) (Aljundi et al., 2019b,
    algorithm 2). So what looks like much else makes room for what opposes all it was compared with.

    The rows of a batch are compared with the same n rows, and those with c < 1 draw their places one after another, none
    twice, by the scores before the batch: as in the authors' code, in batches of any size. size: M; compared: n; rows,
    replacement, weighting: what is replayed, as in `Replay`, here "equal" as in the paper's sum of both losses. What differs
    from the source: the authors' code compares with n mean gradients of ten rows each, lets a batch in by the cosine
    of its mean gradient, and draws places by scores brought to 0 ... 1; and it steps down the two losses in turn.

    State beside the memory's: score [M].
    """

    size: int = 1000
    compared: int = 10
    rows: int = 0
    replacement: bool = True
    weighting: str | float = "equal"
    keeps: ClassVar[str] = "rows, and a score of each"
    runs_network: ClassVar[bool] = True
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_gss.py"
    defaults: ClassVar[str] = "published"
    passes = (4.0, 4.0)  # in batches of 10, as the authors'
    memory = Reservoir()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.compared >= 1, "compared must be at least 1")

    def notes(self, stream: Stream) -> list[str]:
        """What its rule does with a memory that the first task fills."""
        return expected(BANDS, "GSS", stream)

    def passes_at(self, batch: int) -> tuple[float, float]:
        """The stream's rows and the replayed ones, and a gradient for each of the stream's and of the n compared with."""
        each = 2 + (self.rows or batch) / batch + self.compared / batch
        return each, each

    def extras(self, problem: Problem) -> dict[str, Tensor]:
        """The score of each row."""
        return {"score": problem.zeros()}

    def draws(self, problem: Problem) -> Shapes:
        """Which places are replayed and compared with; which make room, and whether they do."""
        if not self.size:
            return {}
        replayed = draws_of(self.size, self.rows or problem.batch, self.replacement)
        return {"place": replayed, "compared": (self.size,), "leaves": (self.size,), "enters": (problem.batch,)}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Score the stream's rows, and let in those that there is room for, or that win a place."""
        size = len(memory["row"])
        if not size:
            return params, memory
        batch, rows, draws = step.batch, step.batch.stream, step.batch.draws
        score, fresh = self.scores(problem, params, memory, batch), batch.first_seen[rows]
        number = memory["seen"] + fresh.cumsum(0)  # [B], of each row among all that came by, from 1 on
        full = number > size
        rivals = fresh & full & (score < 1)
        # places with probability by score, one after another, none twice: the first arrivals of a race at such rates
        filled = self.memory.filled(memory)
        arrival = torch.where(filled, -draws["leaves"].log() / memory["score"], torch.inf)
        first = arrival.topk(min(size, len(number)), largest=False)
        turn = (rivals.cumsum(0) - 1).clamp(min=0)  # [B]
        at = turn.clamp(max=len(first.indices) - 1)
        place = first.indices[at]
        there = rivals & (turn < len(first.indices)) & first.values[at].isfinite()
        held = memory["score"][place]
        wins = there & (draws["enters"] * (held + score) < held)
        place = torch.where(full, place, (number - 1).clamp(min=0, max=size - 1))
        came = {"row": batch.row[rows], "task": batch.task[rows], "score": score}
        memory = written(memory, place, torch.where(full, wins, fresh), came)
        return params, {**memory, "seen": number[-1]}

    def scores(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Tensor:
        """1 + the largest cosine of each of the stream's rows with the rows that are drawn, [B]."""
        drawn = self.memory.pick(memory, batch.draws["compared"], self.compared, replacement=False)
        row, task = drawn_rows(memory, drawn)
        row, task = torch.cat([row, batch.row[batch.stream]]), torch.cat([task, batch.task[batch.stream]])
        both = problem.batch_of_rows(row, task, batch.weight.new_ones(len(row)))
        known = len(drawn.place)
        cosine = cosines(gradient_products(problem, params, both))[known:, :known]
        largest = cosine.masked_fill(~drawn.valid, -1).amax(1)
        return 1 + torch.where(drawn.valid.any(), largest, FIRST_COSINE).clamp(min=-1)
