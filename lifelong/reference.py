"""Published rows, run again: protocol, ours, theirs, verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lifelong.files import write
from lifelong.loop import run
from lifelong.metrics import average_accuracy, estimate, learning_accuracy
from lifelong.request import Request
from scenarios.refusal import Refusal

SOURCE = "van de Ven, Tuytelaars and Tolias (2022), Three types of incremental learning, Nature Machine Intelligence 4"
PROTOCOL = (
    "Split-MNIST, 5 tasks of 2 digits, digits assigned to tasks anew for each seed; 784-400-400 rectified linear units, "
    "all classes open (task-incremental: the 2 of the task); Adam, rate 0.001, kept over tasks; batch 128; 2,000 "
    "iterations a task (joint: 10,000 on all data); accuracy on the full test set of each task after the last, mean over tasks"
)
CHUNK = 5  # seeds that are run, and recorded, together


@dataclass(frozen=True)
class Row:
    """A published cell: the method as text, the published mean and standard error of the mean, in percent."""

    method: str
    setting: str
    mean: float
    error: float
    strategy: str = "FineTuning()"
    baseline: str = ""

    @property
    def name(self) -> str:
        """As the command line names it."""
        return f"split-mnist-{self.setting}-{self.method}"

    @property
    def wanted(self) -> int:
        """Seeds that the cell should have: 20 where the published error is above half a point, else 5."""
        return 20 if self.error > 0.5 else CHUNK

    def request(self, seeds: tuple[int, ...], data_root: str, device: str) -> Request:
        """The run."""
        return Request(
            "split-mnist", setting=self.setting, strategy="" if self.baseline else self.strategy,
            baseline=self.baseline, seeds=seeds, data_root=data_root, device=device,
        )  # fmt: skip


ROWS = (
    Row("none", "task", 84.32, 0.99),
    Row("none", "domain", 60.13, 1.66),
    Row("none", "class", 19.89, 0.02),
    Row("joint", "task", 99.67, 0.03, baseline="joint"),
    Row("joint", "domain", 98.59, 0.05, baseline="joint"),
    Row("joint", "class", 98.17, 0.04, baseline="joint"),
    Row("ewc", "task", 99.06, 0.15, "EWC(strength=100000.0)"),
    Row("ewc", "domain", 63.03, 1.58, "EWC(strength=10000000000.0)"),
    Row("ewc", "class", 20.64, 0.52, "EWC(strength=1000000000.0)"),
    Row("si", "task", 99.20, 0.11, "SI(strength=10.0)"),
    Row("si", "domain", 66.94, 1.13, "SI(strength=50000.0)"),
    Row("si", "class", 21.20, 0.57, "SI(strength=5000.0)"),
    Row("lwf", "task", 99.60, 0.03, "LwF()"),
    Row("lwf", "domain", 72.90, 1.02, "LwF()"),
    Row("lwf", "class", 21.89, 0.32, "LwF()"),
    # the authors' code leaves temperature ** 2 out of the distillation loss: at temperature 2, a quarter of the strength
    Row("lwf-authors", "task", 99.60, 0.03, "LwF(strength=0.25)"),
    Row("lwf-authors", "domain", 72.90, 1.02, "LwF(strength=0.25)"),
    Row("lwf-authors", "class", 21.89, 0.32, "LwF(strength=0.25)"),
    Row("er", "task", 98.98, 0.07, "ClassReplay(per_class=100)"),
    Row("er", "domain", 93.75, 0.24, "ClassReplay(per_class=100)"),
    Row("er", "class", 88.79, 0.20, "ClassReplay(per_class=100)"),
)


def cells_of(record: Path) -> list[dict[str, Any]]:
    """What was measured so far: one entry for each row and chunk of seeds."""
    try:
        return json.loads(record.read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        raise Refusal(f"{record} is damaged: put back its last good version") from None


def gathered(cells: list[dict[str, Any]], row: Row, key: str = "accuracy") -> dict[int, float]:
    """A row's measurements by seed, as fractions of 1."""
    own = [cell for cell in cells if (cell["setting"], cell["method"]) == (row.setting, row.method)]
    return {seed: value for cell in own for seed, value in zip(cell["seeds"], cell[key], strict=True)}


