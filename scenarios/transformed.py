"""Permuted and rotated: every task holds all rows, shown through its own transformation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from scenarios.split import hold_out, rows_of
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, generator


@dataclass(frozen=True)
class TransformedTasks:
    """The task generator behind `permuted` and `rotated`; see there."""

    count: int
    setting: str
    kind: str
    largest: float
    validation: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """Every row in every task, each task with its own permutation or angle."""
        train, validation = hold_out(rows_of(dataset, True), self.validation, seed, "validation")
        test = rows_of(dataset, False)
        features = math.prod(dataset.shape)
        tasks = []
        for t in range(self.count):
            label = torch.arange(dataset.classes) + (0 if self.setting == "domain" else t * dataset.classes)
            permutation, angle = None, 0.0
            if self.kind == "permuted":
                permutation = torch.randperm(features, generator=generator(seed, "permutation", t))
            else:
                angle = self.largest * t / max(self.count - 1, 1)
            tasks.append(Task(t, train, validation, test, label, tuple(label.tolist()), permutation, angle))
        return tasks


def _transformed(
    dataset: Dataset,
    tasks: int,
    setting: str,
    kind: str,
    largest: float,
    validation: float,
    open: str,
    budget: Budget | None,
) -> Stream:
    if tasks < 1:
        raise ScenarioError(f"tasks={tasks} is not possible: a stream has at least one task")
    task_generator = TransformedTasks(tasks, setting, kind, largest, validation)
    classes = dataset.classes * (1 if setting == "domain" else tasks)
    return Stream(
        f"{kind}-{dataset.name}", dataset, task_generator, setting, tasks, classes, open, budget=budget or Budget()
    )


def permuted(
    dataset: Dataset,
    tasks: int = 10,
    setting: str = "domain",
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
) -> Stream:
    """Each task shows the pixels in a random order of its own (Goodfellow et al., 2013). Labels: see `setting`."""
    return _transformed(dataset, tasks, setting, "permuted", 0.0, validation, open, budget)


def rotated(
    dataset: Dataset,
    tasks: int = 10,
    setting: str = "domain",
    largest: float = 180.0,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
) -> Stream:
    """Task t turns every image by largest x t / (tasks - 1) degrees (Lopez-Paz and Ranzato, 2017)."""
    if len(dataset.shape) not in (2, 3):
        raise ScenarioError(f"only images can be rotated, and a row of {dataset.name} has shape {dataset.shape}")
    return _transformed(dataset, tasks, setting, "rotated", largest, validation, open, budget)
