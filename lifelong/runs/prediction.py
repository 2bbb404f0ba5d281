"""What a finished run answers to rows from outside: raw data in, scores for the data's own labels out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.core.fleet import Fleet
from lifelong.core.loop import Session
from scenarios.errors import ConfigurationError
from scenarios.stream import Dataset

ROWS = 1024  # of each seed, scored together


class PredictionError(ConfigurationError):
    """Rows or a task that a run cannot answer."""


class Predictor:
    """The chunks of a run's seeds with their final states. K classes of the data, L = K labels, C of the stream.

    paradigm: of the run; a run of `isolate` keeps the network of its last task alone. members: which of all members
    answer; None for all of them.
    """

    def __init__(
        self, chunks: list[tuple[Session, Any]], paradigm: str = "continual", members: list[int] | None = None
    ) -> None:
        self.chunks = [(session.fleet, session.prepared_at_end(state)) for session, state in chunks]
        self.paradigm, self.members = paradigm, members
        self.tasks = chunks[0][0].tasks
        self.problem = chunks[0][0].fleet.problem
        dataset = self.problem.dataset
        self.labels: tuple[int | str, ...] = dataset.labels or tuple(range(dataset.classes))

    def scores(self, x: Any, task: int | None = None) -> Tensor:
        """Scores [S, B, L] of rows [B, ...]; column i belongs to `labels[i]`, in every seed, whatever its class order.

        x: rows as the data have them, an array or a tensor: bytes 0 ... 255 or whole numbers in that range where the data
        are bytes, or numbers divided by 255 already (0 ... 1). A label that cannot be the answer has -inf.

        task, from 0: restricts the answer to the labels of that task of each seed, shows the rows through the task's
        transformation (permuted, rotated), and in a task-incremental stream tells it to the learner. Without it all
        labels that were learned compete: in a task-incremental stream over all heads; in a domain-incremental one all
        labels that share an output have its score; where a label has several outputs, the best of them counts. A
        rotated stream's rows are then taken as they are. A seed that diverged has NaN.

        Raises PredictionError for rows of another shape or range, and where a task must be named: permuted rows, a
        network that is told its task, a run of `isolate`.
        """
        self._check_task(task)
        rows = checked_rows(x, self.problem.dataset)
        with torch.no_grad():
            scores = torch.cat([self._chunk_scores(fleet, ready, rows, task) for fleet, ready in self.chunks])
        return scores if self.members is None else scores[self.members]

    def best_labels(self, x: Any, task: int | None = None) -> np.ndarray:
        """The most likely of the data's own labels for each row, [S, B].

        Raises PredictionError where a seed diverged, and where several labels share an output and no task is named.
        """
        if task is None and self._outputs_are_shared():
            raise PredictionError(
                "in this domain-incremental stream several labels share an output: name the task, as in task=0"
            )
        scores = self.scores(x, task)
        if scores.isnan().any():
            lost = torch.nonzero(scores.isnan().flatten(1).any(1))[:, 0].tolist()
            raise PredictionError(f"the seeds at {lost} diverged and answer nothing: `predict` has the others' scores")
        return np.asarray(self.labels)[scores.argmax(2).cpu().numpy()]

    def _check_task(self, task: int | None) -> None:
        tasks, index = self.tasks, self.problem.index
        whole = isinstance(task, int) and not isinstance(task, bool)
        if task is not None and not (whole and 0 <= task < tasks):
            raise PredictionError(f"task={task!r}: the run's tasks are 0 ... {tasks - 1}")
        if self.paradigm == "isolate" and task != tasks - 1:
            raise PredictionError(f"a run of isolate keeps the network of its last task alone: name task={tasks - 1}")
        if task is None and "permutation" in index:
            raise PredictionError("each task shows its rows in an order of its own: name the task, as in task=0")
        if task is None and "task_embedding" in index:
            raise PredictionError("the network is told the task of each row: name it, as in task=0")

    def _outputs_are_shared(self) -> bool:
        """Whether some output of some seed stands for several labels."""
        for fleet, _ in self.chunks:
            stands_for = self._stands_for(fleet, None)
            if (stands_for.sum(1) > 1).any():
                return True
        return False

    @staticmethod
    def _stands_for(fleet: Fleet, task: int | None) -> Tensor:
        """Which classes of the data each output of each seed stands for, in one task or in any: bool [S, K, C]."""
        label = fleet.problem.index["label"]  # [S, T, K], -1 where the class is not in the task
        label = label if task is None else label[:, task : task + 1]
        outputs = torch.arange(fleet.problem.classes, device=label.device)
        return (label[..., None] == outputs).any(1)

    def _chunk_scores(self, fleet: Fleet, ready: Any, rows: Tensor, task: int | None) -> Tensor:
        """Scores [S, B, L] of one chunk of seeds."""
        dataset, first = _with_rows(fleet.problem.dataset, rows)
        outside = fleet.on(replace(fleet.problem, dataset=dataset))
        stands_for = self._stands_for(fleet, task)
        seeds = stands_for.shape[0]
        pieces = []
        for row in torch.arange(first, first + len(rows), device=dataset.x.device).split(ROWS):
            number = torch.full_like(row, task or 0)
            told = number if task is not None and fleet.problem.setting == "task" else torch.full_like(row, -1)
            scores = outside.predict(ready, *(value.expand(seeds, -1) for value in (row, number, told)))
            pieces.append(_by_label(scores, stands_for))
        return torch.cat(pieces, 1)


def _by_label(scores: Tensor, stands_for: Tensor) -> Tensor:
    """The best score among the outputs of each label: [S, B, C] and bool [S, L, C] to [S, B, L]; -inf where it has none."""
    seeds, rows, _ = scores.shape
    most = max(1, int(stands_for.sum(2).max()))
    held, output = stands_for.to(torch.uint8).topk(most, 2)  # [S, L, N], N the most outputs of any label
    chosen = scores.gather(2, output.flatten(1)[:, None].expand(-1, rows, -1))  # [S, B, L x N]
    chosen = chosen.masked_fill(held.flatten(1)[:, None] == 0, -torch.inf)
    return chosen.view(seeds, rows, *output.shape[1:]).amax(3)  # amax hands NaN on: a seed that diverged stays NaN


def _with_rows(dataset: Dataset, rows: Tensor) -> tuple[Dataset, int]:
    """The dataset with more rows at its end, so that they pass what its own rows pass; and the first one's number."""
    x = dataset.x
    if x.dtype != rows.dtype:  # rows that are scaled already, among bytes
        x = x.to(rows.dtype) / 255
    rows = rows.to(x.device)
    return replace(dataset, x=torch.cat([x, rows]), y=torch.cat([dataset.y, dataset.y.new_zeros(len(rows))])), len(x)


