"""A figure of fine-tuning against meta-learning: accuracy over the number of examples, and where the curves cross."""

from __future__ import annotations

import plotly.graph_objects as go

from lifelong.studies.crossover import CrossoverStudy

COLOURS = ["#3366cc", "#dc3912", "#ff9900", "#109618", "#990099", "#0099c6", "#dd4477"]


def crossover_figure(study: CrossoverStudy, pairs: list[tuple[str, str]] | None = None) -> go.Figure:
    """Accuracy of each arm over k, mean and 95 % interval over seeds; a dotted line where the first of a pair overtakes."""
    figure = go.Figure()
    for colour, arm in zip(COLOURS, study.accuracy, strict=False):
        curve = study.curve(arm)
        widths = [100 * (value.half_width or 0) for value in curve]
        figure.add_trace(
            go.Scatter(
                x=list(study.shots), y=[100 * value.mean for value in curve], name=arm, mode="lines+markers",
                line={"color": colour}, error_y={"type": "data", "array": widths},
            )
        )  # fmt: skip
    for arm, other in pairs or []:
        k = study.crossover(arm, other).k
        if k is not None:
            figure.add_vline(x=k, line={"dash": "dot", "color": "#999"}, annotation_text=f"{arm} over {other}")
    figure.update_xaxes(title="k, rows of each class", type="log", tickvals=list(study.shots), ticktext=list(map(str, study.shots)))  # fmt: skip
    figure.update_yaxes(title="accuracy, %")
    return figure.update_layout(height=420, template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 50})
