"""Split-MNIST's cells of two records, old and new: differences of means, with intervals, as a markdown dataset.

    python benchmarks/compare_cells.py old/reference.json docs/reference.json

Of the old record the last cell of each seed is taken, whether it still counts or not; of the new one, those that count.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from lifelong.metrics import holm
from lifelong.studies.published.rows import Cell, cells_of, gathered
from lifelong.studies.published.split_mnist import ROWS


class Difference(NamedTuple):
    """new - old in points, its 95 % interval, and the p-value of no difference; counts of seeds."""

    row: str
    old: int
    new: int
    points: float
    low: float
    high: float
    p: float


def welch(old: Sequence[float], new: Sequence[float]) -> tuple[float, float, float, float]:
    """mean(new) - mean(old), its 95 % interval and two-sided p, for variances that may differ (Welch, 1947).

    The standard error is sqrt(s_old^2 / n_old + s_new^2 / n_new), degrees of freedom as of Welch and Satterthwaite. Two
    samples without any spread differ certainly, or not at all. At least two values of each.
    """
    points = float(np.mean(new) - np.mean(old))
    if not np.var(old) + np.var(new) > 0:
        return points, points, points, float(points == 0)
    tested = stats.ttest_ind(new, old, equal_var=False)
    interval = tested.confidence_interval(0.95)
    return points, float(interval.low), float(interval.high), float(tested.pvalue)


def last_of_each_seed(cells: list[Cell], setting: str, method: str) -> dict[int, float]:
    """Accuracy by seed, by whatever code it was measured."""
    found = [cell for cell in cells if (cell["setting"], cell["method"]) == (setting, method)]
    return {seed: value for cell in found for seed, value in zip(cell["seeds"], cell["accuracy"], strict=True)}


def differences(old: list[Cell], new: list[Cell]) -> list[Difference]:
    """Of every row that has at least two seeds in both; p-values corrected over all of them."""
    found = []
    for row in ROWS:
        before = [100 * value for value in last_of_each_seed(old, row.setting, row.method).values()]
        after = [100 * value for value in gathered(new, row).values()]
        if min(len(before), len(after)) > 1:
            found.append(Difference(row.name, len(before), len(after), *welch(before, after)))
    corrected = holm([difference.p for difference in found])
    return [difference._replace(p=p) for difference, p in zip(found, corrected, strict=True)]


def dataset(found: list[Difference]) -> str:
    """The differences as markdown, and how many of them are more than chance."""
    lines = ["| row | seeds, old | seeds, new | new − old, points | 95 % interval | p (Holm) |", "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for gap in found:
        interval = f"[{gap.low:+.2f}, {gap.high:+.2f}]"
        lines.append(f"| {gap.row} | {gap.old} | {gap.new} | {gap.points:+.2f} | {interval} | {gap.p:.3g} |")
    below = sum(gap.p < 0.05 for gap in found)
    return "\n".join([*lines, "", f"{len(found)} rows compared; {below} differ with p < 0.05 after Holm's correction."])


def main() -> None:
    """Print the dataset of two records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    words = parser.parse_args()
    for path in (words.old, words.new):
        if not path.is_file():
            parser.error(f"{path} is not there: name two records, as in old/reference.json docs/reference.json")
    print(dataset(differences(cells_of(words.old), cells_of(words.new))))


if __name__ == "__main__":
    main()
