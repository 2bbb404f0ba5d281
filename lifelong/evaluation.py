"""Scoring a fleet on every task, without touching what it learns."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.fleet import Fleet
from lifelong.learner import State
from scenarios.stream import Stream, generator

CHUNK = 1024  # rows of each seed that are scored together


class Examiner:
    """The test rows of one chunk of seeds, all of them or a fixed random share, and the way they are answered.

    share_rows: rows, over all tasks, of the evaluations that are not full.
    """

    def __init__(self, stream: Stream, seeds: list[int], fleet: Fleet, share_rows: int) -> None:
        self.stream, self.seeds, self.fleet, self.share_rows = stream, seeds, fleet, share_rows
        self.rules, self.tasks, self.device = fleet.problem.rules, fleet.problem.tasks, stream.table.x.device
        self._kept: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}

    def _test_rows(self, full: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Row, task and validity of all that is scored, each [S, N]; a fixed random share of each task unless full."""
        rows, counts = self.rules["rows_test"].cpu(), self.rules["count_test"].cpu()
        share = max(1, self.share_rows // self.tasks)
        row, number = [], []
        for s, seed in enumerate(self.seeds):
            own = [rows[s, t, : counts[s, t]] for t in range(self.tasks)]
            if not full:
                orders = [torch.randperm(len(o), generator=generator(seed, "test rows", t)) for t, o in enumerate(own)]
                own = [o[order[:share]] for o, order in zip(own, orders, strict=True)]
            row.append(torch.cat(own))
            number.append(torch.cat([torch.full((len(o),), t) for t, o in enumerate(own)]))
        valid = [torch.ones(len(r), dtype=torch.bool) for r in row]
        pad = torch.nn.utils.rnn.pad_sequence
        # padding repeats row 0 of the task 0 of nobody: it is not counted
        first = [r[0] for r in row]
        padded = pad(row, batch_first=True, padding_value=-1)
        padded = torch.where(padded < 0, torch.stack(first)[:, None], padded)
        result = (padded, pad(number, batch_first=True), pad(valid, batch_first=True))
        return tuple(value.to(self.device) for value in result)  # type: ignore[return-value]

    def scores(self, state: State, full: bool, task: int) -> tuple[Tensor, int]:
        """Accuracy on every task [S, T], and the number of rows scored of each seed."""
        if full not in self._kept:
            self._kept[full] = self._test_rows(full)
        row, number, valid = self._kept[full]
        ready = self.fleet.prepare(state)
        correct = torch.zeros(len(self.seeds), self.tasks, dtype=torch.float64, device=self.device)
        total = torch.zeros_like(correct)
        told = number if self.stream.setting == "task" else torch.full_like(number, -1)
        with torch.no_grad():
            pieces = zip(*(value.split(CHUNK, 1) for value in (row, number, valid, told)), strict=True)
            for r, t, v, shown in pieces:
                scores = self.fleet.predict(ready, r, t, shown)
                right = self._answers(scores, t, task) == torch.func.vmap(self._labels)(self.rules, r, t)
                correct.scatter_add_(1, t, (right & v).to(torch.float64))
                total.scatter_add_(1, t, v.to(torch.float64))
        return correct / total, int(valid.sum(1).max())

    def _labels(self, own: dict[str, Tensor], row: Tensor, task: Tensor) -> Tensor:
        return own["label"][task, self.stream.table.y[row]]

    def _answers(self, scores: Tensor, number: Tensor, task: int) -> Tensor:
        """The best class among those that the setting leaves open, [S, B]."""
        allowed = self.rules["allowed"]
        if self.stream.setting == "task":
            mask = torch.func.vmap(lambda a, t: a[t])(allowed, number)
        elif self.stream.open == "all":
            return scores.argmax(2)
        else:  # classes seen so far; before learning there are none, and all compete
            seen = self.rules["classes_of"][:, : task + 1].any(1)
            mask = (seen | ~seen.any(1, keepdim=True))[:, None]
        return scores.masked_fill(~mask, -torch.inf).argmax(2)
