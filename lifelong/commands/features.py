"""`lifelong features`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lifelong.commands.options import OUTPUT, Json, Options, option, takes
from scenarios.machine import LARGEST_SEED

NETWORK, ROWS = "The network", "What it sees"


@takes("batch", "device", "threads", "data_root", batch=256)
def features(
    *,
    data: Annotated[str, typer.Argument(metavar="DATA", help="a data set, an .npz file or a folder of images")],
    model: Annotated[
        str,
        option(NETWORK, "as in 'Conv4(32)', my.py:build, torchvision:resnet18, timm:NAME or transformers:NAME", "SPEC"),
    ],
    weights: Annotated[str, option(NETWORK, "its weights: .safetensors, torch.save's, or a start's file", "FILE")] = "",
    pretrained: Annotated[
        bool, option(NETWORK, "the weights that its package offers, which it fetches", "", "--pretrained")
    ] = False,
    pretrained_on: Annotated[str, option(NETWORK, "what the weights learned from, in words", usual="unknown")] = "",
    seed: Annotated[int, option(NETWORK, "of random weights", "N", most=LARGEST_SEED)] = 0,
    size: Annotated[int, option(ROWS, "scale images to N x N", "N", usual="as they are")] = 0,
    channels: Annotated[int, option(ROWS, "repeat grey images so often", "N", usual="as they are")] = 0,
    normalise: Annotated[str, option(ROWS, "imagenet or half", usual="0 ... 1")] = "",
    out: Annotated[Path | None, option(OUTPUT, "the table's file", "FILE.npz", usual="in features/")] = None,
    options: Options,
    as_json: Json = False,
) -> None:
    """Compute the features of a data set once, as a data set.

    The table knows the network, its weights and the data that it was made of: the same request finds it again.

    Example: lifelong features fashion-mnist --model "Conv4(32)" --out fashion.npz
    """
    from lifelong.display.console import output, say, waiting

    with waiting(f"reading {data}"):
        from lifelong.core.footprint import use_threads
        from lifelong.display.tables import listing
        from lifelong.runs import feature_tables

        use_threads(options.threads)
        words = {
            "data": data,
            "model": model,
            "weights": weights,
            "pretrained": pretrained,
            "seed": seed,
        }
        words |= {"pretrained_on": pretrained_on, "size": size, "channels": channels, "normalise": normalise}
        asked = feature_tables.of_words(
            {**words, "batch": options.batch, "device": options.device, "data_root": options.data_root}
        )
    with waiting(f"features of {data} by {model}"):
        table = feature_tables.feature_table(asked, out)
    if as_json:
        print(json.dumps(feature_tables.as_json(table)))
        return
    output.print(listing(f"{table.path}", feature_tables.about_lines(table)))
    say(f"saved in {table.path}" if table.is_new else f"{table.path} is there already, with this key: nothing was done")
    say(f"""learn it: lifelong run "split(data='{table.path}', tasks=5)" --learner "StreamingLDA()" """.strip())
