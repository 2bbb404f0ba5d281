"""The two streams that a person reads, and lines on them. Light: no torch.

Neither reads markup, emoji names or numbers out of text: method texts, paths and folders' names are shown as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from scenarios.errors import in_a_line

output = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)


def say(line: str) -> None:
    """A line on standard error, as wide as it is; what would steer the terminal is shown as it is written in Python."""
    sys.stderr.write(f"{in_a_line(line)}\n")


def refuse(message: str) -> None:
    """An error in one line on standard error."""
    errors.print(Text.assemble(("error: ", "bold red"), in_a_line(message)), soft_wrap=True)
    sys.stderr.flush()


@contextmanager
def waiting(words: str) -> Iterator[None]:
    """In a terminal, say what is being waited for until it is there: torch and data take seconds."""
    if not errors.is_terminal:
        yield
        return
    with errors.status(Text(words)):
        yield
