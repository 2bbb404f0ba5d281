"""Long-tailed: some classes have many rows to learn from, others few; over any task generator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from scenarios.split import split
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, TaskGenerator, generator


@dataclass(frozen=True)
class LongTailTasks:
    """A task generator whose classes keep fewer and fewer training rows; see `long_tailed`.

    Every row of the dataset draws a ticket, so that tasks of the same rows keep the same ones.
    """

    task_generator: TaskGenerator
    imbalance: float
    ordered: bool

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The task generator's tasks."""
        tasks, y = self.task_generator.tasks(dataset, seed), dataset.y.cpu()
        there = [torch.bincount(y[task.train], minlength=dataset.classes) for task in tasks]
        met = list(dict.fromkeys(c for task in tasks for c in _in_order(task, y)))
        if not self.ordered:
            met = [met[i] for i in torch.randperm(len(met), generator=generator(seed, "long tail")).tolist()]
        most = min(int(count[count > 0].min()) for count in there)  # so many rows every class has
        wanted = torch.zeros(dataset.classes, dtype=torch.int64)
        for rank, c in enumerate(met):
            # what rounding leaves of a whole number is not cut off
            wanted[c] = max(1, int(most * self.imbalance ** (-rank / max(len(met) - 1, 1)) + 1e-9))
        ticket = torch.rand(len(y), generator=generator(seed, "long tail rows"))
        return [self._kept(task, y, ticket, wanted) for task in tasks]

    def _kept(self, task: Task, y: torch.Tensor, ticket: torch.Tensor, wanted: torch.Tensor) -> Task:
        """Of each class the rows with the smallest tickets."""
        places = []
        for c in y[task.train].unique().tolist():
            here = torch.nonzero(y[task.train] == c)[:, 0]
            places.append(here[ticket[task.train[here]].argsort()[: int(wanted[c])]])
        return task.of_places(torch.cat(places).sort().values)


def _in_order(task: Task, y: torch.Tensor) -> list[int]:
    """The original classes that a task trains on, in the order of their labels."""
    return sorted(y[task.train].unique().tolist(), key=lambda c: int(task.label[c]))


def long_tailed(stream: Stream, imbalance: float = 100.0, ordered: bool = False) -> Stream:
    """The stream with class counts n_i = floor(n x imbalance^(-i / (C - 1))), i = 0 ... C - 1, at least 1; n: of every class.

    n: what the smallest class has, in each task. Test rows stay as they are (Cao et al., 2019). Which class is the i-th:
    a random order of the seed's own, or, ordered, that of the stream, so that the first task has most rows (Liu et al.,
    2022, compare both).
    """
    if not 1 <= imbalance < float("inf"):
        raise ScenarioError(
            f"imbalance={imbalance} is not possible: it is the largest class over the smallest, at least 1"
        )
    return replace(stream, task_generator=LongTailTasks(stream.task_generator, float(imbalance), ordered))


def longtail(
    dataset: Dataset,
    tasks: int = 5,
    setting: str = "class",
    imbalance: float = 100.0,
    ordered: bool = False,
    order: tuple[int, ...] | None = None,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """The classes of a dataset, a few in each task, the largest with `imbalance` times the rows of the smallest.

    ordered: whether the classes that come first are the large ones; else the seed draws which are. The rest: see `split`.
    """
    stream = split(dataset, tasks, setting, order, validation, open, budget, name or f"longtail-{dataset.name}")
    return long_tailed(stream, imbalance, ordered)
