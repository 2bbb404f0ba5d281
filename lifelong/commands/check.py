"""`lifelong check`."""

from __future__ import annotations

from typing import Annotated

import typer

from lifelong.commands.completion import complete


def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py[:NAME]|EXPR",
            help="your file, a thing in it, or one of ours, as in 'MAML(steps=5)'",
            autocompletion=complete("initialisations"),
        ),
    ],
) -> None:
    """Run the contract on your own file, one line for each check.

    On each strategy, learner, model, initialisation and registered scenario that it defines; on one of ours, too, as in
    "MAML(steps=5)". Of an initialisation a diagnosis follows: where its gradient comes from, and what leaks. The contract
    alone decides the exit code.

    Example: lifelong check my_idea.py
    """
    import torch
    from rich.text import Text

    from lifelong.contracts.check import check_subject, findings, subjects_of
    from lifelong.display.console import output, refuse
    from lifelong.display.diagnosis import diagnosis

    torch.set_num_threads(1)
    failures = 0
    for key, subject in subjects_of(target):
        seen: set[str] = set()  # what breaks every check is said once, and once alone has to be mended
        for name, problem, hint in check_subject(subject):
            failures += bool(problem)
            verdict = ("fails", "red") if problem else ("holds", "green")
            reason = "the same" if problem in seen else f"{problem}. {hint}"
            output.print(Text.assemble(verdict, f"  {key}: {name}", f": {reason}" if problem else ""), soft_wrap=True)
            seen |= {problem}
        for part in diagnosis(key, findings(subject)):
            output.print(part)
    if failures:
        refuse(f"{failures} of the contract's checks failed")
        raise typer.Exit(2)
