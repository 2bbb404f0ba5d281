"""The page of one stream read four ways: what is established, the held-out tasks as figures, the tables."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from lifelong import metrics
from lifelong.display.page import COLOURS, STYLE, embedded, plain, table
from lifelong.studies.comparison import GROUPS, caption, load_lines, tables
from lifelong.studies.paradigms import Line

SYMBOLS = {"few_shot": "circle", "by_means": "diamond-open", "own_answers": "star"}
ANSWERED = {"few_shot": "adapted by the rule", "by_means": "class means of the features", "own_answers": "own answers"}
COSTS: dict[str, Callable[[Line], float]] = {
    "bytes stored beyond the network": lambda line: line.stored,
    "examples passed forward and backward": lambda line: line.examples,
    "seconds of learning": lambda line: line.seconds,
}


def paradigms_page(path: Path) -> str:
    """A page of one comparison of paradigms, from the folder that keeps it."""
    about, lines = load_lines(path)
    scenario = html.escape(about["request"]["scenario"])
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in about["findings"])
    shots = tuple(about["shots"])
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>lifelong: {scenario}</title><style>{STYLE}</style>",
        f"<script>{get_plotlyjs()}</script><body><h1>{scenario}, read four ways</h1><ul>{sentences}</ul>",
        f"<p class=note>{html.escape(caption(about))}</p>",
        embedded(f"Held-out tasks from {shots[0]} row{'s' * (shots[0] > 1)} of each class, against what each was allowed", against_cost(lines), 1),
        *(
            embedded(title[0].upper() + title[1:], curves(lines, group, shots), number)
            for number, (group, title) in enumerate(GROUPS.items(), 2)
            if any(getattr(line, group) is not None for line in lines)
        ),
        *(f"<div class=words><h4>{html.escape(columns.title)}</h4>{table(columns.head, columns.rows)}</div>"
            for columns in tables(about, lines)),
        f"<details><summary>configuration</summary><pre>{html.escape(json.dumps(about['request'], indent=2))}</pre></details>",
    ]  # fmt: skip
    return "\n".join(parts) + "</body></html>"


def against_cost(lines: Sequence[Line]) -> go.Figure:
    """Accuracy on held-out tasks at the smallest k against what was stored, passed and taken; what was seen in the hover."""
    figure = make_subplots(1, len(COSTS), shared_yaxes=True, horizontal_spacing=0.03)
    colours = _colours(lines)
    for line in lines:
        if (colour := colours.get((line.paradigm, line.method))) is None:
            continue
        for group, symbol in SYMBOLS.items():
            values = getattr(line, group)
            if values is None or not values[:, 0].isfinite().any():
                continue
            value = metrics.estimate(values[:, 0], values[:, 0].isfinite())
            bars = {"type": "data", "array": [100 * (value.half_width or 0)], "thickness": 1}
            for column, cost in enumerate(COSTS.values(), 1):
                figure.add_trace(
                    go.Scatter(
                        x=[max(cost(line), 1.0)], y=[100 * value.mean], error_y=bars, mode="markers",
                        marker={"color": colour, "symbol": symbol, "size": 10},
                        name=f"{line.paradigm}: {line.method}, {ANSWERED[group]}", legendgroup=f"{line.method} {group}",
                        showlegend=column == 1, hovertext=f"saw {line.sees}",
                    ),
                    1, column,
                )  # fmt: skip
    for column, title in enumerate(COSTS, 1):
        figure.update_xaxes(title=title, type="log", row=1, col=column)
    figure.update_yaxes(title="accuracy, %", col=1)
    return plain(figure, 520).update_layout(legend={"orientation": "h", "y": -0.25})


def curves(lines: Sequence[Line], group: str, shots: tuple[int, ...]) -> go.Figure:
    """Accuracy against the rows of each class, in one way of answering; floors and ceilings in grey."""
    figure = go.Figure()
    drawn = [(line, getattr(line, group)) for line in lines if getattr(line, group) is not None]
    greys, colours = cycle(["dot", "dash", "dashdot", "longdash", "longdashdot"]), _colours(lines)
    for i, (line, values) in enumerate(drawn):
        each = [metrics.estimate(values[:, k], values[:, k].isfinite()) for k in range(len(shots))]
        bars = {"type": "data", "array": [100 * (e.half_width or 0) for e in each], "thickness": 1}
        key = (line.paradigm, line.method)
        style = {"color": colours[key]} if key in colours else {"color": "#888", "dash": next(greys)}
        x = [k + 0.03 * (i - len(drawn) / 2) for k in range(len(shots))]  # side by side, so that bars can be told apart
        name, y = f"{line.paradigm}: {line.method}", [100 * e.mean for e in each]
        figure.add_trace(go.Scatter(x=x, y=y, error_y=bars, name=name, line=style))
    ticks = {"tickvals": list(range(len(shots))), "ticktext": [str(shot) for shot in shots]}
    figure.update_xaxes(title="rows of each class of a held-out task", **ticks)
    figure.update_yaxes(title="accuracy, %")
    return plain(figure, 480)


def _colours(lines: Sequence[Line]) -> dict[tuple[str, str], str]:
    """The colour of each line that is neither floor nor ceiling, the same in every figure; by paradigm and method."""
    named = [(line.paradigm, line.method) for line in lines if line.paradigm not in ("floor", "ceiling")]
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(named)}
