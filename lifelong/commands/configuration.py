"""`--config run.toml`, of every command that learns: its words stand in for those that the command line lacks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from lifelong.commands.options import OUTPUT, option

EITHER = (
    ("strategy", "learner"),
    ("iterations", "epochs"),
)  # of which a run has one: the line's, where a file has the other


def takes_configuration(function: Callable[..., None]) -> Callable[..., None]:
    """A command's function whose line has the option, too; it is read before all others, and hands the function nothing."""
    about = option(OUTPUT, "read words from here first, as from a run's run.toml", "PATH", usual="none")
    about.is_eager, about.callback = True, _read
    kind = Annotated[str, about]
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default="", annotation=kind)
    signature = inspect.signature(function, eval_str=True)

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    @functools.wraps(function)
    def command(context: typer.Context, **words: Any) -> None:
        del words["config"]
        for pair in EITHER:
            for ours, other in (pair, pair[::-1]):
                if _is_from(context, ours, "COMMANDLINE") and _is_from(context, other, "DEFAULT_MAP"):
                    words[other] = signature.parameters[other].default
        function(**words)

    vars(command)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), config, context])
    command.__annotations__ = {**function.__annotations__, "config": kind, "context": typer.Context}
    return command


def _is_from(context: typer.Context, name: str, source: str) -> bool:
    found = context.get_parameter_source(name)
    return found is not None and found.name == source


def _read(ctx: typer.Context, param: typer.CallbackParam, path: str) -> str:
    """Make the words of a file the defaults of a command's options; what the command line says wins."""
    if not path or ctx.resilient_parsing:
        return path
    from lifelong.display.console import say
    from lifelong.notation.user_code import name_files
    from lifelong.runs.configuration import read_configuration
    from lifelong.runs.user_files import code_named

    held = read_configuration(Path(path))
    known = {_word(parameter): parameter for parameter in ctx.command.params if parameter is not param}
    known = {word: parameter for word, parameter in known.items() if word and not getattr(parameter, "hidden", False)}
    ctx.default_map = {
        known[word].name: _fitting(path, word, value, known[word])
        for word, value in held.items()
        if _is_known(path, word, known, ctx.info_name or "")
    }
    texts = [
        text
        for value in held.values()
        if not isinstance(value, bool)
        for text in ([value] if isinstance(value, str) else value)
    ]
    name_files(texts)
    for name in code_named(texts):
        say(f"note: {path} names {name}, which is executed as if you had named it")
    return path


def _word(parameter: Any) -> str:
    """An option by its longest flag without dashes, an argument by its name."""
    if parameter.param_type_name == "argument":
        return parameter.name
    return max(parameter.opts, key=len).lstrip("-")


def _is_known(path: str, word: str, known: dict[str, Any], command: str) -> bool:
    from lifelong.notation.user_code import suggest
    from scenarios.errors import ConfigurationError

    if word not in known:
        raise ConfigurationError(
            f"--config {path}: `lifelong {command}` knows no {word[:40]!r}: {suggest(word, list(known))}"
        )
    return True


def _fitting(path: str, word: str, value: Any, parameter: Any) -> Any:
    """A value as its option takes it. Raises ConfigurationError for several where one is taken, and true for what is no flag."""
    from scenarios.errors import ConfigurationError

    if getattr(parameter, "is_flag", False) != isinstance(value, bool):
        usual = (
            "is true or false"
            if getattr(parameter, "is_flag", False)
            else "takes a text or a number, not true or false"
        )
        raise ConfigurationError(f"--config {path}: {word} {usual}")
    if getattr(parameter, "multiple", False) or parameter.nargs == -1:
        return [value] if isinstance(value, str) else value
    if isinstance(value, list):
        raise ConfigurationError(f"--config {path}: {word} takes one value, and there is a list")
    return value
