"""Families of regression tasks whose relation is a number: how much they agree, how unequal their scales are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.machine import free_memory
from scenarios.split import hold_out, rows_of
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, generator


@dataclass(frozen=True)
class CorrelatedTasks:
    """Task t asks for `width` of the dataset's targets, from t width on, of all rows."""

    count: int
    width: int
    shared: bool
    validation: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The same for every seed, but for what is held out."""
        train, validation = hold_out(rows_of(dataset, True), self.validation, seed, "validation")
        test, tasks = rows_of(dataset, False), []
        for t in range(self.count):
            first = 0 if self.shared else t * self.width
            label = torch.full((dataset.classes,), first)
            outputs, columns = range(first, first + self.width), range(t * self.width, (t + 1) * self.width)
            tasks.append(Task(t, train, validation, test, label, tuple(outputs), columns=tuple(columns)))
        return tasks


def correlated(
    dataset: Dataset,
    tasks: int = 2,
    setting: str = "task",
    correlation: float = 0.5,
    noise: float = 0.1,
    draw: int = 0,
    validation: float = 0.0,
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """One number a task, from the same features, with a knob for how alike the tasks are.

    y_t = w_t . x + sum_i sin(alpha_i w_t . x + beta_i) + noise e, for rows x [F] centred and of unit variance; the w_t are unit vectors
    with w_s . w_t = correlation for every pair of tasks, which is then the correlation of their linear parts; alpha = 1, 2,
    beta_i drawn, the same for all tasks. With two tasks w_2 = p w_1 + (1 - p^2)^(1/2) u, as in the source, whose constants are
    not published. draw: which w, beta and e are drawn, the same for all seeds of a run. Domain-incremental: the same output
    answers all tasks. (Ma et al., 2018: MMoE, section 3.2.) Raises ScenarioError for a correlation that so many tasks
    cannot have.
    """
    least = -1 / (tasks - 1) if tasks > 1 else -1
    if tasks < 1 or not least < correlation <= 1:
        raise ScenarioError(
            f"correlation={correlation} is not possible: {tasks} tasks have one above {least:.2f}, up to 1"
        )
    x, features = _standardised(dataset)
    if features < tasks:
        raise ScenarioError(f"tasks={tasks} is not possible: there are {features} features, and each takes one")
    random = generator("correlated", draw)
    basis = torch.linalg.qr(torch.randn(features, tasks, generator=random, dtype=torch.float64))[0].T  # [T, F]
    weights = _root(correlation, tasks) @ basis
    speed, start = torch.arange(1, 3), torch.rand(2, generator=random, dtype=torch.float64) * 2 * torch.pi
    linear = x @ weights.T  # [N, T]
    targets = linear + torch.sin(linear[:, :, None] * speed + start).sum(2)
    targets = targets + noise * torch.randn(targets.shape, generator=random, dtype=torch.float64)
    return _stream(dataset, targets / targets.std(), tasks, 1, setting, validation, budget, name or "correlated")


def unbalanced(
    dataset: Dataset,
    tasks: int = 3,
    setting: str = "task",
    ratio: float = 10.0,
    outputs: int = 10,
    spread: float = 0.35,
    draw: int = 0,
    validation: float = 0.0,
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """Tasks of the same kind on scales 1, ratio, ratio^2, ...: what an unweighted sum of losses drowns.

    y_t = ratio^t tanh((B + spread E_t) x / F^(1/2)), B and E_t [outputs, F] of standard normal numbers, rows x [F] centred and of unit
    variance. The source has ratio 100 with two tasks, 100 outputs of 250 features, spread 0.35 and arguments so large that tanh
    is a sign; here they have unit variance. draw, setting: as of `correlated`. (Chen et al., 2018: GradNorm, section 4.)
    """
    if tasks < 1 or outputs < 1 or not ratio > 0:
        raise ScenarioError("tasks and outputs must be at least 1, ratio above 0")
    if not abs((tasks - 1) * math.log10(ratio)) < 38:
        raise ScenarioError(
            f"tasks={tasks}, ratio={ratio}: the scales go beyond what float32 holds: ask for fewer tasks"
        )
    x, features = _standardised(dataset)
    if 8 * tasks * outputs * (features + 2 * len(x)) > free_memory():
        raise ScenarioError(
            f"tasks={tasks}, outputs={outputs}: their numbers fit no memory here: ask for fewer outputs"
        )
    random = generator("unbalanced", draw)
    base = torch.randn(outputs, features, generator=random, dtype=torch.float64)
    deviation = torch.randn(tasks, outputs, features, generator=random, dtype=torch.float64)
    scale = ratio ** torch.arange(tasks, dtype=torch.float64)[:, None, None]  # [T, 1, 1]
    targets = scale * torch.tanh((base + spread * deviation) @ (x.T / features**0.5))  # [T, outputs, N]
    columns = targets.flatten(0, 1).T
    return _stream(dataset, columns, tasks, outputs, setting, validation, budget, name or "unbalanced")


def _standardised(dataset: Dataset) -> tuple[Tensor, int]:
    """Rows as float64 [N, F], each feature of mean 0 and variance 1 over the training rows; F."""
    x = dataset.x.cpu().flatten(1).to(torch.float64)
    train = x[: dataset.train_rows]
    return (x - train.mean(0)) / train.std(0, correction=0).clamp(min=1e-9), x.shape[1]


def _root(correlation: float, tasks: int) -> Tensor:
    """Rows of unit length with one cosine for every pair [T, T], the first along the first axis."""
    cosines = torch.full((tasks, tasks), correlation, dtype=torch.float64).fill_diagonal_(1)
    if correlation == 1:
        return torch.eye(tasks, dtype=torch.float64)[:1].expand(tasks, -1)
    return torch.linalg.cholesky(cosines)


def _stream(
    dataset: Dataset, targets: Tensor, tasks: int, width: int, setting: str, validation: float, budget: Budget | None, name: str
) -> Stream:  # fmt: skip
    dataset = replace(dataset, targets=targets.to(torch.float32))
    related = CorrelatedTasks(tasks, width, setting == "domain", validation)
    outputs = width if setting == "domain" else width * tasks
    return Stream(name, dataset, related, setting, tasks, outputs, budget=budget or Budget(), disjoint=False)
