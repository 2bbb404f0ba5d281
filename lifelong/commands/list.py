"""`lifelong list`."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from lifelong.commands.completion import WORDS, complete
from scenarios.errors import ConfigurationError

KINDS = WORDS["kinds"]


def list(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=", ".join(KINDS), show_default="all", autocompletion=complete("kinds")),
    ] = "",
) -> None:
    """List what can be named: scenarios, strategies, models ...

    Example: lifelong list strategies
    """
    from lifelong.display.console import output
    from lifelong.display.tables import listing, methods_table
    from lifelong.metrics import METRICS
    from lifelong.notation.expression import suggest, vocabulary
    from scenarios.catalogue import CATALOGUE
    from scenarios.datasets import DATASETS

    if kind and kind not in KINDS:
        raise ConfigurationError(f"unknown kind {kind!r}: {suggest(kind, KINDS)}")
    for title in [kind] if kind else KINDS:
        if title == kind and kind in ("strategies", "learners"):
            output.print(methods_table(title, vocabulary(title)))
            continue
        if title in ("scenarios", "data"):
            rows = {name: entry.about for name, entry in (CATALOGUE if title == "scenarios" else DATASETS).items()}
        else:
            known = METRICS if title == "metrics" else vocabulary(title)
            rows = {name: (inspect.getdoc(value) or "").partition("\n")[0] for name, value in known.items()}
        output.print(listing(title, rows))
