"""The report: one HTML page that needs nothing from outside."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from itertools import combinations, count
from pathlib import Path

import plotly.graph_objects as go
import torch
from plotly.offline import get_plotlyjs

from lifelong import metrics
from lifelong.core.files import write
from lifelong.core.result import Result
from lifelong.runs.groups import RunGroup

COLOURS = ["#3366cc", "#dc3912", "#ff9900", "#109618", "#990099", "#0099c6", "#dd4477", "#66aa00", "#b82e2e", "#316395"]
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}.wide{overflow-x:auto}
td:first-child,th:first-child,.words td:nth-child(2),.words th:nth-child(2),.words td:last-child{text-align:left}code,pre{background:#f5f5f5;padding:.1em .3em;white-space:pre-wrap}
h2,h3{margin-top:2em}.note{color:#666}"""


def forgetting_curves(result: Result) -> go.Figure:
    """Accuracy on each task along the run: mean over seeds, band = 95 % interval, lines at the ends of tasks."""
    figure = go.Figure()
    length = result.when[:, 1].max().item() or 1
    x = [learned * length + iteration for learned, iteration, _, _ in result.when.tolist()]
    accuracy = result.accuracy[result.kept]
    for t in range(result.tasks):
        colour = COLOURS[t % len(COLOURS)]
        each = [metrics.estimate(accuracy[:, e, t]) for e in range(len(x))]
        mean = [100 * e.mean for e in each]
        if each[0].half_width is not None:
            upper = [100 * (e.mean + (e.half_width or 0)) for e in each]
            lower = [100 * (e.mean - (e.half_width or 0)) for e in each]
            band = {"x": x + x[::-1], "y": upper + lower[::-1], "fill": "toself", "fillcolor": colour, "opacity": 0.15}
            figure.add_trace(
                go.Scatter(**band, line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=str(t))
            )
        line = {"color": colour}
        figure.add_trace(
            go.Scatter(
                x=x,
                y=mean,
                name=f"task {t + 1}",
                line=line,
                legendgroup=str(t),
                mode="lines+markers",
                marker={"size": 4},
            )
        )
    for t in range(1, result.tasks + 1):
        figure.add_vline(x=t * length, line={"dash": "dot", "color": "#999", "width": 1})
    figure.update_yaxes(title="accuracy, %", range=[0, 101])
    figure.update_xaxes(title="iteration (dotted: a task ends)")
    return plain(figure)


def loss_curve(result: Result) -> go.Figure:
    """Training loss along the run, mean over seeds."""
    losses = result.losses[result.kept].mean(0).flatten()
    length = result.when[:, 1].max().item() or 1
    x = (torch.arange(len(losses)) + 0.5) * (length * result.tasks / max(len(losses), 1))
    figure = go.Figure(go.Scatter(x=x.tolist(), y=losses.tolist(), mode="lines", line={"color": COLOURS[0]}))
    figure.update_yaxes(title="training loss")
    figure.update_xaxes(title="iteration")
    return plain(figure, 260)


def heat_map(result: Result) -> go.Figure:
    """The accuracy matrix."""
    z = (100 * result.at_task_ends[result.kept].mean(0)).tolist()
    names = [f"{t + 1}" for t in range(result.tasks)]
    text = [[f"{v:.1f}" for v in row] for row in z]
    figure = go.Figure(
        go.Heatmap(z=z, x=names, y=names, text=text, texttemplate="%{text}", zmin=0, zmax=100, colorscale="Blues")
    )
    figure.update_xaxes(title="accuracy on task", type="category")
    figure.update_yaxes(title="after task", autorange="reversed", type="category")
    return plain(figure, 360)


def plain(figure: go.Figure, height: int = 380) -> go.Figure:
    """A figure as the page wears it."""
    return figure.update_layout(height=height, template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 50})


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of text."""

    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<div class=wide><table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table></div>"


def _metric_rows(results: dict[str, Result]) -> str:
    given = {name: metrics.summary(result) for name, result in results.items()}
    names = [name for name in metrics.METRICS if any(name in values for values in given.values())]
    rows = [[name, *(values[name].text() if name in values else "–" for values in given.values())] for name in names]
    return table(["metric, %", *results], rows)


def _paired_rows(results: dict[str, Result]) -> str:
    """The difference of each two runs of a group, where they have seeds in common."""
    rows = []
    for (a, first), (b, second) in combinations(results.items(), 2):
        try:
            value = metrics.paired(metrics.average_accuracy, second, first)
        except metrics.NotMeasured:
            continue
        clear = "" if value.half_width is None else "yes" if abs(value.mean) > value.half_width else "no"
        rows.append([f"{b} − {a}", value.text(), clear])
    if not rows:
        return ""
    note = "average accuracy, points of percent, seed by seed; clear: the 95 % interval leaves out 0"
    return f"<h3>Paired differences</h3><p class=note>{note}</p>" + table(["difference", "mean", "clear"], rows)


def page(groups: list[RunGroup]) -> str:
    """The whole page: one section for each group, as only runs of one group may be compared."""
    scenarios = ", ".join(dict.fromkeys(group.title.partition(" · ")[0] for group in groups))
    title = html.escape(f"lifelong: {scenarios}")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>",
        f"<script>{get_plotlyjs()}</script><body><h1>{html.escape(scenarios)}</h1>",
    ]
    if len(groups) > 1:
        parts.append("<p class=note>Runs on other data, settings, models or budgets are not compared.</p>")
    number = count(1)
    for group in groups:
        parts.append(_section(group, number))
    return "\n".join(parts) + "</body></html>"


def _section(group: RunGroup, number: Iterator[int]) -> str:
    """What one group measured: metrics, paired differences, and each run by itself."""
    parts = [
        f"<section><h2>{html.escape(group.title)}</h2><p class=note>mean ± half-width of the 95 % interval over seeds</p>"
    ]
    parts += [f"<p class=note>{html.escape(group.origin)}</p>"] if group.origin else []
    parts += [_metric_rows(group.results), _paired_rows(group.results)]
    for name, run in group.runs.items():
        parts.append(f"<h3>{html.escape(name)}</h3>")
        lost = int((~run.result.kept).sum())
        if lost:
            parts.append(f"<p>{lost} of {len(run.result.seeds)} seeds diverged and are left out.</p>")
        if lost < len(run.result.seeds):
            parts += [embedded(heading, draw(run.result), next(number)) for heading, draw in PLOTS]
        about = json.dumps({**run.request.as_json(), "resolved": run.resolved}, indent=2)
        parts.append(f"<p>repeat it: <code>{html.escape(run.request.command)}</code></p>")
        parts.append(f"<details><summary>configuration</summary><pre>{html.escape(about)}</pre></details>")
    return "\n".join(parts) + "</section>"


PLOTS = (("Accuracy on each task", forgetting_curves), ("Accuracy matrix, %", heat_map), ("Training loss", loss_curve))


def embedded(heading: str, figure: go.Figure, number: int) -> str:
    """A figure under its heading; number: its own on the page."""
    data = str(figure.to_json()).replace("</", "<\\/")
    draw = f"const f={data};Plotly.newPlot('plot{number}',f.data,f.layout,{{displaylogo:false,responsive:true}})"
    return f"<h4>{heading}</h4><div id=plot{number} class=plot></div><script>{{{draw}}}</script>"


def write_report(groups: list[RunGroup], path: Path) -> None:
    """Write the page of finished runs."""
    write(path, page(groups).encode())
