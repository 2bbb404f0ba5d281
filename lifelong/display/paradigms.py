"""One stream read four ways, as tables in a terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lifelong.studies.comparison import Columns, caption, tables

WORDS = ("paradigm", "method", "sees")


def paradigm_tables(about: dict[str, Any], lines: list[Any], width: int) -> list[RenderableType]:
    """The comparison: what stands over it, its tables, and what they establish."""
    narrow = width < 100
    return [
        Text(caption(about)),
        *(_table(columns, narrow) for columns in tables(about, lines)),
        *(Text(f"• {sentence}") for sentence in about["findings"]),
    ]


def _table(columns: Columns, narrow: bool) -> Table:
    table = Table(title=columns.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1 if not narrow else 0, 0, 0))
    for i, name in enumerate(columns.head):
        words = name in WORDS
        table.add_column(
            name,
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
            min_width=10 if i == 0 else None,
        )
    for i, cells in enumerate(columns.rows):
        if i and cells[0] != columns.rows[i - 1][0]:
            table.add_section()
        table.add_row(*(Text(cell.replace(" ± ", "±") if narrow else cell) for cell in cells))
    return table
