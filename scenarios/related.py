"""Related and unrelated tasks in turn, so that transfer between tasks can be positive or negative."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from scenarios.split import hold_out, rows_of
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, generator


@dataclass(frozen=True)
class RelatedTasks:
    """The task generator behind `related`; see there."""

    count: int
    setting: str
    largest: float
    validation: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """Even tasks turned, odd ones permuted; all rows in each."""
        train, validation = hold_out(rows_of(dataset, True), self.validation, seed, "validation")
        test, features, turns = rows_of(dataset, False), math.prod(dataset.shape), (self.count + 1) // 2
        tasks = []
        for t in range(self.count):
            label = torch.arange(dataset.classes) + (0 if self.setting == "domain" else t * dataset.classes)
            permutation, angle = torch.arange(features), 0.0
            if t % 2:
                permutation = torch.randperm(features, generator=generator(seed, "permutation", t))
            else:
                angle = self.largest * (t // 2) / max(turns - 1, 1)
            tasks.append(Task(t, train, validation, test, label, tuple(label.tolist()), permutation, angle))
        return tasks


def related(
    dataset: Dataset,
    tasks: int = 12,
    setting: str = "task",
    largest: float = 45.0,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
) -> Stream:
    """Tasks of two kinds in turn: the images turned a little further each time, and their pixels in a new random order.

    The turned tasks, by 0 ... `largest` degrees, are near to one another; a permuted one shares nothing with any but the
    distribution of its pixels. What is learned of one kind may help its own kind, and hinder the other.
    """
    if tasks < 2:
        raise ScenarioError(f"tasks={tasks}: related and unrelated tasks are at least 2")
    if len(dataset.shape) not in (2, 3):
        raise ScenarioError(f"only images can be turned, and a row of {dataset.name} has shape {dataset.shape}")
    task_generator = RelatedTasks(tasks, setting, largest, validation)
    classes = dataset.classes * (1 if setting == "domain" else tasks)
    name = f"related-{dataset.name}"
    return Stream(name, dataset, task_generator, setting, tasks, classes, open, budget=budget or Budget())
