"""The rows of a finished task as learners in closed form go over them: a piece at a time, padding left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Params
from lifelong.core.problem import Problem
from lifelong.core.row_gradients import ROWS
from lifelong.learners.nearest_class_mean import features_of


def labelled(record: Any, problem: Problem, params: Params, task: FinishedTask) -> Iterator[tuple[Tensor, Tensor]]:
    """Features [b, F] and classes, 1 for that of the row, [b, C]; a row of padding or without a label has none."""
    classes = torch.arange(problem.classes, device=task.row.device)
    number = task.number.expand(len(task.row))
    for row, t, valid in zip(*(value.split(ROWS) for value in (task.row, number, task.valid)), strict=True):
        member = (problem.y(row, t)[:, None] == classes) & valid[:, None]
        yield features_of(record, problem, params, problem.x(row, t)), member.to(problem.dtype)
