"""A group of commands that imports one when it is used, and help that fits a page: options under headings, no boxes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from lifelong.commands import COMMANDS, LEARN, STARTS
from lifelong.commands.configuration import takes_configuration
from scenarios.errors import ConfigurationError

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
PAGE = {"max_content_width": 120}  # columns of help; fewer where the terminal is narrower
EXAMPLE = "Example: "
LAST = re.compile(r"\[[^\[\]]*\]$")
NAMED = re.compile(r"\[default: \((.*)\)\]$")  # a default in words, which typer puts into brackets of its own


class Page:
    """Help with a heading for each group of options (typer's `rich_help_panel`), and examples that can be copied."""

    help: str | None
    get_params: Callable[[Any], list[Any]]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What the command does, in paragraphs, and an example in a line of its own."""
        words, _, example = (self.help or "").partition(EXAMPLE)
        for paragraph in words.strip().split("\n\n"):
            formatter.write(f"\n{_filled(paragraph, formatter.width, '  ')}\n")
        if example:
            formatter.write(f"\n{_heading('Example')}  {example.strip()}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options under the headings of their groups, in the order in which the groups appear."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                argument = parameter.param_type_name == "argument"
                group = "Arguments" if argument else getattr(parameter, "rich_help_panel", None)  # --help has none
                name = parameter.metavar if argument else record[0]
                groups.setdefault(group or "Options", []).append((name, _plain(record[1])))
        _write_groups(groups, formatter)


class Command(Page, TyperCommand):
    """A command whose help is such a page."""


class Later(Command):
    """A command that is known by its name and a sentence, and imported when it is used or its help is asked for."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself, which is imported now."""
        return loaded(self.name or "").make_context(info_name, args, parent, **extra)


class Commands(Page, TyperGroup):
    """Commands under headings; without words it says what there is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; none at all ask for help."""
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names. Raises a ConfigurationError, with the nearest name, where none is."""
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            from lifelong.notation.user_code import suggest

            raise ConfigurationError(f"unknown command {args[0]!r}: {suggest(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are told of."""
        return list(self.commands)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands first: most readers look for them."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each command's name and sentence, under the heading of its group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            groups.setdefault(command.rich_help_panel or "Commands", []).append((name, command.help.partition("\n")[0]))
        _write_groups(groups, formatter)


class AllCommands(Commands):
    """The commands of the table, each of them imported when it is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (group, line) in COMMANDS.items():
            self.add_command(Later(name, help=line, rich_help_panel=group))


def loaded(name: str) -> Any:
    """The command of a name, from its file: a function, or a group of several."""
    word = name.replace("-", "_")
    found = getattr(import_module(f"lifelong.commands.{word}"), word)
    if not isinstance(found, typer.Typer):
        if COMMANDS[name][0] in (LEARN, STARTS) and name != "resume":  # whose words its folder holds already
            found = takes_configuration(found)
        app = typer.Typer(**PLAIN)
        app.command(name, cls=Command)(found)
        found = app
    return typer.main.get_command(found)


def _plain(words: str) -> str:
    """Words of an option as typer gives them, some of its versions for rich, without what is not meant for a reader."""
    return NAMED.sub(r"[default: \1]", words.replace("\\[", "["))


def _write_groups(groups: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    """Names and words in two columns, at the same place in all groups."""
    place = 4 + max(len(name) for records in groups.values() for name, _ in records)
    for heading, records in groups.items():
        lines = [_filled(words, formatter.width, " " * place, f"  {name:{place - 2}}") for name, words in records]
        formatter.write("".join([f"\n{_heading(heading)}", *(f"{line}\n" for line in lines)]) if lines else "")


def _heading(words: str) -> str:
    return f"{typer.style(words, bold=True)}:\n"


def _filled(words: str, width: int, indent: str, first: str | None = None) -> str:
    """A paragraph within a page; names with hyphens and the default at the end are not broken."""
    whole = LAST.sub(lambda found: found[0].replace(" ", "\0"), words)
    fill = textwrap.TextWrapper(width, break_on_hyphens=False, break_long_words=False)
    fill.initial_indent, fill.subsequent_indent = indent if first is None else first, indent
    return fill.fill(whole).replace("\0", " ")
