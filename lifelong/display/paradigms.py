"""One stream read four ways, as tables in a terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lifelong.studies.comparison import caption, head, row


def paradigm_tables(about: dict[str, Any], lines: list[Any], width: int) -> list[Table]:
    """The comparison in one table; on a page of few characters what it cost and saw is a table of its own."""

    shots = tuple(about["shots"])
    names, rows = head(shots), []
    for line in lines:
        cells = row(line, shots)
        rows.append([cell.replace(" ± ", "±") for cell in cells] if width < 100 else cells)
    count, first = len(names), names.index("seconds")
    parts = [list(range(count))] if width >= 150 else [list(range(first)), [0, 1, *range(first, count)]]
    tables = []
    for part, title in zip(parts, (caption(about), "what it took, and was allowed to see"), strict=False):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i in part:
            justify = "left" if names[i] in ("paradigm", "method", "sees") else "right"
            table.add_column(names[i], justify=justify, overflow="fold", min_width=10 if i == 0 else None)
        for i, cells in enumerate(rows):
            if i and cells[0] != rows[i - 1][0]:
                table.add_section()
            table.add_row(*(Text(cells[j]) for j in part))
        tables.append(table)
    return tables
