"""What a row of a table is: how it is run, some seeds at a time, and how its cells are kept."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from lifelong.files import make_folder, write
from scenarios.refusal import Refusal

Cell = dict[str, Any]  # what some seeds of a row gave: setting, method, seeds, accuracy (fractions of 1), ...
SEEDS = (0, 1, 2)  # of a row that names no others


class Row(ABC):
    """A row of a table; its cells are those of its setting and method. on_request: run only where it is named."""

    setting: str
    method: str
    on_request: bool = False

    @property
    def name(self) -> str:
        """As the command line names it."""
        return f"{self.setting}-{self.method}"

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Seeds that are run, and recorded, together: one at a time. First chunks of all rows come before second ones."""
        return tuple((seed,) for seed in SEEDS)

    @abstractmethod
    def measure(self, seeds: tuple[int, ...], data_root: str, device: str) -> Cell:
        """Run some seeds, one cell."""

    def shown(self, cell: Cell) -> str:
        """A cell in a few words."""
        return f"{100 * mean(cell['accuracy']):.2f} %"

    def verdict(self, cells: list[Cell]) -> str:
        """The row in a line."""
        return mean_and_error([100 * value for value in gathered(cells, self).values()])


def cells_of(record: Path) -> list[Cell]:
    """What was measured so far."""
    try:
        return json.loads(record.read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        raise Refusal(f"{record} is damaged: put back its last good version") from None


def own_cells(cells: list[Cell], row: Row) -> list[Cell]:
    """Those of one row."""
    return [cell for cell in cells if (cell["setting"], cell["method"]) == (row.setting, row.method)]


def done(cells: list[Cell], row: Row) -> set[int]:
    """Seeds that a row has."""
    return {seed for cell in own_cells(cells, row) for seed in cell["seeds"]}


def gathered(cells: list[Cell], row: Row, key: str = "accuracy") -> dict[int, float]:
    """A row's measurements by seed."""
    return {seed: value for cell in own_cells(cells, row) for seed, value in zip(cell["seeds"], cell[key], strict=True)}


def append(record: Path, cell: Cell) -> None:
    """Add a cell to the record, which is written whole."""
    make_folder(record.parent)
    write(record, (json.dumps([*cells_of(record), cell], indent=1) + "\n").encode())


def about_machine(device: str) -> Cell:
    """What a cell says of where it was run."""
    on_gpu = torch.cuda.is_available() and device != "cpu"
    return {"torch": torch.__version__.split("+")[0], "device": torch.cuda.get_device_name() if on_gpu else "cpu"}


def mean_and_error(values: list[float] | Tensor, digits: int = 2) -> str:
    """Mean ± standard error of the mean, or the mean alone where there is but one."""
    all_of = torch.as_tensor(values, dtype=torch.float64)
    if not len(all_of):
        return "not run yet"
    error = f" ± {float(all_of.std()) / len(all_of) ** 0.5:.{digits}f}" if len(all_of) > 1 else ""
    return f"{float(all_of.mean()):.{digits}f}{error}"
