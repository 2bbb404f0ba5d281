"""`lifelong crossover`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lifelong.commands.options import Json, Options, option, takes
from scenarios.errors import ConfigurationError

TESTED, OUTPUT = "What is tested on", "Output"


@takes("device", "threads", "data_root")
def crossover(
    *,
    starts: Annotated[list[Path], typer.Argument(metavar="FILE...", help="starts that `lifelong pretrain` wrote")],
    data: Annotated[str, option(TESTED, "a data set", usual="that of the first start's scenario")] = "",
    shots: Annotated[str, option(TESTED, "k: rows of each class", "SHOTS")] = "1,2,5,10",
    way: Annotated[int, option(TESTED, "classes of an episode", "N", usual="as trained")] = 0,
    query: Annotated[int, option(TESTED, "query images of each class, at most", "N")] = 15,
    episodes: Annotated[int, option(TESTED, "episodes of each seed, the same for all starts and k", "N")] = 100,
    steps: Annotated[int, option(TESTED, "full-batch steps of fine-tuning, Adam; its rate is chosen", "N")] = 50,
    figure: Annotated[Path | None, option(OUTPUT, "draw the curves, too, as .pdf, .svg or .png", "PATH")] = None,
    options: Options,
    as_json: Json = False,
) -> None:
    """Say from how many examples on fine-tuning beats a meta-learner.

    On classes that no start saw, each start answers in its own way, and by fine-tuning all of its weights; random networks
    are fine-tuned beside them. The rate of fine-tuning is chosen for each of them and each k on a fifth of the classes.

    Example: lifelong crossover maml.safetensors --shots 1,2,5,10 --figure curves.pdf
    """
    from lifelong.display.console import output, say, waiting

    with waiting("reading the starts"):
        from lifelong.adaptation.few_shot import read_shots
        from lifelong.core.files import write
        from lifelong.core.footprint import use_threads
        from lifelong.display.crossover import crossover_figure, crossover_json, crossover_table, pairs_of
        from lifelong.display.live import Stages
        from lifelong.display.report.files import as_bytes, check_kind
        from lifelong.studies.crossover import RANDOM, CrossoverProtocol, crossover_of_files

        use_threads(options.threads)
        kind = figure.suffix.removeprefix(".") if figure else ""
        if figure:  # before minutes of work, not after them
            check_kind(kind, "--figure")
            if not figure.parent.is_dir():
                raise ConfigurationError(f"--figure {figure}: there is no folder {figure.parent}")
            if figure.is_dir():
                raise ConfigurationError(f"--figure {figure} is a folder: name a file")
        protocol = CrossoverProtocol(read_shots(shots), way, query, episodes, steps=steps)
    with Stages("curves", quiet=as_json) as tell:
        study = crossover_of_files(starts, data, protocol, options.data_root, options.device, tell)
    if as_json:
        print(json.dumps(crossover_json(study)))
    else:
        output.print(*crossover_table(study, output.width))
    if figure:
        write(figure, as_bytes(crossover_figure(study, pairs_of(study, RANDOM)), kind))
        say(f"figure: {figure}")
