"""What a row of a table is: how it is run, some seeds at a time, and how its cells are kept."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from lifelong.core.files import make_folder, write
from lifelong.studies.published.first_losses import built, difference, other_request
from scenarios.disk import read_plain, reason
from scenarios.errors import ConfigurationError
from scenarios.typed import TypedError, check

# Raised by one wherever the arithmetic of learning, or what is drawn at random, changes: on streams (the loop, the
# learner, strategies, scenarios) or on episodes (meta-learning, sources of episodes). Older cells no longer count. For
# rows whose cells say their first losses, these decide instead.
VERSIONS = {"streams": 2, "episodes": 2}
CODE = ("lifelong", "scenarios", "cli.py")  # what can change a cell
Cell = dict[str, Any]  # what some seeds of a row gave: setting, method, seeds, accuracy (fractions of 1), ...
SEEDS = (0, 1, 2)  # of a row that names no others


class Row(ABC):
    """A row of a table; its cells are those of its setting and method that are not stale.

    on_request: run only where it is named. rests_on: the entries of `VERSIONS` that its cells depend on; none where they
    say their first losses.
    """

    setting: str
    method: str
    on_request: bool = False
    rests_on: tuple[str, ...] = ("streams",)

    @property
    def name(self) -> str:
        """As the command line names it."""
        return f"{self.setting}-{self.method}"

    @property
    def texts(self) -> dict[str, tuple[str, str]]:
        """What learns, as text: a key of the cell -> the kind of object and the text that builds it."""
        return {}

    @property
    def protocol(self) -> str:
        """The rest that a cell depends on, in a line: data, network, budget, test."""
        return ""

    @property
    def saved_request(self) -> dict[str, Any]:
        """The run of a cell as a run's folder saves it; empty where a cell is no single run and says no first losses."""
        return {}

    def first_losses(self, seeds: tuple[int, ...], data_root: str) -> str:
        """What the code, as it is, loses first in the run of a cell, see `lifelong.studies.published.first_losses`."""
        raise NotImplementedError(f"{self.name} is no single run")

    def chunks(self, cells: list[Cell]) -> tuple[tuple[int, ...], ...]:
        """Seeds that are run, and recorded, together: one at a time. First chunks of all rows come before second ones.

        cells: all that is measured so far, on which the number of seeds may depend.
        """
        return tuple((seed,) for seed in SEEDS)

    @abstractmethod
    def measure(self, seeds: tuple[int, ...], data_root: str, device: str) -> Cell:
        """Run some seeds, one cell."""

    def shown(self, cell: Cell) -> str:
        """A cell in a few words."""
        return f"{100 * mean(cell['accuracy']):.2f} %"

    def verdict(self, cells: list[Cell]) -> str:
        """The row in a line."""
        values = [100 * value for value in gathered(cells, self).values()]
        return mean_and_error(values) if values else absent(cells, self)


CELL = {  # what a record says of some seeds, as far as every table reads it
    "setting": str, "method": str, "seeds": list[int], "accuracy?": list[float], "learning_accuracy?": list[float],
    "half_width?": list[float], "seconds?": float, "processor seconds?": float, "training seconds?": float, "torch?": str,
    "device?": str, "commit?": str, "class split?": str, "inductive?": list[float], "images?": int, "request?": dict[str, Any],
    "rates?": list[float | dict[str, float]], "error?": list[float], "by strategy?": list[dict[str, float]],
    "per draw?": list[list[float]], "curve?": list[list[float]], "first losses?": str, "versions?": Any,
    "iterations?": int, "batch?": int, "stage?": str, "model?": str, "optimiser?": str, "protocol?": str, "strategy?": str,
}  # fmt: skip


def cells_of(record: Path) -> list[Cell]:
    """What was measured so far."""
    if not os.path.lexists(record):
        return []
    try:
        cells = json.loads(read_plain(record))
        check(cells, list[dict[str, Any]])
        for number, cell in enumerate(cells):
            check(cell, CELL, f"cell {number}")
            if len(cell.get("accuracy", cell["seeds"])) != len(cell["seeds"]):
                raise TypedError(f"cell {number}: accuracy and seeds differ in number")
    except OSError as error:
        raise ConfigurationError(f"{record} cannot be read ({reason(error)})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{record} is damaged ({reason(error)}): put back its last good version") from None
    return cells


def cell_of(row: Row, seeds: tuple[int, ...], measured: Cell) -> Cell:
    """What was measured, with all that says how: texts, protocol, request or versions, the commit of the code."""
    how = {"request": row.saved_request} if row.saved_request else {"versions": _versions(row)}
    return {
        "setting": row.setting,
        "method": row.method,
        "seeds": list(seeds),
        **{key: built(kind, text) for key, (kind, text) in row.texts.items()},
        "protocol": row.protocol,
        **how,
        "commit": commit(),
        **measured,
    }


