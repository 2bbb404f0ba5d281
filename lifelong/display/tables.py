"""Tables of results in a terminal: one run's matrix and metrics, several side by side, and plain listings."""

from __future__ import annotations

from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lifelong import metrics
from lifelong.core.result import Result
from lifelong.runs.groups import RunGroup
from scenarios.stream import SETTINGS

FEW = 5  # seeds, below which a table says that they are few


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
    table.caption, table.caption_justify = few_seeds(used), "left"
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.summary(result).items():
        table.add_row(name, value.text())
    return table


def probes_table(results: dict[str, Result]) -> Table | None:
    """What probes found, in their own units: a line for each number, and below it each method where there are several; None without."""
    rows = [(probe, name, found) for name, result in results.items() for probe, found in metrics.probed(result).items()]
    if not rows:
        return None
    title = "probes, each in its own unit, mean ± half-width of the 95 % interval"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("probe", overflow="fold", min_width=20)
    for column in ("first", "last", "mean"):
        table.add_column(column, justify="right", no_wrap=True)
    for probe in sorted({probe for probe, _, _ in rows}):
        of_methods = [(name, found) for other, name, found in rows if other == probe]
        label = f"{probe} ({of_methods[0][1].moments} times)"
        if len(results) > 1:
            table.add_row(Text(label, style="bold"))
        for name, found in of_methods:
            values = [in_own_unit(estimate) for estimate in (found.first, found.last, found.mean)]
            table.add_row(Text(f"  {name}" if len(results) > 1 else label), *values)
    return table


def in_own_unit(estimate: metrics.Estimate) -> str:
    """As in "0.0312 ± 0.0041", to three digits that count; what rounding leaves of an interval is 0."""
    if estimate.mean != estimate.mean:
        return "–"
    width = estimate.half_width
    if width is not None and width < 1e-9 * abs(estimate.mean):
        width = 0.0
    return f"{estimate.mean:.3g}" + ("" if width is None else f" ± {width:.2g}")


def few_seeds(count: int) -> str | None:
    """A word where there are too few seeds for a narrow interval; None where there are enough.

    Student's t gives half-widths of 9.0 standard deviations for two seeds, 2.5 for three and 1.2 for five.
    """
    if count >= FEW:
        return None
    words = f"{count} seeds are few, and their intervals wide" if count > 1 else "one seed has no interval"
    return f"{words}: --seeds {FEW} narrows them" if count > 1 else f"{words}: take --seeds {FEW}"


def compare_tables(groups: list[RunGroup], width: int) -> list[Table | Text]:
    """A table for each group, under its title where there are several: only runs of one group are subtracted.

    width: of the page, in characters, here and below.
    """
    tables: list[Table | Text] = []
    for group in groups:
        if len(groups) > 1:
            tables.append(Text(group.title, style="bold"))
        tables.append(compare_table(group.results, width))
        probes = probes_table(group.results)
        tables += [probes] if probes else []
        tables += [Text(group.origin, style="dim")] if group.origin else []
    return tables


def compare_table(results: dict[str, Result], width: int) -> Table:
    """One line for each method: final accuracy, forgetting, learning accuracy, the paired difference to the first, seconds."""
    names = list(results)
    digits = 2 if width >= 110 else 1
    title = Text("%, mean ± half-width of the 95 % interval")
    if len(names) > 1:
        title.append(f"; difference: paired over seeds, to {names[0]}")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.caption = few_seeds(min((int(result.kept.sum()) for result in results.values()), default=FEW))
    table.caption_justify = "left"
    table.add_column("method", overflow="fold", min_width=20)
    for column in ("average accuracy", "forgetting", "learning accuracy", "difference"):
        head = column if width >= 90 else column.replace(" ", "\n")
        table.add_column(head, justify="right", no_wrap=True)
    if width >= 90:
        table.add_column("seconds", justify="right", no_wrap=True)
    for name, result in results.items():
        given = metrics.summary(result)
        shown = ("average_accuracy", "forgetting", "learning_accuracy")
        cells = [given[m].text(digits) if m in given else "–" for m in shown]
        cells.append("" if name == names[0] else difference(result, results[names[0]], digits))
        cells.append(f"{sum(result.seconds.values()):.1f}")
        table.add_row(Text(name), *cells[: len(table.columns) - 1])
    return table


