"""Weight aligning, WA (Zhao, Xiao, Gan, Zhang and Xia, 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import replayed
from lifelong.memory.per_class import PerClass
from lifelong.strategies.architecture.head_rows import bias_of, with_rows
from lifelong.strategies.distillation.lwf import soft_cross_entropy
from lifelong.strategies.replay.rehearsal import ClassRehearsal


@dataclass(frozen=True)
class WA(ClassRehearsal):
    """Replay rows of each class, distil the old classes, and at a task's end make the new classes' weights as long as the old.

    While a task is learned, on all rows of a batch alike, replayed ones included, loss = m / (n + m) L_c + n / (n + m) L_d
    with n old and m new classes; L_c is the cross-entropy, L_d that between softmax(teacher / temperature) and
    softmax(student / temperature) over the old classes, without temperature^2; the teacher is the network at the last task's
    end, aligned. At a task's end, from the second on, the head's weights of the new classes are multiplied by
    gamma = mean |w| of the old classes / mean |w| of the new ones, w [F] being a class's and |w| its Euclidean length. (Zhao
    et al., 2020, eq. 2 to 8.)

    L_c is over the classes open to a row, as the stream says: all of them, where the paper has those met so far, unless it
    is open="seen". Biases stay as they are, as in well-known codes; the paper has none. The authors' code takes the sum of
    |w_f| for |w|, lets gamma not exceed 1 and clips negative weights, none of which is done here; and it divides a memory of
    fixed size among the classes, where each class has its share at once. per_class, rows, replacement, memory: as in `ClassReplay`.
    """

    per_class: int = 100
    rows: int = 0
    replacement: bool = True
    temperature: float = 2.0
    memory: RowMemory = field(default_factory=PerClass)
    keeps = "rows of each class, and the network of the last task"
    witness = "a plain float64 loop: tests/reference/witnesses/test_wa.py"
    defaults = "published"
    passes = (4.0, 2.0)  # as many rows again, and the teacher on all of them
    off = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.per_class >= 1, "per_class must be at least 1")
        require(self, self.temperature > 0, "temperature must be above 0")

    @property
    def requires(self) -> Requirements:
        """Class-incremental tasks that end."""
        return Requirements(settings=("class",), task_ends=True, classes=True)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The rows, the teacher's net, and classes seen [C]."""
        teacher = {name: value.clone() for name, value in params["net"].items()}
        params, memory = super().init(problem, params, generator)
        return params, {**memory, "teacher": teacher, "seen": problem.zeros(problem.classes) > 0}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows, each with the weight of a row of the stream."""
        draw, shown = self.picked(memory, batch), batch.shown[batch.stream].sum()
        share = shown.to(problem.dtype) / (shown + draw.valid.sum())
        return replayed(problem, batch, memory, draw, share)

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """Cross-entropy and distillation, weighed by the numbers of classes."""
        outputs = problem.outputs(params, batch.x)
        seen: Tensor = memory["seen"]
        old = seen | ~seen.any()  # the first task's teacher has nothing to say, and no weight
        teacher = problem.logits({"net": memory["teacher"]}, batch.x)
        over = old.expand_as(teacher)
        terms = soft_cross_entropy(teacher / self.temperature, outputs.logits / self.temperature, over, over)
        known = seen | problem.index["classes_of"][batch.task[:1]][0]
        share = seen.sum().to(problem.dtype) / known.sum()
        rows = (1 - share) * problem.loss_rows(outputs.logits, batch) + share * terms
        return (batch.weight * rows).sum(), outputs

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Align the new classes' weights, keep rows of the task, and become the teacher."""
        new = task.classes & ~memory["seen"]
        aligned = {**params, "net": align(problem, params["net"], memory["seen"], new)}
        aligned, kept = super().after_task(problem, aligned, memory, task)
        return aligned, {**kept, "teacher": dict(aligned["net"]), "seen": memory["seen"] | task.classes}


def align(problem: Problem, net: dict[str, Tensor], old: Tensor, new: Tensor) -> dict[str, Tensor]:
    """The net with the head's weights of new classes as long, in the mean, as those of old ones; each bool [C]."""
    rows = problem.model.head_rows(net)
    length, bias = rows.norm(dim=1), bias_of(net, len(rows))
    means = [(length * among).sum() / among.sum().clamp(min=1) for among in (old, new)]
    some = old.any() & (means[1] > 0)
    gamma = torch.where(some, means[0] / torch.where(some, means[1], 1), 1)
    rows = torch.where(new[:, None], gamma * rows, rows)
    return {**net, **with_rows(problem, net, rows, torch.zeros_like(length) if bias is None else bias)}
