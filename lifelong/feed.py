"""What a fleet is shown: batches, finished tasks, and the random numbers that its parts ask for.

Every random number is a function of where the run stands (seed, purpose, task, block of steps), not of what was drawn
before it. So a seed has the same luck alone and in a fleet, and a resumed run needs no generator's state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lifelong.learner import Draws
from lifelong.problem import Batch, FinishedTask, Problem
from scenarios.baselines import sampling_exponent
from scenarios.stream import Stream, generator

BLOCK = 128  # steps whose uniforms are drawn together


def in_iterations(stream: Stream, seeds: list[int]) -> Stream:
    """The stream with its budget in iterations: ceil(epochs x largest number of rows of any task and seed / batch)."""
    budget = stream.budget
    if budget.iterations:
        return stream
    longest = max(len(task.train) for seed in seeds for task in stream.tasks_of(seed))
    return replace(stream, budget=replace(budget, iterations=math.ceil(budget.epochs * longest / budget.batch)))


def _orders(count: int, wanted: int, random: torch.Generator) -> Tensor:
    """Random orders of 0 ... count - 1, one after another, cut to length."""
    orders = [torch.randperm(count, generator=random) for _ in range(max(1, -(-wanted // count)))]
    return torch.cat(orders)[:wanted]


class Feed:
    """The rows and random numbers of one chunk of seeds, in the order in which a stream's reading shows them.

    problem: with the rules of all seeds, [S, ...]. draws: what the learner's parts ask for.
    """

    def __init__(self, stream: Stream, seeds: list[int], problem: Problem, draws: list[Draws]) -> None:
        self.stream, self.seeds, self.problem, self.draws = stream, seeds, problem, draws
        self.rules, self.tasks, self.iterations = problem.rules, problem.tasks, problem.iterations
        self.count = self.rules["count_train"].cpu()  # [S, T]
        self.device = stream.table.x.device

    def pool(self, s: int, task: int) -> tuple[Tensor, Tensor]:
        """The rows that are trained on now, and the task of each: those of the task, or of all tasks when joint."""
        rows = self.rules["rows_train"][s].cpu()
        chosen = range(self.tasks) if self.stream.reading == "joint" else [task]
        row = torch.cat([rows[t, : self.count[s, t]] for t in chosen])
        number = torch.cat([torch.full((int(self.count[s, t]),), t) for t in chosen])
        return row, number

    def plan(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Row, task and first sight of everything that this task will show, each [S, iterations x batch].

        Random orders of the pool, one after another, cut to length; so batches run over the ends of epochs.
        """
        wanted = self.iterations * self.stream.budget.batch
        rows, numbers, firsts = [], [], []
        for s, seed in enumerate(self.seeds):
            row, number = self.pool(s, task)
            random = generator(seed, "order", self.stream.chosen[task] if self.stream.chosen else task)
            if self.stream.reading == "joint" and self.stream.sampling != "proportional":
                order = self._by_task(number, wanted, random)
            else:
                order = _orders(len(row), wanted, random)
            rows.append(row[order])
            numbers.append(number[order])
            firsts.append((torch.arange(wanted) < len(row)) & (task == 0 or self.stream.reading != "joint"))
        return tuple(torch.stack(values).to(self.device) for values in (rows, numbers, firsts))  # type: ignore[return-value]

    def _by_task(self, number: Tensor, wanted: int, random: torch.Generator) -> Tensor:
        """Places in the pool, [wanted]: first the task is drawn, by the stream's sampling, then its rows in turn."""
        size = self.stream.budget.batch
        counts = torch.bincount(number, minlength=self.tasks)
        if self.stream.sampling == "round-robin":
            task = torch.arange(wanted) // size % self.tasks
        else:
            share = counts.to(torch.float64) ** sampling_exponent(self.stream.sampling)
            task = torch.multinomial(share, wanted, replacement=True, generator=random)
        order = torch.empty(wanted, dtype=torch.int64)
        for t in range(self.tasks):
            places, own = torch.nonzero(task == t)[:, 0], torch.nonzero(number == t)[:, 0]
            order[places] = own[_orders(len(own), len(places), random)]
        return order

    def uniforms(self, what: str, counts: list[tuple[Draws, int]], rows: list[int], *where: int) -> Tensor:
        """Numbers in (0, 1), [S, max rows, U], each part's from its own generator, in the parts' order."""
        result = torch.full((len(self.seeds), max(rows), sum(count for _, count in counts)), 0.5)
        for s, seed in enumerate(self.seeds):
            place = 0
            for part, count in counts:
                if count:
                    drawn = torch.rand(rows[s], count, generator=generator(seed, what, part.name, *where))
                    # torch.rand can give 0; half a step up keeps the interval open
                    result[s, : rows[s], place : place + count] = drawn * (1 - 2**-23) + 2**-24
                    place += count
        return result.to(self.device)

    def batches(self, task: int, first: int = 0) -> Iterator[Batch]:
        """The batches of a task from iteration `first` on, every field [S, B, ...]."""
        size, seeds = self.stream.budget.batch, len(self.seeds)
        row, number, fresh = self.plan(task)
        counts = [(part, part.per_row) for part in self.draws]
        look_up = torch.func.vmap(self._look_up)
        weight = torch.full((seeds, size), 1 / size, dtype=self.problem.dtype, device=self.device)
        part = torch.zeros(seeds, size, dtype=torch.int64, device=self.device)
        slot = torch.full_like(part, -1)
        uniforms = torch.empty(0)
        for i in range(first, self.iterations):
            if i == first or i % BLOCK == 0:
                uniforms = self.uniforms("step", counts, [BLOCK * size] * seeds, task, i // BLOCK)
            here = slice(i * size, (i + 1) * size)
            in_block = slice(i % BLOCK * size, (i % BLOCK + 1) * size)
            x, y, allowed = look_up(self.rules, row[:, here], number[:, here])
            progress = torch.full((seeds,), i / self.iterations, dtype=weight.dtype, device=self.device)
            yield Batch(
                row[:, here], number[:, here], x, y, weight, part, slot, allowed, fresh[:, here],
                uniforms[:, in_block], progress,
            )  # fmt: skip

    def _look_up(self, own: dict[str, Tensor], row: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        problem = replace(self.problem, rules=own)
        return problem.x(row, task), problem.y(row, task), problem.allowed(task)

    def finished(self, task: int) -> FinishedTask:
        """The task that just ended, every field [S, ...]."""
        rows = self.rules["rows_train"][:, task]
        count = self.count[:, task]
        counts = [(part, part.per_task_row) for part in self.draws]
        uniforms = self.uniforms("task", counts, [rows.shape[1]] * len(self.seeds), task)
        number = torch.full((len(self.seeds),), task, device=self.device)
        valid = torch.arange(rows.shape[1], device=self.device) < count.to(self.device)[:, None]
        return FinishedTask(number, rows, valid, self.rules["classes_of"][:, task], uniforms, number)
