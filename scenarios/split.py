"""Split: the classes of a data set, a few in each task."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, TaskGenerator, generator


def rows_of(dataset: Dataset, train: bool) -> Tensor:
    """Row numbers of the training or of the test part of a dataset, int64 [n]."""
    rows = torch.arange(len(dataset.y))
    return rows[: dataset.train_rows] if train else rows[dataset.train_rows :]


def hold_out(rows: Tensor, fraction: float, *words: object) -> tuple[Tensor, Tensor]:
    """Split rows at random into training and validation, floor(fraction x n) of them held out.

    Raises ScenarioError for what is no share.
    """
    if not 0 <= fraction < 1:
        raise ScenarioError(f"validation={fraction} is not a share: it lies in 0 ... 1")
    count = int(len(rows) * fraction)
    if not count:
        return rows, rows[:0]
    order = torch.randperm(len(rows), generator=generator(*words))
    return rows[order[count:].sort().values], rows[order[:count].sort().values]


@dataclass(frozen=True)
class HeldOutTasks:
    """A task generator whose tasks validate on a share of their training rows, where it holds out none itself.

    Every row of the dataset draws a ticket, so that tasks of the same rows hold out the same ones.
    """

    task_generator: TaskGenerator
    fraction: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The task generator's tasks."""
        ticket = torch.rand(len(dataset.y), generator=generator(seed, "validation"))
        return [
            task if len(task.validation) else self._held(task, ticket)
            for task in self.task_generator.tasks(dataset, seed)
        ]

    def _held(self, task: Task, ticket: Tensor) -> Task:
        order, count = ticket[task.train].argsort(), int(len(task.train) * self.fraction)
        kept = task.of_places(order[count:].sort().values)
        return replace(kept, validation=task.train[order[:count]].sort().values)


def with_validation(stream: Stream, fraction: float) -> Stream:
    """The stream, floor(fraction x n) training rows of each task held out where it holds out none."""
    return replace(stream, task_generator=HeldOutTasks(stream.task_generator, fraction))


@dataclass(frozen=True)
class SplitTasks:
    """The task generator behind `split`; see there."""

    count: int
    per_task: int
    setting: str
    order: tuple[int, ...] | None
    validation: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """Tasks of `per_task` classes each, in this seed's own order of classes."""
        if self.order is None:
            order = torch.randperm(dataset.classes, generator=generator(seed, "class order"))
        else:
            order = torch.tensor(self.order)
        return [self._task(dataset, seed, t, order) for t in range(self.count)]

    def _task(self, dataset: Dataset, seed: int, t: int, order: Tensor) -> Task:
        classes = order[t * self.per_task : (t + 1) * self.per_task]
        numbers = torch.arange(self.per_task) + (0 if self.setting == "domain" else t * self.per_task)
        label = torch.full((dataset.classes,), -1, dtype=torch.int64)
        label[classes] = numbers
        inside = (label >= 0)[dataset.y.cpu()]
        train, validation = hold_out(
            torch.nonzero(inside[: dataset.train_rows])[:, 0], self.validation, seed, "validation", t
        )
        test = torch.nonzero(inside[dataset.train_rows :])[:, 0] + dataset.train_rows
        return Task(t, train, validation, test, label, tuple(numbers.tolist()))


def split(
    dataset: Dataset,
    tasks: int = 5,
    setting: str = "class",
    order: tuple[int, ...] | None = None,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
    name: str = "",
    way: int = 0,
) -> Stream:
    """Divide the classes of a dataset over tasks, `way` in each, floor(classes / tasks) where that is 0.

    order: a fixed order of the original classes; without it each seed draws its own. validation: the share of each
    task's training rows that is held out. Domain-incremental: the i-th class of every task shares label i.
    """
    if tasks < 1:
        raise ScenarioError(f"tasks={tasks} is not possible: a stream has at least one task")
    if tasks > dataset.classes:
        raise ScenarioError(
            f"{tasks} tasks need {tasks} classes and {dataset.name} has {dataset.classes}: ask for fewer"
        )
    if way < 0 or tasks * way > dataset.classes:
        raise ScenarioError(
            f"{tasks} tasks of {way} classes need {tasks * way}, and {dataset.name} has {dataset.classes}: ask for fewer"
        )
    per_task = way or dataset.classes // tasks
    if not 0 <= validation < 1:
        raise ScenarioError(f"validation={validation} is not a share: it lies in 0 ... 1")
    if order is not None and sorted(order) != list(range(dataset.classes)):
        raise ScenarioError(f"order must name each of the classes 0 ... {dataset.classes - 1} once")
    task_generator = SplitTasks(tasks, per_task, setting, tuple(order) if order is not None else None, validation)
    classes = per_task if setting == "domain" else tasks * per_task
    return Stream(
        name or f"split-{dataset.name}",
        dataset,
        task_generator,
        setting,
        tasks,
        classes,
        open,
        budget=budget or Budget(),
    )


@dataclass(frozen=True)
class ClassByClassTasks:
    """The task generator behind `class_by_class`; see there."""

    count: int
    rehearsal: float = 0.0

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """One class a task, drawn and ordered by the seed."""
        order = torch.randperm(dataset.classes, generator=generator(seed, "class order"))[: self.count]
        y, tasks = dataset.y.cpu(), []
        for t, original in enumerate(order.tolist()):
            label = torch.full((dataset.classes,), -1, dtype=torch.int64)
            label[original] = t
            rows = torch.nonzero(y == original)[:, 0]
            train, test = rows[rows < dataset.train_rows], rows[rows >= dataset.train_rows]
            if self.rehearsal:
                if len(train) < 2:
                    raise ScenarioError(
                        f"class {original} of {dataset.name} has {len(train)} training rows: rehearsals need 2"
                    )
                train, test = hold_out(train, max(self.rehearsal, 1 / len(train)), seed, "rehearsal", t)
            tasks.append(Task(t, train, train[:0], test, label, (t,)))
        return tasks


def class_by_class(dataset: Dataset, count: int, budget: Budget | None = None, rehearsal: float = 0.0) -> Stream:
    """A stream of single classes, `count` of the dataset's, drawn anew by each seed; class-incremental.

    By default each training row is seen once, alone (Javed and White, 2019). rehearsal: the share of each class's
    training rows that stands in for its test rows, so that settings can be chosen without a look at those.
    """
    if not 2 <= count <= dataset.classes:
        raise ScenarioError(
            f"{count} classes cannot be drawn one by one: {dataset.name} has {dataset.classes}, ask for 2 ..."
        )
    budget = budget or Budget(epochs=1, batch=1)
    return Stream(
        f"one-by-one-{dataset.name}", dataset, ClassByClassTasks(count, rehearsal), "class", count, count, budget=budget
    )
