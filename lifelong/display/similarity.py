"""What a person sees of similarity: the scores of the earlier tasks, and how far scores agreed with what was measured."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lifelong.display.transfer import estimate_json, signed
from lifelong.metrics import Estimate, estimate
from lifelong.studies.similarity import SimilarityStudy
from lifelong.transfer.matrix import TransferMatrix


def scores_table(study: SimilarityStudy, target: int) -> Table:
    """Of one target: the mean score of each earlier task over seeds, and its gain over scratch; * is the best of a column.

    target: counted from 0, at least 2.
    """
    matrix, names = study.matrices[0], list(study.scores)
    title = f"for {_name(matrix, target)}: scores from {study.rows} rows of each class; gain over scratch, points, k = {matrix.shots[0]}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("from", overflow="fold")
    for name in (*names, "gain"):
        table.add_column(name, justify="right", overflow="fold")
    columns = [[float(study.scores[name][matrix.kept, s, target].mean()) for s in range(target)] for name in names]
    gains = [matrix.cell(s, target, matrix.shots[0]) for s in range(target)]
    columns.append([gain.mean for gain in gains])
    for s in range(target):
        words = [f"{column[s]:.3g}" for column in columns[:-1]] + [signed(gains[s])]
        best = ["*" if column[s] == max(column) else " " for column in columns]
        table.add_row(_name(matrix, s), *(word + mark for word, mark in zip(words, best, strict=True)))
    return table


def agreement_table(study: SimilarityStudy) -> Table:
    """Rank correlation of each score with what was measured by each method, over all sources of a target; and what its choice cost."""
    count = study.matrices[0].accuracy.shape[1]
    title = (
        f"rank correlation (Spearman) with the accuracy measured at k = {study.matrices[0].shots[0]}, over {count - 1}"
        f" sources of {count} targets; lost: points of accuracy below the best source by the score's choice; ± 95 % over seeds"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("score", overflow="fold")
    for matrix in study.matrices:
        table.add_column(matrix.method, justify="right", overflow="fold")
        table.add_column("lost", justify="right", overflow="fold")
    for name in study.scores:
        cells = [(study.agreement(name, matrix), study.lost(name, matrix)) for matrix in study.matrices]
        table.add_row(name, *(word for rank, lost in cells for word in (_plain(rank), lost.text(1))))
    by_chance = [study.lost_by_chance(matrix).text(1) for matrix in study.matrices]
    table.add_row("drawn at random", *(word for lost in by_chance for word in ("0", lost)))
    return table


def _plain(value: Estimate) -> str:
    """A correlation and its interval."""
    if value.mean != value.mean:
        return "–"
    return f"{value.mean:+.2f}" + ("" if value.half_width is None else f" ± {value.half_width:.2f}")


def _name(matrix: TransferMatrix, task: int) -> str:
    return f"{task + 1}: {matrix.tasks[task]}"


def show_similarity(study: SimilarityStudy, target: int, console: Console) -> None:
    """Both tables."""
    console.print(scores_table(study, target))
    console.print(agreement_table(study))


def similarity_json(study: SimilarityStudy) -> dict[str, Any]:
    """All of it as plain values; scores by source and target, mean over seeds; accuracies as fractions of 1."""
    first = study.matrices[0]
    tasks = range(first.accuracy.shape[1])
    scores = {
        name: [[estimate_json(estimate(value[:, s, t], first.kept)) for t in tasks] for s in tasks]
        for name, value in study.scores.items()
    }
    measured = {
        matrix.method: {
            "gain": [[estimate_json(matrix.cell(s, t, matrix.shots[0])) for t in tasks] for s in tasks],
            "lost by chance": estimate_json(study.lost_by_chance(matrix)),
            "scores": {
                name: {
                    "rank correlation": estimate_json(study.agreement(name, matrix)),
                    "lost": estimate_json(study.lost(name, matrix)),
                }
                for name in study.scores
            },
        }
        for matrix in study.matrices
    }
    about = {"tasks": list(first.tasks), "rows": study.rows, "shot": first.shots[0]}
    return {**about, "scores": scores, "measured": measured}
