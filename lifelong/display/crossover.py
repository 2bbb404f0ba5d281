"""A figure of fine-tuning against meta-learning: accuracy over the number of examples, and where the curves cross."""

from __future__ import annotations

from lifelong.display.report.colours import LIGHT, look
from lifelong.display.report.drawing import FONT, Drawing, axes_of, blank, marks, style
from lifelong.display.report.figures import bounds, limits, percent
from lifelong.studies.crossover import CrossoverStudy


def crossover_figure(study: CrossoverStudy, pairs: list[tuple[str, str]] | None = None) -> Drawing:
    """Accuracy of each arm over k, mean and 95 % interval over seeds; a dotted line where the first of a pair overtakes."""
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
        for arm, other in pairs or []:
            k = study.crossover(arm, other).k
            if k is not None:
                axes.axvline(k, color=LIGHT["muted"], linestyle=":", linewidth=1.2, label=f"_{arm} over {other}")
                axes.text(
                    k, 1.01, f"{arm} over {other}", transform=axes.get_xaxis_transform(), ha="center", fontsize=FONT - 2
                )
        axes.set_xticks(study.shots, [str(k) for k in study.shots])
        axes.minorticks_off()
        axes.set_xlabel("k, rows of each class")
        axes.set_ylabel("accuracy, %")
        axes.grid(axis="y")
        axes.legend(loc="lower right")
    return drawing
