"""Greedy sampler and dumb learner, GDumb (Prabhu, Torr and Dokania, 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, require
from lifelong.memory.base import RowMemory
from lifelong.memory.class_balanced import ClassBalanced
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.replay.rehearsal import Rehearsal
from scenarios.stream import Stream


@dataclass(frozen=True)
class GDumb(Rehearsal):
    """Keep a class-balanced memory, learn nothing else; before answers fit a fresh network on the memory alone.

    At an evaluation: theta = theta_0, then epochs x ceil(M / batch) steps of `descent` on the mean loss of `batch` rows,
    each row among the classes open to it. An epoch goes through the rows kept in a new random order, again from its
    start where its last batch is not full, or where fewer than M rows have come: so the steps are as many at every
    evaluation. Nothing is learned while the stream is shown, and what was fitted is thrown away after the answers.

    size: M, rows kept. epochs, batch: of a fit. descent: its optimiser, whose schedule is over the whole fit. memory:
    which rows are kept. What differs from the source: theta_0 is the first draw of the run, the same for every fit,
    and not drawn anew; the rate is one optimiser's, where the authors warm up and restart cosines over 128 to 512
    epochs; no cutmix. The learner's own optimiser has nothing to do, and should not decay weights, which would
    move theta_0. All weights are fitted, whichever the learner names as trainable. Raises StrategyError where size, epochs
    or batch is below 1, and in a sum, where the other part would change nothing, or theta_0.
    """

    size: int = 200
    epochs: int = 10
    batch: int = 16
    descent: Optimiser = field(default_factory=lambda: SGD(0.1, momentum=0.9, schedule="cosine"))
    memory: RowMemory = field(default_factory=ClassBalanced)
    rows: ClassVar[int] = 0  # pyright: ignore[reportIncompatibleVariableOverride] # as many as the stream brings
    replacement: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]
    places: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[str] = "rows"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_gdumb.py"
    defaults: ClassVar[str] = "those of ContinualAI's baselines"
    passes = (0.0, 0.0)
    alone = "answers by a network that it fits to its memory alone"
    off = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, min(self.size, self.epochs, self.batch) >= 1, "size, epochs and batch must be at least 1")

    @property
    def requires(self) -> Requirements:
        """Classes; task ends where the policy chooses then."""
        return Requirements(task_ends=self.memory.at_task_ends, classes=True, instead="write memory=ClassBalanced()")

    def notes(self, stream: Stream) -> list[str]:
        """Where its work is done."""
        steps = self.epochs * self.fit_steps(self.size)
        return [
            f"GDumb learns at evaluations alone, {steps:,} steps at each; a step of the stream costs next to nothing."
        ]

    def fit_steps(self, places: int) -> int:
        """Steps of an epoch."""
        return -(-places // self.batch)

    def prepare_draws(self, problem: Problem) -> Shapes:
        """The order of each epoch."""
        return {"order": (self.epochs, self.memory.places(problem, self.room(problem)))}

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """Nothing is learned from the stream, and no forward pass taken: 0, whatever the parameters."""
        width = problem.model.head_rows(params["net"]).shape[1]
        none = batch.weight[:, None] * 0
        return none.sum(), Outputs(none.expand(-1, problem.classes), none.expand(-1, width))

    def prepare(self, problem: Problem, params: Params, memory: Memory, draws: Any) -> Memory:
        """Fit the network on the memory, from where the run began."""
        filled = self.memory.filled(memory)
        count, steps = filled.sum(), self.fit_steps(len(filled))
        fitted = {"net": params["net"]}
        state = self.descent.init(fitted)
        weight = problem.zeros(self.batch) + (count > 0) / self.batch
        for epoch in range(self.epochs):
            order = torch.where(filled, draws["order"][epoch], 2.0).argsort()
            for step in range(steps):
                nth = torch.arange(step * self.batch, (step + 1) * self.batch, device=order.device)
                place = order[nth % count.clamp(min=1)]
                gradient = problem.gradient(fitted, memory["row"][place], memory["task"][place], weight)
                progress = problem.zeros() + (epoch * steps + step) / (self.epochs * steps)
                fitted, state = self.descent.update(fitted, gradient, state, progress)
        return {**memory, "fitted": fitted["net"]}

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """The fitted network's scores."""
        return problem.logits({"net": memory["fitted"]}, x)
