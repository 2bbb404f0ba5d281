"""The public surface, by introspection: signatures, fields and docstrings of what packages offer, and the commands' help."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from prose import cell, code, escaped, fenced, first_line, markdown, settings_in, table, written

from lifelong.core.strategy import VERBS, Strategy
from scenarios.public import typed_names

WIDTH, TAB = 78, "    "  # characters of a line of code on a page
DRAWS = ("draws", "task_draws", "prepare_draws", "notes", "notes_beside")


def pages() -> dict[str, str]:
    """Pages of the reference by name, as Markdown."""
    metrics = importlib.import_module("lifelong.metrics")
    return {
        "api-lifelong": package_page("lifelong", public("lifelong")),
        "api-scenarios": package_page("scenarios", public("scenarios")),
        "api-metrics": package_page("lifelong.metrics", {name: getattr(metrics, name) for name in metrics.__all__}),
        "commands": commands_page(),
    }


def public(package: str) -> dict[str, Any]:
    """What a package offers by name, its rooms left out."""
    module = importlib.import_module(package)
    named = {name: getattr(module, name) for name, source in typed_names(package).items() if source != package}
    return {name: value for name, value in sorted(named.items()) if value is not None}


def package_page(package: str, offered: dict[str, Any]) -> str:
    """A page: each class with its fields and methods, each function with its arguments."""
    module = importlib.import_module(package)
    parts = [f"# `{package}`", markdown(inspect.getdoc(module) or "")]
    parts += [f"```{{py:module}} {package}\n```"]
    for name, value in offered.items():
        known = package == "scenarios" and getattr(value, "__name__", "") in typed_names("lifelong")
        parts += [f"## {name}", "\n".join(entry(name, value, known))]
    return "\n\n".join(parts) + "\n"


def entry(name: str, value: Any, known: bool = False) -> Iterator[str]:
    """One name: an object of Sphinx's Python domain, so that search finds it. known: it stands on another page, too."""
    kind = "class" if inspect.isclass(value) else "function" if callable(value) and not is_alias(value) else "data"
    yield f"`````{{py:{kind}}} {name}{signature(value) if kind != 'data' else ''}"
    yield ":no-index:\n" if known else ""
    yield described(value) if kind != "data" else value_in_words(value)
    for method, function in methods_of(value) if inspect.isclass(value) else ():
        shown = "property" if isinstance(function, property) else "method"
        words = described(function) if inspect.isfunction(function) else markdown(inspect.getdoc(function) or "")
        call = "" if shown == "property" else re.sub(r"^\(self(?:, )?", "(", signature(function))
        yield f"\n````{{py:{shown}}} {method}{call}\n\n{words}\n````"
    yield "`````"


def described(value: Any) -> str:
    """A docstring as Markdown; what it says of fields or arguments as a list."""
    names = [name for name in inspect.signature(value).parameters] if signature(value) else []
    said, left = settings_in(inspect.getdoc(value) or "", names)
    listed = "\n".join(f"- {code(name)}: {escaped(about)}" for name, about in said.items())
    return "\n\n".join(filter(None, [*(fenced(p) if p.startswith("    ") else escaped(p) for p in left), listed]))


def is_alias(value: Any) -> bool:
    """Whether a value is a name for a type, such as dict[str, Any]."""
    return hasattr(value, "__origin__") or not (inspect.isroutine(value) or inspect.isclass(value))


def value_in_words(value: Any) -> str:
    """A constant or a type's other name."""
    if isinstance(value, dict) and value:
        return f"A dictionary of {len(value)}: {', '.join(code(key) for key in list(value)[:3])} ..."
    return f"The same as {code(str(value).replace('typing.', ''))}."


