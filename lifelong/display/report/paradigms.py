"""The page of one stream read four ways: what is established, the held-out tasks as figures, the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from lifelong.core.storage import in_bytes
from lifelong.display.report.colours import COLOURED, LIGHT, Look, look
from lifelong.display.report.costs import price_axis
from lifelong.display.report.details import as_text, commands, folded
from lifelong.display.report.drawing import Drawing, axes_of, blank, marks, shortened, style
from lifelong.display.report.figures import bounds, limits, percent
from lifelong.display.report.frame import Numbers, answered, framed
from lifelong.display.report.tables import Markup, escaped, table
from lifelong.metrics import estimate
from lifelong.runs.labels import seeds_label
from lifelong.studies.comparison import GROUPS, Columns, caption, load_lines, tables
from lifelong.studies.paradigms import Line

MARKERS = {"few_shot": "o", "by_means": "D", "own_answers": "*"}
ANSWERED = {"few_shot": "adapted by the rule", "by_means": "class means of the features", "own_answers": "own answers"}
COSTS: dict[str, tuple[str, Callable[[Line], float], Callable[[float], str]]] = {
    "stored": ("bytes stored beyond the network", lambda line: line.stored, in_bytes),
    "examples": ("examples passed forward and backward", lambda line: line.examples, lambda value: f"{value:,.0f}"),
    "seconds": ("seconds of learning", lambda line: line.seconds, lambda value: f"{value:.1f}"),
}


def paradigms_page(path: Path, title: str = "") -> str:
    """A page of one comparison of paradigms, from the folder that keeps it. Raises RunError where it cannot be read."""
    about, lines = load_lines(path)
    numbers, looks = Numbers(), looks_of(lines)
    heading = title or f"{about['request']['scenario']}, read four ways"
    groups, shots = _groups(lines), tuple(about["shots"])
    drawn = [
        numbers.both(curves(lines, group, shots), curves(lines, group, shots, 360, 260), GROUPS[group])
        for group in groups
    ]
    pictures = [numbers.drawn(against_cost(lines, name)) for name in COSTS]
    sight = numbers.both(against_sight(lines), against_sight(lines, 360, 150), "What each was allowed to see")
    rows = f"{shots[0]} row{'s' * (shots[0] > 1)} of each class"
    parts = [
        f"<section><p class=about>{_about(about)}</p>",
        answered([f"<li>{escaped(sentence)}</li>" for sentence in about["findings"]], caption(about)),
        f"{_chips(looks)}<div class=pair2>{''.join(drawn)}</div>",
        f"<h3>Held-out tasks from {rows}, against what each was allowed</h3><p class=note>circle: {ANSWERED['few_shot']};"
        f" diamond: {ANSWERED['by_means']}; star: {ANSWERED['own_answers']}</p>",
        sight,
        f"<div class=three>{''.join(pictures)}</div>",
        *(f"<h3>{escaped(columns.title[0].upper() + columns.title[1:])}</h3>{_table(columns)}" for columns in tables(about, lines)),
        "<h3>Details</h3>",
        folded("Settings", as_text({name: about[name] for name in ("request", "asked", "adaptation", "meta") if name in about})),
        folded("Go on with it, or see its tables", commands([("this folder", f"lifelong resume {path}")])),
        "</section>",
    ]  # fmt: skip
    return framed(heading, "", ["".join(parts)])


def paradigm_drawings(path: Path) -> dict[str, Drawing]:
    """The page's figures, by the names of their files."""
    about, lines = load_lines(path)
    shots = tuple(about["shots"])
    drawings = {group.replace("_", "-"): curves(lines, group, shots, 468, 300) for group in _groups(lines)}
    drawings["against-sight"] = against_sight(lines, 468, 230)
    return drawings | {f"against-{name}": against_cost(lines, name) for name in COSTS}


def _groups(lines: Sequence[Line]) -> list[str]:
    return [group for group in GROUPS if any(getattr(line, group) is not None for line in lines)]


def _about(about: dict[str, Any]) -> str:
    request = about["request"]
    words = [
        f"{about['trained tasks']} tasks learned, {about['held-out tasks']} held out", request["model"],
        f"{about['examples']:,} examples a seed", seeds_label(tuple(request["seeds"])),
    ]  # fmt: skip
    return "".join(f"<span>{escaped(word)}</span>" for word in words if word)


def _table(columns: Columns) -> Markup:
    """Paradigm and method in one column, so that the numbers have room."""
    words = [i - 1 for i, name in enumerate(columns.head) if name == "sees"]
    head = ["method", *columns.head[2:]]
    return table(head, [[f"{row[0]}: {row[1]}", *row[2:]] for row in columns.rows], (0, *words))


def looks_of(lines: Sequence[Line]) -> dict[tuple[str, str], Look]:
    """How each line is drawn, the same in every figure: floors and ceilings in grey."""
    greys, number, looks = cycle([":", "--", "-.", (0, (8, 3)), (0, (8, 3, 1, 3))]), 0, {}
    for line in lines:
        bound = line.paradigm in ("floor", "ceiling")
        looks[line.paradigm, line.method] = Look(LIGHT["other"], "", next(greys)) if bound else look(number % COLOURED)
        number += not bound
    return looks


