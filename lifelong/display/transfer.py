"""What a person sees of transfer: curves over shots, the matrix, teacher and students; and the same as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lifelong import metrics
from lifelong.core.result import Result
from lifelong.metrics import Estimate
from lifelong.transfer.matrix import TransferMatrix

SHOWN = 12  # tasks of a matrix that fit a page
FOLDED = 24  # letters that a method's name is folded to where numbers need the room
NAME = 24  # letters of a task's name in a table


def signed(value: Estimate, digits: int = 1) -> str:
    """In percent with its sign, as in "+1.2 ± 0.4"."""
    return ("+" if value.mean >= 0 else "") + value.text(digits)


def curves_table(matrices: list[TransferMatrix], width: int) -> Table:
    """Accuracy after k rows of each class by each method, over all pairs of different tasks; and the gain over scratch.

    Methods in rows where all k fit beside one another, else in columns.
    """
    digits = 2 if width >= 110 else 1
    shots = [f"k = {shot}" for shot in matrices[0].shots]
    names = [matrix.method + ("" if matrix.inside else " *") for matrix in matrices]
    cells = [[value.text(digits) for value in matrix.curve()] for matrix in matrices]
    gains = ["" if m.method == "Scratch()" else signed(m.gain_curve()[-1], digits) for m in matrices]
    last = f"over scratch, k = {matrices[0].shots[-1]}"
    table = _grid(
        ["method", *shots, last], [[*row] for row in zip(names, *zip(*cells, strict=True), gains, strict=True)]
    )
    longest = max(map(len, names))
    if not _fits(table, width + longest - min(longest, FOLDED)):  # a long name may be folded
        columns = [
            [*row] for row in zip([*shots, last], *([*c, g] for c, g in zip(cells, gains, strict=True)), strict=True)
        ]
        table = _grid(["", *names], columns, fold=True)
    table.title = "accuracy, %, after k rows of each class of a task other than the source's, ± 95 % over seeds"
    if not all(matrix.inside for matrix in matrices):
        table.caption = "* its best learning rate lay at the end of the grid, even after the grid was widened"
    return table


def _grid(head: list[str], rows: list[list[str]], fold: bool = False) -> Table:
    """A table whose first column is words, and the others numbers; fold: whether heads may be broken."""
    table = Table(title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left", no_wrap=bool(i and not fold), overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _fits(table: Table, width: int) -> bool:
    return Measurement.get(Console(width=1000), Console(width=1000).options, table).maximum <= width


def matrix_table(matrix: TransferMatrix, shot: int, width: int) -> Table:
    """Gain over scratch in points of percent: sources in rows, targets in columns; as exactly as the width allows.

    "!" is said of a gain that is clear: paired over seeds, corrected for the number of pairs.
    """
    count = matrix.accuracy.shape[1]
    shown = range(min(count, SHOWN))
    found, table = matrix.verdicts(shot), Table()
    marks = [["!" if (s, t) in found and found[s, t].sign != "open" else " " for t in shown] for s in shown]
    cells = [[matrix.cell(s, t, shot) for t in shown] for s in shown]
    for named, digits, interval in ((True, 1, True), (True, 1, False), (True, 0, False), (False, 0, False)):
        table = Table(title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        words = f"k = {shot}; {'± 95 %, ' * interval}! = clear"
        table.title = f"transfer by {matrix.method}: accuracy over scratch, points, {words}"
        table.add_column("from", no_wrap=True)
        for t in shown:
            table.add_column(f"{t + 1}", justify="right", no_wrap=True)
        for s, row in enumerate(cells):
            write = signed if interval else _signed_mean
            values = [write(value, digits) + mark for value, mark in zip(row, marks[s], strict=True)]
            styled = [Text(text, style="bold" if s == t else "") for t, text in enumerate(values)]
            table.add_row(f"{s + 1}{_named(matrix, s) if named else ''}", *styled)
        if _fits(table, width):
            break
    return table


def _named(matrix: TransferMatrix, task: int) -> str:
    """What a task is called, behind its number."""
    name = matrix.tasks[task] if matrix.tasks else ""
    return f": {name if len(name) <= NAME else name[: NAME - 3] + '...'}" if name else ""


def _signed_mean(value: Estimate, digits: int = 1) -> str:
    """Without its interval, as in "+1.2"."""
    return f"{100 * value.mean:+.{digits}f}" if value.mean == value.mean else "–"


def verdict_line(matrix: TransferMatrix, shot: int) -> str:
    """For how many pairs transfer is established to help or to harm, and for which it harms."""
    found = matrix.verdicts(shot)
    signs = [verdict.sign for verdict in found.values()]
    line = (
        f"of {len(found)} pairs, positive transfer is established for {signs.count('positive')}, negative for"
        f" {signs.count('negative')} (k = {shot}, paired over {int(matrix.kept.sum())} seeds, Holm, 5 %)"
    )
    harmed = [f"{s + 1} to {t + 1}" for (s, t), verdict in found.items() if verdict.sign == "negative"]
    return f"{line}; it harms from {', '.join(harmed[:SHOWN])}" if harmed else line


def show_transfer(matrices: list[TransferMatrix], console: Console) -> None:
    """The curves of all methods, and the matrix of the first that is not scratch."""
    console.print(curves_table(matrices, console.width))
    first = next((matrix for matrix in matrices if matrix.method != "Scratch()"), None)
    if first:
        console.print(matrix_table(first, first.shots[-1], console.width))
        for matrix in matrices:
            if matrix.method != "Scratch()":
                console.print(f"{matrix.method}: {verdict_line(matrix, matrix.shots[-1])}", highlight=False)
    lost = int((~matrices[0].kept).sum())
    if lost:
        console.print(f"{lost} of {len(matrices[0].kept)} seeds diverged in a source, and are left out")


def transfer_json(matrices: list[TransferMatrix]) -> dict[str, Any]:
    """All of it as plain values, fractions of 1: for each method, by number of rows: curve, gain, matrix, verdicts, rates."""
    tasks = range(matrices[0].accuracy.shape[1])
    return {
        matrix.method: {
            str(shot): {
                "accuracy": estimate_json(matrix.curve()[k]),
                "gain": estimate_json(matrix.gain_curve()[k]),
                "matrix": [[estimate_json(matrix.cell(s, t, shot)) for t in tasks] for s in tasks],
                "verdicts": [
                    {"from": s, "to": t, "sign": verdict.sign, "p_holm": verdict.p}
                    for (s, t), verdict in matrix.verdicts(shot).items()
                ],
                "rates": matrix.rates[:, k].tolist(),
            }
            for k, shot in enumerate(matrix.shots)
        }
        | {"rates_inside_grid": matrix.inside, "tasks": list(matrix.tasks)}
        for matrix in matrices
    }


def estimate_json(value: Estimate) -> dict[str, Any]:
    """An estimate as JSON knows it, which has no NaN."""
    return asdict(value) | {"mean": None if value.mean != value.mean else value.mean}


def distilled_json(results: dict[str, Result], words: dict[str, str]) -> dict[str, Any]:
    """`distilled` as plain values, fractions of 1; and how each of them learned."""
    found = {name: estimate_json(value) for name, value in distilled(results).items()}
    return {name: value | ({"learner": words[name]} if name in words else {}) for name, value in found.items()}


def distilled(results: dict[str, Result]) -> dict[str, Estimate]:
    """Average accuracy of the teacher and of its students, and what teaching gave, paired over seeds."""
    accuracy = metrics.average_accuracy
    given = {name: metrics.estimate(accuracy(result), result.kept) for name, result in results.items()}
    return given | {"taught - alone": metrics.paired(accuracy, results["taught"], results["alone"])}


def distilled_table(results: dict[str, Result], words: dict[str, str]) -> Table:
    """Teacher, student alone, student taught, and the paired difference. words: what each of them is."""
    title = "average accuracy at the end, %, mean ± half-width of the 95 % interval over seeds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("learner", overflow="fold")
    table.add_column("accuracy", justify="right", no_wrap=True)
    for name, value in distilled(results).items():
        shown = signed(value, 2) if name not in results else value.text()
        table.add_row(f"{name}: {words[name]}" if name in words else name, shown)
    return table
