"""`lifelong export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from lifelong.commands.options import OUTPUT, Runs, option
from scenarios.errors import ConfigurationError


def export(
    runs: Runs,
    to: Annotated[str, option(OUTPUT, "csv, json, parquet, npz or latex", "FORMAT", "--to", names="formats")] = "csv",
    table: Annotated[
        str, option(OUTPUT, "metrics, accuracy, losses or probes: a line for each", "TABLE", names="tables")
    ] = "metrics",
    metrics: Annotated[
        str, option(OUTPUT, "columns of LaTeX, as in average_accuracy,forgetting", "NAMES", usual="three of them")
    ] = "",
    output: Annotated[
        Path | None, option(OUTPUT, "the file to write", "PATH", usual="standard output, where it is text")
    ] = None,
) -> None:
    """Write finished runs as a table for other programs.

    Every line says its run, method, data, scenario, setting, model, budget and seed; values are fractions of 1. LaTeX has a
    table of means with intervals, in percent, for each group of runs that can be compared.

    Example: lifelong export runs/* --to latex --metrics average_accuracy,forgetting
    """
    from lifelong.commands.learning import found_runs
    from lifelong.display.console import say
    from lifelong.runs.export import BINARY, write_export
    from lifelong.runs.export import export as exported

    if output is None and to in BINARY:
        raise ConfigurationError(f"{to} is no text: say with --output which file to write")
    content = exported(found_runs(runs), to, table, [name.strip() for name in metrics.split(",") if name.strip()])
    if output is None:
        sys.stdout.write(content.decode())
    else:
        write_export(output, content)
        say(f"exported: {output}")
