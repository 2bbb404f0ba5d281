"""Learning without forgetting (Li and Hoiem, 2016), carried to the three settings by van de Ven et al. (2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.expectations import WITHOUT_OLD_DATA, expected
from scenarios.stream import Stream


@dataclass(frozen=True)
class LwF(Strategy):
    """Keep answering the current inputs as the network did before this task.

    penalty = strength x temperature^2 x mean over the stream's rows of CE(softmax(teacher / temperature),
    softmax(student / temperature)): task-incremental, summed over the heads of past tasks; domain-incremental, times
    their number; class-incremental, once, the teacher over the classes seen before, the student over all open ones.

    scaled=False leaves temperature^2 out. Then it is, where tasks have heads, the loss of Li and Hoiem (2016, eq. 2 and 3;
    lambda_o = strength = 1, T = 2, a sum over all old heads), and in all three settings that of van de Ven's code. The
    factor is Hinton et al.'s (2015): the gradient then keeps its size whatever the temperature.

    The paper records the old heads' answers to the new task's rows before it trains; here the network before the task is
    kept and asked again, which is the same where rows are not distorted anew each time. The paper lets the new head learn
    alone at first: LwF(scaled=False) + WarmUp(). It decays weights by 0.0005 and takes a lower rate for new tasks: both are
    the optimiser's. (Avalanche takes the KL divergence, whose gradient is the same, and alpha for strength, without
    temperature^2.)

    Memory: the last network, classes seen [C], tasks done. Raises StrategyError for numbers out of range.
    """

    strength: float = 1.0
    temperature: float = 2.0
    scaled: bool = True
    off = {"strength": 0.0}
    keeps = "the last network"
    passes = (2.0, 1.0)
    runs_network = True
    witness = "a plain float64 loop in each setting: tests/reference/witnesses/test_lwf.py"
    defaults = "published"
    requires = Requirements(task_ends=True, classes=True)

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")
        require(self, self.temperature > 0, "temperature must be above 0")

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found in class-incremental streams; where tasks share their classes it gains."""
        return expected(WITHOUT_OLD_DATA, "LwF", stream) if stream.setting == "class" else []

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The teacher's net, classes seen [C], tasks done."""
        teacher = {name: value.clone() for name, value in params["net"].items()}
        seen = torch.zeros(problem.classes, dtype=torch.bool, device=problem.device)
        return params, {"teacher": teacher, "seen": seen, "done": problem.zeros()}

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The distillation loss; exactly 0 during the first task."""
        rows = batch.stream
        allowed, shown = batch.allowed[rows], batch.shown[rows].to(problem.dtype)
        share = shown / shown.sum().clamp(min=1)  # [B]
        student = outputs.logits[rows] / self.temperature
        teacher = problem.logits({"net": memory["teacher"]}, batch.x[rows]) / self.temperature
        if problem.setting == "task":
            heads = problem.index["classes_of"][:, None, :]  # [T, 1, C]
            past = torch.arange(heads.shape[0], device=student.device) < memory["done"]
            terms = soft_cross_entropy(teacher, student, heads, heads) @ share  # [T]
            loss = torch.where(past, terms, torch.zeros_like(terms)).sum()
        elif problem.setting == "domain":
            loss = memory["done"] * (soft_cross_entropy(teacher, student, allowed, allowed) @ share)
        else:
            seen: Tensor = memory["seen"]
            known = seen | ~seen.any()
            terms = soft_cross_entropy(teacher, student, known.expand_as(student), allowed | known)
            loss = (memory["done"] > 0) * (terms @ share)
        return self.strength * self.temperature**2 * loss if self.scaled else self.strength * loss

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """The network becomes its own teacher."""
        seen = memory["seen"] | task.classes
        return params, {"teacher": dict(params["net"]), "seen": seen, "done": memory["done"] + 1}


def soft_cross_entropy(teacher: Tensor, student: Tensor, over: Tensor, among: Tensor) -> Tensor:
    """-sum_c softmax(teacher)_c log softmax(student)_c, each over its own mask; masks broadcast [..., B, C]."""
    target = teacher.masked_fill(~over, -torch.inf).softmax(-1)
    log_p = student.masked_fill(~among, -torch.inf).log_softmax(-1)
    return -(target * torch.where(over & among, log_p, torch.zeros_like(log_p))).sum(-1)
