"""A drawing: a matplotlib figure whose values can be read one by one, and the paper that all are drawn on."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lifelong.display.report.colours import LIGHT, Look

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that a name has a letter which the font lacks is no news

FONT = 12  # points, of which there are as many as pixels on the page
STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a method's name may hold dollars
    "svg.fonttype": "none",
    "svg.hashsalt": "lifelong",  # the same results give the same file
    "pdf.fonttype": 42,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": FONT,
    "axes.labelcolor": LIGHT["muted"],
    "axes.edgecolor": LIGHT["line"],
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.xmargin": 0.02,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 1,
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": FONT,
    "path.simplify": False,  # what is drawn is what was measured
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save as all drawings are."""
    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType] # its names are strings
        yield


@dataclass(frozen=True)
class Drawing:
    """A figure; what it shows, in words; and what each of its values says, by the name of the artist that shows them."""

    figure: Figure
    title: str
    values: dict[str, list[str]] = field(default_factory=dict)

    def tell(self, artist: Any, texts: Sequence[str], method: int | None = None) -> None:
        """Say what the marks of an artist show, one text each, and whose they are."""
        name = f"values-{len(self.values)}" + ("" if method is None else f" method-{method}")
        artist.set_gid(name)
        self.values[name] = [printable(text) for text in texts]


def blank(width: float, height: float, title: str) -> Drawing:
    """Nothing yet; pixels of the page."""
    return Drawing(Figure(figsize=(width / 72, height / 72), facecolor="none"), printable(title))


def axes_of(
    drawing: Drawing, left: float = 62, right: float = 12, top: float = 24, bottom: float = 44, **words: Any
) -> Axes:
    """Axes with margins in pixels."""
    width, height = (72 * side for side in drawing.figure.get_size_inches())
    place = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    return drawing.figure.add_axes(place, facecolor="none", **words)


def marks(
    drawing: Drawing,
    axes: Axes,
    points: Sequence[tuple[float, float, str]],
    look: Look,
    method: int | None = None,
    **words: Any,
) -> None:
    """Marks that can be read one by one: where each is and what it says; what is not finite is left out."""
    shown = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not shown:
        return
    x, y, texts = zip(*shown, strict=True)
    given = {
        "marker": look.marker,
        "markersize": 5,
        "markerfacecolor": look.colour,
        "markeredgecolor": look.colour,
        "clip_on": False,
    } | words
    (line,) = axes.plot(x, y, linestyle="none", zorder=4, **given)
    drawing.tell(line, texts, method)


def round_limits(values: Sequence[float], highest: float | None = 100.0) -> tuple[float, float]:
    """An axis from a round number below all values to one above them; no further than the highest that there can be."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = max(high - low, 2.0)
    step = 10 ** math.floor(math.log10(span / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 5)
    bottom, top = step * math.floor(low / step), step * math.ceil(high / step)
    if bottom == top:  # all values are one round number
        bottom, top = (bottom - span, top) if high == highest else (bottom, top + span)
    if highest is not None and top > highest >= high:
        top = highest
    return bottom, top + (0.02 * (top - bottom) if top == high else 0)


def printable(text: str) -> str:
    """Text without what would steer a terminal, or is no letter of an XML file: it is seen as such."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def shortened(name: str, most: int) -> str:
    """A name of at most so many characters: what is in its middle left out."""
    plain = printable(name)
    if len(plain) <= most:
        return plain
    tail = (most - 1) // 3
    return f"{plain[: most - 1 - tail]}…{plain[len(plain) - tail :]}"
