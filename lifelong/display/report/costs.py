"""What accuracy cost, as figures: against the bytes that are kept and the seconds that were taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lifelong.display.report.drawing import Drawing, axes_of, blank, marks, style
from lifelong.display.report.figures import bounds, limits, percent
from lifelong.display.report.measured import Measured, Method, text_of


def bytes_kept(method: Method) -> float | None:
    """What it keeps beside its network, rows counted as the images that they stand for."""
    return None if method.cost.stored is None else method.cost.stored.total


def seconds(method: Method) -> float | None:
    """Of training, all seeds together."""
    return method.result.seconds.get("training")


COSTS: dict[str, tuple[Callable[[Method], float | None], str]] = {
    "bytes": (bytes_kept, "bytes kept beside the network, rows as images"),
    "seconds": (seconds, "seconds of training, all seeds"),
}


def against_cost(measured: Measured, cost: str, width: float = 480, height: float = 300) -> Drawing:
    """Average accuracy at the end against what a method keeps or takes; logarithmic, nothing at the left."""
    found, words = COSTS[cost]
    priced = [(method, price) for method in measured.ranked if method.seeds and (price := found(method)) is not None]
    drawing = blank(width, height, f"{measured.measure.capitalize()} against {words}")
    with style():
        axes = axes_of(drawing, top=14)
        positive = [price for _, price in priced if price > 0]
        least = min(positive, default=1.0) / 4
        axes.set_xscale("log")
        for method, price in priced:
            low, high = bounds(method.score)
            x = price if price > 0 else least
            if method.score.half_width is not None and "±" in text_of(method.score):
                axes.plot([x, x], [low, high], color=method.look.colour, linewidth=1.2)
            said = f"{method.name}: {text_of(method.score)} %, {price:,.4g} {cost}"
            shape = {"marker": "D", "markerfacecolor": "none"} if method.reference else {}
            marks(
                drawing,
                axes,
                [(x, percent(method.score.mean), said)],
                method.look,
                method.number,
                markersize=8,
                **shape,
            )
        price_axis(axes, positive, least, any(price <= 0 for _, price in priced))
        axes.set_ylim(*limits([method.score for method, _ in priced]))
        axes.grid(axis="y")
        axes.set_xlabel(words)
        axes.set_ylabel(f"{measured.measure}, %")
    return drawing


def price_axis(axes: Axes, positive: Sequence[float], least: float, free: bool) -> None:
    """Powers of ten between, each as a person writes it, and a place for nothing."""
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    axes.set_xlim(least / 1.6 if free else low / 1.6, high * 1.6)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 1.2 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    ticks = [tick for tick in ticks if low / 1.6 <= tick <= high * 1.6 and (not free or tick > least * 1.8)]
    shown = ([least] if free else []) + ticks
    axes.set_xticks(shown, (["none"] if free else []) + [plain_number(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def plain_number(value: float) -> str:
    """As in "20 k" or "0.5"."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:g} {unit}"
    return f"{value:g}"
