"""What a person sees in a terminal: the live display while it learns, and the tables afterwards."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lifelong import metrics
from lifelong.core.loop import Progress as LoopEvent
from lifelong.core.result import Result
from lifelong.meta.pretraining import Begun, Event, Stepped, Validated
from lifelong.runs.folder import OVERLAP
from lifelong.runs.groups import RunGroup

output = Console()
errors = Console(stderr=True)


class Watcher:
    """Shows where the run stands: a live display in a terminal, else one plain line for each task."""

    def __init__(self, title: str) -> None:
        self.title, self.began = title, time.monotonic()
        self.first: int | None = None
        self.accuracy: torch.Tensor | None = None
        self.live: Live | None = None

    def __enter__(self) -> Callable[[LoopEvent], None]:
        return self.tell

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def tell(self, event: LoopEvent) -> None:
        """Take in what happened."""
        done = event.task * event.iterations + event.iteration
        if self.first is None:
            self.first = done
        if event.accuracy is not None:
            self.accuracy = event.accuracy.cpu()
        if errors.is_terminal:
            if self.live is None:  # not before there is something to show: one console has one live display
                self.live = Live(console=errors, refresh_per_second=4, transient=True)
                self.live.start()
            self.live.update(self._picture(event, done))
        elif event.accuracy is not None and event.iteration == 0:
            seen = self.accuracy.nanmean(0)[: event.task] if self.accuracy is not None else []
            words = " ".join(f"{100 * float(a):5.1f}" for a in seen)
            errors.print(
                f"{self.title}: task {event.task} of {event.tasks} done, accuracy so far {words}",
                soft_wrap=True,
                markup=False,
            )

    def _picture(self, event: LoopEvent, done: int) -> Group:
        total = event.tasks * event.iterations
        since = done - (self.first or 0)
        left = (time.monotonic() - self.began) * (total - done) / since if since else float("nan")
        bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(None), TextColumn("{task.percentage:>3.0f} %")
        )
        bar.add_task(self.title, total=total, completed=done)
        place = f"task {min(event.task + 1, event.tasks)}/{event.tasks}  iteration {event.iteration}/{event.iterations}"
        words = f"{place}  seeds {len(event.seeds)}  left {left:.0f} s" if since else place
        rows: list[Any] = [bar, Text(words)]
        if self.accuracy is not None:
            means = self.accuracy.nanmean(0).tolist()
            line = "  ".join(f"{t + 1}: {100 * a:.0f} %" for t, a in enumerate(means) if t <= event.task)
            rows.append(Text(f"accuracy by task  {line}"))
        return Group(*rows)


def accuracy_table(result: Result) -> Table:
    """Accuracy in percent on each task (columns) after each task (rows), mean over seeds."""
    table = Table(title="accuracy, %, mean over seeds", title_justify="left")
    table.add_column("after task", justify="right")
    shown = min(result.tasks, 12)
    for t in range(shown):
        table.add_column(f"{t + 1}", justify="right")
    kept = result.at_task_ends[result.kept]
    rows = kept.mean(0) if len(kept) else torch.full((result.tasks, result.tasks), torch.nan)
    for t, row in enumerate(rows):
        cells = []
        for j, a in enumerate(row[:shown].tolist()):
            style = "bold" if j == t else "dim" if j > t else ""
            cells.append(Text("–" if a != a else f"{100 * a:.1f}", style=style))
        table.add_row(f"{t + 1}", *cells)
    return table


def metrics_table(result: Result) -> Table:
    """Every metric, in points of percent, with its 95 % interval over seeds."""
    lost = int((~result.kept).sum())
    used = len(result.seeds) - lost
    title = f"metrics, %, mean ± half-width of the 95 % interval over {used} seed{'s' * (used != 1)}"
    table = Table(title=title + (f" ({lost} diverged, left out)" if lost else ""), title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.summary(result).items():
        table.add_row(name, value.text())
    return table


def compare_tables(groups: list[RunGroup]) -> list[Table | Text]:
    """A table for each group, under its title where there are several: only runs of one group are subtracted."""
    tables: list[Table | Text] = []
    for group in groups:
        if len(groups) > 1:
            tables.append(Text(group.title, style="bold"))
        tables.append(compare_table(group.results))
    return tables


def compare_table(results: dict[str, Result]) -> Table:
    """One line for each method: final accuracy, forgetting, learning accuracy, the paired difference to the first, seconds."""
    names = list(results)
    digits = 2 if output.width >= 110 else 1
    title = Text("%, mean ± half-width of the 95 % interval")
    if len(names) > 1:
        title.append(f"; difference: paired over seeds, to {names[0]}")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold", min_width=20)
    for column in ("average accuracy", "forgetting", "learning accuracy", "difference"):
        head = column if output.width >= 90 else column.replace(" ", "\n")
        table.add_column(head, justify="right", no_wrap=True)
    if output.width >= 90:
        table.add_column("seconds", justify="right", no_wrap=True)
    for name, result in results.items():
        given = metrics.summary(result)
        shown = ("average_accuracy", "forgetting", "learning_accuracy")
        cells = [given[m].text(digits) if m in given else "–" for m in shown]
        cells.append("" if name == names[0] else _difference(result, results[names[0]], digits))
        cells.append(f"{sum(result.seconds.values()):.1f}")
        table.add_row(Text(name), *cells[: len(table.columns) - 1])
    return table


def _difference(a: Result, b: Result, digits: int) -> str:
    try:
        value = metrics.paired(metrics.average_accuracy, a, b)
    except metrics.NotMeasured:  # no seed in common
        return "–"
    return ("+" if value.mean >= 0 else "") + value.text(digits)


def show(result: Result, console: Console) -> None:
    """The matrix and the metrics."""
    console.print(accuracy_table(result))
    console.print(metrics_table(result))


def refuse(message: str) -> None:
    """One line on standard error."""
    errors.print(Text.assemble(("error: ", "bold red"), " ".join(message.split())), soft_wrap=True)
    sys.stderr.flush()


class RunDisplay:
    """Shows a run from its start's learning to its end: give `start` and `run` to `lifelong.runs.execute.execute`."""

    def __init__(self, title: str) -> None:
        self.stage, self.watcher = PretrainingWatcher("start"), Watcher(title)

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self.stage.__exit__()
        self.watcher.__exit__()

    def start(self, tidings: Any) -> None:
        """Take in what happened while a start is learned."""
        self.stage.tell(tidings)

    def run(self, event: Event) -> None:
        """Take in what happened while the run learns; a start has been learned by then."""
        self.stage.__exit__()
        self.watcher.tell(event)


