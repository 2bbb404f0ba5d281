"""Knowledge distillation: a finished learner teaches a fresh network, smaller or not, from fewer rows (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lifelong.adaptation.methods import TransferError
from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, check_request, learned
from lifelong.core.problem import Problem
from lifelong.core.result import Result, concatenate
from lifelong.core.strategy import Requirements, Strategy, StrategyError, require
from lifelong.strategies.distillation.lwf import soft_cross_entropy
from scenarios.joint import joint
from scenarios.stream import Dataset, Seed, SequentialSchedule, Stream, Task, TaskGenerator, generator

ROWS = 1024  # of each seed that the teacher answers together
LOWEST = -1e9  # stands for minus infinity, the score of a class that a teacher never saw


@dataclass(frozen=True)
class Distillation(Strategy):
    """Learn from labels and from a teacher's scores (Hinton, Vinyals and Dean, 2015).

    l = alpha CE(y, softmax(v)) + (1 - alpha) temperature^2 KL(softmax(u / temperature), softmax(v / temperature)), u
    the teacher's scores, v the student's, both over the classes open to the row. The teacher's scores are computed once,
    by `distil`, and lie in the problem's index; so this part goes with `distil` alone.
    """

    alpha: float = 0.1
    temperature: float = 2.0
    requires = Requirements(paradigm="")

    def __post_init__(self) -> None:
        require(self, 0 <= self.alpha <= 1, "alpha, the share of the labels, lies in 0 ... 1")
        require(self, self.temperature > 0, "temperature must be above 0")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Nothing to remember. Raises StrategyError where there is no teacher."""
        if "teacher" not in problem.index:
            raise StrategyError(f"{self!r} needs a teacher: `lifelong distil RUN` brings one")
        return params, {}

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """sum_i w_i l_i."""
        outputs = problem.outputs(params, batch.x)
        place = problem.index["teacher_place"][batch.task, batch.row]
        teacher = problem.index["teacher"][batch.task, place]  # [B, C]
        soft = self.temperature**2 * divergence(teacher, outputs.logits, batch.allowed, self.temperature)
        rows = self.alpha * problem.loss_rows(outputs.logits, batch) + (1 - self.alpha) * soft
        return (batch.weight * rows).sum(), outputs


def divergence(teacher: Tensor, student: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / temperature), softmax(student / temperature)) over the classes that compete, [B]."""
    u, v = teacher / temperature, student / temperature
    return soft_cross_entropy(u, v, allowed, allowed) - soft_cross_entropy(u, u, allowed, allowed)


@dataclass(frozen=True)
class FewerRows:
    """A task generator with a random share of each class's training rows, at least one; larger shares hold smaller ones."""

    task_generator: TaskGenerator
    share: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The task generator's tasks with fewer rows to train on; validation and test stay."""
        y = dataset.y.cpu()
        return [
            replace(task, train=self._kept(task, task.label[y[task.train]], seed))
            for task in self.task_generator.tasks(dataset, seed)
        ]

    def _kept(self, task: Task, labels: Tensor, seed: int) -> Tensor:
        kept = []
        for c in task.classes:
            candidates = task.train[labels == c]
            order = torch.randperm(len(candidates), generator=generator(seed, "share", task.number, c))
            kept.append(candidates[order[: max(1, round(self.share * len(candidates)))]])
        return torch.cat(kept).sort().values


def fewer(stream: Stream, share: float) -> Stream:
    """The stream with a share of its training rows. Raises TransferError unless the share lies in 0 ... 1."""
    if not 0 < share <= 1:
        raise TransferError(f"a share of {share} of the rows cannot be learned from: it lies above 0 and up to 1")
    budget = replace(stream.budget, epochs=stream.budget.epochs / share)  # fewer rows, for as long
    return replace(stream, task_generator=FewerRows(stream.task_generator, share), budget=budget)


