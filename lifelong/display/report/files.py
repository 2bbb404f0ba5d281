"""The page's figures as files for papers, drawn by the same functions at the width of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib

from lifelong.core.files import make_folder, write
from lifelong.display.report import costs, figures, matrices
from lifelong.display.report.drawing import Drawing, style
from lifelong.display.report.measured import Measured, measured
from lifelong.runs.groups import RunGroup
from scenarios.errors import ConfigurationError

KINDS = ("pdf", "svg", "png")
WIDTH = 468  # points: the text of a page of letter paper with margins of an inch
DATES: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {},
}  # none: equal results, equal files


def check_kind(kind: str, word: str = "--format") -> None:
    """Raise a ConfigurationError for a kind of file that no figure is written as; word: what named it."""
    if kind not in KINDS:
        raise ConfigurationError(f"{word} {kind[:40]!r}: figures are written as {', '.join(KINDS)}")


def of_group(measured: Measured) -> dict[str, Drawing]:
    """Every figure of a group, by the name of its file; those with several methods have a legend."""
    if not any(method.seeds for method in measured.methods):
        return {}
    drawings: dict[str, Drawing] = {}
    if measured.comparable:
        drawings["along"] = figures.with_legend(figures.along(measured, WIDTH, 280), measured)
        drawings["ranking"] = figures.ranking(measured, WIDTH, 62 + 24 * min(len(measured.methods), figures.MOST_ROWS))
        drawings["seeds"] = figures.seeds(measured, WIDTH)
    drawings["tasks"] = figures.with_legend(figures.tasks(measured, WIDTH), measured)
    if len(measured.methods) == 1 and measured.first.result.paradigm == "continual":
        drawings["lost"] = figures.lost(measured, WIDTH, 300)
    for method in measured.methods:
        if method.seeds and method.result.paradigm != "isolate":
            drawings[f"matrix-{method.number + 1}-{slug(method.name)}"] = matrices.matrix(measured, method)
    if measured.comparable and len(measured.methods) > 1:
        for cost, (price, _) in costs.COSTS.items():
            if any(price(method) is not None for method in measured.methods):
                drawings[f"accuracy-against-{cost}"] = figures.with_legend(
                    costs.against_cost(measured, cost, WIDTH, 280), measured
                )
    if any(method.seeds and method.learns_by_gradient for method in measured.methods):
        drawings["loss"] = figures.with_legend(figures.losses(measured, WIDTH, 240), measured)
    return drawings


def of_groups(groups: Sequence[RunGroup]) -> dict[str, dict[str, Drawing]]:
    """Every figure of every group, by the folder that it is for: of several groups each has its own."""
    places = [f"{i}-{slug(group.title)}" if len(groups) > 1 else "" for i, group in enumerate(groups, 1)]
    return {place: of_group(measured(group)) for place, group in zip(places, groups, strict=True)}


def write_drawings(drawings: Mapping[str, Drawing], folder: Path, kind: str) -> list[Path]:
    """Drawings as files of a folder, which is made."""
    check_kind(kind)
    make_folder(folder)
    paths = [folder / f"{name}.{kind}" for name in drawings]
    for path, drawing in zip(paths, drawings.values(), strict=True):
        write(path, as_bytes(drawing, kind))
    return paths


def as_bytes(drawing: Drawing, kind: str) -> bytes:
    """The content of a file: letters as shapes or within it, so that it looks the same everywhere."""
    file, paper = BytesIO(), "white" if kind == "png" else "none"
    with style(), matplotlib.rc_context({"svg.fonttype": "path"}):
        drawing.figure.savefig(
            file, format=kind, dpi=200, facecolor=paper, bbox_inches="tight", pad_inches=0.04, metadata=DATES[kind]
        )
    return file.getvalue()


def slug(name: str) -> str:
    """Letters and digits of a name, for a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-") or "unnamed"