def reproduce(
    name: str, data_root: str, record: Path, page: Path, device: str, table_only: bool = False
) -> Iterator[str]:
    """Run what is missing, first 5 seeds of every row, then up to 20 where they differ much; yield a line for each.

    Each finished chunk is written at once, so the work can be cut off and go on.
    """
    from lifelong.expression import suggest

    rows = [row for row in ROWS if name in ("", row.name)]
    if not rows:
        raise Refusal(f"unknown row {name!r}: {suggest(name, [row.name for row in ROWS])}")
    for first in range(0, 0 if table_only else 20, CHUNK):
        for row in rows:
            seeds = tuple(range(first, first + CHUNK))
            if first >= row.wanted or set(seeds) <= set(gathered(cells_of(record), row)):
                continue
            yield _measure(row, seeds, data_root, record, device)
            _write_page(cells_of(record), page)
    cells = cells_of(record)
    _write_page(cells, page)
    for row in rows:
        yield f"{row.name}: " + " | ".join(_cells(cells, row)[2:])


def _measure(row: Row, seeds: tuple[int, ...], data_root: str, record: Path, device: str) -> str:
    request = row.request(seeds, data_root, device)
    learner, stream, start = request.build()
    began = time.perf_counter()
    result = run(learner, stream, seeds, start, device=device)
    seconds = time.perf_counter() - began
    cell = {
        "setting": row.setting,
        "method": row.method,
        "strategy": row.strategy,
        "seeds": list(seeds),
        "accuracy": [round(v, 6) for v in average_accuracy(result).tolist()],
        "learning_accuracy": [] if row.baseline else [round(v, 6) for v in learning_accuracy(result).tolist()],
        "seconds": round(seconds, 1),
        "torch": torch.__version__.split("+")[0],
        "device": "cpu" if not torch.cuda.is_available() or device == "cpu" else torch.cuda.get_device_name(),
    }
    record.parent.mkdir(parents=True, exist_ok=True)
    write(record, (json.dumps([*cells_of(record), cell], indent=1) + "\n").encode())
    return f"{row.name} seeds {seeds[0]} ... {seeds[-1]}: {100 * sum(cell['accuracy']) / len(seeds):.2f} in {seconds:.0f} s"


def _cells(cells: list[dict[str, Any]], row: Row) -> list[str]:
    """The row of the page: setting, method, ours, seeds, theirs, gap, verdict."""
    values = torch.tensor(list(gathered(cells, row).values()), dtype=torch.float64) * 100
    theirs = f"{row.mean:.2f} ± {row.error:.2f}"
    if not len(values):
        return [row.setting, row.method, "not run yet", "0", theirs, "", ""]
    mean = float(values.mean())
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
    limit = max(3 * (error**2 + row.error**2) ** 0.5, 1.0)
    gap = mean - row.mean
    verdict = "within" if abs(gap) <= limit else "**outside**"
    seeds = f"{len(values)}" + (f" of {row.wanted}" if len(values) < row.wanted else "")
    return [
        row.setting,
        row.method,
        f"{mean:.2f} ± {error:.2f}",
        seeds,
        theirs,
        f"{gap:+.2f} (limit {limit:.2f})",
        verdict,
    ]


def _write_page(cells: list[dict[str, Any]], page: Path) -> None:
    lines = [
        "# Published rows, run again",
        "",
        "Written by `make reference` (`lifelong reproduce`) from `reference.json`; notes on the rows are in `reference-notes.md`.",
        "",
        f"Source: {SOURCE}. Their numbers: 20 seeds, mean ± standard error of the mean, %; recalled, not re-read.",
        "",
        f"Protocol: {PROTOCOL}.",
        "",
        "Methods: EWC, one penalty a task, exact Fisher, strength 1e5 / 1e10 / 1e9 (task / domain / class); SI, 10 / 5e4 / 5e3,",
        "damping 0.1; LwF, temperature 2, with temperature² in the loss (lwf) and without, as in the authors' code (lwf-authors); ER, 100 images a class (domain: a class and task), new rows weighted 1/k.",
        "",
        "Within: |ours − theirs| ≤ max(3 combined standard errors, 1 point). Seeds are ours (0, 1, ...), not theirs.",
        "",
        "| setting | method | ours | seeds | theirs | gap | verdict |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    lines += ["| " + " | ".join(_cells(cells, row)) + " |" for row in ROWS]
    lines += ["", "Paired over seeds, task-incremental (a broken method can hit a mean, but not this):", ""]
    none = gathered(cells, ROWS[0])
    for row in ROWS:
        own = gathered(cells, row)
        shared = sorted(set(own) & set(none))
        if row.setting == "task" and row.method in ("ewc", "si") and len(shared) > 1:
            value = estimate(torch.tensor([own[s] - none[s] for s in shared]))
            lines.append(f"- {row.method} − none: {value.text()} points over {len(shared)} seeds (95 % interval)")
    page.parent.mkdir(parents=True, exist_ok=True)
    write(page, ("\n".join(lines) + "\n").encode())
