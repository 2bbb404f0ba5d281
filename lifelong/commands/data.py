"""`lifelong data list` and `lifelong data get`."""

from __future__ import annotations

from typing import Annotated

import typer

from lifelong.commands.group import PLAIN, Command, Commands
from lifelong.commands.options import Options, takes

data = typer.Typer(cls=Commands, help="Data sets: what there is, and fetching it.", **PLAIN)


@data.command("list", cls=Command)
def list_data() -> None:
    """The data sets that can be named.

    Example: lifelong data list
    """
    from lifelong.commands.list import list as list_kind

    list_kind("data")


@data.command("get", cls=Command)
@takes("data_root")
def get(
    *, name: Annotated[str, typer.Argument(metavar="NAME", help="as `lifelong data list` says")], options: Options
) -> None:
    """Fetch and decode a data set, and check its content.

    Example: lifelong data get mnist
    """
    from lifelong.display.console import output, waiting

    with waiting(f"reading {name}"):
        from scenarios.datasets import describe, load_dataset

        dataset = load_dataset(name, options.data_root or None)
    output.print(f"{describe(dataset)}, content {dataset.content_hash()}", soft_wrap=True)
