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
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from lifelong.commands.completion import complete
from scenarios.errors import ConfigurationError
from scenarios.machine import LARGEST_SEED, MOST

if TYPE_CHECKING:
    from lifelong.runs.request import Request

LEARNED, SEEDS, BUDGET = "What is learned", "Seeds", "Budget"
EVALUATION, MACHINE, OUTPUT = "Evaluation", "Machine", "Output"
SCENARIO = "as in split-digits or 'split-digits(tasks=2)'; all: `lifelong list scenarios`"
MODEL = "as in 'MLP(400, 400)' or 'my_net.py:Net(width=32)'"
MOST_OF = {"N": MOST, "X": 3.4e38}  # counts, and what float32 holds
USUAL, OWN = "the scenario's", "each seed's own"


def option(
    group: str, help: str, metavar: str = "TEXT", *flags: str, usual: str = "", names: str = "", most: float = 0
) -> Any:
    """An option under a heading.

    metavar: what stands for its value, "" for none. flags: where they are not its name's. usual: its default in words.
    names: the kind of what it names, for completion, see `lifelong.commands.completion.names`. most: the largest number,
    where it is not that of the metavar in `MOST_OF`.
    """
    return typer.Option(
        *flags, help=help, rich_help_panel=group, metavar=metavar or None, show_default=usual or True,
        autocompletion=complete(names) if names else None, callback=_within(most or MOST_OF.get(metavar, 0)),
    )  # fmt: skip


def _within(most: float) -> Callable[[typer.CallbackParam, Any], Any] | None:
    """What refuses a number that is not finite or beyond a bound, before anything is computed with it."""

    def check(parameter: typer.CallbackParam, value: Any) -> Any:
        if value is not None and not abs(value) <= most:
            bound = f"{most:,}" if isinstance(most, int) else f"{most:g}"
            raise ConfigurationError(f"{parameter.opts[0]} {str(value)[:30]}: a number up to {bound} can stand here")
        return value

    return check if most else None


def shared(default: Any, about: Any) -> Any:
    """A field of `Options`: its default, and its option or argument."""
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True)
class Options:
    """What is run, on what, for how long, and where; a field of the same name in `lifelong.runs.request.Request`."""

    scenario: str = shared("", typer.Argument(metavar="SCENARIO", help=SCENARIO, autocompletion=complete("scenarios")))
    setting: str = shared("", option(LEARNED, "task, domain or class", usual=USUAL, names="settings"))
    model: str = shared("", option(LEARNED, MODEL, "EXPR", usual=USUAL, names="models"))
    optimiser: str = shared("", option(LEARNED, "as in 'Adam(0.001)'", "EXPR", usual=USUAL, names="optimisers"))
    memory: str = shared(
        "", option(LEARNED, "the same for every method: rows as images, weights, statistics; as in 500kB", "BYTES")
    )
    init: str = shared(
        "Random()", option(LEARNED, "where the network starts: drawn, learned, or a start's file", "EXPR")
    )
    trainable: str = shared(
        "", option(LEARNED, "what of the network moves: head, trunk, or names with * and commas", usual="all")
    )
    seeds: str = shared(
        "5", option(SEEDS, "3 is seeds 0, 1, 2; 3,4,9 are those; 3:4 is seed 3 alone, 7:12 is 7 ... 11", "SEEDS")
    )
    order_seed: int = shared(
        -1, option(SEEDS, "order of classes and tasks for all seeds", "N", usual=OWN, most=LARGEST_SEED)
    )
    start_seed: int = shared(-1, option(SEEDS, "first weights for all seeds", "N", usual=OWN, most=LARGEST_SEED))
    data_seed: int = shared(
        -1, option(SEEDS, "order of rows, and all draws, for all seeds", "N", usual=OWN, most=LARGEST_SEED)
    )
    iterations: int = shared(0, option(BUDGET, "iterations of each task", "N", usual=USUAL))
    epochs: float = shared(
        0.0, option(BUDGET, "instead of iterations; 1 is exactly one pass over each task", "X", usual=USUAL)
    )
    batch: int = shared(0, option(BUDGET, "rows of a batch", "N", usual=USUAL))
    repeats: int = shared(0, option(BUDGET, "steps on each batch before the next one comes", "N", usual=USUAL))
    eval_every: int = shared(0, option(EVALUATION, "evaluate also every so many iterations", "N", usual="at task ends"))
    eval_rows: int = shared(1000, option(EVALUATION, "test rows, in all, of the evaluations along the way", "N"))
    few_shot: str = shared(
        "", option(EVALUATION, "before each task, adapt with so many rows of each class, as in 1,5,10", "SHOTS")
    )
    linear_probe: bool = shared(
        False,
        option(EVALUATION, "after each task fit a head anew: was it head or trunk that forgot?", "", "--linear-probe"),
    )
    probe: str = shared(
        "",
        option(
            EVALUATION, "measure more of the network, as in 'DormantUnits(), EffectiveRank()'", "EXPR", names="probes"
        ),
    )
    device: str = shared("auto", option(MACHINE, "auto, cpu, cuda, cuda:1 or mps", names="devices"))
    fleet: int = shared(0, option(MACHINE, "seeds that run together", "N", usual="all"))
    compile: bool = shared(False, option(MACHINE, "compile the step: a minute once, then faster", "", "--compile"))
    threads: int = shared(1, option(MACHINE, "processor threads; equal to the bit only for equal threads", "N"))
    data_root: str = shared(
        "", option(MACHINE, "folder of the data sets", "PATH", usual="$LIFELONG_DATA, or the user's cache")
    )

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
    kinds = get_type_hints(Options)
    chosen = [field for field in fields(Options) if not names or field.name in names]

    def parameter(field: Field[Any]) -> inspect.Parameter:
        about, default = copy.copy(field.metadata["about"]), defaults.get(field.name, field.default)
        if field.name in defaults:
            about.show_default = True
        if isinstance(about, typer.models.ArgumentInfo):  # where a command takes it, it must be given
            default = inspect.Parameter.empty
        kind = Annotated[kinds[field.name], about]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

    def taken(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        line = [
            part
            for place in signature.parameters.values()
            for part in (map(parameter, chosen) if place.name == "options" else [place])
        ]
        seen = signature.replace(parameters=line)

        @functools.wraps(function)
        def command(**words: Any) -> None:
            given = seen.bind(**words)
            given.apply_defaults()
            options = {field.name: given.arguments.pop(field.name) for field in chosen}
            function(options=Options(**options), **given.arguments)

        vars(command)["__signature__"] = seen
        command.__annotations__ = {part.name: part.annotation for part in line}
        return command

    return taken


Strategies = Annotated[
    list[str] | None,
    option(LEARNED, "as in 'Replay(size=200)', once for each method", "EXPR", names="strategies"),
]
Out = Annotated[Path, option(OUTPUT, "folder that the run's folder is made in", "PATH")]
Json = Annotated[bool, option(OUTPUT, "print what was measured as JSON, and nothing else", "", "--json")]
Track = Annotated[
    str,
    option(OUTPUT, "also write for tensorboard or wandb (offline), below the run's folder", "NAMES", names="trackers"),
]
CheckpointEvery = Annotated[float, typer.Option(hidden=True)]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs, or of several")]
