"""Many small tasks: a few classes each, of a data set that has many."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from scenarios.split import SplitTasks
from scenarios.stream import Budget, Dataset, ScenarioError, Stream


def few_classes(
    dataset: Dataset,
    tasks: int = 54,
    way: int = 5,
    size: int = 14,
    setting: str = "task",
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
) -> Stream:
    """`tasks` tasks of `way` classes each, all different, drawn by each seed from the classes of a dataset.

    size: height and width that images are brought to, by means over blocks; 0 leaves them. So many tasks of one kind are a
    distribution of tasks, from which one can learn to learn.
    """
    if tasks < 1 or way < 1 or tasks * way > dataset.classes:
        raise ScenarioError(
            f"{tasks} tasks of {way} classes need {tasks * way}, and {dataset.name} has {dataset.classes}: ask for fewer"
        )
    if not 0 <= validation < 1:
        raise ScenarioError(f"validation={validation} is not a share: it lies in 0 ... 1")
    task_generator = SplitTasks(tasks, way, setting, None, validation)
    classes = way if setting == "domain" else tasks * way
    smaller = in_blocks(dataset, size) if size else dataset
    name = f"few-classes-{dataset.name}"
    return Stream(name, smaller, task_generator, setting, tasks, classes, open, budget=budget or Budget())


def in_blocks(dataset: Dataset, size: int) -> Dataset:
    """The dataset with images [..., size, size], each pixel the mean of a block of pixels.

    Raises ScenarioError where rows are no square images, or their side is no multiple of `size`.
    """
    shape = dataset.shape
    if len(shape) not in (2, 3) or shape[-1] != shape[-2] or size < 1 or shape[-1] % size:
        raise ScenarioError(
            f"rows of {dataset.name} are {shape}: they cannot be brought to {size} x {size} by whole blocks"
        )
    block = shape[-1] // size
    if block == 1:
        return dataset
    x = dataset.x.to(torch.float32).view(len(dataset.x), -1, *shape[-2:])
    x = F.avg_pool2d(x, block).view(len(x), *shape[:-2], size, size)
    x = x.round().to(torch.uint8) if dataset.x.dtype == torch.uint8 else x.to(dataset.x.dtype)
    return replace(dataset, name=f"{dataset.name}-{size}x{size}", x=x)