def methods_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class, or one of ours that it comes from, defines; verbs in their order."""
    seen = {
        name: value
        for base in reversed(kind.__mro__)
        if base.__module__.split(".")[0] in ("lifelong", "scenarios")
        for name, value in vars(base).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }
    order = {name: i for i, name in enumerate((*DRAWS, *VERBS))}
    yield from sorted(seen.items(), key=lambda item: order.get(item[0], len(order)))


class Plain:
    """An annotation as it is written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(value: Any) -> str:
    """A signature on one line, with the names of types as they are written; "" where there is none."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    arguments = [p.replace(annotation=plain(p.annotation)) for p in found.parameters.values()]
    returned = found.empty if inspect.isclass(value) else plain(found.return_annotation)
    shown = str(found.replace(parameters=arguments, return_annotation=returned))
    shown = re.sub(r"<factory>", "...", shown)
    return re.sub(r"<(?:function|class|object) ?'?([\w.]*)[^>]*>", r"\1", shown)


def plain(annotation: Any) -> Any:
    """An annotation without the modules that its types come from."""
    if annotation is inspect.Parameter.empty:
        return annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return Plain(
        re.sub(r"(?<![\w.])(?:typing|collections\.abc|pathlib|(?:lifelong|scenarios)(?:\.\w+)+)\.(?=\w)", "", text)
    )


def definition(name: str, value: Any) -> str:
    """A method or a property as a file defines it: its signature and its one line."""
    head = "@property\n" if isinstance(value, property) else ""
    head += f"def {name}{signature(value.fget if isinstance(value, property) else value)}:"
    if len(head.splitlines()[-1]) > WIDTH:  # as a formatter would break it
        before, _, rest = head.partition("(")
        arguments, _, given = rest.rpartition(") -> ")
        whole = re.sub(r"(?<!,) ", "\0", arguments)  # an argument is not broken
        lines = textwrap.wrap(whole, WIDTH, initial_indent=TAB, subsequent_indent=TAB, break_long_words=False)
        head = "\n".join([f"{before}(", *lines, f") -> {given}"]).replace("\0", " ")
    return "\n".join(
        [head, *textwrap.wrap(f'"""{first_line(value)}"""', WIDTH, initial_indent=TAB, subsequent_indent=TAB)]
    )


def verbs() -> str:
    """All verbs with signatures, in the order in which they are called; then what is declared."""
    return fenced("\n\n".join(definition(name, getattr(Strategy, name)) for name in VERBS), "py")


def draws() -> str:
    """The methods that declare random numbers and sentences."""
    return fenced("\n\n".join(definition(name, getattr(Strategy, name)) for name in DRAWS), "py")


def handed() -> str:
    """The records that verbs are handed, by their docstrings."""
    from lifelong.core import batch, problem

    parts = []
    for record in (batch.Batch, batch.Outputs, batch.Step, batch.FinishedTask, problem.Problem):
        names = (
            [field.name for field in dataclasses.fields(record)] if dataclasses.is_dataclass(record) else record._fields
        )
        parts += [f"### `{record.__name__}`", fields_table(record, dict.fromkeys(names, ""))]
        rows = [
            [code(name if isinstance(value, property) else f"{name}{signature(value)}"), cell(first_line(value))]
            for name, value in methods_of(record)
        ]
        parts += [table(["method", "what it gives"], rows)] if rows else []
    return "\n\n".join(parts)


def fields_table(record: type, defaults: dict[str, str]) -> str:
    """What a record is, in words, and a table of its fields with defaults, where there are any, and meanings."""
    said, left = settings_in(inspect.getdoc(record) or "", list(defaults))
    heads = ["field", "default", "meaning"] if any(defaults.values()) else ["field", "meaning"]
    rows = [
        [code(name), *([code(default)] if "default" in heads else []), cell(said.get(name, ""))]
        for name, default in defaults.items()
        if name in said or default
    ]
    words = "\n\n".join(map(escaped, left))
    return f"{words}\n\n{table(heads, rows)}" if rows else words


def declared() -> str:
    """What a strategy's class may declare, with its defaults."""
    from lifelong.core.strategy import Requirements

    fields = {name: written(value) for name, value in vars(Strategy).items() if name in Strategy.__annotations__}
    needs = {field.name: written(field.default) for field in dataclasses.fields(Requirements)}
    parts = [
        fields_table(Strategy, fields).partition("\n\n")[2],
        "### `Requirements`",
        fields_table(Requirements, needs),
    ]
    return "\n\n".join(parts)


def learner_verbs() -> str:
    """What a learner without gradient descent fills in."""
    from lifelong.core.learner import AnyLearner

    names = ("init", "step", "at_milestone", "after_task", "prepare", "predict", "draws", "requirements")
    return fenced("\n\n".join(definition(name, getattr(AnyLearner, name)) for name in names), "py")


def member_verbs() -> str:
    """What one member of a looped fleet fills in."""
    from lifelong.core.member import LoopedMember

    return fenced("\n\n".join(definition(name, value) for name, value in methods_of(LoopedMember)), "py")


def meta_verbs() -> str:
    """What a meta-learner fills in."""
    from lifelong.meta import MetaLearner

    lines = [definition(name, value) for name, value in methods_of(MetaLearner)]
    return markdown(inspect.getdoc(MetaLearner) or "") + "\n\n" + fenced("\n\n".join(lines), "py")


def commands_page() -> str:
    """Every command with its help, as `--help` prints it."""
    from lifelong.commands import COMMANDS

    parts = ["# Commands", "As `lifelong COMMAND --help` prints them."]
    for name in COMMANDS:
        parts += [f"## {name}", fenced(help_of(name))]
    return "\n\n".join(parts) + "\n"


def help_of(name: str) -> str:
    """What a command's `--help` prints."""
    from typer.testing import CliRunner

    from cli import app

    return CliRunner().invoke(app, [name, "--help"], prog_name="lifelong", terminal_width=100).output.strip()


INSERTED = {
    "verbs": verbs,
    "draws": draws,
    "handed": handed,
    "declared": declared,
    "learner verbs": learner_verbs,
    "member verbs": member_verbs,
    "meta verbs": meta_verbs,
}
