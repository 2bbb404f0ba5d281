"""Tasks that ask for numbers: datasets with targets made from images, streams of regression, and streams of both kinds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.split import hold_out, rows_of, split
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, TaskGenerator, generator

NUMBERS = ("across", "down", "slant", "mass", "spread")


def measured(dataset: Dataset, missing: float = 0.0) -> Dataset:
    """The dataset with five numbers of each image as targets [N, 5], in the order of NUMBERS.

    With intensity I and columns u, rows v: mass = sum I; across = sum I u / mass, down = sum I v / mass, the centre of
    mass; slant = -cov(u, v) / var(v), the shear that sets the image upright; spread = (var(u) + var(v))^(1/2). Each is
    shifted and scaled to mean 0 and variance 1 over the training rows. missing: the share of the numbers of training rows
    that are not known, NaN, the same for all seeds. Raises ScenarioError for rows that are no images.
    """
    if len(dataset.shape) not in (2, 3):
        raise ScenarioError(f"only images can be measured, and a row of {dataset.name} has shape {dataset.shape}")
    if not 0 <= missing < 1:
        raise ScenarioError(f"missing={missing} is not possible: it is a share of the numbers, 0 <= missing < 1")
    image = dataset.x.cpu().to(torch.float64)
    image = image.mean(1) if image.ndim == 4 else image  # [N, H, W]
    down, across = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in image.shape[1:]), indexing="ij")
    mass = image.sum((1, 2)).clamp(min=1e-9)

    def mean(values: Tensor) -> Tensor:
        return (image * values).sum((1, 2)) / mass

    u, v = mean(across), mean(down)
    du, dv = across - u[:, None, None], down - v[:, None, None]
    upright, wide = mean(dv * dv), mean(du * du)
    slant = -mean(du * dv) / upright.clamp(min=1e-9)
    numbers = torch.stack([u, v, slant, mass, (upright + wide).sqrt()], 1)  # [N, 5]
    train = numbers[: dataset.train_rows]
    numbers = (numbers - train.mean(0)) / train.std(0, correction=0).clamp(min=1e-9)
    unknown = torch.rand(numbers.shape, generator=generator("missing numbers", missing)) < missing
    unknown[dataset.train_rows :] = False
    return replace(dataset, targets=numbers.masked_fill(unknown, torch.nan).to(torch.float32).to(dataset.x.device))


@dataclass(frozen=True)
class RegressionTasks:
    """One number a task, asked of all images; see `regression`."""

    count: int
    validation: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The numbers in this seed's own order; output t is the answer to task t."""
        train, validation = hold_out(rows_of(dataset, True), self.validation, seed, "validation")
        test, order = rows_of(dataset, False), torch.randperm(len(NUMBERS), generator=generator(seed, "number order"))
        tasks = []
        for t in range(self.count):
            label = torch.full((dataset.classes,), t)  # whatever the class, one output answers
            tasks.append(Task(t, train, validation, test, label, (t,), columns=(int(order[t]),)))
        return tasks


@dataclass(frozen=True)
class TargetTasks:
    """A task generator some of whose tasks ask for numbers of their images rather than for classes.

    every: which: 1 for all tasks, 2 for each second one. columns: what they ask for, all of the same outputs, the first of
    which is `first`.
    """

    task_generator: TaskGenerator
    every: int
    columns: tuple[int, ...]
    first: int

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The task generator's tasks, some with another question."""
        tasks = self.task_generator.tasks(dataset, seed)
        return [self._asked(task) if t % self.every == self.every - 1 else task for t, task in enumerate(tasks)]

    def _asked(self, task: Task) -> Task:
        outputs = tuple(range(self.first, self.first + len(self.columns)))
        return replace(task, label=torch.where(task.label >= 0, self.first, -1), classes=outputs, columns=self.columns)


def regression(
    dataset: Dataset,
    tasks: int = 5,
    setting: str = "task",
    number: str = "slant",
    missing: float = 0.0,
    validation: float = 0.0,
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """Tasks that ask for numbers of images: another number of all images in each, or the same of other digits.

    Task- and class-incremental: task t asks for one of NUMBERS by an output of its own. Domain-incremental: every task
    asks for `number`, by the same output, of the images of a few classes. missing: see `measured`. A task's score is
    1 - mean square error / variance.
    """
    dataset = measured(dataset, missing)
    if number not in NUMBERS:
        raise ScenarioError(f"number={number!r} is not known: it is one of {', '.join(NUMBERS)}")
    name = name or f"regression-{dataset.name}"
    if setting == "domain":
        stream = split(dataset, tasks, setting, validation=validation, budget=budget, name=name)
        task_generator = TargetTasks(stream.task_generator, 1, (NUMBERS.index(number),), 0)
        return replace(stream, task_generator=task_generator, classes=1)
    if not 1 <= tasks <= len(NUMBERS):
        raise ScenarioError(f"tasks={tasks} is not possible: there are {len(NUMBERS)} numbers to ask for, one a task")
    task_generator = RegressionTasks(tasks, validation)
    return Stream(name, dataset, task_generator, setting, tasks, tasks, budget=budget or Budget(), disjoint=False)


def mixed(
    dataset: Dataset,
    tasks: int = 4,
    setting: str = "task",
    missing: float = 0.0,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """Classes in one task, numbers in the next: a split whose every second task asks for all NUMBERS of its images.

    The outputs for numbers follow those for classes, and are the same for all tasks of numbers. missing: see `measured`.
    """
    dataset = measured(dataset, missing)
    stream = split(dataset, tasks, setting, None, validation, open, budget, name or f"mixed-{dataset.name}")
    task_generator = TargetTasks(stream.task_generator, 2, tuple(range(len(NUMBERS))), stream.classes)
    return replace(
        stream, task_generator=task_generator, classes=stream.classes + len(NUMBERS), disjoint=setting == "domain"
    )
