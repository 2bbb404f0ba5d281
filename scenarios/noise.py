"""Labels as training shows them: some wrong, some missing; over any task generator. Evaluation keeps to the true ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from scenarios.split import split
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task, TaskGenerator, generator


@dataclass(frozen=True)
class NoisyTasks:
    """A task generator whose training labels are wrong, or missing, for a share of the rows; see `noisy_labels`.

    Every row of the dataset draws its luck, so that tasks of the same rows and classes show the same labels.
    """

    task_generator: TaskGenerator
    wrong: float
    missing: float

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The task generator's tasks."""
        luck = torch.rand(3, len(dataset.y), generator=generator(seed, "label noise"), dtype=torch.float64)
        return [self._noisy(task, dataset.y.cpu(), luck) for task in self.task_generator.tasks(dataset, seed)]

    def _noisy(self, task: Task, y: torch.Tensor, luck: torch.Tensor) -> Task:
        flipped, chosen, hidden = luck[:, task.train]
        given = y[task.train] if task.given is None else task.given
        if self.wrong:
            known = torch.nonzero(task.label >= 0)[:, 0]  # [k], the task's original classes, in order
            if len(known) < 2:
                raise ScenarioError(f"a label of task {task.number} can only be wrong where it has two classes or more")
            # another class of the task: 1 ... k - 1 places further on, round the end
            place = torch.searchsorted(known, given.clamp(min=0))
            other = known[(place + 1 + (chosen * (len(known) - 1)).to(torch.int64)) % len(known)]
            given = torch.where((flipped < self.wrong) & (given >= 0), other, given)
        return replace(task, given=torch.where(hidden < self.missing, -1, given))


def noisy_labels(stream: Stream, wrong: float = 0.2, missing: float = 0.0) -> Stream:
    """The stream with labels that are wrong with a probability, or missing: symmetric noise, row by row.

    A wrong label is each of the other classes of the row's task with equal probability (symmetric noise as Patrini et
    al., 2017, define it, within the task). A row without a label is shown, and its loss is 0.
    """
    for word, share in (("wrong", wrong), ("missing", missing)):
        if not 0 <= share < 1:
            raise ScenarioError(f"{word}={share} is not possible: it is a share of the labels, 0 <= {word} < 1")
    return (
        replace(stream, task_generator=NoisyTasks(stream.task_generator, wrong, missing))
        if wrong or missing
        else stream
    )


def noisy(
    dataset: Dataset,
    tasks: int = 5,
    setting: str = "class",
    wrong: float = 0.2,
    missing: float = 0.0,
    order: tuple[int, ...] | None = None,
    validation: float = 0.0,
    open: str = "all",
    budget: Budget | None = None,
    name: str = "",
) -> Stream:
    """The classes of a dataset, a few in each task, a share of the training labels wrong and a share missing.

    wrong: the probability that a label is another class of the same task; missing: that there is none. The rest: see
    `split`.
    """
    stream = split(dataset, tasks, setting, order, validation, open, budget, name or f"noisy-{dataset.name}")
    return noisy_labels(stream, wrong, missing)
