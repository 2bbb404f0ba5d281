"""`lifelong similarity`."""

from __future__ import annotations

import json
from typing import Annotated

from lifelong.commands.options import Json, Options, option, takes

ASKED, ADAPTED = "What is asked", "How targets are learned"


@takes(
    "scenario", "setting", "model", "optimiser", "seeds", "order_seed", "iterations", "epochs", "batch", "device",
    "threads", "data_root", setting="task", order_seed=0,
)  # fmt: skip
def similarity(
    *,
    target: Annotated[int, option(ASKED, "the task that arrives, from 3 on", "N", usual="the last")] = 0,
    rows: Annotated[int, option(ASKED, "training rows of each class that the scores see", "N")] = 50,
    adaptation: Annotated[
        list[str] | None,
        option(ADAPTED, "as in 'LinearProbe()', once for each method; `lifelong list adaptations`", "EXPR"),
    ] = None,
    shot: Annotated[int, option(ADAPTED, "rows of each class of a target", "N")] = 5,
    steps: Annotated[int, option(ADAPTED, "full-batch steps of an adaptation", "N")] = 50,
    adapt: Annotated[str, option(ADAPTED, "its optimiser; the rate is the middle of the grid", "EXPR")] = "Adam(0.003)",
    options: Options,
    as_json: Json = False,
) -> None:
    """Say which earlier task fits, and whether such scores hold.

    LEEP, LogME, H-score, task2vec and gradient cosine of every pair of tasks, and the transfer that is measured
    afterwards: a score is as good as its rank correlation with it.

    Example: lifelong similarity "rotated-digits(tasks=7, largest=90.0)" --shot 5
    """
    from lifelong.display.console import output, waiting

    with waiting(f"reading {options.scenario}"):
        from lifelong.display import similarity as tables
        from lifelong.display.live import Stages
        from lifelong.studies.transfer import similarity as measured

        request = options.request()
    words = (adaptation or [], shot, adapt, steps, rows, target)
    with Stages(options.scenario, quiet=as_json) as tell:
        study, place = measured(request, *words, tell)
    if as_json:
        print(json.dumps(tables.similarity_json(study)))
    else:
        tables.show_similarity(study, place, output)
