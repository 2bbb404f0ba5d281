"""`lifelong distil`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lifelong.commands.options import LEARNED, Json, Options, option, takes


@takes("model", "optimiser", "iterations", model="MLP(50)")
def distil(
    *,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="the folder of a finished run: the teacher")],
    share: Annotated[float, option(LEARNED, "share of the training rows that the student sees", "X")] = 0.1,
    alpha: Annotated[float, option(LEARNED, "weight of the labels; 1 - alpha is the teacher's", "X")] = 0.1,
    temperature: Annotated[float, option(LEARNED, "by which both scores are divided", "X")] = 2.0,
    features: Annotated[float, option(LEARNED, "weight of the teacher's features, by a projector", "X")] = 0.0,
    relations: Annotated[float, option(LEARNED, "weight of distances between rows; angles count twice", "X")] = 0.0,
    options: Options,
    as_json: Json = False,
) -> None:
    """Teach a fresh network by a finished run, on fewer rows.

    Beside it learns the same network without a teacher. The students learn all tasks at once, whatever their teacher did:
    "taught - alone" compares like with like, a student with its teacher does not.

    Example: lifelong distil runs/digits --model "MLP(50)" --share 0.1
    """
    from lifelong.display.console import output, refuse, waiting

    with waiting(f"learning students of {run}"):
        from lifelong.display.transfer import distilled_json, distilled_table
        from lifelong.studies.transfer import distil as distilled
        from lifelong.studies.transfer import way_of_teaching

        how = way_of_teaching(alpha, temperature, features, relations)
        results, words = distilled(run, options.model, share, how, options.optimiser, options.iterations)
    print(json.dumps(distilled_json(results, words))) if as_json else output.print(distilled_table(results, words))
    if not all(bool(result.kept.all()) for result in results.values()):
        refuse("some seeds diverged, and were left out")
        raise typer.Exit(1)
