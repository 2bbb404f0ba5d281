"""Tasks that ask for numbers: tables with targets made from images, streams of regression, and streams of both kinds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.split import hold_out, rows_of, split
from scenarios.stream import Budget, Recipe, ScenarioError, Stream, Table, Task, generator

NUMBERS = ("across", "down", "slant", "mass", "spread")


def measured(table: Table, missing: float = 0.0) -> Table:
    """The table with five numbers of each image as targets [N, 5], in the order of NUMBERS.

    With intensity I and columns u, rows v: mass = sum I; across = sum I u / mass, down = sum I v / mass, the centre of
    mass; slant = -cov(u, v) / var(v), the shear that sets the image upright; spread = (var(u) + var(v))^(1/2). Each is
    shifted and scaled to mean 0 and variance 1 over the training rows. missing: the share of the numbers of training rows
    that are not known, NaN, the same for all seeds. Raises ScenarioError for rows that are no images.
    """
    if len(table.shape) not in (2, 3):
        raise ScenarioError(f"only images can be measured, and a row of {table.name} has shape {table.shape}")
    if not 0 <= missing < 1:
        raise ScenarioError(f"missing={missing} is not possible: it is a share of the numbers, 0 <= missing < 1")
    image = table.x.cpu().to(torch.float64)
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
    train = numbers[: table.train_rows]
    numbers = (numbers - train.mean(0)) / train.std(0, correction=0).clamp(min=1e-9)
    unknown = torch.rand(numbers.shape, generator=generator("missing numbers", missing)) < missing
    unknown[table.train_rows :] = False
    return replace(table, targets=numbers.masked_fill(unknown, torch.nan).to(torch.float32).to(table.x.device))


@dataclass(frozen=True)
class NumbersRecipe:
    """One number a task, asked of all images; see `regression`."""

    count: int
    validation: float

    def tasks(self, table: Table, seed: int) -> list[Task]:
        """The numbers in this seed's own order; output t is the answer to task t."""
        train, validation = hold_out(rows_of(table, True), self.validation, seed, "validation")
        test, order = rows_of(table, False), torch.randperm(len(NUMBERS), generator=generator(seed, "number order"))
        tasks = []
        for t in range(self.count):
            label = torch.full((table.classes,), t)  # whatever the class, one output answers
            tasks.append(Task(t, train, validation, test, label, (t,), columns=(int(order[t]),)))
        return tasks


@dataclass(frozen=True)
class AskedRecipe:
    """A recipe some of whose tasks ask for numbers of their images rather than for classes.

    every: which: 1 for all tasks, 2 for each second one. columns: what they ask for, all of the same outputs, the first of
    which is `first`.
    """

    recipe: Recipe
    every: int
    columns: tuple[int, ...]
    first: int

    def tasks(self, table: Table, seed: int) -> list[Task]:
        """The recipe's tasks, some with another question."""
        tasks = self.recipe.tasks(table, seed)
        return [self._asked(task) if t % self.every == self.every - 1 else task for t, task in enumerate(tasks)]

    def _asked(self, task: Task) -> Task:
        outputs = tuple(range(self.first, self.first + len(self.columns)))
        return replace(task, label=torch.where(task.label >= 0, self.first, -1), classes=outputs, columns=self.columns)


def regression(
    table: Table,
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
    table = measured(table, missing)
    if number not in NUMBERS:
        raise ScenarioError(f"number={number!r} is not known: it is one of {', '.join(NUMBERS)}")
    name = name or f"regression-{table.name}"
    if setting == "domain":
        stream = split(table, tasks, setting, validation=validation, budget=budget, name=name)
        recipe = AskedRecipe(stream.recipe, 1, (NUMBERS.index(number),), 0)
        return replace(stream, recipe=recipe, classes=1)
    if not 1 <= tasks <= len(NUMBERS):
        raise ScenarioError(f"tasks={tasks} is not possible: there are {len(NUMBERS)} numbers to ask for, one a task")
    recipe = NumbersRecipe(tasks, validation)
    return Stream(name, table, recipe, setting, tasks, tasks, budget=budget or Budget(), disjoint=False)


def mixed(
    table: Table,
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
    table = measured(table, missing)
    stream = split(table, tasks, setting, None, validation, open, budget, name or f"mixed-{table.name}")
    recipe = AskedRecipe(stream.recipe, 2, tuple(range(len(NUMBERS))), stream.classes)
    return replace(stream, recipe=recipe, classes=stream.classes + len(NUMBERS), disjoint=setting == "domain")
