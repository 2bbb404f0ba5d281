"""The figures of a group: each a function of what was measured, for the page and for papers alike."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lifelong.display.report.colours import LIGHT
from lifelong.display.report.drawing import FONT, Drawing, axes_of, blank, marks, round_limits, shortened, style
from lifelong.display.report.measured import Measured, Method, Point, bounded_tasks, text_of
from lifelong.metrics import Estimate, estimate

ROW = 15  # pixels that a row of text needs
MOST_ROWS = 30
FEW = 4  # methods whose bands can be told apart in a small panel


def percent(value: float) -> float:
    """As the axes have it."""
    return 100 * value


def bounds(value: Estimate) -> tuple[float, float]:
    """The ends of an interval, in percent; the mean twice where there is none."""
    width = value.half_width or 0.0
    return percent(value.mean - width), percent(value.mean + width)


def limits(points: Sequence[Estimate]) -> tuple[float, float]:
    """A round axis around means and intervals; wide intervals are cut off before they squeeze the means."""
    known = [value for value in points if value.mean == value.mean]
    means = [percent(value.mean) for value in known] or [0.0, 100.0]
    room = max(0.5 * (max(means) - min(means)), 2.0)
    ends = [min(max(end, min(means) - room), max(means) + room) for value in known for end in bounds(value)]
    return round_limits([min(max(end, 0.0) if min(means) >= 0 else end, 100.0) for end in [*means, *ends]])


def _curve(
    drawing: Drawing, axes: Axes, method: Method, points: Sequence[Point], alpha: float, told: bool, words: str
) -> None:
    """Means as a line, their interval as a band of this opacity, and the values at tasks' ends as marks."""
    colour = method.look.colour
    x = [point.x for point in points]
    if alpha and points[0].value.half_width is not None:
        low, high = zip(*(bounds(point.value) for point in points), strict=True)
        name = f"band-{len(axes.collections)} method-{method.number}"
        axes.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0, gid=name)
    lines = len(axes.lines)
    axes.plot(
        x,
        [percent(p.value.mean) for p in points],
        color=colour,
        linewidth=1.8,
        gid=f"line-{lines} method-{method.number}",
        zorder=3,
    )
    if told:
        ends = [point for point in points if point.ends]
        said = [
            (p.x, percent(p.value.mean), f"{method.name}, {words.format(round(p.x))}: {text_of(p.value)} %")
            for p in ends
        ]
        marks(drawing, axes, said, method.look, method.number, markersize=5)


def opacity(measured: Measured, most: int) -> float:
    """Of bands: the fainter the more there are, and none where there are more than so many."""
    count = len(measured.rivals)
    return 0.0 if count > most else 0.15 if count <= FEW else 0.09


def _level(axes: Axes, method: Method, value: Estimate, tasks: int) -> None:
    """A reference's value as a line across."""
    axes.plot([0, tasks], [percent(value.mean)] * 2, color=method.look.colour, linestyle=method.look.line, linewidth=1.4,
              gid=f"level-{len(axes.lines)} method-{method.number}", zorder=2)  # fmt: skip


