"""The options that several commands share: one place says the name, type, default, help and group of each.

`Options` has a field for each of them. `takes` puts fields on a command line: where a command's function has the
parameter `options`, the signature that typer sees has these fields in its place, and the function is called with the
`Options` that they make. So an option is added by adding a field: commands that take all of them have it from then on,
and `Options.request` hands it to the run. What is no part of a request, as a folder to write to, is a type at the end.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from lifelong.commands.completion import complete

if TYPE_CHECKING:
    from lifelong.runs.request import Request

LEARNED, SEEDS, BUDGET = "What is learned", "Seeds", "Budget"
EVALUATION, MACHINE, OUTPUT = "Evaluation", "Machine", "Output"
USUAL = "the scenario's"


def option(group: str, help: str, metavar: str = "TEXT", *flags: str, **more: Any) -> Any:
    """An option in a group. flags: where they are not its name's; more: as `typer.Option` takes it."""
    return typer.Option(*flags, help=help, rich_help_panel=group, metavar=metavar or None, **more)


@dataclass(frozen=True)
class Options:
    """What is run, on what, for how long, and where; a field of the same name in `lifelong.runs.request.Request`."""

    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="a named scenario, as in split-digits or 'split-digits(tasks=2)'; `lifelong list scenarios`",
            autocompletion=complete("scenarios"),
        ),
    ] = ""
    setting: Annotated[
        str, option(LEARNED, "task, domain or class", show_default=USUAL, autocompletion=complete("settings"))
    ] = ""
    model: Annotated[
        str,
        option(
            LEARNED, "as in 'MLP(400, 400)' or 'my_net.py:Net(width=32)'", "EXPR",
            show_default=USUAL, autocompletion=complete("models"),
        ),
    ] = ""  # fmt: skip
    optimiser: Annotated[
        str,
        option(LEARNED, "as in 'Adam(0.001)'", "EXPR", show_default=USUAL, autocompletion=complete("optimisers")),
    ] = ""
    init: Annotated[str, option(LEARNED, "where the network starts: drawn, learned, or a file of a start", "EXPR")] = (
        "Random()"
    )
    seeds: Annotated[
        str, option(SEEDS, "3 is seeds 0, 1, 2; 3,4,9 are those; 3:4 is seed 3 alone, 7:12 is 7 ... 11", "SEEDS")
    ] = "5"
    order_seed: Annotated[
        int, option(SEEDS, "order of classes and tasks for all seeds", "N", show_default="each seed's own")
    ] = -1
    start_seed: Annotated[int, option(SEEDS, "first weights for all seeds", "N", show_default="each seed's own")] = -1
    data_seed: Annotated[
        int, option(SEEDS, "order of rows, and all draws, for all seeds", "N", show_default="each seed's own")
    ] = -1
    iterations: Annotated[int, option(BUDGET, "iterations of each task", "N", show_default=USUAL)] = 0
    epochs: Annotated[
        float, option(BUDGET, "instead of iterations: passes over each task", "X", show_default=USUAL)
    ] = 0.0
    batch: Annotated[int, option(BUDGET, "rows of a batch", "N", show_default=USUAL)] = 0
    repeats: Annotated[
        int, option(BUDGET, "steps on each batch before the next one comes", "N", show_default=USUAL)
    ] = 0
    eval_every: Annotated[
        int, option(EVALUATION, "evaluate also every so many iterations", "N", show_default="at task ends")
    ] = 0
    eval_rows: Annotated[int, option(EVALUATION, "test rows, in all, of the evaluations along the way", "N")] = 1000
    few_shot: Annotated[
        str, option(EVALUATION, "before each task, adapt with so many rows of each class, as in 1,5,10", "SHOTS")
    ] = ""
    device: Annotated[str, option(MACHINE, "auto, cpu, cuda, cuda:1 or mps", autocompletion=complete("devices"))] = (
        "auto"
    )
    fleet: Annotated[int, option(MACHINE, "seeds that run together", "N", show_default="all")] = 0
    compile: Annotated[bool, option(MACHINE, "compile the gradient: 45 s once, then faster", "", "--compile")] = False
    threads: Annotated[int, option(MACHINE, "processor threads; equal to the bit only for equal threads", "N")] = 1
    data_root: Annotated[
        str,
        option(MACHINE, "folder of the data sets", "PATH", show_default="$LIFELONG_DATA, or the user's cache"),
    ] = ""

    def request(self, **method: Any) -> Request:
        """The request that these words make, with a method's own words."""
        from lifelong.runs.request import Request, read_seeds

        return Request(**{**vars(self), "seeds": read_seeds(self.seeds), **method})

    def given(self, *names: str) -> list[str]:
        """The flags of those fields that are not at their defaults."""
        defaults = {field.name: field.default for field in fields(self)}
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != defaults[name]]


def takes(*names: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put fields of `Options` on a command's line, in place of its parameter `options`; without names, all of them.

    defaults: of this command, where they are not those of the fields.
    """
    hints, usual = (
        get_type_hints(Options, include_extras=True),
        {field.name: field.default for field in fields(Options)},
    )
    chosen = [name for name in usual if name in names] if names else list(usual)

    def parameter(name: str) -> inspect.Parameter:
        kind, about = get_args(hints[name])
        if isinstance(about, typer.models.ArgumentInfo):
            return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        if name in defaults:
            about = copy.copy(about)
            about.show_default = True
        default = defaults.get(name, usual[name])
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, about]
        )

    def taken(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**words: Any) -> None:
            function(options=Options(**{name: words.pop(name) for name in chosen}), **words)

        line = [
            part
            for place in inspect.signature(function, eval_str=True).parameters.values()
            for part in (map(parameter, chosen) if place.name == "options" else [place])
        ]
        command.__signature__ = inspect.Signature(line)  # type: ignore[attr-defined]
        command.__annotations__ = {part.name: part.annotation for part in line}
        return command

    return taken


Strategies = Annotated[
    list[str] | None,
    option(LEARNED, "as in 'Replay(size=200)', once for each method", "EXPR", autocompletion=complete("strategies")),
]
Out = Annotated[Path, option(OUTPUT, "folder that the run's folder is made in", "PATH")]
Json = Annotated[bool, option(OUTPUT, "print what was measured as JSON, and nothing else", "", "--json")]
CheckpointEvery = Annotated[float, typer.Option(hidden=True)]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs, or of several")]
