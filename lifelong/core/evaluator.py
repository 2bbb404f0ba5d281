"""Scoring a fleet on every task, without touching what it learns."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from lifelong.core.fleet import Fleet
from scenarios.stream import Seed, Stream, generator

CHUNK = 256  # rows of each member that are scored together
ROWS = 128  # they are padded to a multiple, so that a member's scores do not depend on its companions' rows


class Evaluator:
    """The test rows of one chunk of members, all of them or a fixed random share, and the way they are answered.

    share_rows: rows, over all tasks, of the evaluations that are not full.
    """

    def __init__(self, stream: Stream, seeds: list[Seed], fleet: Fleet, share_rows: int) -> None:
        self.stream, self.seeds, self.fleet, self.share_rows = stream, seeds, fleet, share_rows
        self.index, self.tasks, self.device = fleet.problem.index, len(stream), stream.dataset.x.device
        self._kept: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}

    def _test_rows(self, full: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Row, task and validity of all that is scored, each [S, N]; a fixed random share of each task unless full."""
        rows, counts = self.index["rows_test"].cpu(), self.index["count_test"].cpu()
        share = max(1, self.share_rows // self.tasks)
        chosen = [
            [self._chosen(rows[s, t, : counts[s, t]], seed, t, None if full else share) for t in range(self.tasks)]
            for s, seed in enumerate(self.seeds)
        ]
        longest = max(sum(map(len, parts)) for parts in chosen)
        shape = (len(self.seeds), -(-longest // ROWS) * ROWS)
        row, number = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        valid = torch.zeros(shape, dtype=torch.bool)
        for s, parts in enumerate(chosen):
            rows = torch.cat(parts)
            # in the order of the dataset, in which the members' rows may be the same
            order, count = rows.argsort(stable=True), len(rows)
            numbers = torch.cat([torch.full((len(part),), t) for t, part in enumerate(parts)])[order]
            row[s], number[s] = rows[order[0]], numbers[0]  # padding repeats the first row: it is not counted
            row[s, :count], number[s, :count], valid[s, :count] = rows[order], numbers, True
        return row.to(self.device), number.to(self.device), valid.to(self.device)

    def _chosen(self, rows: Tensor, seed: Seed, task: int, share: int | None) -> Tensor:
        if share is None:
            return rows
        return rows[torch.randperm(len(rows), generator=generator(seed.data, "test rows", task))[:share]]

    def scores(self, prepared: Any, full: bool, task: int) -> tuple[Tensor, int]:
        """Accuracy on every task [S, T], and the number of rows scored of each member; prepared: a fleet's state.

        Of a task that asks for numbers: 1 - mean square error / variance, over its test rows that are not missing.
        """
        if full not in self._kept:
            self._kept[full] = self._test_rows(full)
        row, number, valid = self._kept[full]
        correct = torch.zeros(len(self.seeds), self.tasks, dtype=torch.float64, device=self.device)
        total = torch.zeros_like(correct)
        shared = self.fleet.problem.alike_in_all_tasks and bool((row == row[:1]).all())
        told = number if self.stream.setting == "task" else torch.full_like(number, -1)
        with torch.no_grad():
            pieces = zip(*(value.split(CHUNK, 1) for value in (row, number, valid, told)), strict=True)
            for r, t, v, shown in pieces:
                scores = self.fleet.predict(prepared, r[0] if shared else r, t, shown)
                right = self._answers(scores, t, task) == torch.func.vmap(self._labels)(self.index, r, t)
                points = right.to(torch.float64)
                if "numeric" in self.index:
                    points, v = self._explained(points, v, scores, r, t)
                correct.scatter_add_(1, t, points * v)
                total.scatter_add_(1, t, v.to(torch.float64))
        return correct / total, int(valid.sum(1).max())

    def right(self, prepared: Any, row: Tensor, number: Tensor, task: int) -> Tensor:
        """Which rows [S, B] of tasks [S, B] are answered with their class, while this task is learned: bool [S, B]."""
        told = number if self.stream.setting == "task" else torch.full_like(number, -1)
        with torch.no_grad():
            scores = self.fleet.predict(prepared, row, number, told)
            return self._answers(scores, number, task) == torch.func.vmap(self._labels)(self.index, row, number)

    @functools.cached_property
    def _spread(self) -> Tensor:
        """The variance of what each task asks of each output, over all of its test rows that are not missing, [S, T, C]."""
        targets, columns = self.stream.dataset.targets, self.index["column"]
        assert targets is not None
        spread = torch.ones(columns.shape, dtype=torch.float64, device=self.device)
        for s, t, c in torch.nonzero(columns >= 0).tolist():
            rows = self.index["rows_test"][s, t, : int(self.index["count_test"][s, t])]
            asked = targets[rows, columns[s, t, c]].to(torch.float64)
            spread[s, t, c] = asked[~asked.isnan()].var(correction=0).clamp(min=1e-12)
        return spread

    def _labels(self, index: dict[str, Tensor], row: Tensor, task: Tensor) -> Tensor:
        return index["label"][task, self.stream.dataset.y[row]]

    def _explained(
        self, points: Tensor, valid: Tensor, scores: Tensor, row: Tensor, task: Tensor
    ) -> tuple[Tensor, Tensor]:
        """1 - squared error / variance for rows of tasks that ask for numbers, [S, B]; the others keep their points.

        And which rows count, [S, B]: those of which everything is missing do not.
        """
        targets = self.stream.dataset.targets
        assert targets is not None
        member = torch.arange(len(self.seeds), device=self.device)[:, None]
        column = self.index["column"][member, task]  # [S, B, C]
        asked = targets[row].gather(2, column.clamp(min=0)).to(torch.float64)
        counted = (column >= 0) & ~asked.isnan()
        error = (scores - asked.nan_to_num()).square() / self._spread[member, task]
        share = torch.where(counted, error, 0.0).sum(2) / counted.sum(2).clamp(min=1)
        numeric = self.index["numeric"][member, task]
        return torch.where(numeric, 1 - share, points), valid & (~numeric | counted.any(2))

    @functools.cached_property
    def _classes(self) -> Tensor:
        """Outputs that stand for classes rather than for numbers, bool [S, C]."""
        classes_of = self.index["classes_of"]
        if "numeric" not in self.index:
            return torch.ones_like(classes_of[:, 0])
        return ~(classes_of & self.index["numeric"][:, :, None]).any(1)

    def _answers(self, scores: Tensor, number: Tensor, task: int) -> Tensor:
        """The best class among those that the setting leaves open, [S, B]."""
        allowed = self.index["allowed"]
        if self.stream.setting == "task":
            mask = torch.func.vmap(lambda a, t: a[t])(allowed, number)
        elif self.stream.open == "all":
            if "numeric" not in self.index:
                return scores.argmax(2)
            mask = self._classes[:, None]
        else:  # classes seen so far; before learning there are none, and all compete
            seen = self.index["classes_of"][:, : task + 1].any(1) & self._classes
            mask = torch.where(seen.any(1, keepdim=True), seen, self._classes)[:, None]
        return scores.masked_fill(~mask, -torch.inf).argmax(2)
