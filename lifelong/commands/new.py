"""`lifelong new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifelong.commands.completion import complete
from lifelong.commands.options import OUTPUT, option


def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="strategy, scenario, model, learner or meta", autocompletion=complete("files")
        ),
    ],
    path: Annotated[Path, typer.Argument(metavar="FILE.py", help="the file to write")],
    full: Annotated[bool, option(OUTPUT, "a strategy with every verb and its signature", "", "--full")] = False,
) -> None:
    """Write a small working file to start from.

    Example: lifelong new strategy my_idea.py
    """
    from lifelong.contracts.new import write_new
    from lifelong.display.console import output

    command = write_new(kind, path, full)
    output.print(f"wrote {path}; try it: {command}", soft_wrap=True)
