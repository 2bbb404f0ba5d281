"""The accuracy matrix of a method as a figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lifelong.display.report.colours import LIGHT
from lifelong.display.report.drawing import FONT, Drawing, axes_of, blank, shortened, style
from lifelong.display.report.measured import Measured, Method


def matrix(measured: Measured, method: Method, width: float = 320) -> Drawing:
    """Accuracy on task j (columns) after task t (rows), mean over seeds; numbers inside where there is room."""
    tasks, values = measured.tasks, method.matrix
    drawing = blank(width, width - 6, f"{method.name}: {measured.unit} on each task after each task")
    with style():
        axes = axes_of(drawing, left=46, right=8, top=28, bottom=46)
        axes.set_title(shortened(method.name, int(width / 7.8)), x=0)
        shade = (values.clamp(0, 1)).tolist()
        if tasks <= 20:
            _cells(drawing, axes, values.tolist(), shade)
        else:
            picture = [[(*_red_green_blue(LIGHT["heat"]), value) for value in row] for row in shade]
            axes.imshow(picture, extent=(0, tasks, tasks, 0), interpolation="nearest", aspect="auto")
        every = 1 if tasks <= 10 else -(-tasks // 5)
        places = list(range(0, tasks, every))
        axes.set_xticks([place + 0.5 for place in places], [f"{place + 1}" for place in places])
        axes.set_yticks([place + 0.5 for place in places], [f"{place + 1}" for place in places])
        axes.set_xlim(0, tasks)
        axes.set_ylim(tasks, 0)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel(f"{measured.unit} on task, %")
        axes.set_ylabel("after task")
    return drawing


def _cells(drawing: Drawing, axes: Axes, values: list[list[float]], shade: list[list[float]]) -> None:
    inside = len(values) <= 10
    for t, row in enumerate(values):
        for j, value in enumerate(row):
            known = value == value
            cell = Rectangle((j, t), 1, 1, facecolor=LIGHT["heat"], alpha=shade[t][j] if known else 0, linewidth=0)
            axes.add_patch(cell)
            text = f"{100 * value:.1f}" if known else "–"
            drawing.tell(cell, [f"task {j + 1} after task {t + 1}: {text} %"])
            if inside:
                colour = LIGHT["on-heat"] if known and shade[t][j] > 0.55 else LIGHT["ink"]
                size = FONT if len(values) <= 6 else 9
                axes.text(j + 0.5, t + 0.5, text if len(values) <= 6 else text.partition(".")[0] if text == "100.0" else text,
                          ha="center", va="center", color=colour, fontsize=size)  # fmt: skip


def _red_green_blue(colour: str) -> tuple[float, float, float]:
    return int(colour[1:3], 16) / 255, int(colour[3:5], 16) / 255, int(colour[5:7], 16) / 255
