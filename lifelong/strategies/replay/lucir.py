"""Learning a unified classifier incrementally via rebalancing, LUCIR (Hou, Pan, Loy, Wang and Lin, 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.memory.base import RowMemory
from lifelong.memory.herding import Herding
from lifelong.strategies.replay.exemplars import Exemplars, classes_here, of_class, rewritten


@dataclass(frozen=True)
class LUCIR(Exemplars):
    """Scores are cosines; features keep their directions; an old class stays ahead of the new ones that come nearest.

    s_c(x) = eta cos(f(x), w_c), w_c the head's weights of class c, without its bias, eta a learned number. From the
    second task on, loss = L_ce(s) + lambda mean (1 - cos(f(x), f*(x))) + ranking x mean max(0, margin - cos(f(x), w_y) +
    cos(f(x), w_k)); lambda = strength sqrt(|old classes| / |new classes|), f* the features at the end of the last task;
    the last mean is over the batch's rows of old classes and, for each, the `hardest` new classes k that come nearest.
    Rows are drawn from the task's rows and the exemplars together, as in `ICaRL`. The w_c of old classes stay fixed.
    Answer: s. (Hou et al., 2019, eq. 4 to 9, and their code, where old over new stands in lambda and old w_c are fixed.)

    per_class: exemplars of each class. strength: lambda_base. scale: eta at the start, where the authors have 1 and learn
    it for 160 epochs; at a small rate it stays near its start. memory: which rows are kept; herding. What differs from the
    source: features are as the network gives them, of an MLP at least 0, where the authors leave the last rectified
    linear unit out; new w_c are not imprinted with class means before their task; no fine-tuning on balanced rows after it.
    Raises StrategyError for a negative field, a scale of 0 or no hardest class.
    """

    per_class: int = 20
    strength: float = 5.0
    margin: float = 0.5
    ranking: float = 1.0
    hardest: int = 2
    scale: float = 10.0
    memory: RowMemory = field(default_factory=Herding)
    keeps: ClassVar[str] = "rows of each class, a teacher, old classes' weights"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_lucir.py"
    defaults: ClassVar[str] = "published for CIFAR-100, but for scale"
    passes = (2.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, min(self.strength, self.margin, self.ranking) >= 0, "strength, margin, ranking are at least 0")
        require(self, self.scale > 0 and self.hardest >= 1, "scale must be above 0, hardest at least 1")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """eta [1]; the memory, the teacher's net, the classes of finished tasks [C] and their fixed w [C, F]."""
        params, memory = super().init(problem, params, generator)
        teacher = {name: value.clone() for name, value in params["net"].items()}
        fixed = torch.zeros_like(problem.model.head_rows(teacher), memory_format=torch.contiguous_format)
        seen = problem.zeros(problem.classes) > 0
        params = {**params, "own": {"scale": problem.zeros(1) + self.scale}}
        return params, {**memory, "teacher": teacher, "seen": seen, "fixed": fixed}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Mix exemplars in; the classes met so far compete."""
        batch = self.mixed(problem, memory, batch)
        known = memory["seen"] | classes_here(problem, memory["done"])
        return rewritten(batch, allowed=known.expand_as(batch.allowed[batch.stream]))

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """Cross-entropy of the scaled cosines, less forgetting, and the margin."""
        here = classes_here(problem, memory["done"])
        old: Tensor = memory["seen"] & ~here
        features, rows = problem.features(params, batch.x), batch.stream
        cosines = to_classes(problem, params, memory["fixed"], old, features)
        scores = params["own"]["scale"] * cosines
        loss = (batch.weight * problem.loss_rows(scores, batch)).sum()
        before = problem.features({"net": memory["teacher"]}, batch.x[rows])
        turned = 1 - F.cosine_similarity(features[rows], before, dim=1)
        share = batch.shown[rows] / batch.shown[rows].sum().clamp(min=1)
        strength = self.strength * (old.sum() / here.sum().clamp(min=1)).sqrt() * old.any()
        gaps = self.overtaken(cosines[rows], batch.y[rows], old, here)
        forgetting = strength.to(loss.dtype) * (share * turned).sum()
        return loss + forgetting + self.ranking * gaps, Outputs(scores, features)

    def overtaken(self, cosines: Tensor, y: Tensor, old: Tensor, here: Tensor) -> Tensor:
        """By how much the hardest new classes come nearer than the margin to rows of old ones, on the mean, 0-d."""
        hard = (of_class(y, len(old)) & old).any(1)  # [B]
        count = min(self.hardest, len(old))
        nearest = cosines.masked_fill(~here, -torch.inf).topk(count, dim=1).values  # [B, K]
        true = cosines.gather(1, y.clamp(min=0)[:, None])
        gaps = torch.where(hard[:, None] & nearest.isfinite(), (self.margin - true + nearest).relu(), 0)
        return gaps.sum() / (hard.sum() * here.sum().clamp(max=count)).clamp(min=1)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Choose exemplars; the network becomes the teacher; the task's classes are fixed."""
        params, memory = super().after_task(problem, params, memory, task)
        fixed = torch.where(task.classes[:, None], problem.model.head_rows(params["net"]), memory["fixed"])
        seen = memory["seen"] | task.classes
        return params, {**memory, "teacher": dict(params["net"]), "seen": seen, "fixed": fixed}

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scaled cosines."""
        features = problem.features(params, x)
        return params["own"]["scale"] * to_classes(problem, params, memory["fixed"], memory["seen"], features)


def to_classes(problem: Problem, params: Params, fixed: Tensor, old: Tensor, features: Tensor) -> Tensor:
    """Cosines between features and each class's weights, those of old classes being the fixed ones, [B, C]."""
    weights = torch.where(old[:, None], fixed, problem.model.head_rows(params["net"]))
    return F.normalize(features, dim=1) @ F.normalize(weights, dim=1).T
