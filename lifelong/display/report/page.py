"""The page: for each group of runs first what is established, the methods along the stream and ranked; then how, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lifelong.core.files import write
from lifelong.display.report import costs, figures, matrices
from lifelong.display.report.details import brief_call, details
from lifelong.display.report.frame import Numbers, answered, framed
from lifelong.display.report.measured import (
    Measured,
    Method,
    bounded_tasks,
    means,
    measured,
    text_of,
    worst,
)
from lifelong.display.report.tables import chips, cost_table, escaped, main_table, named
from lifelong.runs.groups import RunGroup
from lifelong.runs.labels import seeds_label
from lifelong.runs.request import seeds_text
from lifelong.studies.differences import FEWEST, Difference, Name, Sentence, answer, differences

MOST_PANELS = 12  # tasks, or methods, that have a panel of their own


def page(groups: Sequence[RunGroup], title: str = "") -> str:
    """The whole page: one section for each group, as only runs of one group may be compared."""
    numbers = Numbers()
    shown = [measured(group) for group in groups]
    contents = _contents(shown) if len(shown) > 1 else ""
    heading = title or (heading_of(shown[0]) if len(shown) == 1 else _together(shown))
    sections = [_section(each, numbers, i, len(shown) > 1 or bool(title)) for i, each in enumerate(shown, 1)]
    return framed(heading, contents, sections)


def write_report(groups: Sequence[RunGroup], path: Path, title: str = "") -> None:
    """Write the page of finished runs. Raises RunError where it cannot be written."""
    write(path, page(groups, title).encode())


def heading_of(measured: Measured) -> str:
    """Scenario and setting."""
    resolved = measured.first.run.resolved
    return f"{resolved['scenario']}, {resolved['setting']}-incremental"


def _together(shown: Sequence[Measured]) -> str:
    scenarios = dict.fromkeys(each.first.run.resolved["scenario"] for each in shown)
    return ", ".join(scenarios)


def _contents(shown: Sequence[Measured]) -> str:
    """A line for each section, and why there are several."""
    lines = [f'<li><a href="#group-{i}">{escaped(each.group.title)}</a></li>' for i, each in enumerate(shown, 1)]
    note = "<p class=note>Runs on other data, settings, models or budgets are not compared.</p>"
    return f"<nav><ol>{''.join(lines)}</ol>{note}</nav>"


def about(measured: Measured) -> str:
    """Data, tasks, model, optimiser, budget and seeds, in a line."""
    resolved = measured.first.run.resolved
    data = resolved["data"]
    rows = [f"{data[name]:,} {name}" for name in ("training rows", "test rows", "classes") if name in data]
    budgets = resolved["budget"]
    length = (
        f"{budgets['epochs']:g} epoch{'s' * (budgets['epochs'] != 1)}"
        if budgets["epochs"]
        else f"{budgets['iterations']:,} iterations"
    )
    repeats = f", {budgets['repeats']} steps on each batch" if budgets.get("repeats", 1) > 1 else ""
    optimisers = {brief_call(m.run.resolved["optimiser"]) for m in measured.methods if m.run.resolved["optimiser"]}
    models = {m.run.resolved["model"] for m in measured.methods}
    words = [
        f"data {data['name']}" + (f" ({', '.join(rows)})" if rows else ""),
        _count(measured.tasks, "task"),
        *sorted(models),
        optimisers.pop() if len(optimisers) == 1 else "",
        f"{length} of {budgets['batch']} rows a task{repeats}",
        _seeds(measured.methods),
        "" if measured.unit == "accuracy" else "explained variance: 1 − mean square error / variance",
        f"data from: {data['origin'].removeprefix('data: ')}" if data.get("origin") else "",
    ]
    return f"<p class=about>{''.join(f'<span>{escaped(word)}</span>' for word in words if word)}</p>"


def _seeds(methods: Sequence[Method]) -> str:
    """The seeds of all runs, or how many there are where runs differ in them."""
    kinds = {method.run.request.seeds for method in methods}
    if len(kinds) == 1:
        seeds = kinds.pop()
        text = seeds_text(seeds)
        return f"{len(seeds)} seeds (0 … {len(seeds) - 1})" if text.isdigit() and len(seeds) > 1 else seeds_label(seeds)
    fewest, most = min(map(len, kinds)), max(map(len, kinds))
    return f"{fewest} to {most} seeds" if fewest < most else f"{_count(most)} each, not the same for all"


def _section(measured: Measured, numbers: Numbers, number: int, headed: bool) -> str:
    """One group: the answer on the first screen, then why, then what it took, then what folds away."""
    head = f"<h2>{escaped(heading_of(measured))}</h2>" if headed else ""
    found = differences({m.name: m.result for m in measured.methods if m.seeds}) if measured.comparable else []
    parts = [
        f'<section id="group-{number}">',
        head,
        about(measured),
        _answer(measured, found),
        _first(measured, numbers),
    ]
    if any(method.seeds for method in measured.methods):
        parts += [_forgetting(measured, numbers), _final(measured, numbers), _matrices(measured, numbers)]
        parts += [_cost(measured, numbers), "<h3>Details</h3>", details(measured, found), _loss(measured, numbers)]
    return "".join(parts) + "</section>"


# --- the first screen -------------------------------------------------------------------------------------------------


def _answer(measured: Measured, found: list[Difference]) -> str:
    """What is established, in sentences; of many the first few, the rest folded."""
    sentences, how = _said(measured, found)
    lines = [f"<li>{_sentence(measured, sentence)}</li>" for sentence in sentences]
    for method in measured.methods:
        if method.lost:
            words = f" of {len(method.result.seeds)} seeds diverged and {'are' if method.lost > 1 else 'is'} left out"
            lines.append(f"<li class=warn>{named(method)}: {method.lost}{words}</li>")
    return answered(lines, how)


def _sentence(measured: Measured, sentence: Sentence) -> str:
    numbers = {method.name: method.number for method in measured.methods}
    parts = [f"<b data-m={numbers[p]}>{escaped(p)}</b>" if isinstance(p, Name) else escaped(p) for p in sentence]
    return "".join(parts)


def _said(measured: Measured, found: list[Difference]) -> tuple[list[Sentence], str]:
    rivals = [method for method in measured.rivals if method.seeds]
    seeds = max(len(method.result.seeds) for method in measured.methods)
    if not rivals:
        return [("All seeds of all methods diverged",)], ""
    if not measured.comparable:
        return [("Tasks of classes and of numbers have no common mean: read them by task, below",)], ""
    names = [method.name for method in rivals]
    references = {method.name: method.result.paradigm for method in measured.references if method.seeds}
    plain = next(
        (m.name for m in rivals if m.run.resolved["method"] == "FineTuning()" and not m.run.request.trainable), ""
    )
    said = answer(found, names, references, plain, measured.measure, seeds)
    alone = _alone(measured, rivals[0]) if len(rivals) == 1 else []
    if len(rivals) > 1 and not said.sentences:
        best = rivals[0]
        alone = [("Measured highest: ", Name(best.name), f", {text_of(best.score, 1)} % {measured.measure}")]
    how = said.how if len(rivals) > 1 or found else f"mean over {_count(rivals[0].seeds)}" + _interval(rivals[0])
    return [*alone, *said.sentences], how


def _interval(method: Method) -> str:
    if method.seeds >= FEWEST:
        return " ± half-width of the 95 % interval"
    return f"; {method.seeds} {'are' if method.seeds > 1 else 'is'} too few for an interval: run at least {FEWEST}, as in --seeds 5"


def _count(number: int, thing: str = "seed") -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _alone(measured: Measured, method: Method) -> list[Sentence]:
    """Of a run that is compared with none of its kind: how well it ended, and how much it forgot."""
    value = text_of(method.score, 1)
    lines: list[Sentence] = [
        (Name(method.name), f" ends at {value} % {measured.measure} after {_count(measured.tasks, 'task')}")
    ]
    if method.result.paradigm != "continual" or measured.tasks < 2:
        return lines
    learned, final = means(method.learned), means(method.final)
    drops = [before - after for before, after in zip(learned[:-1], final[:-1], strict=True)]
    task = worst(drops)
    forgot = text_of(method.summary["forgetting"], 1)
    if drops[task] <= 0:
        return [*lines, (f"Forgetting: {forgot} points; no task ended below where it was just learned",)]
    words = f"most on task {task + 1}, from {learned[task]:.1f} % when it was just learned to {final[task]:.1f} % at the end"
    return [*lines, (f"Forgetting: {forgot} points, mean over tasks; {words}",)]


def _first(measured: Measured, numbers: Numbers) -> str:
    """The methods along the stream, and their ranking; of one run what became of each task."""
    if not measured.comparable or not any(method.seeds for method in measured.methods):
        return ""
    strided = max(method.stride for method in measured.methods)
    note = f"; drawn at every {strided}th of {len(measured.first.result.when):,} evaluations" if strided > 1 else ""
    band = "; band: 95 % interval" if measured.fewest >= FEWEST and len(measured.rivals) <= 12 else ""
    tall = max(420, 62 + figures.ROW * min(len(measured.methods), figures.MOST_ROWS))
    # what was learned along the way by all of them
    left = numbers.both(
        figures.along(measured, height=tall), figures.along(measured, 360, 290),
        f"{measured.measure.capitalize()} {figures.seen(measured)}{band}{note}",
    )  # fmt: skip
    if len(measured.methods) == 1 and measured.first.result.paradigm == "continual":
        large, small = (figures.lost(measured, *size) for size in ((520, tall), (360, 330)))
        right = numbers.both(large, small, "Each task when it was just learned, and at the end, %")
    else:
        few = 62 + 44 * len(measured.methods)
        height = min(tall, max(few, 160))
        large, small = (
            figures.ranking(measured, *size)
            for size in ((520, height), (360, max(170, min(62 + 30 * len(measured.methods), 620))))
        )
        cut = len(measured.methods) - figures.MOST_ROWS
        rest = f"; {cut} more in the tables" if cut > 0 else ""
        right = numbers.both(large, small, f"{measured.measure.capitalize()} after the last task, %{rest}")
    return f'<div class="two">{left}{right}</div>'


# --- below ------------------------------------------------------------------------------------------------------------


def _forgetting(measured: Measured, numbers: Numbers) -> str:
    """Every task's own curve, the first one's large."""
    rivals = [method for method in measured.rivals if method.seeds]
    if not rivals or rivals[0].result.paradigm == "isolate":
        return ""
    tasks = bounded_tasks(measured.tasks, MOST_PANELS)
    panels = []
    for task in tasks:
        if task == 0 and measured.tasks > 1:
            large, small = (figures.task_curves(measured, 0, *size) for size in ((640, 454), (320, 220)))
            panels.append(numbers.both(large, small, kind="first"))
        else:
            panels.append(numbers.drawn(figures.task_curves(measured, task)))
    few = f"{len(tasks)} of {measured.tasks} tasks, evenly over the stream. " if len(tasks) < measured.tasks else ""
    bands = (
        "" if len(rivals) <= figures.FEW else " Bands (95 % interval) on the first task alone: there would be too many."
    )
    heading = "What became of each task" if rivals[0].result.paradigm == "continual" else "Each task along the way"
    shaded = "" if measured.together else "; shaded: while it is learned"
    note = f"{few}{measured.unit.capitalize()} on one task along the stream{shaded}.{bands}"
    legend = chips(measured) if len(measured.methods) > 1 else ""
    return f"<h3>{heading}</h3><p class=note>{escaped(note)}</p>{legend}<div class=panels>{''.join(panels)}</div>"


def _final(measured: Measured, numbers: Numbers) -> str:
    """The seeds at the end, and the main metrics."""
    if not measured.comparable:
        return ""
    drawn = numbers.both(figures.seeds(measured), figures.seeds(measured, 360), "Each seed a dot, the mean a line")
    forgot = ", and forgetting" if any("forgetting" in method.summary for method in measured.methods) else ""
    heading = f"<h3>{escaped(measured.measure.capitalize())} at the end{forgot}</h3>"
    return f"{heading}<div class=wide2><div><p class=note>{measured.units}</p>{main_table(measured)}</div>{drawn}</div>"


def _matrices(measured: Measured, numbers: Numbers) -> str:
    """Accuracy on each task after each task, the best methods first."""
    methods = [m for m in measured.ranked if m.seeds and m.result.paradigm != "isolate"]
    if not methods or measured.tasks < 2:
        return ""
    drawn = [numbers.drawn(matrices.matrix(measured, method)) for method in methods[:MOST_PANELS]]
    more = f" The best {MOST_PANELS} of {len(methods)} methods." if len(methods) > MOST_PANELS else ""
    at_once = any(method.result.paradigm == "joint" for method in methods)
    joint = " Learned at once (joint): row t is after t tasks' worth of training." if at_once else ""
    note = f"Row: after a task; column: on a task; mean over seeds.{joint}{more}"
    return f"<h3>{measured.unit.capitalize()} on each task after each task</h3><p class=note>{note}</p><div class=panels>{''.join(drawn)}</div>"


def _cost(measured: Measured, numbers: Numbers) -> str:
    """What it took, and what it bought."""
    pictures = ""
    if measured.comparable and len(measured.methods) > 1:
        drawn = [numbers.drawn(costs.against_cost(measured, cost)) for cost in _priced(measured)]
        pictures = f"<div class=pair2>{''.join(drawn)}</div>"
    note = "Seconds are of all seeds together, on the machine that each ran on; passes: forward + backward."
    if any(method.result.paradigm != "continual" for method in measured.methods):
        note += (
            " Bytes are of what learns task after task: joint learning has all rows, isolated a network for each task."
        )
    return f"<h3>What it took</h3><p class=note>{note}</p>{cost_table(measured)}{pictures}"


def _priced(measured: Measured) -> list[str]:
    """The costs that at least two methods are known to have."""
    found: dict[str, Callable[[Method], float | None]] = {name: price for name, (price, _) in costs.COSTS.items()}
    return [name for name, price in found.items() if sum(price(method) is not None for method in measured.methods) > 1]


def _loss(measured: Measured, numbers: Numbers) -> str:
    """Training loss, of those that have one."""
    learning = [method for method in measured.methods if method.seeds and method.learns_by_gradient]
    if not learning:
        return ""
    without = [method.name for method in measured.methods if method not in learning and method.seeds]
    note = f"mean over seeds; none of {', '.join(without)}" if without else "mean over seeds"
    drawn = numbers.drawn(figures.losses(measured))
    return f"<details><summary>Training loss <small>{escaped(note)}</small></summary>{drawn}</details>"
