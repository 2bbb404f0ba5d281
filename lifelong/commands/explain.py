"""`lifelong explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from lifelong.commands.completion import complete


def explain(
    expression: Annotated[
        str,
        typer.Argument(
            metavar="EXPR", help="a strategy or a sum; a learner, model ...", autocompletion=complete("strategies")
        ),
    ],
    scenario: Annotated[
        str,
        typer.Option(metavar="TEXT", help="where its memory is measured", autocompletion=complete("scenarios")),
    ] = "split-digits",
) -> None:
    """Say what a strategy's parts change, store and cost.

    And what to expect of them. Of a learner, a model or another thing that can be named: what it is, and what it keeps.

    Example: lifelong explain "EWC(strength=100.0) + Replay(size=200)"
    """
    from lifelong.display.console import output, waiting

    with waiting(f"measuring on {scenario}"):
        from lifelong.display.explain import explain as explained

        words = explained(expression, scenario)
    output.print(words)
