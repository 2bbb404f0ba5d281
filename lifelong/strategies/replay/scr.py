"""Supervised contrastive replay, SCR (Mai, Li, Kim and Sanner, 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import drawn_rows
from lifelong.memory.reservoir import Reservoir
from lifelong.models.base import apply_linear, linear
from lifelong.strategies.replay.exemplars import class_means, nearest_mean
from lifelong.strategies.replay.rehearsal import Rehearsal


@dataclass(frozen=True)
class SupervisedContrastiveReplay(Rehearsal):
    """Pull rows of a class together and push the others away, old rows among them; answer the class of the nearest mean.

    Two views of each row of the stream and of R replayed ones, z_i their projections of length 1, P(i) the other views of
    i's class: loss = mean_i -1 / |P(i)| sum_{p in P(i)} log(exp(z_i z_p / temperature) / sum_{a != i} exp(z_i z_a /
    temperature)). A projection of a view is W_2 relu(W_1 f + b_1) + b_2, F -> F -> width, its parameters the method's own.
    Answer: as in `ICaRL`, by means of the features f of the rows kept. (Mai et al., 2021, eq. 2 and 3, and their code;
    the loss is that of Khosla et al., 2020.)

    The second view is the row with each input set to 0 with probability `erased`: the authors crop, flip and colour
    images, which says nothing for a perceptron. size: M, rows kept; rows: R, 0 for as many as the stream brings, of which
    the authors draw ten times as many; replacement: whether a row may be drawn twice; memory: which rows are kept. What
    else differs: with an empty memory the stream's rows are learned alone, where the authors wait for the second batch.
    The network's own head learns nothing. Raises StrategyError for a temperature not above 0, `erased` outside 0 to 1.
    """

    size: int = 200
    temperature: float = 0.07
    erased: float = 0.5
    width: int = 128
    rows: int = 0
    replacement: bool = False
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows, a projection"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_scr.py"
    defaults: ClassVar[str] = "of the authors' code, but for erased"
    passes = (4.0, 4.0)
    off = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.temperature > 0, "temperature must be above 0")
        require(self, self.erased >= 0 and self.erased <= 1, "erased is a probability")
        require(self, self.size >= 1 and self.width >= 1, "size and width must be at least 1")

    @property
    def requires(self) -> Requirements:
        """Classes; task ends where the policy chooses then."""
        return Requirements(task_ends=self.memory.at_task_ends, classes=True, instead="write memory=Reservoir()")

    def draws(self, problem: Problem) -> Shapes:
        """Which inputs of the second views are erased."""
        rows = problem.batch + (self.rows or problem.batch)
        return {**super().draws(problem), "erased": (rows, math.prod(problem.shape))}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The memory and the projection."""
        params, memory = super().init(problem, params, generator)
        features, drawn = problem.model.head_rows(params["net"]).shape[1], {}
        linear(drawn, "inner", features, features, generator)
        linear(drawn, "outer", features, self.width, generator)
        projection = {name: value.to(problem.device, problem.dtype) for name, value in drawn.items()}
        return {**params, "own": projection}, memory

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows; those with a weight count, all alike."""
        draw = self.picked(memory, batch)
        return batch.add(problem, *drawn_rows(memory, draw), draw.valid.to(problem.dtype))

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """The contrast of all views."""
        count, draws = len(batch.row), batch.draws["erased"]
        stays = draws[torch.arange(count, device=draws.device) % len(draws)] >= self.erased
        second = torch.where(stays.view(batch.x.shape), batch.x, 0)
        outputs = problem.outputs(params, torch.cat([batch.x, second]))
        inner = apply_linear(params["own"], "inner", outputs.features).relu()
        views = F.normalize(apply_linear(params["own"], "outer", inner), dim=1)
        counts = (batch.weight > 0) & (batch.y >= 0)
        loss = contrast(views, batch.y.repeat(2), counts.repeat(2), self.temperature)
        return loss, Outputs(outputs.logits[:count], outputs.features[:count])

    def prepare(self, problem: Problem, params: Params, memory: Memory, draws: Any) -> Memory:
        """The mean of each class."""
        return {**memory, **class_means(problem, params, memory, self.memory.filled(memory))}

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Minus the squared distance to the means."""
        return nearest_mean(problem, params, memory, x)


def contrast(views: Tensor, y: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """The supervised contrastive loss of views [V, P] of length 1, on the mean over those that count, bool [V]."""
    another = ~torch.eye(len(y), dtype=torch.bool, device=y.device) & counts
    log_p = (views @ views.T / temperature).masked_fill(~another, -torch.inf).log_softmax(1)
    positive = another & (y[:, None] == y)
    each = -torch.where(positive, log_p, 0).sum(1) / positive.sum(1).clamp(min=1)
    return torch.where(counts, each, 0).sum() / counts.sum().clamp(min=1)
