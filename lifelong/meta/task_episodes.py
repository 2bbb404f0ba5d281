"""A stream's own tasks as episodes: what a meta-learner of the paradigms learns from."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.problem import Problem
from scenarios.episodes import Episode, TaskSource, shuffled
from scenarios.stream import ScenarioError


class TaskEpisodes(TaskSource):
    """A stream's own tasks as episodes: one task each, its classes in random order, rows from its training part."""

    def __init__(self, problem: Problem, tasks: int) -> None:
        self.problem, self.tasks = problem, tasks
        index = problem.index
        first = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._shape = tuple(problem.x(first, first).shape[1:])
        self.rows = []  # of each task and class
        for t in range(tasks):
            trained = index["rows_train"][t, : int(index["count_train"][t])]
            y = problem.y(trained, torch.full_like(trained, t))
            classes = torch.nonzero(index["classes_of"][t])[:, 0].tolist()
            self.rows.append([trained[y == c] for c in classes])
        self.way = len(self.rows[0])

    def __len__(self) -> int:
        return self.tasks * self.way

    @property
    def name(self) -> str:
        """The table's."""
        return self.problem.dataset.name

    @property
    def shape(self) -> tuple[int, ...]:
        """As the network sees a row in its task."""
        return self._shape

    @property
    def device(self) -> torch.device:
        """Where the table lies."""
        return self.problem.dataset.x.device

    @property
    def hash(self) -> str:
        """Named by what it is: these episodes belong to a stream and a seed."""
        return f"tasks of {self.name}"

    def queries(self, shot: int, wanted: int) -> int:
        """Those of the smallest class."""
        return min(wanted, self._least - shot)

    @property
    def _least(self) -> int:
        return min(len(rows) for task in self.rows for rows in task)

    def check(self, way: int, shot: int, query: int) -> None:
        """Raise ScenarioError where no such episode can be drawn."""
        if shot + query > self._least:
            raise ScenarioError(
                f"shot={shot} and query={query} need {shot + query} rows of each class; one has {self._least}"
            )

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T episodes, x already as the network sees it in its task; classes and rows in random order."""
        numbers = torch.randint(self.tasks, (tasks,), generator=generator)
        classes = torch.stack([torch.randperm(self.way, generator=generator) for _ in range(tasks)])
        rows = torch.stack([
            torch.stack([self._some(self.rows[t][c], shot + query, generator) for c in order])
            for t, order in zip(numbers.tolist(), classes.tolist(), strict=True)
        ])  # [T, W, K + Q]  # fmt: skip

        def part(first: int, last: int) -> tuple[Tensor, Tensor]:
            order = shuffled(tasks, self.way * (last - first), generator).to(self.device)
            row = rows[:, :, first:last].flatten(1).gather(1, order)
            task = numbers.to(self.device)[:, None].expand_as(row)
            x = self.problem.x(row.flatten(), task.flatten()).view(*row.shape, *self.shape)
            return x, order // max(last - first, 1)

        places = (numbers[:, None] * self.way + classes).to(self.device)
        return Episode(*part(0, shot), *part(shot, shot + query), places)

    @staticmethod
    def _some(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Different rows, at random."""
        return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