class PretrainingWatcher:
    """Shows where a start's learning stands: a live line in a terminal, else one plain line for each validation."""

    def __init__(self, title: str) -> None:
        self.title, self.live, self.bar, self.told = title, None, None, 0.0

    def __enter__(self) -> Callable[[Any], None]:
        return self.tell

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def tell(self, event: Event) -> None:
        """Take in what happened."""
        place, count = event.state.iteration, event.iterations
        if isinstance(event, Begun):
            words = f"{self.title}: {count} iterations" + (f", going on after {place}" if place else "")
            errors.print(words, soft_wrap=True)
        if errors.is_terminal:
            if time.monotonic() - self.told > 0.25 or not isinstance(event, Stepped):
                self.told = time.monotonic()
                self._show(event)
        elif isinstance(event, Validated):
            errors.print(f"{self.title}: iteration {place} of {count}, {self._words(event)}", soft_wrap=True)

    def _words(self, event: Event) -> str:
        state = event.state
        loss = f"loss {float(state.losses[-1].mean()):.4f}" if state.losses else ""
        if not state.validated:
            return loss
        scores = state.validated[-1][1].mean(0)
        width = metrics.estimate(scores).half_width
        return f"{loss}  validation {float(scores.mean()):.4f}" + ("" if width is None else f" ± {width:.4f}")

    def _show(self, event: Event) -> None:
        if self.live is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self.live = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[words]}"), console=errors, transient=True
            )
            self.bar = self.live.add_task(self.title, total=event.iterations, words="")
            self.live.start()
        assert self.bar is not None
        self.live.update(self.bar, completed=event.state.iteration, words=self._words(event))


class EpisodeWatcher:
    """Shows how many test episodes were answered: a live bar in a terminal, else a plain line every ten seconds."""

    def __init__(self) -> None:
        self.live: Progress | None = None
        self.bars: dict[str, Any] = {}
        self.told = 0.0

    def __enter__(self) -> Callable[[str, int, int], None]:
        if errors.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} episodes"),
            )
            self.live = Progress(*columns, TimeRemainingColumn(), console=errors, transient=True)
            self.live.start()
        return self.tell

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def tell(self, title: str, done: int, wanted: int) -> None:
        """Take in how far the test of one start is."""
        if self.live:
            if title not in self.bars:
                self.bars[title] = self.live.add_task(title, total=wanted)
            self.live.update(self.bars[title], completed=done)
        elif done == 0 or time.monotonic() - self.told > 10:
            self.told = time.monotonic()
            errors.print(f"{title}: {done} of {wanted} episodes", soft_wrap=True, highlight=False)


def initialisation_table(about: dict[str, Any]) -> Table:
    """What a start's file says of itself."""
    table = Table(title="a start", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in about.items():
        if name not in ("curve",):
            table.add_row(name, Text(str(value)))
    return table


def tested(rows: list[dict[str, Any]]) -> list[Any]:
    """Starts and how they did, few-shot episodes or classes learned online; and how each of them answers."""
    online = "classes" in rows[0]
    over = ", ".join(dict.fromkeys(row["interval over"] for row in rows))
    if online:
        what = f"{rows[0]['classes']} classes online, accuracy on new images after the last, %"
    else:
        what = f"{rows[0]['episodes']} few-shot episodes, the same for every start"
    title = f"{what}; mean ± half-width of the 95 % interval over {over}"
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
    return [table, *(Text(note) for note in notes)]


def paradigm_tables(about: dict[str, Any], lines: list[Any]) -> list[Table]:
    """One stream read four ways; on a narrow page what it cost and saw is a table of its own."""
    from lifelong.studies.comparison import caption, head, row

    shots = tuple(about["shots"])
    names, rows = head(shots), []
    for line in lines:
        cells = row(line, shots)
        rows.append([cell.replace(" ± ", "±") for cell in cells] if output.width < 100 else cells)
    count, first = len(names), names.index("seconds")
    parts = [list(range(count))] if output.width >= 150 else [list(range(first)), [0, 1, *range(first, count)]]
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