def _chips(looks: dict[tuple[str, str], Look]) -> str:
    names = {value: name for name, value in LIGHT.items()}
    parts = [
        f'<span class=name><i class="dot" style="--c:var(--{names[shown.colour]})"></i>{escaped(f"{paradigm}: {method}")}</span>'
        for (paradigm, method), shown in looks.items()
        if shown.marker
    ]
    return f"<p class=chips>{''.join(parts)}<span class=note>grey: floors and ceilings</span></p>"


def curves(lines: Sequence[Line], group: str, shots: Sequence[int], width: float = 560, height: float = 360) -> Drawing:
    """Accuracy against the rows of each class, in one way of answering: mean over seeds, bars = 95 % interval."""
    drawing = blank(width, height, f"{GROUPS[group]}: accuracy against rows of each class")
    looks = looks_of(lines)
    shown = [(line, getattr(line, group)) for line in lines if getattr(line, group) is not None]
    with style():
        axes, everything = axes_of(drawing, top=12), []
        for i, (line, values) in enumerate(shown):
            drawn_as, name = looks[line.paradigm, line.method], f"{line.paradigm}: {line.method}"
            each = [estimate(values[:, k], values[:, k].isfinite()) for k in range(len(shots))]
            x = [
                k + 0.03 * (i - len(shown) / 2) for k in range(len(shots))
            ]  # side by side, so that bars are told apart
            axes.plot(x, [percent(e.mean) for e in each], color=drawn_as.colour, linestyle=drawn_as.line, linewidth=1.6)
            for place, value in zip(x, each, strict=True):
                axes.plot([place, place], bounds(value), color=drawn_as.colour, linewidth=1)
            told = [
                (p, percent(e.mean), f"{name}, {k} rows: {e.text(1)} %") for p, e, k in zip(x, each, shots, strict=True)
            ]
            marks(drawing, axes, told, drawn_as._replace(marker=drawn_as.marker or "."))
            everything += each
        axes.set_xticks(range(len(shots)), [str(shot) for shot in shots])
        axes.set_ylim(*limits(everything))
        axes.grid(axis="y")
        axes.set_xlabel("rows of each class of a held-out task")
        axes.set_ylabel("accuracy, %")
    return drawing


def against_sight(lines: Sequence[Line], width: float = 1180, left: float = 290) -> Drawing:
    """Accuracy on the held-out tasks at the smallest k beside what each line was allowed to see; floors and ceilings in grey."""
    sights = list(dict.fromkeys(line.sees for line in lines))
    drawing = blank(width, 60 + 30 * len(sights), "Accuracy on held-out tasks against what was seen")
    looks = looks_of(lines)
    with style():
        axes, everything = axes_of(drawing, left=left, top=12), []
        for line in lines:
            drawn_as, y = looks[line.paradigm, line.method], len(sights) - 1 - sights.index(line.sees)
            for place, (group, marker) in enumerate(MARKERS.items()):
                values = getattr(line, group)
                if values is None or not values[:, 0].isfinite().any():
                    continue
                value = estimate(values[:, 0], values[:, 0].isfinite())
                at = y + 0.22 * (1 - place)  # ways of answering one below the other
                axes.plot(bounds(value), [at, at], color=drawn_as.colour, linewidth=1)
                told = f"{line.paradigm}: {line.method}, {ANSWERED[group]}: {value.text(1)} %; saw {line.sees}"
                marks(drawing, axes, [(percent(value.mean), at, told)], drawn_as, marker=marker, markersize=7)
                everything.append(value)
        letters = max(12, int(left / 7))  # that fit beside the axis
        axes.set_yticks(range(len(sights)), [shortened(sight, letters) for sight in reversed(sights)])
        axes.set_ylim(-0.5, len(sights) - 0.5)
        axes.set_xlim(*limits(everything))
        axes.grid(axis="x")
        axes.set_xlabel("accuracy, %")
    return drawing


def against_cost(lines: Sequence[Line], cost: str, width: float = 380, height: float = 300) -> Drawing:
    """Accuracy on the held-out tasks at the smallest k against what was stored, passed or taken."""
    words, price, written = COSTS[cost]
    drawing, looks = blank(width, height, f"Accuracy on held-out tasks against {words}"), looks_of(lines)
    drawn = [line for line in lines if line.paradigm not in ("floor", "ceiling")]
    positive = [price(line) for line in drawn if price(line) > 0]
    least = min(positive, default=1.0) / 4
    with style():
        axes, everything = axes_of(drawing, top=12), []
        axes.set_xscale("log")
        for line in drawn:
            for group, marker in MARKERS.items():
                values = getattr(line, group)
                if values is None or not values[:, 0].isfinite().any():
                    continue
                value = estimate(values[:, 0], values[:, 0].isfinite())
                drawn_as, x = looks[line.paradigm, line.method], price(line) if price(line) > 0 else least
                axes.plot([x, x], bounds(value), color=drawn_as.colour, linewidth=1)
                told = f"{line.paradigm}: {line.method}, {ANSWERED[group]}: {value.text(1)} %, {written(price(line))}; saw {line.sees}"
                marks(drawing, axes, [(x, percent(value.mean), told)], drawn_as, marker=marker, markersize=7)
                everything.append(value)
        price_axis(axes, positive, least, any(price(line) <= 0 for line in drawn))
        axes.set_ylim(*limits(everything))
        axes.grid(axis="y")
        axes.set_xlabel(words)
        axes.set_ylabel("accuracy, %")
    return drawing
