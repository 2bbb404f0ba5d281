"""The families of meta-learning on sine waves: errors over the number of points, and as the waves move away."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from lifelong.core.files import write
from lifelong.display.report.colours import LIGHT, look
from lifelong.display.report.drawing import Drawing, axes_of, blank, marks, style
from lifelong.display.report.files import as_bytes
from lifelong.studies.published.rows import Cell, cells_of, gathered
from lifelong.studies.published.sine_curves import (
    FIGURE,
    GRADIENT_ROWS,
    LARGE,
    OTHER_ROWS,
    QUANTITIES,
    SHARES,
    SHOWN,
    SineCurveRow,
    places,
    zero_error,
)

WIDTH, HEIGHT, LEGEND, LEFT = 1000, 300, 150, 56  # pixels of a row of panels, of its legend, of its first axis
ERRORS = (0.01, 0.1, 1.0, 10.0, 100.0)  # of which the axis speaks
POINTS_OF = {shown: name for shown, name in zip(SHOWN, places(), strict=False)}


def write_sine_curves(record: Path, page: Path) -> None:
    """Draw what a record holds, beside its page; nothing where it holds none."""
    cells = cells_of(record)
    if any(gathered(cells, row, POINTS_OF[SHOWN[0]]) for row in (*GRADIENT_ROWS, *OTHER_ROWS)):
        write(page.with_name(FIGURE), as_bytes(sine_figure(cells), "svg"))


def sine_figure(cells: list[Cell]) -> Drawing:
    """Mean square error of every family: start learned by gradient steps above, the others below.

    One column for the number of points, and one for each quantity whose range was moved. Dashes: the error of the answer 0.
    """
    rows = (GRADIENT_ROWS, OTHER_ROWS)
    drawing = blank(WIDTH, HEIGHT * len(rows), "Mean square error on sine waves")
    columns = 1 + len(QUANTITIES)
    each = (WIDTH - LEFT - LEGEND) / columns
    with style():
        for number, of_row in enumerate(rows):
            top = 30 + HEIGHT * number
            below = HEIGHT * (len(rows) - 1 - number) + 46
            for column in range(columns):
                left = LEFT + each * column
                axes = axes_of(drawing, left=left, right=WIDTH - left - each + 14, top=top, bottom=below)
                _panel(drawing, axes, of_row, cells, column)
                axes.set_title("" if number else _title(column))
                if column:
                    axes.set_yticklabels([])
                else:
                    axes.set_ylabel("mean square error")
            axes.legend(loc="center left", bbox_to_anchor=(1.04, 0.5))
    return drawing


def _title(column: int) -> str:
    return f"{QUANTITIES[column - 1]} moved by" if column else "points"


def _panel(drawing: Drawing, axes: Axes, rows: tuple[SineCurveRow, ...], cells: list[Cell], column: int) -> None:
    """The curves of some families over what a column changes."""
    where: dict[float, str] = {float(shown): name for shown, name in POINTS_OF.items()}
    if column:
        where = {0.0: POINTS_OF[10], **{share: f"{QUANTITIES[column - 1]} {share:g}" for share in SHARES}}
    known = places()
    zero = [zero_error(known[name][1]) for name in where.values()]
    axes.plot(list(where), zero, color=LIGHT["muted"], linestyle="--", linewidth=1.2, label="the answer 0")
    for number, row in enumerate(rows):
        errors = {at: list(gathered(cells, row, name).values()) for at, name in where.items()}
        means = {at: sum(found) / len(found) for at, found in errors.items() if found}
        if not means:
            continue
        shown = look(number)
        axes.plot(list(means), list(means.values()), color=shown.colour, linewidth=1.4, marker=shown.marker, markersize=5,
                  label=row.method)  # fmt: skip
        told = [(at, error, f"{row.method}, {where[at]}: {error:.3f}") for at, error in means.items()]
        # what diverged is beyond the axis, and so are its marks
        marks(drawing, axes, told, shown, number, label=f"_{row.method}", clip_on=True)
    axes.set_yscale("log")
    axes.set_ylim(0.001, LARGE / 5)
    axes.set_yticks(ERRORS, [f"{error:g}" for error in ERRORS])
    axes.grid(axis="y")
    if column:
        axes.set_xticks(list(where), [f"{share:g}" for share in where])
    else:
        axes.set_xscale("log")
        axes.set_xticks(list(where), [f"{points:g}" for points in where])
    axes.minorticks_off()
