"""Rows drawn from a memory to be learned again, with or without replacement."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lifelong.core.batch import Batch
from lifelong.core.problem import Problem
from scenarios.brief import in_brief

State = dict[str, Any]


class Drawn(NamedTuple):
    """R places of a memory: place int64 [R]; valid bool [R], False where the memory held too few."""

    place: Tensor
    valid: Tensor
    __repr__ = in_brief

    def weight(self, total: Tensor) -> Tensor:
        """Equal weights of the valid places that add up to a total: [R]."""
        return total * self.valid / self.valid.sum().clamp(min=1)


def draws_of(size: int, rows: int, replacement: bool) -> tuple[int, ...]:
    """The shape of the numbers that `drawn` takes: R with replacement, else M, a ticket for each place."""
    return (rows,) if replacement else (size,)


def filled_first(filled: Tensor) -> Tensor:
    """All places, int64 [M], those that are filled, bool [M], before the others."""
    return filled.to(torch.int8).argsort(descending=True, stable=True)


def drawn(filled: Tensor, uniforms: Tensor, rows: int, replacement: bool = True, order: Tensor | None = None) -> Drawn:
    """R places of those that are filled, bool [M], uniformly: uniforms [R] with replacement, else [M].

    With replacement the numbers choose among the filled places in order; without, the filled places with the smallest
    numbers are taken. order: that of `filled_first`, where it is at hand.
    """
    count = filled.sum()
    if replacement:
        order = filled_first(filled) if order is None else order
        nth = (uniforms * count).to(torch.int64).clamp(max=len(filled) - 1)
        return Drawn(order[nth], (count > 0).expand(len(nth)))
    wanted = min(rows, len(filled))
    place = torch.where(filled, uniforms, 2.0).topk(wanted, largest=False).indices
    return Drawn(place, filled[place])


def drawn_rows(state: State, draw: Drawn) -> tuple[Tensor, Tensor]:
    """Row and task of the drawn places, both int64 [R]."""
    return state["row"][draw.place], state["task"][draw.place]


def replayed(problem: Problem, batch: Batch, state: State, draw: Drawn, share: Tensor) -> Batch:
    """The batch with drawn rows added, their weights 1 - share in all and those of the batch scaled by share, 0-d.

    Where nothing could be drawn the batch keeps all the weight.
    """
    share = torch.where(draw.valid.any(), share, torch.ones_like(share))
    row, task = drawn_rows(state, draw)
    return batch.replace(weight=batch.weight * share).add(problem, row, task, draw.weight(1 - share))
