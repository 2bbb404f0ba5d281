"""Averaged gradient episodic memory, A-GEM (Chaudhry, Ranzato, Rohrbach and Elhoseiny, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lifelong.core.batch import Batch, FinishedTask, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.memory import PerClass, drawn_rows, draws_of


@dataclass(frozen=True)
class AGEM(Strategy):
    """Where a step would raise the loss on old rows, take out of its gradient what raises it.

    g <- g - (g . r) / (r . r + epsilon) r where g . r < 0; g: the gradient as the parts before it leave it, r: that of the
    mean loss of R rows of the memory at the same parameters, each among the classes open to it; both over all
    parameters that move, as one vector (Chaudhry et al., 2019, eq. 11). The optimiser gets g.

    Past tasks only: `per_class` random rows of each class (domain-incremental: of each class and task) are chosen when its
    task ends. The current task in the memory would make r point along g and the projection rare. The authors' code
    likewise draws from finished tasks alone; it keeps the last rows of each class that came by, a ring, where these
    are random ones, as with van de Ven et al. (2022). R is rows, or as many as the stream brings (the authors: 256 for
    batches of 10); replacement: whether a row may be drawn twice in a step, which in the authors' code it may not.
    epsilon: 0 as in the paper; van de Ven et al. (2022) add 1e-7, which weakens the projection once r is small.
    """

    per_class: int = 100
    rows: int = 0
    replacement: bool = False
    epsilon: float = 0.0
    off = {"per_class": 0}
    requires = Requirements(task_ends=True, instead="write Replay(weighting='equal')")

    def __post_init__(self) -> None:
        require(self, self.per_class >= 0 and self.rows >= 0, "per_class and rows must be at least 0")
        require(self, self.epsilon >= 0, "epsilon must be at least 0")

    @property
    def memory(self) -> PerClass:
        """What is kept."""
        return PerClass(self.per_class)

    def draws(self, problem: Problem) -> Shapes:
        """Which places the reference gradient is taken of."""
        places = self.memory.groups(problem) * self.per_class
        return {"place": draws_of(places, self.rows or problem.batch, self.replacement)} if places else {}

    def task_draws(self, problem: Problem) -> Shapes:
        """A ticket for each row."""
        return self.memory.task_draws(problem)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The memory."""
        return params, self.memory.init(problem)

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Project the network's gradient."""
        if not self.per_class:
            return grads, {}
        rows, net = self.rows or len(batch.row[batch.stream]), grads["net"]
        draw = self.memory.pick(memory, batch.draws["place"], rows, self.replacement)
        weight = draw.weight(batch.weight.new_ones(()))
        reference = problem.gradient(params, *drawn_rows(memory, draw), weight)["net"]
        dot = torch.stack([(gradient * reference[name]).sum() for name, gradient in net.items()]).sum()
        length = torch.stack([reference[name].square().sum() for name in net]).sum()
        against = (dot < 0) & (length > 0)  # the square of a gradient of all but 0 may be 0
        factor = torch.where(against, dot / torch.where(against, length + self.epsilon, 1), 0)
        return {**grads, "net": {name: gradient - factor * reference[name] for name, gradient in net.items()}}, {}

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Choose the rows that are kept of this task."""
        if not self.per_class:
            return params, memory
        return params, self.memory.insert(problem, memory, task, task.draws["ticket"])
