"""`lifelong resume`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lifelong.commands.options import CheckpointEvery, Json


def resume(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="the folder of a run, or of a comparison")],
    as_json: Json = False,
    checkpoint_every: CheckpointEvery = 60.0,
) -> None:
    """Go on with a run that was stopped or killed.

    What comes out is equal, bit for bit on a CPU, to a run that never was stopped. A finished run is shown. Of a
    comparison of paradigms, or of ingredients, what is finished is kept.

    Example: lifelong resume runs/digits
    """
    from lifelong.commands.learning import compare_paradigms, finish, mix_ingredients
    from lifelong.display.console import say, waiting

    if os.path.lexists(path / "paradigms.json"):
        return compare_paradigms(path, Path(), None, as_json)
    if os.path.lexists(path / "ingredients.json"):
        return mix_ingredients(path, Path(), None, as_json)
    with waiting(f"reading {path}"):
        from lifelong.core.footprint import use_threads
        from lifelong.runs.folder import RunFolder

        folder = RunFolder.open(path, checkpoint_every)
        changes = []
        if not folder.finished:
            use_threads(folder.request.threads)
            changes = folder.changes()
    for change in changes:
        say(f"warning: {change}")
    finish(folder, as_json, new=False)
