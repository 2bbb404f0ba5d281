"""Averaged gradient episodic memory, A-GEM (Chaudhry, Ranzato, Rohrbach and Elhoseiny, 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from lifelong.core.batch import Batch, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import drawn_rows
from lifelong.memory.per_class import PerClass
from lifelong.strategies.expectations import expected
from lifelong.strategies.replay.rehearsal import ClassRehearsal
from scenarios.stream import Stream

BANDS = {
    "class": "A-GEM in class-incremental streams: expect far less than replay of as many rows. On Split-MNIST with 100 rows"
    " of each class it reaches 65.10 % +- 3.64, and replay 88.79 (van de Ven, Tuytelaars and Tolias, 2022). Try"
    " ClassReplay(per_class=100)."
}


@dataclass(frozen=True)
class AGEM(ClassRehearsal):
    """Where a step would raise the loss on old rows, take out of its gradient what raises it.

    g <- g - (g . r) / (r . r + epsilon) r where g . r < 0; g: the gradient as the parts before it leave it, r: that of the
    mean loss of R rows of the memory at the same parameters, each among the classes open to it; both over all
    parameters that move, as one vector (Chaudhry et al., 2019, eq. 11). The optimiser gets g.

    Past tasks only: `per_class` random rows of each class (domain-incremental: of each class and task) are chosen when its
    task ends. The current task in the memory would make r point along g and the projection rare. The authors' code
    likewise draws from finished tasks alone; it keeps the last rows of each class that came by, memory=Ring(), where these
    are random ones, as with van de Ven et al. (2022). R is rows, or as many as the stream brings (the authors: 256 for
    batches of 10); replacement: whether a row may be drawn twice in a step, which in the authors' code it may not.
    epsilon: 0 as in the paper; van de Ven et al. (2022) add 1e-7, which weakens the projection once r is small.
    """

    per_class: int = 100
    rows: int = 0
    replacement: bool = False
    epsilon: float = 0.0
    memory: RowMemory = field(default_factory=PerClass)
    keeps: ClassVar[str] = "rows of each class"
    runs_network: ClassVar[bool] = True
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/test_methods_a.py"
    defaults: ClassVar[str] = "published"
    passes = (2.0, 2.0)
    off = {"per_class": 0}
    acts_at_once = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.epsilon >= 0, "epsilon must be at least 0")

    @property
    def requires(self) -> Requirements:
        """Tasks that end."""
        return Requirements(task_ends=True, instead="write Replay(weighting='equal')")

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found in class-incremental streams."""
        return expected(BANDS, "AGEM", stream)

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Project the network's gradient."""
        if not len(memory["row"]):
            return grads, {}
        net = grads["net"]
        # a policy that lets rows in as they come by has some of this task
        past = None if self.memory.at_task_ends else memory["task"] != batch.task[0]
        draw = self.picked(memory, batch, among=past)
        weight = draw.weight(batch.weight.new_ones(()))
        reference = problem.gradient(params, *drawn_rows(memory, draw), weight)["net"]
        dot = torch.stack([(gradient * reference[name]).sum() for name, gradient in net.items()]).sum()
        length = torch.stack([reference[name].square().sum() for name in net]).sum()
        against = (dot < 0) & (length > 0)  # the square of a gradient of all but 0 may be 0
        factor = torch.where(against, dot / torch.where(against, length + self.epsilon, 1), 0)
        return {**grads, "net": {name: gradient - factor * reference[name] for name, gradient in net.items()}}, {}
