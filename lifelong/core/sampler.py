"""What a fleet is shown: batches, finished tasks, and the random numbers that its parts ask for.

Every random number is a function of where the run stands (seed, purpose, task, block of steps), not of what was drawn
before it. So a seed has the same luck alone and in a fleet, and a resumed run needs no generator's state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Block, FinishedTask
from lifelong.core.learner import Draws
from lifelong.core.problem import Problem
from lifelong.core.row_gradients import ROWS
from lifelong.core.strategy import Shapes
from scenarios.stream import Seed, Stream, generator

BLOCK = 128  # steps whose random numbers are drawn together, fewer where they are many
NUMBERS = 2**18  # of one part, one name and one seed that are drawn together


def padded(count: int) -> int:
    """Rows of a finished task with padding: whole pieces, so that a seed's sums do not depend on its companions."""
    return -(-max(count, 1) // ROWS) * ROWS


class Sampler:
    """The rows and random numbers of one chunk of seeds, in the order in which a stream's schedule shows them.

    problem: with the index of all seeds, [S, ...]. draws: what the learner's parts ask for.
    """

    def __init__(self, stream: Stream, seeds: list[Seed], problem: Problem, draws: list[Draws]) -> None:
        self.stream, self.seeds, self.problem, self.draws = stream, seeds, problem, draws
        self.index, self.device = problem.index, problem.device
        self.drawn = [stream.tasks_of(seed.order) for seed in seeds]
        self.steps = torch.tensor([stream.steps(tasks) for tasks in self.drawn])  # [S, T]
        self._at_hand: _Task | None = None

    @property
    def paces(self) -> list[tuple[int, ...]]:
        """Steps of each task, for each seed."""
        return [tuple(steps) for steps in self.steps.tolist()]

    def length(self, task: int) -> int:
        """Steps of a task until all seeds are through."""
        return int(self.steps[:, task].max())

    def progress(self, task: int, first: int, steps: int) -> Tensor:
        """How much of a task is over before each of some steps, 0 ... 1, float64 [S, K]; 0 where the stream does not say."""
        here = torch.arange(first, first + steps, dtype=torch.float64)
        share = (here / self.steps[:, task, None].clamp(min=1)).clamp(max=1)
        return (share if self.stream.task_ends else torch.zeros_like(share)).to(self.device)

    def plan(self, task: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Row, task, first sight and validity of everything that this task will show, each [S, batches x batch]."""
        size = self.stream.budget.batch
        length = self.length(task) // self.stream.budget.repeats * size
        rows, numbers, firsts, shown = [], [], [], []
        for tasks, seed in zip(self.drawn, self.seeds, strict=True):
            found = self.stream.schedule.shown(tasks, task, self.stream.wanted(tasks), seed.data, "order")
            count = len(found.row)
            more = found.row[:1].expand(length - count), found.task[:1].expand(length - count)
            rows.append(torch.cat([found.row, more[0]]))
            numbers.append(torch.cat([found.task, more[1]]))
            firsts.append(torch.cat([found.first, torch.zeros(length - count, dtype=torch.bool)]))
            shown.append(torch.arange(length) < count)
        row, number, first, valid = (torch.stack(values).to(self.device) for values in (rows, numbers, firsts, shown))
        return row, number, first, valid

    def random(self, purpose: str, wanted: list[tuple[str, Shapes]], *where: object, block: int = 0) -> Any:
        """Numbers in (0, 1) for each part by name, each [S, *shape], or [S, block, *shape] for a block of steps.

        Every part, name and seed has a generator of its own. A shape's first number may depend on a seed's companions,
        as that of a padded task's rows does: what a seed draws is then a beginning of what it would draw with others.
        """
        result = []
        for part, shapes in wanted:
            named = {}
            for name, shape in shapes.items():
                size = (block, *shape) if block else shape
                drawn = [
                    torch.rand(size, generator=generator(seed.data, purpose, part, name, *where)) for seed in self.seeds
                ]
                # torch.rand can give 0; half a step up keeps the interval open
                named[name] = (torch.stack(drawn) * (1 - 2**-23) + 2**-24).to(self.device)
            result.append(named)
        return tuple(result)

    def block(self, task: int, first: int, most: int = 1) -> Block:
        """The next steps of a task from iteration `first` on, at most so many, every field [S, K, ...].

        A batch is shown for as many steps as repeats. A block ends where random numbers must be drawn again.
        """
        if self._at_hand is None or self._at_hand.task != task:
            self._at_hand = _Task(self, task)
        return self._at_hand.block(first, min(most, self.length(task) - first))

    def batches(self, task: int, first: int = 0) -> Iterator[Batch]:
        """The batches of a task from iteration `first` on, looked up, every field [S, B, ...]."""
        look_up = torch.func.vmap(lambda index, rows: replace(self.problem, index=index).batch_of(rows))
        for i in range(first, self.length(task)):
            yield look_up(self.index, next(self.block(task, i).each()))

    def finished(self, task: int, share: float | None = None) -> FinishedTask:
        """The task that just ended, or that is over by a share, every field [S, ...]."""
        place = (task,) if share is None else (task, share)
        purpose = "task" if share is None else "milestone"
        draws = self.random(purpose, [(part.name, part.task) for part in self.draws], *place)
        number = torch.full((len(self.seeds),), task, device=self.device)
        row, valid = self._rows("train", task, self.problem.task_rows)
        held, held_valid = self._rows("validation", task, self.problem.validation_rows)
        return FinishedTask(number, row, valid, held, held_valid, self.index["classes_of"][:, task], draws)

    def _rows(self, part: str, task: int, length: int) -> tuple[Tensor, Tensor]:
        """A task's rows of one part, padded with the first one, and which of them count: [S, length]."""
        rows, count = self.index[f"rows_{part}"][:, task, :length], self.index[f"count_{part}"][:, task]
        rows = torch.cat([rows, rows[:, :1].expand(-1, length - rows.shape[1])], 1)
        return rows, torch.arange(length, device=self.device) < count[:, None]

    def prepared(self, *where: int) -> Any:
        """The random numbers of an evaluation, at this place of the run."""
        return self.random("prepare", [(part.name, part.prepare) for part in self.draws], *where)


class _Task:
    """All that one task shows, and the random numbers of its steps, drawn some steps at a time."""

    def __init__(self, sampler: Sampler, task: int) -> None:
        self.sampler, self.task, self.budget = sampler, task, sampler.stream.budget
        width = (-1, self.budget.batch)
        self.shown = [values.unflatten(1, width) for values in sampler.plan(task)]  # [S, batches, B]
        self.drawn: dict[tuple[int, str], tuple[int, Tensor]] = {}

    def block(self, first: int, steps: int) -> Block:
        """Steps from `first` on, fewer than asked for where other random numbers begin."""
        lengths = [self._length(shape) for part in self.sampler.draws for shape in part.step.values()]
        steps = min([steps, *(length - first % length for length in lengths)])
        row, task, fresh, shown = self._rows(first, steps)
        progress = self.sampler.progress(self.task, first, steps)
        return Block(row, task, fresh, shown, progress, self._draws(first, steps))

    def _rows(self, first: int, steps: int) -> list[Tensor]:
        """Row, task, first sight and validity, each [S, K, B]."""
        repeats = self.budget.repeats
        if repeats == 1:
            return [values[:, first : first + steps] for values in self.shown]
        here = torch.arange(first, first + steps, device=self.sampler.device)
        row, task, fresh, shown = (values[:, here // repeats] for values in self.shown)
        return [row, task, fresh & (here % repeats == 0)[:, None], shown]

    def _draws(self, first: int, steps: int) -> Any:
        """The random numbers of some steps, for each part by name, [S, K, *shape]."""
        return tuple(
            {name: self._numbers(i, part.name, name, shape, first, steps) for name, shape in part.step.items()}
            for i, part in enumerate(self.sampler.draws)
        )

    @staticmethod
    def _length(shape: tuple[int, ...]) -> int:
        """Steps whose random numbers of this shape are drawn together."""
        return max(1, min(BLOCK, NUMBERS // max(math.prod(shape), 1)))

    def _numbers(self, part: int, label: str, name: str, shape: tuple[int, ...], first: int, steps: int) -> Tensor:
        length = self._length(shape)
        block = first // length
        if (part, name) not in self.drawn or self.drawn[part, name][0] != block:
            wanted = [(label, {name: shape})]
            drawn = self.sampler.random("step", wanted, self.task, block, block=length)[0][name]
            self.drawn[part, name] = block, drawn
        return self.drawn[part, name][1][:, first % length : first % length + steps]
