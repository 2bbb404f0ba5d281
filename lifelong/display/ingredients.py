"""What each ingredient adds, as tables in a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lifelong.metrics import estimate
from lifelong.studies.ingredients import Mixed, sentences


def ingredient_tables(mixed: Mixed) -> list[RenderableType]:
    """Every combination with its measures, what each ingredient adds, and that in sentences."""
    effects = mixed.effects()
    measures = list(dict.fromkeys(effect.measure for effect in effects))
    cells = _table(
        f"%, mean ± half-width of the 95 % interval over {len(mixed.ingredients.request.seeds)} seeds",
        "combination",
        measures,
    )
    crossed = True
    for combination in mixed.runs:
        if crossed and combination.beside:
            cells.add_section()
            crossed = False
        values = mixed.measures(combination)
        cells.add_row(mixed.ingredients.name(combination), *(_shown(values.get(measure)) for measure in measures))
    added = _table(
        "points added, mean over the combinations of the others; * p < 0.05 after Holm", "ingredient", measures
    )
    for name in dict.fromkeys(effect.ingredient for effect in effects):
        here = {effect.measure: effect for effect in effects if effect.ingredient == name}
        added.add_row(
            mixed.ingredients.words[name],
            *(f"{here[measure].added.text(1)}{'*' if here[measure].established else ''}" for measure in measures),
        )
    return [cells, added, *(Text(f"• {sentence}") for sentence in sentences(effects))]


def _table(title: str, first: str, measures: list[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for measure in measures:
        table.add_column(measure, justify="right")
    return table


def _shown(values: Tensor | None) -> str:
    if values is None or not values.isfinite().any():
        return "–" if values is None else "diverged"
    return estimate(values, values.isfinite()).text(1)
