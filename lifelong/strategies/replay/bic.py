"""Bias correction (Wu, Chen, Wang, Ye, Liu, Guo and Fu, 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.memory.drawn import draws_of, replayed
from lifelong.memory.per_class import PerClass
from lifelong.strategies.distillation.lwf import soft_cross_entropy
from lifelong.strategies.replay.lines import fitted_line

KEPT = PerClass()


@dataclass(frozen=True)
class BiC(Strategy):
    """Replay rows of each class, distil the old classes, and undo the network's leaning to new classes on held-out rows.

    While a task is learned, on all rows of a batch alike, replayed ones included, loss = n / (n + m) L_d + m / (n + m) L_c
    with n old and m new classes; L_c is the cross-entropy, L_d that between softmax(teacher / temperature) and
    softmax(student / temperature) over the old classes, without temperature^2. At its end, from the second task on, the
    scores of the new classes become alpha s + beta; the pair is fitted, the network being fixed, on held-out rows of all
    classes seen, each class alike: mean cross-entropy + pull x beta^2 / 2, from (1, 0) by `steps` Newton steps, each as
    long as lowers it most. Answers, the teacher and old classes' scores while learning on are corrected.

    per_class: rows kept of each class to be learned again. held_out: rows kept of each class's validation rows, never
    learned; both are memory. rows, replacement: as in `Replay`. (Wu et al., 2019, eq. 1 to 5; pull as in the authors'
    code.) They divide one memory of a fixed total, 9 to 1, and pass over new and kept rows together; here each class has
    its share at once, drawn at random, and every batch brings kept rows. They fit by gradient descent; Newton's steps end
    at the same pair and need no rate.
    """

    per_class: int = 100
    held_out: int = 20
    rows: int = 0
    replacement: bool = True
    temperature: float = 2.0
    pull: float = 0.1
    steps: int = 10
    keeps = "rows of each class, others held out, a teacher, a line"
    witness = "a plain float64 loop, the line by scipy: tests/reference/test_methods_b.py"
    defaults = "published, but for held_out and steps"
    passes = (4.0, 2.0)
    sized_by = "per_class"
    requires = Requirements(settings=("class",), task_ends=True, validation=True)

    def __post_init__(self) -> None:
        require(self, min(self.per_class, self.held_out) >= 1, "per_class and held_out must be at least 1")
        require(self, min(self.rows, self.steps) >= 0, "rows and steps must be at least 0")
        require(self, self.temperature > 0, "temperature must be above 0")
        require(self, self.pull >= 0, "pull must be at least 0")

    def draws(self, problem: Problem) -> Shapes:
        """Which places are replayed."""
        places = problem.classes * self.per_class
        return {"place": draws_of(places, self.rows or problem.batch, self.replacement)}

    def task_draws(self, problem: Problem) -> Shapes:
        """A ticket for each row, of those to learn from and of those held out."""
        return {"ticket": (problem.task_rows,), "held_out": (problem.validation_rows,)}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Two memories, the teacher's net, classes seen [C], and the corrections alpha, beta [C]."""
        none = problem.zeros(problem.classes)
        return params, {
            "exemplars": KEPT.init(problem, self.per_class * problem.classes),
            "held_out": KEPT.init(problem, self.held_out * problem.classes),
            "teacher": {name: value.clone() for name, value in params["net"].items()},
            "seen": none > 0,
            "alpha": none + 1,
            "beta": none,
        }

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows, each with the weight of a row of the stream."""
        rows, shown = self.rows or len(batch.row[batch.stream]), batch.shown[batch.stream].sum()
        draw = KEPT.pick(memory["exemplars"], batch.draws["place"], rows, self.replacement)
        share = shown.to(problem.dtype) / (shown + draw.valid.sum())
        return replayed(problem, batch, memory["exemplars"], draw, share)

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """Cross-entropy and distillation of corrected scores, weighed by the numbers of classes."""
        raw = problem.outputs(params, batch.x)
        seen: Tensor = memory["seen"]
        outputs = raw._replace(logits=corrected(raw.logits, memory))
        old = seen | ~seen.any()  # the first task's teacher has nothing to say, and no weight
        teacher = corrected(problem.logits({"net": memory["teacher"]}, batch.x), memory)
        over = old.expand_as(teacher)
        terms = soft_cross_entropy(teacher / self.temperature, outputs.logits / self.temperature, over, over)
        known = seen | problem.index["classes_of"][batch.task[:1]][0]
        share = seen.sum().to(problem.dtype) / known.sum()
        rows = (1 - share) * problem.loss_rows(outputs.logits, batch) + share * terms
        return (batch.weight * rows).sum(), outputs

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Keep rows of the task, fit its correction, and become the teacher."""
        exemplars = KEPT.insert_task(problem, params, memory["exemplars"], task, task.draws)
        spared = task._replace(row=task.validation, valid=task.validation_valid)
        luck = {"ticket": task.draws["held_out"]}
        held = KEPT.insert_task(problem, params, memory["held_out"], spared, luck)
        new = task.classes & ~memory["seen"]
        row, number, filled = held["row"], held["task"], held["filled"]
        among = filled.view(problem.classes, -1)
        each = among.to(problem.dtype) / among.sum(1, keepdim=True).clamp(min=1)  # each class alike
        scores = corrected(problem.logits(params, problem.x(row, number)), memory).detach()
        label, weight = torch.where(filled, problem.y(row, number), 0), (each / each.sum()).flatten()
        pair = fitted_line(scores, label, weight, problem.allowed(number), new, self.pull, self.steps)
        pair = torch.where(memory["seen"].any(), pair, pair.new_tensor([1.0, 0.0]))
        return params, {
            "exemplars": exemplars,
            "held_out": held,
            "teacher": dict(params["net"]),
            "seen": memory["seen"] | task.classes,
            "alpha": torch.where(new, pair[0], memory["alpha"]),
            "beta": torch.where(new, pair[1], memory["beta"]),
        }

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Corrected scores."""
        return corrected(problem.logits(params, x), memory)


def corrected(scores: Tensor, memory: Memory) -> Tensor:
    """alpha s + beta of each class, [B, C]."""
    return memory["alpha"] * scores + memory["beta"]
