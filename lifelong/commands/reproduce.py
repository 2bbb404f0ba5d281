"""`lifelong reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifelong.commands.options import OUTPUT, Options, option, takes
from scenarios.errors import in_a_line

ROWS = "names of rows or their beginnings, as in split-mnist-class-ewc,sines"


@takes("device", "data_root")
def reproduce(
    *,
    name: Annotated[str, typer.Argument(metavar="ROWS", help=ROWS, show_default="all that are not done")] = "",
    options: Options,
    record: Annotated[Path, option(OUTPUT, "where cells are kept", "PATH")] = Path("docs/reference.json"),
    page: Annotated[Path, option(OUTPUT, "the table to write", "PATH")] = Path("docs/reference.md"),
    table_only: Annotated[bool, option(OUTPUT, "write the page from what is kept", "", "--table-only")] = False,
    cheap_first: Annotated[bool, option(OUTPUT, "by the seconds of earlier cells", "", "--cheap-first")] = False,
) -> None:
    """Run published tables again: protocol, ours, theirs, verdict.

    Finished cells are kept, so it can be cut off.

    Example: lifelong reproduce split-mnist-class-er
    """
    import torch

    from lifelong.display.console import output
    from lifelong.display.sine_curves import write_sine_curves
    from lifelong.studies.published.reproduce import reproduce as again

    torch.set_num_threads(1)
    try:
        for line in again(name, options.data_root, record, page, options.device, table_only, cheap_first):
            output.print(in_a_line(line), soft_wrap=True)
    finally:  # the page that shows it is written after every cell, also where a later one fails or is cut off
        write_sine_curves(record, page)