def checked_rows(x: Any, dataset: Dataset) -> Tensor:
    """Raw rows as the dataset keeps them, uint8 or float32 [B, ...]; float32 in 0 ... 1 where they were scaled already.

    Raises PredictionError for anything that is not rows of the dataset's shape and range.
    """
    try:
        rows = x.detach() if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    except (TypeError, ValueError, RuntimeError):
        raise PredictionError(f"rows must be an array of numbers, and this is a {type(x).__name__}") from None
    if rows.shape[1:] != dataset.shape or rows.ndim != len(dataset.shape) + 1:
        wanted = ", ".join(["B", *map(str, dataset.shape)])
        raise PredictionError(
            f"rows of {dataset.name} have the shape [{wanted}], B of them, and these have {list(rows.shape)}"
        )
    if rows.is_complex():
        raise PredictionError("rows must be real numbers, and these are complex")
    if (rows.dtype == torch.uint8 and dataset.x.dtype == torch.uint8) or not len(rows):
        return rows.to(dataset.x.dtype)
    numbers = rows.to(torch.float32)
    if not torch.isfinite(numbers).all():
        raise PredictionError("some values are NaN or infinite")
    low, high = float(numbers.min()), float(numbers.max())
    whole = bool((numbers == numbers.round()).all())
    if dataset.x.dtype == torch.uint8:
        return _as_bytes(numbers, low, high, whole, rows.is_floating_point())
    if whole and high > 1 and float(dataset.x.min()) >= 0 and float(dataset.x.max()) <= 1:
        raise PredictionError(
            f"the run learned from numbers in 0 ... 1, and these reach {high:g}: bring them scaled as the data were"
        )
    return numbers


def _as_bytes(numbers: Tensor, low: float, high: float, whole: bool, floating: bool) -> Tensor:
    """Rows for a dataset of bytes: bytes in whatever type, or numbers that were divided by 255 already."""
    if floating and low >= 0 and high <= 1:
        return numbers
    if whole and low >= 0 and high <= 255:
        return numbers.to(torch.uint8)
    raise PredictionError(
        f"the run learned from bytes, and these values lie in {low:g} ... {high:g}: bring bytes 0 ... 255, or numbers"
        " divided by 255"
    )
