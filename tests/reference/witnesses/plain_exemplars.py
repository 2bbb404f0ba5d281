"""Exemplars as lists, in float64, for the plain loops of methods that keep them: nothing of lifelong is imported.

An exemplar is (x [F], y); exemplars is a dictionary from a class to its list, in the order in which they were chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.plain_methods import Rows, features


def length_one(rows: Tensor) -> Tensor:
    """Each row divided by its length; a row of zeros stays."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


def herd(params, x: Tensor, y: Tensor, each: int) -> dict[int, list[tuple[Tensor, int]]]:
    """Of each class the rows whose running mean of features of length 1 stays nearest to the class's mean."""
    chosen = {}
    for label in sorted(set(y.tolist())):
        rows = x[y == label]
        with torch.no_grad():
            seen = length_one(features(params, rows))
        mean, taken = seen.mean(0), []
        for k in range(min(each, len(rows))):
            total = seen[taken].sum(0)
            gaps = [
                float("inf") if i in taken else float((mean - (seen[i] + total) / (k + 1)).norm())
                for i in range(len(rows))
            ]
            taken.append(gaps.index(min(gaps)))
        chosen[label] = [(rows[i], label) for i in taken]
    return chosen


def in_order(exemplars) -> list[tuple[Tensor, int]]:
    """All exemplars, class after class."""
    return [row for label in sorted(exemplars) for row in exemplars[label]]


def mixed(batch: Rows, drawn, kept, count: int) -> tuple[Tensor, Tensor, list[bool]]:
    """x, y of a batch where row b gives way to exemplar floor(place[b] m) if luck[b] < m / (count + m), and which did."""
    x, y, away = list(batch.x), batch.y.tolist(), [False] * len(batch.y)
    for b, (luck, place) in enumerate(zip(drawn["luck"].tolist(), drawn["place"].tolist(), strict=True)):
        if kept and luck * (count + len(kept)) < len(kept):
            x[b], y[b] = kept[int(place * len(kept))]
            away[b] = True
    return torch.stack(x), torch.tensor(y), away


def nearest(params, exemplars, x: Tensor, classes: int) -> Tensor:
    """Minus the squared distance of features of length 1 to each class's mean of them, of length 1, [B, C]."""
    answers = torch.full((len(x), classes), -torch.inf, dtype=x.dtype)
    rows = length_one(features(params, x))
    for label, kept in exemplars.items():
        mean = length_one(features(params, torch.stack([row for row, _ in kept]))).mean(0)
        answers[:, label] = -(rows - mean / mean.norm()).square().sum(1)
    return answers


def task_rows(run) -> list[tuple[Tensor, Tensor]]:
    """x [N, F], y [N] of each finished task of a run, padding left out."""
    found = []
    for number, task in enumerate(run.finished):
        row = task.row[task.valid]
        batch = run.problem.batch_of_rows(row, torch.full_like(row, number), torch.ones(len(row)))
        found.append((batch.x, batch.y))
    return found
