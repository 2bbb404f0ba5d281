"""Incremental classifier and representation learning, iCaRL (Rebuffi, Kolesnikov, Sperl and Lampert, 2017)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.memory.base import RowMemory
from lifelong.memory.herding import Herding
from lifelong.strategies.replay.exemplars import (
    Exemplars,
    class_means,
    classes_here,
    nearest_mean,
    of_class,
    rewritten,
)


@dataclass(frozen=True)
class ICaRL(Exemplars):
    """Learn the features with exemplars and a teacher; answer the class whose exemplars' mean feature is nearest.

    loss of a row = sum over classes met so far of the binary cross-entropy between sigmoid(h_c(x)) and a target: for
    the task's own classes whether y = c, for old ones sigmoid(teacher_c(x) / temperature), the teacher being the network
    at the end of the last task. Rows are drawn from the task's rows and the exemplars together: each row of the batch
    is an exemplar with probability m / (n + m), n rows in the task and m exemplars, which in expectation is the authors'
    joined training set, and costs no more rows. Answer: argmin_c |f(x) / |f(x)| - mu_c|, mu_c the mean of the class's
    exemplars' features of length 1, brought to length 1, by the network as it is now. Classes not met yet are not asked
    about, as in the paper, and in the study of van de Ven et al. (2022); their code's own default asks about all, which
    costs about three points on Split-MNIST.

    per_class: K exemplars of each class. temperature: 2 as van de Ven et al. (2022) run it, for the teacher alone, so
    that old scores shrink a little with every task; the authors' own is 1. memory: which rows are kept; herding.
    What differs from the source: K of each class rather than a fixed total divided over the classes met; the teacher's
    targets for the exemplars of old classes are of the teacher alone, as with both. While a task is learned its classes
    have no exemplars yet and are never the answer; before the first has ended the network's scores are. A class that
    comes back is the task's own. Raises StrategyError for a negative size, or a temperature not above 0.
    """

    per_class: int = 100
    temperature: float = 2.0
    memory: RowMemory = field(default_factory=Herding)
    keeps: ClassVar[str] = "rows of each class, a teacher"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_icarl.py"
    defaults: ClassVar[str] = "published for Split-MNIST (van de Ven et al., 2022)"
    passes = (2.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.temperature > 0, "temperature must be above 0")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The memory, the teacher's net and the classes of finished tasks [C]."""
        params, memory = super().init(problem, params, generator)
        teacher = {name: value.clone() for name, value in params["net"].items()}
        return params, {**memory, "teacher": teacher, "seen": problem.zeros(problem.classes) > 0}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Mix exemplars in, and set each row's targets and the classes that it is asked about."""
        here, rows = classes_here(problem, memory["done"]), batch.stream
        batch = self.mixed(problem, memory, batch)
        old: Tensor = memory["seen"] & ~here
        taught = (problem.logits({"net": memory["teacher"]}, batch.x[rows]) / self.temperature).sigmoid()
        target = torch.where(old, taught, of_class(batch.y[rows], problem.classes).to(taught.dtype))
        known = (old | here).expand_as(batch.allowed[rows])
        return rewritten(batch.softened(), target=target, soft=torch.ones_like(taught[:, 0]), allowed=known)

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """Binary cross-entropy, summed over the classes that a row is asked about."""
        outputs = problem.outputs(params, batch.x)
        hard, soft = of_class(batch.y, problem.classes).to(outputs.logits.dtype), batch.soft[:, None]
        target = (1 - soft) * hard + soft * batch.target
        terms = F.binary_cross_entropy_with_logits(outputs.logits, target, reduction="none")
        rows = torch.where(batch.allowed & (batch.y >= 0)[:, None], terms, 0).sum(1)
        return (batch.weight * rows).sum(), outputs

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Choose exemplars; the network becomes the teacher."""
        params, memory = super().after_task(problem, params, memory, task)
        return params, {**memory, "teacher": dict(params["net"]), "seen": memory["seen"] | task.classes}

    def prepare(self, problem: Problem, params: Params, memory: Memory, draws: Any) -> Memory:
        """The mean of each class."""
        return {**memory, **class_means(problem, params, memory, self.memory.filled(memory))}

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Minus the squared distance to the means."""
        return nearest_mean(problem, params, memory, x)
