"""`lifelong report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lifelong.commands.options import OUTPUT, Runs, option


def report(
    runs: Runs, output: Annotated[Path, option(OUTPUT, "the page to write", "PATH")] = Path("report.html")
) -> None:
    """Write one HTML page about finished runs.

    It loads nothing from outside.

    Example: lifelong report runs/* --output report.html
    """
    from lifelong.commands.learning import found_runs
    from lifelong.display.console import say
    from lifelong.display.page import write_report
    from lifelong.runs.groups import groups_of

    write_report(groups_of(found_runs(runs)), output)
    say(f"report: {output}")