def difference(a: Result, b: Result, digits: int) -> str:
    """Average accuracy of a over that of b, paired over seeds, in points of percent; "–" where they share no seed."""
    try:
        value = metrics.paired(metrics.average_accuracy, a, b)
    except metrics.NotMeasured:
        return "–"
    return ("+" if value.mean >= 0 else "") + value.text(digits)


def show(result: Result, console: Console) -> None:
    """The matrix, the metrics, and what probes found."""
    console.print(accuracy_table(result))
    console.print(metrics_table(result))
    probes = probes_table({"": result})
    if probes:
        console.print(probes)


def methods_table(title: str, known: dict[str, Any]) -> Table:
    """Strategies or learners: family, settings, what each keeps, what its step needs, and what it was held against.

    A step: forward and backward passes by the definition, a backward one counting twice, as a multiple of fine-tuning's.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.caption = "step: passes by the definition, fine-tuning's being 1; T: the number of tasks"
    table.caption_justify = "left"
    table.add_column("name", no_wrap=True)
    for column in ("settings", "keeps"):
        table.add_column(column, overflow="fold")
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("held against", overflow="fold")
    families: dict[str, dict[str, Any]] = {}
    for name, method in sorted(known.items()):
        families.setdefault(family_of(method), {})[name] = method
    for family, methods in sorted(families.items()):
        if family:
            table.add_row(Text(family, style="bold"))
        for name, method in methods.items():
            held = method.witness.partition(":")[0] or "–"
            table.add_row(f"  {name}", settings_of(method), method.keeps or "–", step_of(method), held)
    return table


def step_of(method: Any) -> str:
    """A step's passes as a multiple of fine-tuning's, as in "1.3"; "0.3 + 0.7 T" where each of T tasks has one of its own."""
    (forward, backward), (more_forward, more_backward) = method.passes, method.task_passes
    each = (more_forward + 2 * more_backward) / 3
    rest = (forward + 2 * backward) / 3 - each
    if not forward:
        return "–"
    return f"{rest:.1f} + {each:.1f} T" if each else f"{rest:.1f}"


def passes_of(method: Any) -> str:
    """A step's forward and backward passes, as in "1 + 1"; "1 + T" where each of T tasks has a backward one of its own."""
    if not any(method.passes):
        return "–"
    return " + ".join(_with_tasks(*pair) for pair in zip(method.passes, method.task_passes, strict=True))


def _with_tasks(first: float, each: float) -> str:
    """`first` with one task and `each` more for each further one."""
    if not each:
        return f"{first:g}"
    tasks = "T" if each == 1 else f"{each:g} T"
    return tasks if first == each else f"{first - each:g} + {tasks}"


def family_of(method: Any) -> str:
    """The folder that a method's file lies in; of a learner "closed form"; "" of what is no family's."""
    room, _, rest = method.__module__.removeprefix("lifelong.").partition(".")
    if room == "learners":
        return "closed form" if method.passes == (0.0, 0.0) else "learner"
    return rest.partition(".")[0] if room == "strategies" else ""


def settings_of(method: Any) -> str:
    """The settings that a method is meant for, by its defaults; "joint" where it needs tasks that are learned together."""
    needs = [method().requires] if hasattr(method, "requires") else [need for _, need in method().requirements]
    if any(need.paradigm == "joint" for need in needs):
        return "joint"
    told = any(need.task_id for need in needs)
    fitting = [s for s in SETTINGS if all(s in need.settings for need in needs) and (s == "task" or not told)]
    return "all" if len(fitting) == len(SETTINGS) else ", ".join(fitting)


def listing(title: str, rows: dict[str, str]) -> Table:
    """Names, and a line on each."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, about in rows.items():
        table.add_row(name, Text(about))
    return table
