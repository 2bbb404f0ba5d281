"""`lifelong meta-test`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lifelong.commands.options import Json, Options, option, takes
from scenarios.errors import ConfigurationError

TESTED, EPISODES, ONLINE = "What is tested on", "Episodes", "Or a stream"


@takes("device", "threads", "data_root")
def meta_test(
    *,
    starts: Annotated[list[Path], typer.Argument(metavar="FILE...", help="starts that `lifelong pretrain` wrote")],
    data: Annotated[str, option(TESTED, "a data set", usual="that of the start's scenario")] = "",
    way: Annotated[int, option(EPISODES, "classes of an episode", "N", usual="as trained")] = 0,
    shot: Annotated[int, option(EPISODES, "support images of each class", "N", usual="as trained")] = -1,
    query: Annotated[int, option(EPISODES, "query images of each class", "N")] = 15,
    episodes: Annotated[int, option(EPISODES, "episodes, the same for all starts", "N")] = 600,
    online: Annotated[
        int, option(ONLINE, "learn so many classes one after another, image by image", "N", usual="episodes")
    ] = 0,
    strategy: Annotated[
        list[str] | None,
        option(ONLINE, "with --online, as in 'Replay(size=200)'", "EXPR", names="strategies"),
    ] = None,
    runs: Annotated[int, option(ONLINE, "with --online: draws of the classes", "N")] = 10,
    optimiser: Annotated[
        str, option(ONLINE, "with --online: of the head, as in 'SGD()'; its rate is chosen from a grid", "EXPR")
    ] = "Adam()",
    options: Options,
    as_json: Json = False,
) -> None:
    """Test starts on classes that they never saw.

    In few-shot episodes, or on a stream of classes learned online.

    Example: lifelong meta-test start.safetensors --way 5 --shot 1 --episodes 600
    """
    from lifelong.display.console import output, waiting

    of_episodes = {"--way": way > 0, "--shot": shot >= 0, "--query": query != 15, "--episodes": episodes != 600}
    of_online = {"--strategy": bool(strategy), "--runs": runs != 10, "--optimiser": optimiser != "Adam()"}
    for word in (word for word, given in (of_episodes if online else of_online).items() if given):
        raise ConfigurationError(f"{word} {'does not go' if online else 'goes'} with --online")
    with waiting("reading the starts"):
        from lifelong.core.footprint import use_threads
        from lifelong.display.initialisations import tested
        from lifelong.display.live import EpisodeWatcher
        from lifelong.runs.initialisation_files import few_shot_rows, online_rows

        use_threads(options.threads)
    root, device = options.data_root, options.device
    if online:
        rows = online_rows(starts, data, online, strategy or ["FineTuning()"], runs, optimiser, root, device)
    else:
        with EpisodeWatcher() as tell:
            rows = few_shot_rows(starts, data, way, shot, query, episodes, root, device, tell)
    print(json.dumps(rows)) if as_json else output.print(*tested(rows))
