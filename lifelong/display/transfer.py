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


def signed(value: Estimate, digits: int = 1) -> str:
    """In percent with its sign, as in "+1.2 ± 0.4"."""
    return ("+" if value.mean >= 0 else "") + value.text(digits)


def curves_table(matrices: list[TransferMatrix], width: int) -> Table:
    """Accuracy after k rows of each class for each method, over all pairs of different tasks; and the gain over scratch."""
    digits = 2 if width >= 110 else 1
    title = "accuracy, %, after k rows of each class of a task other than the source's, ± 95 % over seeds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for shot in matrices[0].shots:
        table.add_column(f"k = {shot}", justify="right", no_wrap=True)
    table.add_column(f"over scratch, k = {matrices[0].shots[-1]}", justify="right")
    for matrix in matrices:
        gain = "" if matrix.method == "Scratch()" else signed(matrix.gain_curve()[-1], digits)
        mark = "" if matrix.inside else " *"
        table.add_row(matrix.method + mark, *(value.text(digits) for value in matrix.curve()), gain)
    if not all(matrix.inside for matrix in matrices):
        table.caption = "* its best learning rate lay at the end of the grid, even after the grid was widened"
    return table


def matrix_table(matrix: TransferMatrix, shot: int, width: int) -> Table:
    """Gain over scratch in points of percent: sources in rows, targets in columns; as exactly as the width allows.

    "clear" is said of a gain whose 95 % interval leaves out 0.
    """
    shown = range(min(matrix.accuracy.shape[1], SHOWN))
    cells = [[matrix.cell(s, t, shot) for t in shown] for s in shown]
    for write, words in ((signed, "± 95 %"), (_one_digit, "! = clear"), (_whole, "! = clear")):
        title = f"transfer by {matrix.method}: accuracy over scratch, points, k = {shot}; {words}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("from", justify="right", no_wrap=True)
        for t in shown:
            table.add_column(f"{t + 1}", justify="right", no_wrap=True)
        for s, row in enumerate(cells):
            styled = [Text(write(value), style="bold" if s == t else "") for t, value in enumerate(row)]
            table.add_row(f"{s + 1}", *styled)
        if Measurement.get(Console(width=1000), Console(width=1000).options, table).maximum <= width:
            break
    return table


def _one_digit(value: Estimate, digits: int = 1) -> str:
    """Without its interval, as in "+1.2!"."""
    clear = value.half_width is not None and abs(value.mean) > value.half_width
    return f"{100 * value.mean:+.{digits}f}{'!' if clear else ' '}" if value.mean == value.mean else "–"


def _whole(value: Estimate) -> str:
    return _one_digit(value, 0)


def show_transfer(matrices: list[TransferMatrix], console: Console) -> None:
    """The curves of all methods, and the matrix of the first that is not scratch."""
    console.print(curves_table(matrices, console.width))
    first = next((matrix for matrix in matrices if matrix.method != "Scratch()"), None)
    if first:
        console.print(matrix_table(first, first.shots[-1], console.width))
    lost = int((~matrices[0].kept).sum())
    if lost:
        console.print(f"{lost} of {len(matrices[0].kept)} seeds diverged in a source, and are left out")


def transfer_json(matrices: list[TransferMatrix]) -> dict[str, Any]:
    """All of it as plain values, fractions of 1: for each method, by number of rows: curve, gain, matrix, rates."""
    tasks = range(matrices[0].accuracy.shape[1])
    return {
        matrix.method: {
            str(shot): {
                "accuracy": _plain(matrix.curve()[k]),
                "gain": _plain(matrix.gain_curve()[k]),
                "matrix": [[_plain(matrix.cell(s, t, shot)) for t in tasks] for s in tasks],
                "rates": matrix.rates[:, k].tolist(),
            }
            for k, shot in enumerate(matrix.shots)
        }
        | {"rates_inside_grid": matrix.inside}
        for matrix in matrices
    }


def _plain(value: Estimate) -> dict[str, Any]:
    """An estimate as JSON knows it, which has no NaN."""
    return asdict(value) | {"mean": None if value.mean != value.mean else value.mean}


def distilled_json(results: dict[str, Result]) -> dict[str, Any]:
    """`distilled` as plain values, fractions of 1."""
    return {name: _plain(value) for name, value in distilled(results).items()}


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
