"""Two digits in one image, and a task for each: MultiMNIST (Sabour, Frosst and Hinton, 2017; Sener and Koltun, 2018)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from scenarios.split import hold_out, rows_of
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, generator


def overlaid(dataset: Dataset, pairing: int = 0) -> Dataset:
    """Each image with a random partner of the same part: one at the upper left, one at the lower right, their maximum.

    Images [H, H] lie on a canvas of 9 / 7 H, the partner 3 / 14 H further down and to the right (36 and 6 for MNIST's 28),
    which is then brought back to H by the nearest pixel: new pixel i is old pixel floor(9 i / 7). So every image is once the left
    one. y = C left + right, of the C classes of the dataset; pairing: which partners are drawn, the same for all seeds of a
    run. Raises ScenarioError for rows that are no square images of one channel.
    """
    if len(dataset.shape) != 2 or dataset.shape[0] != dataset.shape[1]:
        raise ScenarioError(
            f"only square images can be laid over one another, and a row of {dataset.name} has {dataset.shape}"
        )
    size = dataset.shape[0]
    shift, canvas = round(size * 3 / 14), round(size * 9 / 7)
    parts = (dataset.train_rows, len(dataset.y) - dataset.train_rows)
    random = generator("overlaid", pairing)
    train, test = (torch.randperm(count, generator=random) for count in parts)
    partner = torch.cat([train, dataset.train_rows + test])
    left = F.pad(dataset.x.cpu(), (0, canvas - size, 0, canvas - size))
    edge = canvas - size - shift
    right = F.pad(dataset.x.cpu()[partner], (shift, edge, shift, edge))
    kept = torch.arange(size) * canvas // size
    x = torch.maximum(left, right)[:, kept][:, :, kept]
    y = dataset.classes * dataset.y.cpu() + dataset.y.cpu()[partner]
    return replace(
        dataset, name=f"multi-{dataset.name}", x=x, y=y, classes=dataset.classes**2, labels=(), targets=None,
        origin=f"pairs of {dataset.name}",
    )  # fmt: skip


@dataclass(frozen=True)
class PlaceTasks:
    """One task for each place of the images, which asks for the class of what lies there; see `multi_class`."""

    count: int
    classes: int
    outputs: int
    missing: float
    validation: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """Left, then right; the same rows for both but for those whose label is missing."""
        train, validation = hold_out(rows_of(dataset, True), self.validation, seed, "validation")
        test, tasks = rows_of(dataset, False), []
        for t in range(self.count):
            place, copy = t % 2, t // 2
            pair = torch.arange(self.classes**2)
            digit = pair // self.classes if place == 0 else pair % self.classes
            order = torch.randperm(self.classes, generator=generator(seed, "labels", copy))
            digit = digit if copy == 0 else order[digit]  # a third and fourth task ask for the same by other names
            first = t * self.classes if self.outputs > self.classes else 0
            known = torch.rand(len(train), generator=generator(seed, "missing labels", t)) >= self.missing
            known[0] |= not known.any()
            outputs = tuple(range(first, first + self.classes))
            tasks.append(Task(t, train[known], validation, test, first + digit, outputs))
        return tasks


def multi_class(
    dataset: Dataset,
    tasks: int = 2,
    setting: str = "task",
    missing: float = 0.0,
    pairing: int = 0,
    validation: float = 0.0,
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """Two tasks on pairs of overlapping images: which class lies to the left, which to the right; see `overlaid`.

    Task- and class-incremental: each task has outputs of its own. Domain-incremental: the same outputs answer both, so that the
    tasks contradict each other. missing: the share of its labels that each task does not know, other rows for each: they
    are not among its training rows. tasks: with more than 2 the same is asked again, classes by other numbers.
    """
    if not 0 <= missing < 1:
        raise ScenarioError(f"missing={missing} is not possible: it is a share of the labels, 0 <= missing < 1")
    if tasks < 1:
        raise ScenarioError(f"tasks={tasks} is not possible: there must be at least 1")
    pairs = overlaid(dataset, pairing)
    outputs = dataset.classes * (1 if setting == "domain" else tasks)
    places = PlaceTasks(tasks, dataset.classes, outputs, missing, validation)
    return Stream(name or pairs.name, pairs, places, setting, tasks, outputs, budget=budget or Budget(), disjoint=False)
