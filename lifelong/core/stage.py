"""Where work of several parts stands: what is told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Stage(NamedTuple):
    """A part of some work that begins: its number, from 1, how many there are, and what it does."""

    number: int
    count: int
    words: str

    def __str__(self) -> str:
        return f"{self.number} of {self.count}: {self.words}"


Tell = Callable[[Stage | str], None]  # a word in between is no stage


def told_to_nobody(stage: Stage | str) -> None:
    """For work that nobody waits for."""
