"""`lifelong transfer`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lifelong.commands.options import Json, Options, option, takes

ADAPTED = "How targets are learned"


@takes(
    "scenario", "setting", "model", "optimiser", "seeds", "order_seed", "iterations", "epochs", "batch", "device",
    "threads", "data_root", setting="task", order_seed=0,
)  # fmt: skip
def transfer(
    *,
    adaptation: Annotated[
        list[str] | None,
        option(ADAPTED, "as in 'LinearProbe()', once for each method; `lifelong list adaptations`", "EXPR"),
    ] = None,
    shots: Annotated[
        str, option(ADAPTED, "rows of each class of a target; all: as many as each has", "SHOTS")
    ] = "1,5,10",
    steps: Annotated[int, option(ADAPTED, "full-batch steps of an adaptation", "N")] = 50,
    adapt: Annotated[str, option(ADAPTED, "its optimiser; the rate is the middle of the grid", "EXPR")] = "Adam(0.003)",
    options: Options,
    as_json: Json = False,
) -> None:
    """Learn each task, adapt to each other one, compare with scratch.

    A task is learned as a source, and each target from k rows of each of its classes. All seeds have the same tasks, so
    that a cell is of one pair of them; seeds differ in first weights and rows.

    Example: lifelong transfer split-digits --adaptation "LinearProbe()" --shots 1,5,all
    """
    from lifelong.display.console import output, refuse, waiting

    with waiting(f"reading {options.scenario}"):
        from lifelong.display import transfer as tables
        from lifelong.display.live import Stages
        from lifelong.studies.transfer import transfer as measured

        request = options.request()
    with Stages(options.scenario, quiet=as_json) as tell:
        matrices = measured(request, adaptation or [], shots, adapt, steps, tell)
    if as_json:
        print(json.dumps(tables.transfer_json(matrices)))
    else:
        tables.show_transfer(matrices, output)
    if not all(bool(matrix.kept.all()) for matrix in matrices):
        refuse("some seeds diverged in a source, and were left out")
        raise typer.Exit(1)
