"""`lifelong pretrain`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

from lifelong.commands.options import EVALUATION, LEARNED, OUTPUT, CheckpointEvery, Json, Options, option, takes


@takes("scenario", "model", "seeds", "device", "threads", "data_root", seeds="1")
def pretrain(
    *,
    init: Annotated[str, option(LEARNED, "what learns, as in 'MAML(way=5, shot=1, iterations=2000)'", "EXPR")],
    options: Options,
    validate_every: Annotated[
        int, option(EVALUATION, "iterations between validations", "N", usual="a tenth of all")
    ] = 0,
    episodes: Annotated[int, option(EVALUATION, "validation episodes", "N")] = 200,
    output: Annotated[Path, option(OUTPUT, "the file to write; a checkpoint lies beside it meanwhile", "PATH")],
    as_json: Json = False,
    checkpoint_every: CheckpointEvery = 60.0,
) -> None:
    """Learn a start on a scenario's background classes, for --init.

    After a stop, the same command goes on where it was.

    Example: lifelong pretrain split-omniglot --init "MAML()" --output maml.safetensors
    """
    from lifelong.display import console

    with console.waiting(f"reading {options.scenario}"):
        from lifelong.core.footprint import use_threads
        from lifelong.core.stopped import Stopped
        from lifelong.display.initialisations import initialisation_table
        from lifelong.display.live import PretrainingWatcher
        from lifelong.runs.execute import stopping
        from lifelong.runs.initialisation_files import Work

        use_threads(options.threads)
        work = Work(options.request(init=init), output, validate_every, episodes, checkpoint_every)
    try:
        with stopping(work.checkpointer), PretrainingWatcher(init.partition("(")[0]) as watch:
            about = work.learn(None if as_json else watch)
    except Stopped:
        raise Stopped(f"`{shlex.join(['lifelong', *sys.argv[1:]])}` goes on") from None
    if as_json:
        print(json.dumps(about))
    else:
        console.output.print(initialisation_table(about))
        console.say(f"saved in {output}")