def scores_of_rows(teacher: Session, state: Any, index: dict[str, Tensor], setting: str) -> Tensor:
    """A fleet's scores for all training rows of some index, [S, T, N, C]."""
    rows = index["rows_train"]
    seeds, tasks, count = rows.shape
    number = torch.arange(tasks, device=rows.device)[:, None].expand(seeds, tasks, count).flatten(1)
    told = number if setting == "task" else torch.full_like(number, -1)
    ready, scores = teacher.prepared_at_end(state), []
    with torch.no_grad():
        for piece in zip(*(value.split(ROWS, 1) for value in (rows.flatten(1), number, told)), strict=True):
            scores.append(teacher.fleet.predict(ready, *piece))
    return torch.cat(scores, 1).view(seeds, tasks, count, -1).clamp(min=LOWEST)


def features_of_rows(teacher: Session, state: Any, index: dict[str, Tensor]) -> Tensor:
    """A fleet's features of all training rows of some index, [S, T, N, F]. Raises TransferError where it has none of its own."""
    if not teacher.fleet.learner.adapts_by_rule:
        raise TransferError(
            f"{teacher.fleet.learner!r} has no features that it learned: it can teach by its scores alone"
        )
    rows, problem = index["rows_train"], teacher.fleet.problem
    seeds, tasks, count = rows.shape
    number = torch.arange(tasks, device=rows.device)[:, None].expand(seeds, tasks, count).flatten(1)

    def of_member(places: dict[str, Tensor], net: Any, row: Tensor, task: Tensor) -> Tensor:
        seen = replace(problem, index=places)
        return seen.features({"net": net}, seen.x(row, task))

    with torch.no_grad():
        pieces = zip(rows.flatten(1).split(ROWS, 1), number.split(ROWS, 1), strict=True)
        each = [torch.func.vmap(of_member)(problem.index, state.params["net"], *piece) for piece in pieces]
    return torch.cat(each, 1).view(seeds, tasks, count, -1)


def distil(
    teacher: Session,
    state: Any,
    stream: Stream,
    seeds: Sequence[int | Seed],
    student: Learner,
    how: Strategy,
    share: float,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Result]:
    """Two students of each seed, "alone" and "taught": same draw, same rows, same batches, without and with the teacher.

    how: `Distillation`, and what is added to it of `lifelong.transfer.feature_distillation`.
    teacher, state: a finished fleet, each seed the teacher of its own student. The students learn a share of the
    training rows of all tasks, jointly. Raises TransferError for what cannot be taught.
    """
    if stream.paradigm == "isolate":
        raise TransferError(
            "an isolate baseline has one network for each task, and none that answers all: nothing to distil"
        )
    part = joint(fewer(replace(stream, paradigm="continual", schedule=SequentialSchedule()), share))
    check_request(student, part, list(seeds), str(stream.dataset.x.device))
    results = {}
    for name, strategy in (("alone", student.strategy), ("taught", how)):
        session = Session(replace(student, strategy=strategy), part, list(seeds), dtype=dtype)
        if name == "taught":
            index = session.fleet.problem.index
            index["teacher"] = scores_of_rows(teacher, state, index, stream.setting).to(dtype)
            if any(not isinstance(part, Distillation) for part in how.parts):  # the others teach by features
                index["teacher_features"] = features_of_rows(teacher, state, index).to(dtype)
            index["teacher_place"] = _places(index["rows_train"], len(stream.dataset.y))
        results[name], _ = learned(session)
    return results


def _places(rows: Tensor, count: int) -> Tensor:
    """Where each row of the dataset stands among a task's training rows: int64 [S, T, rows of the dataset]."""
    order = torch.arange(rows.shape[2], device=rows.device).expand_as(rows)
    last = torch.full((*rows.shape[:2], count), rows.shape[2] - 1, device=rows.device)
    return last.scatter_reduce_(2, rows, order, "amin")  # padding repeats a row: its first place counts


def distil_run(run: Any, student: Learner, how: Strategy, share: float, iterations: int = 0) -> dict[str, Result]:
    """`distil` of a run's folder (`lifelong.load`), all its chunks of seeds; "teacher" is the run's own result."""
    _, stream, _ = run.request.build()
    if iterations:
        stream = replace(stream, budget=replace(stream.budget, iterations=iterations, epochs=0.0))
    chunks = []
    for session, state in run.sessions():
        chunks.append(distil(session, state, stream, session.seeds, student, how, share))
    named = {name: concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return {"teacher": run.result, **named}
