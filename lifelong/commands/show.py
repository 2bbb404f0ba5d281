"""`lifelong show`."""

from __future__ import annotations

from typing import Annotated

from lifelong.commands.options import OUTPUT, Runs, option


def show(runs: Runs, csv: Annotated[bool, option(OUTPUT, "print the accuracies as CSV", "", "--csv")] = False) -> None:
    """Show finished runs: one in full, several like with like.

    Folders that hold runs are looked into, unfinished ones passed over.

    Example: lifelong show runs/*
    """
    from lifelong.commands.learning import found_runs, show_runs
    from lifelong.display.console import output
    from lifelong.runs.groups import csv_of

    found = found_runs(runs)
    if csv:
        print(csv_of(found) if len(found) > 1 else found[0].to_csv(), end="")
        return
    if len(found) == 1:
        output.print(found[0].name)
    show_runs(found)
