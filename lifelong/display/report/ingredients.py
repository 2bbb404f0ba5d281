"""The page of a study of ingredients: what each adds, in sentences and with its interval; then every combination."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lifelong.display.report.colours import LIGHT, Look, look
from lifelong.display.report.details import as_text, commands, folded
from lifelong.display.report.drawing import Drawing, axes_of, blank, marks, round_limits, shortened, style
from lifelong.display.report.figures import bounds, percent
from lifelong.display.report.frame import Numbers, answered, framed
from lifelong.display.report.tables import Markup, escaped, table
from lifelong.metrics import estimate
from lifelong.runs.labels import seeds_label
from lifelong.studies.ingredients import Effect, Mixed, load_mixed, sentences


def ingredients_page(folder: Path, title: str = "") -> str:
    """A page of a study of ingredients, from its folder. Raises RunError where it cannot be read, or is not finished."""
    mixed = load_mixed(folder)
    effects, numbers, request = mixed.effects(), Numbers(), mixed.ingredients.request
    measures = list(dict.fromkeys(effect.measure for effect in effects))
    words = [
        request.scenario,
        request.setting and f"{request.setting}-incremental",
        request.model,
        seeds_label(request.seeds),
    ]
    drawn = [numbers.drawn(added(effects, measure)) for measure in measures]
    how = "points added, mean over the combinations of the others, paired over seeds, ± half-width of the 95 % interval; established: p < 0.05 after Holm's correction within a measure"
    parts = [
        f"<section><p class=about>{''.join(f'<span>{escaped(word)}</span>' for word in words if word)}</p>",
        answered([f"<li>{escaped(sentence)}</li>" for sentence in sentences(effects)], how),
        f"<div class=three>{''.join(drawn)}</div>",
        f"<h3>Every combination</h3><p class=note>%, mean ± half-width of the 95 % interval over {len(request.seeds)} seeds</p>",
        _combinations(mixed, measures),
        f"<h3>What each ingredient adds</h3>{_effects(mixed, effects, measures)}<h3>Details</h3>",
        folded("Settings", as_text(mixed.ingredients.as_json())),
        folded(
            "Go on with it, or see its tables",
            commands([("this folder", f"lifelong resume {shlex.quote(str(folder))}")]),
        ),
        "</section>",
    ]
    return framed(title or f"{request.scenario}: what each ingredient adds", "", ["".join(parts)])


def ingredient_drawings(folder: Path) -> dict[str, Drawing]:
    """The page's figures, by the names of their files."""
    effects = load_mixed(folder).effects()
    measures = dict.fromkeys(effect.measure for effect in effects)
    return {f"added-{measure.replace(' ', '-')}": added(effects, measure) for measure in measures}


def _combinations(mixed: Mixed, measures: Sequence[str]) -> Markup:
    rows = []
    for combination in mixed.runs:
        values = mixed.measures(combination)
        rows.append([mixed.ingredients.name(combination), *(_shown(values.get(measure)) for measure in measures)])
    return table(["combination", *measures], rows)


def _effects(mixed: Mixed, effects: Sequence[Effect], measures: Sequence[str]) -> Markup:
    rows = []
    for name in dict.fromkeys(effect.ingredient for effect in effects):
        here = {effect.measure: effect for effect in effects if effect.ingredient == name}
        rows.append([mixed.ingredients.words[name], *(_added(here[measure]) for measure in measures)])
    return table(["ingredient", *measures], rows)


def _shown(values: Tensor | None) -> str:
    if values is None or not values.isfinite().any():
        return "–" if values is None else "diverged"
    return estimate(values, values.isfinite()).text(1)


def _added(effect: Effect) -> str:
    return f"{effect.added.text(1)}, p = {effect.p:.2g}{' *' if effect.established else ''}"


def added(effects: Sequence[Effect], measure: str, width: float = 400, height: float = 0) -> Drawing:
    """What each ingredient adds to a measure, with its interval: full where it is established."""
    here = [effect for effect in effects if effect.measure == measure]
    drawing = blank(width, height or 84 + 30 * len(here), f"Points of {measure} added")
    with style():
        axes = axes_of(drawing, left=130, right=20, top=26)
        axes.set_title(measure)
        axes.axvline(0, color=LIGHT["line"], linewidth=1)
        ends = [0.0]
        for row, effect in enumerate(here):
            drawn = look(row) if row < 8 else Look(LIGHT["other"])
            words = {"va": "center", "ha": "right", "transform": axes.get_yaxis_transform()}
            axes.text(-0.04, row, shortened(effect.word, 17), **words)
            if effect.added.mean != effect.added.mean:
                continue
            axes.plot(bounds(effect.added), [row, row], color=drawn.colour, linewidth=2)
            filled = drawn.colour if effect.established else LIGHT["paper"]
            told = f"{effect.word}: {effect.added.text(1)} points of {measure}, p = {effect.p:.2g}"
            marks(
                drawing,
                axes,
                [(percent(effect.added.mean), row, told)],
                drawn._replace(marker="o"),
                markerfacecolor=filled,
                markersize=7,
            )
            ends += bounds(effect.added)
        axes.set_xlim(*round_limits(ends, None))
        axes.set_ylim(len(here) - 0.4, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("points added; full: established")
    return drawing
