"""Code on pages: which blocks are commands, which are Python, and which show what the block before them printed.

`python docs/_ext/outputs.py` makes those that show; tests run all of them with smaller numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, where it stands, and what it is said to print: None where nothing is said."""

    language: str
    text: str
    start: int
    end: int
    shown: Block | None = None

    @property
    def commands(self) -> list[str]:
        """The commands in it, comments left out: lines that begin with a program of ours, or with `make`."""
        if self.language not in ("", "shell"):
            return []
        lines = [re.split(r"\s#\s", line)[0].strip() for line in self.text.splitlines()]
        return [line for line in lines if line.startswith(("lifelong ", "make ")) and "..." not in line]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in order; a `text` block that follows one of code at once shows what that prints."""
    found = [Block(fence[1], fence[2], fence.start(), fence.end()) for fence in FENCE.finditer(page)]
    result: list[Block] = []
    for block in found:
        before = result[-1] if result else None
        if (
            block.language == "text"
            and before
            and before.language in ("shell", "python")
            and not page[before.end : block.start].strip()
        ):
            result[-1] = Block(before.language, before.text, before.start, before.end, block)
        else:
            result.append(block)
    return result


def pages() -> list[Path]:
    """README and every page of docs that is kept, those that others write included; none that is made while building."""
    kept = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "catalogue" not in path.parts]
    return [ROOT / "README.md", *kept]


def words_of(text: str) -> set[str]:
    """The words of three letters and more in what was printed, up to the first conclusion: they do not depend on luck."""
    return set(re.findall(r"[A-Za-z]{3,}", re.split(r"^•", text, maxsplit=1, flags=re.MULTILINE)[0]))
