"""Dark experience replay, DER and DER++ (Buzzega, Boschini, Porrello, Abati and Calderara, 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes, Strategy, require
from lifelong.memory import Drawn, Reservoir, drawn_rows, draws_of


class _DarkReplay(Strategy):
    """What DER and DER++ share: rows of a reservoir whose scores are to stay as they were when the row came by."""

    size: int
    alpha: float
    rows: int
    replacement: bool
    off = {"size": 0}
    acts_at_once = True

    def __post_init__(self) -> None:
        require(self, self.size >= 0 and self.rows >= 0, "size and rows must be at least 0")
        require(self, self.alpha >= 0, "alpha must be at least 0")

    @property
    def memory(self) -> Reservoir:
        """What is kept."""
        return Reservoir(self.size)

    def _places(self, problem: Problem) -> tuple[int, ...]:
        return draws_of(self.size, self.rows or problem.batch, self.replacement)

    def _drawn(self, memory: Memory, batch: Batch, name: str) -> Drawn:
        rows = self.rows or len(batch.row[batch.stream])
        return self.memory.pick(memory, batch.draws[name], rows, self.replacement)

    def draws(self, problem: Problem) -> Shapes:
        """Which places are replayed, and a ticket for each row of the stream."""
        return {"place": self._places(problem), **self.memory.draws(problem)} if self.size else {}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The reservoir, with the scores [M, C] of each row."""
        return params, self.memory.init(problem, logits=problem.zeros(problem.classes))

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add the rows whose scores are compared: in the same forward pass, without weight in the loss."""
        if not self.size:
            return batch
        row, task = drawn_rows(memory, self._drawn(memory, batch, "place"))
        return batch.add(problem, row, task, torch.zeros_like(row, dtype=batch.weight.dtype))

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """alpha x the mean square between scores now and then, over the classes open to a row."""
        if not self.size:
            return batch.weight.new_zeros(())
        draw = self._drawn(memory, batch, "place")
        rows = slice(batch.mine.start, batch.mine.start + len(draw.place))
        allowed = batch.allowed[rows]
        gap = torch.where(allowed, outputs.logits[rows] - memory["logits"][draw.place], 0)
        each = gap.square().sum(1) / allowed.sum(1)  # [R]
        return self.alpha * (draw.weight(batch.weight.new_ones(())) * each).sum()

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Let the stream's rows into the reservoir, with the scores that they had before this step."""
        if not self.size:
            return params, memory
        # each time they are shown: at its first sight of a task the network has nothing to say that is worth keeping
        batch = step.batch.replace(first_seen=step.batch.shown)
        logits = step.outputs.logits[batch.stream]
        return params, self.memory.insert(memory, batch, batch.draws["ticket"], logits=logits)


@dataclass(frozen=True)
class DER(_DarkReplay):
    """Keep a uniform sample of all that was shown so far, each row with the scores that the network gave it then.

    loss = L(stream) + alpha x mean over R replayed rows of |h(x') - z'|^2 / C (Buzzega et al., 2020, eq. 5, with the mean
    over classes that the authors' code takes), z' [C] the scores when the row was shown, before that step. R is
    rows, or as many as the stream brings; size: M, rows kept; replacement: whether a row may be drawn twice in a step,
    which the authors' code does not.

    The stream's weight stays 1: old rows come on top. The end of a task plays no part. A row that is shown in several
    epochs is offered to the reservoir each time, as in the authors' code; so it may be kept twice, with other scores.
    What differs from the source: where a row competes among some classes alone (task-incremental), only their scores
    are compared, and C is their number, since the others mean nothing there.
    """

    size: int = 1000
    alpha: float = 0.5
    rows: int = 0
    replacement: bool = False


@dataclass(frozen=True)
class DERPlusPlus(_DarkReplay):
    """DER, and a second, independent draw of R rows that are learned again by their labels.

    loss = L(stream) + alpha x mean |h(x') - z'|^2 / C + beta x mean L(x'', y'') (Buzzega et al., 2020, eq. 6); everything
    else as in `DER`.
    """

    size: int = 1000
    alpha: float = 0.5
    beta: float = 0.5
    rows: int = 0
    replacement: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.beta >= 0, "beta must be at least 0")

    def draws(self, problem: Problem) -> Shapes:
        """A second set of places beside the first."""
        return {**super().draws(problem), "place_again": self._places(problem)} if self.size else {}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add the rows whose scores are compared, then those that are learned again."""
        if not self.size:
            return batch
        draw = self._drawn(memory, batch, "place_again")
        weight = self.beta * draw.weight(batch.weight.new_ones(()))
        return super().extend(problem, params, memory, batch).add(problem, *drawn_rows(memory, draw), weight)
