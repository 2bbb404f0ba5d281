"""Run what is missing of every table, and write the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from lifelong.expression import suggest
from lifelong.files import make_folder, write
from lifelong.published import few_shot, online, sines, split_mnist
from lifelong.published.rows import Cell, Row, append, cells_of, done
from scenarios.refusal import Refusal

TABLES = (split_mnist, few_shot, sines, online)
ROWS: tuple[Row, ...] = tuple(row for table in TABLES for row in table.ROWS)


def reproduce(
    name: str, data_root: str, record: Path, page: Path, device: str, table_only: bool = False
) -> Iterator[str]:
    """Run the row of that name, or of all rows what is missing; yield a line for each finished cell.

    Each cell is written at once, so the work can be cut off and go on. Raises a Refusal where no row has that name.
    """
    rows = [row for row in ROWS if row.name == name or (not name and not row.on_request)]
    if not rows:
        raise Refusal(f"unknown row {name!r}: {suggest(name, [row.name for row in ROWS])}")
    for turn in range(0 if table_only else max(len(row.chunks) for row in rows)):
        for row in rows:
            for seeds in row.chunks[turn : turn + 1]:
                if not set(seeds) <= done(cells_of(record), row):
                    yield _measured(row, seeds, data_root, record, device)
                    write_page(cells_of(record), page)
    write_page(cells_of(record), page)
    for row in rows:
        yield f"{row.name}: {row.verdict(cells_of(record))}"


def _measured(row: Row, seeds: tuple[int, ...], data_root: str, record: Path, device: str) -> str:
    wall, processor = time.perf_counter(), time.process_time()
    cell = {"setting": row.setting, "method": row.method, "seeds": list(seeds)}
    cell |= row.measure(seeds, data_root, device)
    cell["seconds"] = round(time.perf_counter() - wall, 1)
    cell["processor seconds"] = round(time.process_time() - processor, 1)
    append(record, cell)
    return f"{row.name} seeds {', '.join(map(str, seeds))}: {row.shown(cell)} in {cell['seconds']:.0f} s"


def write_page(cells: list[Cell], page: Path) -> None:
    """All tables as one page."""
    lines = [
        "# Tables, run again",
        "",
        "Written by `make reference` (`lifelong reproduce`) from `reference.json`; notes on the rows are in `reference-notes.md`.",
    ]
    for table in TABLES:
        lines += ["", *table.page_lines(cells)]
    make_folder(page.parent)
    write(page, ("\n".join(lines) + "\n").encode())
