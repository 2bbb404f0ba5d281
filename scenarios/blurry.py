"""Blurry: a share of each task's training rows comes from the other tasks; the ends of tasks are told."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenarios.split import split
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, TaskGenerator, generator


@dataclass(frozen=True)
class BlurryTasks:
    """A task generator whose tasks deal a share of their training rows out to one another; see `blurry`."""

    task_generator: TaskGenerator
    share: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The task generator's tasks; classes that come from elsewhere count among those of a task, but it is not tested on them."""
        tasks = self.task_generator.tasks(dataset, seed)
        label = torch.stack([task.label for task in tasks]).amax(0)  # each class as its own task numbers it
        if any(bool(((task.label >= 0) & (task.label != label)).any()) for task in tasks):
            raise ScenarioError("tasks that number the same class differently cannot share their rows")
        classes = tuple(sorted({number for task in tasks for number in task.classes}))
        given = dataset.y.cpu().clone()
        for task in tasks:
            given[task.train] = given[task.train] if task.given is None else task.given
        noisy = any(task.given is not None for task in tasks)
        mixed = []
        for task, train in zip(tasks, self._mixed(tasks, seed), strict=True):
            shown = given[train] if noisy else None
            mixed.append(replace(task, train=train, given=shown, label=label, classes=classes))
        return mixed

    def _mixed(self, tasks: list[Task], seed: int) -> list[Tensor]:
        """The training rows of each task: floor(share x n) of n are dealt out, in a random order, to the others in turn."""
        parts: list[list[Tensor]] = [[] for _ in tasks]
        for t, task in enumerate(tasks):
            order = task.train[torch.randperm(len(task.train), generator=generator(seed, "blurry", task.number))]
            others = [other for other in range(len(tasks)) if other != t]
            count = int(self.share * len(order)) if others else 0
            parts[t].append(order[count:])
            for i, other in enumerate(others):
                parts[other].append(order[:count][i :: len(others)])
        return [torch.cat(rows).sort().values for rows in parts]


def blurred(stream: Stream, share: float = 0.3) -> Stream:
    """The stream with blurry boundaries; its tasks then share classes, but no rows, and are tested on what they were."""
    if not 0 <= share < 1:
        raise ScenarioError(f"share={share} is not possible: 0 <= share < 1 of a task's rows can come from others")
    return replace(stream, task_generator=BlurryTasks(stream.task_generator, share), disjoint=False)


def blurry(
    dataset: Dataset,
    tasks: int = 5,
    setting: str = "class",
    share: float = 0.3,
    order: tuple[int, ...] | None = None,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """The classes of a dataset, a few major ones in each task, and a share of rows of all others: `share=0.3` is Blurry30.

    1 - share of a task's rows stay, the rest is dealt evenly to the other tasks: so major classes make up 1 - share of
    every task, as "BlurryM" is defined in the paper and notebook of Bang et al. (2021). The lists of rows that they
    published deal the share to all tasks, the task itself among them: their Blurry30 is share=0.24 of 5 tasks. The rest:
    see `split`.
    """
    stream = split(dataset, tasks, setting, order, validation, open, budget, name or f"blurry-{dataset.name}")
    return blurred(stream, share)
