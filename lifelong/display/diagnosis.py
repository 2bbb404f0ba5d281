"""What a diagnosis found, in a terminal of 80 columns."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lifelong.contracts.case import Finding


def diagnosis(name: str, found: list[Finding]) -> list[Table | Text]:
    """A table of what was seen, and below it how to mend what is wrong; nothing where nothing was looked at."""
    if not found:
        return []
    wrong = [finding for finding in found if finding.mend]
    table = Table(title=Text(f"diagnosis of {name}"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("looked at", no_wrap=True)
    table.add_column("seen", overflow="fold")
    for finding in found:
        style = "yellow" if finding.mend else ""
        table.add_row(Text(f"{'!' if finding.mend else ' '} {finding.name}", style=style), Text(finding.seen))
    return [table, *(Text.assemble(("! ", "yellow"), f"{f.name}: {f.mend}") for f in wrong)]
