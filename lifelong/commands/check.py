"""`lifelong check`."""

from __future__ import annotations

from typing import Annotated

import typer


def check(
    target: Annotated[str, typer.Argument(metavar="FILE.py[:NAME]", help="your file, or one thing in it")],
) -> None:
    """Run the contract on your own file, one line for each check.

    On each strategy, learner, model, initialisation and registered scenario that it defines.

    Example: lifelong check my_idea.py
    """
    import torch
    from rich.text import Text

    from lifelong.contracts.check import check_target
    from lifelong.display.console import output, refuse

    torch.set_num_threads(1)
    failures = 0
    for name, subject, problem, hint in check_target(target):
        failures += bool(problem)
        verdict = ("fails", "red") if problem else ("holds", "green")
        output.print(
            Text.assemble(verdict, f"  {subject}: {name}", f": {problem}. {hint}" if problem else ""), soft_wrap=True
        )
    if failures:
        refuse(f"{failures} of the contract's checks failed")
        raise typer.Exit(2)