def why_stale(cell: Cell, row: Row) -> str:
    """Why a cell of a row no longer counts, in a few words; empty where it does.

    Texts are compared as the objects that they build: a new field that stays at its default changes nothing, another
    value or another default does.
    """
    if row.saved_request and "first losses" not in cell:
        return "does not say its first losses"
    if not row.saved_request and cell.get("versions") != _versions(row):
        return "by an older core" if "versions" in cell else "does not say by which core"
    for key, (kind, text) in row.texts.items():
        if built(kind, cell.get(key, "")) != built(kind, text):
            return f"of another {key}: `{cell.get(key, 'none')}`"
    if cell.get("protocol") != row.protocol:
        return f"of another protocol: {cell.get('protocol', 'none')}"
    if row.saved_request and (words := other_request(cell.get("request", {}), row.saved_request)):
        return f"of another request: {words}"
    return cell.get("not repeated", "")


def checked(cells: list[Cell], row: Row, data_root: str) -> list[Cell]:
    """The cells, where those of one row that would count, but whose first losses do not come back, say so.

    They say it as "not repeated", which is never saved: with the code as it was, the same cell counts again.
    """
    return [
        {**cell, "not repeated": _not_repeated(cell, row, data_root)} if _to_check(cell, row) else cell
        for cell in cells
    ]


def to_check(cells: list[Cell], row: Row) -> list[Cell]:
    """Those of one row that count if their first losses come back."""
    return [cell for cell in cells if _to_check(cell, row)]


def _to_check(cell: Cell, row: Row) -> bool:
    return bool(row.saved_request and _of([cell], row) and not why_stale(cell, row))


def _not_repeated(cell: Cell, row: Row, data_root: str) -> str:
    """Why the first losses of a cell do not come back; empty where they do. Raises a ConfigurationError, as of data that are not there."""
    try:
        return difference(cell["first losses"], losses_now(row, tuple(cell["seeds"]), data_root))
    except ConfigurationError:
        raise
    except Exception as error:  # the code cannot run it any more: the row is measured again, and says so
        return f"its first losses cannot be taken: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


@functools.cache
def losses_now(row: Row, seeds: tuple[int, ...], data_root: str) -> str:
    """A row's first losses, taken once in a process: what it imported does not change."""
    return row.first_losses(seeds, data_root)


def own_cells(cells: list[Cell], row: Row) -> list[Cell]:
    """Those of one row that count."""
    return [cell for cell in _of(cells, row) if not why_stale(cell, row)]


def stale_cells(cells: list[Cell], row: Row) -> list[Cell]:
    """Those of one row that do not count, and have not been measured again."""
    found = done(cells, row)
    return [cell for cell in _of(cells, row) if why_stale(cell, row) and not set(cell["seeds"]) <= found]


def absent(cells: list[Cell], row: Row) -> str:
    """What a table says of a row without cells that count."""
    return "stale" if stale_cells(cells, row) else "not run yet"


def done(cells: list[Cell], row: Row) -> set[int]:
    """Seeds that a row has, stale ones left out."""
    return {seed for cell in own_cells(cells, row) for seed in cell["seeds"]}


def gathered(cells: list[Cell], row: Row, key: str = "accuracy") -> dict[int, float]:
    """A row's measurements by seed."""
    return {seed: value for cell in own_cells(cells, row) for seed, value in zip(cell["seeds"], cell[key], strict=True)}


def append(record: Path, cell: Cell) -> None:
    """Add a cell to the record, which is written whole; processes that append at the same time wait for each other."""
    make_folder(record.parent)
    with _alone_in(record.parent):
        write(record, (json.dumps([*cells_of(record), cell], indent=1) + "\n").encode())


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process that holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@functools.cache
def commit() -> str:
    """The commit of the code, short, with "+" where the code differs from it; "unknown" outside the repository.

    Asked once: a run of hours goes on with the code that it began with.
    """
    root = Path(__file__).resolve().parents[3]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != root:
            return "unknown"  # the repository of somebody else, into which this was installed
        changed = git("status", "--porcelain", "--", *CODE)
        return git("rev-parse", "--short=10", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def about_machine(device: str) -> Cell:
    """What a cell says of where it was run."""
    on_gpu = torch.cuda.is_available() and device != "cpu"
    device = torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.backends.cpu.get_cpu_capability()}"
    return {"torch": torch.__version__.split("+")[0], "device": device}


def mean_and_error(values: list[float] | Tensor, digits: int = 2) -> str:
    """Mean ± standard error of the mean, or the mean alone where there is but one."""
    all_of = torch.as_tensor(values, dtype=torch.float64)
    if not len(all_of):
        return "not run yet"
    error = f" ± {float(all_of.std()) / len(all_of) ** 0.5:.{digits}f}" if len(all_of) > 1 else ""
    return f"{float(all_of.mean()):.{digits}f}{error}"


def _of(cells: list[Cell], row: Row) -> list[Cell]:
    return [cell for cell in cells if (cell["setting"], cell["method"]) == (row.setting, row.method)]


def _versions(row: Row) -> dict[str, int]:
    return {name: VERSIONS[name] for name in row.rests_on}
