"""Fine-tuning against meta-learning: accuracy over the number of examples, and where the curves cross; table and figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lifelong.display.report.colours import LIGHT, look
from lifelong.display.report.drawing import FONT, Drawing, axes_of, blank, marks, style
from lifelong.display.report.figures import bounds, limits, percent
from lifelong.metrics import Estimate
from lifelong.studies.crossover import Crossover, CrossoverStudy

LINE = 0.045  # of a figure's height: a line of text above it
TOGETHER = "where a network has batch norm, the queries of an episode are normalised together"
NARROW = 100  # columns of a terminal under which intervals take a line of their own


def pairs_of(study: CrossoverStudy, beginning: str = "") -> list[tuple[str, str]]:
    """What is asked: from which k on is each fine-tuned arm, of that beginning, ahead of each own way of answering?"""
    tuned = [arm for arm in study.accuracy if arm in study.rates and arm.startswith(beginning)]
    return [(arm, other) for arm in tuned for other in study.accuracy if other not in study.rates]


def crossover_table(study: CrossoverStudy, width: int) -> list[Any]:
    """Accuracy of each arm at each k, and a line on each crossing."""
    asked, title = study.protocol, f"accuracy, %, after k rows of each of {study.protocol.way} classes"
    title += f"{f' of {study.data}' * bool(study.data)}; {asked.query} queries of each, {asked.episodes} episodes of each seed;"
    title += f" ± 95 % over {study.over}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for k in study.shots:
        table.add_column(f"k = {k}", justify="right", no_wrap=True)
    for arm in study.accuracy:
        cells = [value.text(1) for value in study.curve(arm)]
        table.add_row(Text(arm), *([cell.replace(" ±", "\n±") for cell in cells] if width < NARROW else cells))
    lines = [f"{arm} over {other}: {crossing_of(study, arm, other)}" for arm, other in pairs_of(study)]
    ends = rates_at_ends(study.ends)
    lines += [f"rates at an end of the grid: {ends}"] * bool(ends) + [TOGETHER] * study.together
    return [table, Text("\n".join(lines))]


def rates_at_ends(ends: Mapping[str, Sequence[int]]) -> str:
    """Where the best rate lies at an end of the grid, so that a better one may lie beyond it; "" for nowhere."""
    return "; ".join(f"{arm} at k = {_listed(found)}" for arm, found in ends.items() if found)


def crossing_of(study: CrossoverStudy, arm: str, other: str) -> str:
    """From which k on one arm is ahead of another, in words."""
    found, back = study.crossover(arm, other), study.crossover(other, arm)
    known = [f"behind up to {found.low}"] * (found.low is not None)
    known += [f"ahead from {found.high}"] * (found.high is not None)
    if back.k is not None:  # it loses its lead
        known += [f"ahead up to {back.low}"] * (back.low is not None)
        known += [f"behind from {back.high}"] * (back.high is not None)
    return f"{_point(study.shots, found, back.k)} (established: {', '.join(known) or 'nothing'})"


def _point(shots: Sequence[int], found: Crossover, lost: float | None) -> str:
    """Where the means cross, in words; lost: the last k at which a lead is lost, where it is."""
    if found.k is not None:
        before = _listed(k for k in found.ahead if k < found.k)
        return f"from k = {found.k:.1f} on" + (f", and before at k = {before}" if before else "")
    if lost is not None:
        up_to = not any(k < lost for k in found.behind)
        return f"only up to k = {lost:.1f}" if up_to else f"only at k = {_listed(found.ahead)}"
    if found.ahead:
        return f"from k = {shots[0]} on"
    return f"not up to k = {shots[-1]}" if found.behind else "level at every k"


def _listed(shots: Iterable[int]) -> str:
    return ", ".join(map(str, shots))


def crossover_json(study: CrossoverStudy) -> dict[str, Any]:
    """The same as plain values: fractions of 1."""
    pairs = {f"{arm} over {other}": (arm, other) for arm, other in pairs_of(study)}
    return {
        "shots": list(study.shots),
        "data": study.data,
        "way": study.protocol.way,
        "query": study.protocol.query,
        "episodes": study.protocol.episodes,
        "normalised together": study.together,
        "interval over": study.over,
        "accuracy": {arm: [_plain(value) for value in study.curve(arm)] for arm in study.accuracy},
        "rates": {arm: list(rates) for arm, rates in study.rates.items()},
        "rates at an end of the grid": {arm: list(ends) for arm, ends in study.ends.items() if ends},
        "difference": {name: [_plain(value) for value in study.difference(*pair)] for name, pair in pairs.items()},
        "crossing": {name: asdict(study.crossover(*pair)) for name, pair in pairs.items()},
    }


def _plain(value: Estimate) -> dict[str, Any]:
    return {"mean": value.mean, "half_width": value.half_width}


def crossover_figure(study: CrossoverStudy, pairs: list[tuple[str, str]] | None = None) -> Drawing:
    """Accuracy of each arm over k, mean and 95 % interval; a dotted line where the first of a pair overtakes."""
    drawing = blank(640, 420, "Accuracy over the number of examples")
    with style():
        axes, everything = axes_of(drawing, top=40), []
        axes.set_xscale("log")
        for number, arm in enumerate(study.accuracy):
            curve, shown = study.curve(arm), look(number)
            axes.plot(
                study.shots,
                [percent(value.mean) for value in curve],
                color=shown.colour,
                linewidth=1.6,
                label=arm,
                marker=shown.marker,
            )
            for k, value in zip(study.shots, curve, strict=True):
                axes.plot([k, k], bounds(value), color=shown.colour, linewidth=1, label=f"_{arm} at {k}")
            told = [
                (k, percent(v.mean), f"{arm}, k = {k}: {v.text(1)} %") for k, v in zip(study.shots, curve, strict=True)
            ]
            marks(drawing, axes, told, shown, number, label=f"_{arm}")
            everything += curve
        axes.set_ylim(*limits(everything))
        crossed = [(k, f"{a} over {b}") for a, b in pairs or [] if (k := study.crossover(a, b).k) is not None]
        for line, (k, words) in enumerate(crossed):
            axes.axvline(k, color=LIGHT["muted"], linestyle=":", linewidth=1.2, label=f"_{words}")
            words += f", from k = {k:.1f} on"
            height = 1.01 + line * LINE  # each on a line of its own: crossings may lie close together
            axes.text(k, height, words, transform=axes.get_xaxis_transform(), ha="center", fontsize=FONT - 2)
        axes.set_xticks(study.shots, [str(k) for k in study.shots])
        axes.minorticks_off()
        axes.set_xlabel("k, rows of each class")
        axes.set_ylabel("accuracy, %")
        axes.grid(axis="y")
        axes.legend(loc="best")
    return drawing
