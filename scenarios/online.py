"""Online: one pass over each task in small batches, every row shown once."""

from __future__ import annotations

from dataclasses import replace

from scenarios.split import split
from scenarios.stream import Budget, Dataset, ScenarioError, Stream


def online(
    dataset: Dataset,
    tasks: int = 5,
    setting: str = "class",
    repeats: int = 0,
    order: tuple[int, ...] | None = None,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """The classes of a dataset, a few in each task, each row shown once (as in Chaudhry et al., 2019; Aljundi et al., 2019).

    repeats: steps on each batch before the next one comes, each with new draws of what is replayed; 0: as the budget
    says. The rest: see `split`.
    """
    if repeats < 0 or not isinstance(repeats, int):
        raise ScenarioError(f"repeats={repeats} is not possible: it is a number of steps on each batch, at least 1")
    budget = budget or Budget(epochs=1, batch=10)
    budget = replace(budget, repeats=repeats) if repeats else budget
    return split(dataset, tasks, setting, order, validation, open, budget, name or f"online-{dataset.name}")