def _task_axis(axes: Axes, measured: Measured) -> None:
    tasks = measured.tasks
    every = 1 if tasks <= 10 else -(-tasks // 5)
    axes.set_xlim(0, tasks)
    axes.set_xticks(range(0, tasks + 1, every))  # 0: before anything is learned
    axes.set_xlabel(x_words(measured))
    axes.grid(axis="y")


def x_words(measured: Measured) -> str:
    """What the axis along the stream counts."""
    return "tasks' worth of training" if measured.together else "tasks learned"


def with_legend(drawing: Drawing, measured: Measured) -> Drawing:
    """The drawing with the methods' names under it, for where the page is not at hand; grey ones are one entry."""
    shown = [method for method in measured.ranked if method.look.marker != "."]
    with style():
        lines = [
            Line2D([], [], color=method.look.colour, linestyle=method.look.line, markersize=5,
                   marker="" if method.reference else method.look.marker)
            for method in shown
        ]  # fmt: skip
        names = [shortened(method.name, 34) for method in shown]
        if len(shown) < len(measured.methods):
            lines.append(Line2D([], [], color=LIGHT["other"]))
            names.append(f"{len(measured.methods) - len(shown)} others")
        columns = 3 if max(map(len, names)) <= 18 else 2
        drawing.figure.legend(lines, names, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns, fontsize=10)
    return drawing


def seen(measured: Measured) -> str:
    """Over which tasks the average along the stream is."""
    return "over all tasks" if measured.together else "over the tasks seen so far"


def along(measured: Measured, width: float = 760, height: float = 420) -> Drawing:
    """Average accuracy over the tasks begun so far, along the stream: mean over seeds, band = 95 % interval."""
    capital = measured.measure.capitalize()
    drawing = blank(width, height, f"{capital} {seen(measured)}, along the stream")
    with style():
        axes = axes_of(drawing, top=14)
        everything: list[Estimate] = []
        first = float(measured.tasks)
        for method in reversed(measured.rivals):  # the best above all
            if not method.seeds:
                continue
            points = method.average_curve()[1:]  # what an untrained network does is no news
            everything += [point.value for point in points]
            first = min(first, points[0].x)
            few = len(measured.rivals) * measured.tasks <= 400
            _curve(drawing, axes, method, points, opacity(measured, 12), few, "after task {}")
        for method in measured.references:
            if method.score.mean == method.score.mean:
                _level(axes, method, method.score, measured.tasks)
                everything.append(Estimate(method.score.mean, None, ()))
        _task_axis(axes, measured)
        axes.set_xlim(0 if first < 1 or measured.tasks < 2 else 0.85, measured.tasks)
        axes.set_xticks([tick for tick in axes.get_xticks() if tick > 0 or first < 1])
        axes.set_ylim(*limits(everything))
        axes.set_ylabel(f"{measured.unit}, %")
    return drawing


def ranking(measured: Measured, width: float = 520, height: float = 420) -> Drawing:
    """Methods as rows, the best on top: average accuracy at the end with its 95 % interval."""
    methods = measured.ranked[:MOST_ROWS]
    wide = width > 450
    longest = max(len(method.name) for method in methods)
    left = min(7.2 * min(longest, 34) + 14, (0.5 if wide else 0.44) * width)
    most = int((left - 14) / 7.2) + 1
    drawing = blank(width, height, f"{measured.measure.capitalize()} after the last task, the best first")
    with style():
        numbers = max(len(text_of(method.score)) for method in methods)
        axes = axes_of(drawing, left=left, right=max(100 if wide else 92, 7.4 * numbers + 12), top=14)
        for row, method in enumerate(methods):
            _row(drawing, axes, row, method, shortened(method.name, most))
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        _across(axes, [method.score for method in methods])
        axes.set_xlabel(f"{measured.measure}, %")
    return drawing


def _row(drawing: Drawing, axes: Axes, row: int, method: Method, name: str) -> None:
    """A method's name, its mean with its interval, and the two in numbers."""
    words = {"va": "center", "fontsize": FONT, "transform": axes.get_yaxis_transform(), "clip_on": False}
    place_name = f"row-{row} method-{method.number}"
    axes.text(-0.035, row, name, ha="right", gid=place_name, **words)
    value = method.score
    text = text_of(value) if value.mean == value.mean else "diverged" if not method.seeds else "–"
    axes.text(1.04, row, text, ha="left", color=LIGHT["ink"], gid=f"number-{place_name}", **words)
    if value.mean != value.mean:
        return
    if value.half_width is not None and "±" in text:
        axes.plot(
            bounds(value),
            [row, row],
            color=method.look.colour,
            linewidth=2,
            solid_capstyle="butt",
            gid=f"interval-{place_name}",
        )
    shape = {"markersize": 7, "marker": "D", "markerfacecolor": "none"} if method.reference else {"markersize": 7}
    marks(drawing, axes, [(percent(value.mean), row, f"{method.name}: {text} %")], method.look, method.number, **shape)


def _across(axes: Axes, values: Sequence[Estimate]) -> None:
    """A round axis from left to right."""
    axes.set_xlim(*limits(values))
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=5 if axes.get_window_extent().width > 200 else 3)


def lost(measured: Measured, width: float = 520, height: float = 420) -> Drawing:
    """Of one run: each task just after it was learned, and at the end."""
    method = measured.first
    learned, final = (values.unbind(1) for values in (method.learned, method.final))
    drawing = blank(width, height, "Each task just after it was learned, and at the end")
    every = max(1, -(-measured.tasks // 30))
    with style():
        axes = axes_of(drawing, left=60, right=100, top=14)
        drawn = []
        for task in range(0, measured.tasks, every):
            before, after = estimate(learned[task]), estimate(final[task])
            drawn += [Estimate(value.mean, None, ()) for value in (before, after)]
            axes.plot([percent(before.mean), percent(after.mean)], [task, task], color=LIGHT["other"], linewidth=2)
            said = f"task {task + 1}, just learned: {text_of(before)} %"
            marks(
                drawing,
                axes,
                [(percent(before.mean), task, said)],
                method.look,
                markerfacecolor=LIGHT["paper"],
                markersize=7,
            )
            said = f"task {task + 1}, at the end: {text_of(after)} %"
            marks(drawing, axes, [(percent(after.mean), task, said)], method.look, markersize=7)
            words = {"va": "center", "fontsize": FONT, "transform": axes.get_yaxis_transform(), "clip_on": False}
            axes.text(1.04, task, f"{text_of(after)}", ha="left", **words)
        axes.set_ylim(max(measured.tasks, 4) - 0.4, -0.6)
        axes.set_yticks(
            range(0, measured.tasks, every), [f"task {task + 1}" for task in range(0, measured.tasks, every)]
        )
        axes.spines["left"].set_visible(False)
        _across(axes, drawn)
        axes.set_xlabel(f"{measured.unit}, %: open, just learned; full, at the end")
    return drawing


def task_curves(measured: Measured, task: int, width: float = 320, height: float = 220) -> Drawing:
    """Accuracy on one task along the stream, all methods; grey: while it is learned itself."""
    drawing = blank(width, height, f"{measured.unit.capitalize()} on task {task + 1} along the stream")
    with style():
        axes = axes_of(drawing, top=26)
        _draw_task(drawing, axes, measured, task, width > 500)
        axes.set_title(f"task {task + 1}")
    return drawing


def tasks(measured: Measured, width: float = 468) -> Drawing:
    """Accuracy on every task along the stream, a panel each; of many tasks twelve, evenly over the stream."""
    shown = bounded_tasks(measured.tasks, 12)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    drawing = blank(width, 130 * rows + 10, f"{measured.unit.capitalize()} on each task along the stream")
    with style():
        grid = drawing.figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.36, "hspace": 0.6})
        for place, axes in enumerate(grid.flat):
            if place >= len(shown):
                axes.set_axis_off()
                continue
            axes.set_facecolor("none")
            _draw_task(drawing, axes, measured, shown[place], False)
            axes.set_title(f"task {shown[place] + 1}")
            axes.set_xlabel(x_words(measured) if place >= len(shown) - columns else "")
            axes.set_ylabel(axes.get_ylabel() if place % columns == 0 else "")
    return drawing


