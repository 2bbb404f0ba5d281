"""Run what is missing of every table, and write the page."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lifelong.core.files import make_folder, write
from lifelong.notation.expression import suggest
from lifelong.studies.published import few_shot, online, sine_curves, sines, split_mnist
from lifelong.studies.published.rows import (
    Cell,
    Row,
    append,
    cell_of,
    cells_of,
    checked,
    commit,
    done,
    stale_cells,
    to_check,
    why_stale,
)
from scenarios.errors import ConfigurationError

TABLES = (split_mnist, few_shot, sines, sine_curves, online)
ROWS: tuple[Row, ...] = tuple(row for table in TABLES for row in table.ROWS)


class Missing(NamedTuple):
    """Seeds that a row lacks; turn: the how-manieth chunk of its row; seconds: what they will take, infinite where
    nothing is known."""

    turn: int
    row: Row
    seeds: tuple[int, ...]
    seconds: float


def reproduce(
    words: str,
    data_root: str,
    record: Path,
    page: Path,
    device: str,
    table_only: bool = False,
    cheap_first: bool = False,
) -> Iterator[str]:
    """Run what is missing of the rows that words name, of all where there are none; yield a line for each cell.

    Cells that are kept count while their first losses come back, which is looked at before anything is run, but not with
    table_only. Each cell is written at once, so the work can be cut off and goes on later. A cell that cannot be measured
    is said, and the others are. Raises a ConfigurationError where a word names no row, and at the end where a cell could not be
    measured.
    """
    rows = chosen(words)
    commit()  # of the code as it is now, before hours go by
    failed: list[Missing] = []

    def cells() -> list[Cell]:
        found = cells_of(record)
        for row in () if table_only else rows:
            found = checked(found, row, data_root)
        return found

    if not table_only:
        yield from _not_repeated(cells_of(record), rows, data_root)
        if left := missing(cells(), rows):
            yield _plan(left)
    while not table_only:
        left = missing(cells(), rows, cheap_first)  # anew: what was measured decides how many seeds are wanted
        left = [some for some in left if not any((some.row, some.seeds) == (bad.row, bad.seeds) for bad in failed)]
        if not left:
            break
        try:
            cell = _measured(left[0], data_root, device)
        except Exception as error:  # one cell must not end a night of others
            failed.append(left[0])
            yield f"{_name(left[0])}: not measured: {_words(error)}"
            continue
        append(record, cell)
        write_page(cells(), page)
        yield f"{_name(left[0])}: {left[0].row.shown(cell)} in {cell['seconds']:.0f} s"
    write_page(cells(), page)
    for row in rows:
        yield f"{row.name}: {row.verdict(cells())}"
    if failed:
        raise ConfigurationError(f"not measured, for the reasons above: {'; '.join(map(_name, failed))}")


def _not_repeated(cells: list[Cell], rows: list[Row], data_root: str) -> Iterator[str]:
    """Take the first losses of every cell of some rows again; a line before it, and one for each that does not come back."""
    waiting = [(row, cell) for row in rows for cell in to_check(cells, row)]
    if waiting:
        yield f"{len(waiting)} cells kept: do their first losses come back?"
    for row, cell in waiting:
        if why := why_stale(checked([cell], row, data_root)[0], row):
            yield f"{row.name} seeds {', '.join(map(str, cell['seeds']))}: stale: {why}"


def chosen(words: str) -> list[Row]:
    """The rows that words name: names, or beginnings of names, with commas between; without any, all but those on request.

    A whole name is that row alone, and brings a row on request. Raises a ConfigurationError for a word that names none.
    """
    if not words.strip(" ,"):
        return [row for row in ROWS if not row.on_request]
    found: list[Row] = []
    for word in (word.strip() for word in words.split(",") if word.strip()):
        named = [row for row in ROWS if row.name == word]
        named = named or [row for row in ROWS if row.name.startswith(word) and not row.on_request]
        if not named:
            raise ConfigurationError(f"unknown row {word!r}: {suggest(word, [row.name for row in ROWS])}")
        found += [row for row in named if row not in found]
    return found


def missing(cells: list[Cell], rows: list[Row], cheap_first: bool = False) -> list[Missing]:
    """What is to be run, in order: first chunks of all rows before second ones, among them the cheap ones first."""
    found = []
    for row in rows:
        have, each = done(cells, row), _seconds(cells, row)
        for turn, chunk in enumerate(row.chunks(cells)):
            seeds = tuple(seed for seed in chunk if seed not in have)
            if seeds:
                found.append(Missing(turn, row, seeds, each * len(seeds)))
    return sorted(found, key=lambda some: (some.turn, some.seconds if cheap_first else 0.0))


def _seconds(cells: list[Cell], row: Row) -> float:
    """Seconds of a seed: of this row, stale or not, else of its method elsewhere; infinite where neither is known."""
    for known in (
        [cell for cell in cells if (cell["setting"], cell["method"]) == (row.setting, row.method)],
        [cell for cell in cells if cell["method"] == row.method],
    ):
        # a row that shares another's start was not there while it was learned
        timed = [
            max(cell["seconds"], cell.get("training seconds", 0.0)) / len(cell["seeds"])
            for cell in known
            if "seconds" in cell
        ]
        if timed:
            return timed[-1]
    return math.inf


def _plan(left: list[Missing]) -> str:
    known = [some.seconds for some in left if some.seconds < math.inf]
    hours = f"about {sum(known) / 3600:.1f} hours by earlier ones" if known else "no earlier ones tell how long"
    unknown = f", without {len(left) - len(known)} of unknown cost" if 0 < len(known) < len(left) else ""
    return f"{len(left)} cells to run: {hours}{unknown}"


def _measured(some: Missing, data_root: str, device: str) -> Cell:
    wall, processor = time.perf_counter(), time.process_time()
    cell = cell_of(some.row, some.seeds, some.row.measure(some.seeds, data_root, device))
    cell["seconds"] = round(time.perf_counter() - wall, 1)
    cell["processor seconds"] = round(time.process_time() - processor, 1)
    return cell


def _name(some: Missing) -> str:
    return f"{some.row.name} seeds {', '.join(map(str, some.seeds))}"


def _words(error: Exception) -> str:
    """An error in a line; one that is not meant for people says where it happened."""
    line = (str(error).splitlines() or [""])[0]
    if isinstance(error, ConfigurationError):
        return line
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {line} ({Path(place.filename).name}, line {place.lineno})"


def write_page(cells: list[Cell], page: Path) -> None:
    """All tables as one page."""
    lines = [
        "# Tables, run again",
        "",
        "Written by `make reference` (`lifelong reproduce`) from `reference.json`; notes on the rows are in `reference-notes.md`.",
    ]
    for table in TABLES:
        lines += ["", *table.page_lines(cells)]
    lines += _stale_lines(cells)
    make_folder(page.parent)
    write(page, ("\n".join(lines) + "\n").encode())


def _stale_lines(cells: list[Cell]) -> list[str]:
    """The page's section of cells that do not count, where there are any."""
    stale = [(row, cell) for row in ROWS for cell in stale_cells(cells, row)]
    if not stale:
        return []
    lines = ["", "## Stale cells", ""]
    lines += ["Measured by code, or of a method or protocol, that is no longer that of the row: not counted above, and run again by", "`make reference`.", ""]  # fmt: skip
    lines += ["| row | seeds | it said | commit | why it is stale |", "|---|---|---:|---|---|"]
    for row, cell in stale:
        seeds = ", ".join(map(str, cell["seeds"]))
        lines.append(
            f"| {row.name} | {seeds} | {row.shown(cell)} | {cell.get('commit', 'unknown')} | {why_stale(cell, row)} |"
        )
    return lines
