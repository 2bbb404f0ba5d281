"""What a comparison of paradigms establishes: paired differences at one row of each class, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lifelong.metrics import Estimate, estimate, holm, paired_p

if TYPE_CHECKING:
    from lifelong.studies.paradigms import Line

LEVEL = 0.05
WAYS = {"few_shot": "adapted by the same rule", "by_means": "by class means of the features"}


@dataclass(frozen=True)
class Finding:
    """A difference of two lines on the held-out tasks: its interval, and its p-value after Holm's correction."""

    names: tuple[str, str]
    way: str
    shot: int
    difference: Estimate
    p: float

    @property
    def established(self) -> bool:
        """Whether chance alone would seldom give it, in all that was looked at."""
        return self.p < LEVEL

    @property
    def text(self) -> str:
        """In a sentence."""
        difference = self.difference.text(1)
        return (
            f"{self.names[0]} − {self.names[1]} at k = {self.shot}, {WAYS[self.way]}:"
            f" {difference if difference.startswith('-') else '+' + difference} points, p = {self.p:.2g}"
        )


def findings(lines: Sequence[Line], shots: Sequence[int]) -> list[Finding]:
    """Each meta-learner minus the joint reading, and that minus plain continual learning, in both groups of columns.

    At the smallest k; paired over seeds by Student's t, and Holm's correction over all of them. Empty where no two
    seeds are left, or there is no joint reading.
    """
    by_paradigm = {
        name: [line for line in lines if line.paradigm == name] for name in ("multi-task", "meta", "continual")
    }
    if not by_paradigm["multi-task"]:
        return []
    (joint,) = by_paradigm["multi-task"]
    pairs = [(meta, joint) for meta in by_paradigm["meta"]]
    pairs += [(joint, line) for line in by_paradigm["continual"] if line.method == "FineTuning()"]
    found: list[tuple[tuple[str, str], str, Tensor]] = []
    for first, second in pairs:
        for way in WAYS:
            gap = _gap(getattr(first, way), getattr(second, way))
            if len(gap) > 1:
                found.append(((_called(first), _called(second)), way, gap))
    corrected = holm([paired_p(gap) for _, _, gap in found])
    return [
        Finding(names, way, shots[0], estimate(gap), p) for (names, way, gap), p in zip(found, corrected, strict=True)
    ]


def _gap(a: Tensor | None, b: Tensor | None) -> Tensor:
    """Differences [S] at the smallest k of the seeds that both have."""
    if a is None or b is None:
        return torch.zeros(0)
    gap = (a - b)[:, 0]
    return gap[gap.isfinite()]


def _called(line: Line) -> str:
    return {"multi-task": "joint", "continual": "continual"}.get(line.paradigm, f"meta ({line.method})")
