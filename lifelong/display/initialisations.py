"""Learned initialisations in a terminal: what a file says of itself, and how it did in a test."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lifelong.display.tables import listing
from lifelong.runs.folder import OVERLAP


def initialisation_table(about: dict[str, Any]) -> Table:
    """What a start's file says of itself."""
    return listing("a start", {name: str(value) for name, value in about.items() if name != "curve"})


def tested(rows: list[dict[str, Any]]) -> list[Any]:
    """Starts and how they did, few-shot episodes or classes learned online; and how each of them answers."""
    online = "classes" in rows[0]
    over = ", ".join(dict.fromkeys(row["interval over"] for row in rows))
    if online:
        test = f"{rows[0]['classes']} classes online, accuracy on new images after the last, %"
    else:
        test = f"{rows[0]['episodes']} few-shot episodes; difference: to the first start, on the same ones"
    title = f"{test}; mean ± half-width of the 95 % interval over {over}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = ("start", "method", "value", "rate") if online else ("start", "episodes", "mode", "value", "difference")
    for column in columns:
        table.add_column(
            column, justify="right" if column in ("value", "rate", "difference") else "left", overflow="fold"
        )
    notes: dict[str, None] = {}
    for row in rows:
        scale, width = 1.0 if row.get("measure") == "mean square error" else 100.0, row["half_width"]
        value = f"{scale * row['mean']:.2f}" + ("" if width is None else f" ± {scale * width:.2f}")
        name = row["start"] + (OVERLAP if row["overlap allowed"] else "")
        if online:
            rates = ", ".join(dict.fromkeys(f"{rate:.3g}" for rate in row["rates"] if rate)) or "–"
            table.add_row(name, Text(row["method"]), value, rates)
            continue
        kind = f"{row['way']}-way {row['shot']}-shot" if row["way"] else f"{row['shot']} points"
        gap = row.get("difference")
        spread = row.get("difference_half_width")
        last = "" if gap is None else f"{scale * gap:+.2f}" + ("" if spread is None else f" ± {scale * spread:.2f}")
        table.add_row(name, f"{kind}, {row['data']}", row["mode"], value, last)
        norm = "no norm" if row["norm"] == "none" else f"{row['norm']} norm"
        notes[f"{row['start']}: {norm}; answers by {row['answered by']}"] = None
    return [table, Text("\n".join(notes))]