def _draw_task(drawing: Drawing, axes: Axes, measured: Measured, task: int, large: bool) -> None:
    everything: list[Estimate] = []
    if not measured.together:
        axes.axvspan(task, task + 1, color=LIGHT["grid"], linewidth=0, alpha=0.6)
    few = len(measured.rivals) * measured.tasks <= 150
    for method in reversed([method for method in measured.rivals if method.seeds]):
        points = method.curve(task)
        everything += [point.value for point in points]
        after = [point._replace(ends=point.ends and point.x > task) for point in points]
        _curve(
            drawing,
            axes,
            method,
            after,
            opacity(measured, 12 if large else FEW),
            few,
            f"task {task + 1} after task {{}}",
        )
    for method in (method for method in measured.references if method.seeds):
        value = Estimate(float(method.final[:, task].mean()), None, ())
        everything.append(value)
        _level(axes, method, value, measured.tasks)
    _task_axis(axes, measured)
    axes.set_ylim(*limits(everything))
    axes.set_ylabel(f"{measured.unit}, %")


def seeds(measured: Measured, width: float = 620, height: float = 0) -> Drawing:
    """Average accuracy at the end of each seed as a dot, methods as rows."""
    methods = [method for method in measured.ranked if method.seeds]
    height = height or 62 + max(22, ROW + 4) * len(methods)
    most = 34 if width > 450 else 18
    left = 7.2 * min(max(len(method.name) for method in methods), most) + 14
    drawing = blank(width, height, f"{measured.measure.capitalize()} after the last task, each seed a dot")
    with style():
        axes = axes_of(drawing, left=left, right=16, top=8)
        for row, method in enumerate(methods):
            words = {
                "va": "center",
                "ha": "right",
                "transform": axes.get_yaxis_transform(),
                "gid": f"row-{row} method-{method.number}",
            }
            axes.text(-0.02, row, shortened(method.name, most), **words)
            axes.plot([percent(method.score.mean)] * 2, [row - 0.3, row + 0.3], color=method.look.colour, linewidth=2)
            each = zip(method.result.seeds, method.score.per_seed, strict=True)
            said = [
                (percent(v), row, f"{method.name}, seed {seed}: {100 * v:.2f} %") for seed, v in each if v is not None
            ]
            marks(
                drawing, axes, said, method.look, method.number, marker="o", markersize=6, alpha=0.55, markeredgewidth=0
            )
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        dots = [Estimate(v, None, ()) for method in methods for v in method.score.per_seed if v is not None]
        _across(axes, dots)
        axes.set_xlabel(f"{measured.measure}, %")
    return drawing


def losses(measured: Measured, width: float = 640, height: float = 260) -> Drawing:
    """Training loss along the stream, mean over seeds, of the methods that have one."""
    drawing = blank(width, height, "Training loss along the stream")
    with style():
        axes = axes_of(drawing, top=14)
        for method in reversed(measured.methods):
            if not (method.seeds and method.learns_by_gradient):
                continue
            values = method.result.losses[method.result.kept].mean(0).flatten()
            stretch = measured.tasks / len(values)
            x = [(i + 0.5) * stretch for i in range(len(values))]
            axes.plot(x, values.tolist(), color=method.look.colour, linestyle=method.look.line, linewidth=1.2,
                      gid=f"loss-{method.number} method-{method.number}")  # fmt: skip
        _task_axis(axes, measured)
        axes.set_ylabel("training loss")
    return drawing
