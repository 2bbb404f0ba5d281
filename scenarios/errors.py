"""The one kind of error that is meant for people, and how a message shows what it quotes."""

from __future__ import annotations

LONGEST = 290  # characters of a message, so that it stays below 300 with "warning: " before it
WORD = 60  # characters of one word of a message that is too long


class ConfigurationError(ValueError):
    """A request that cannot be honoured: one line that says what was wrong and what would be right. Exit code 2."""

    exit_code = 2


def in_a_line(text: str, most: int = LONGEST) -> str:
    """A text in one line of at most so many characters, whatever it quotes.

    What would steer a terminal is shown as it is written in Python. Where the line is too long, its long words are cut in
    their middles, and then the line itself: what it is about stands first, and what would be right stands last.
    """
    line = printable(" ".join(text.split()))
    if len(line) > most:
        line = " ".join(_cut(word, WORD) for word in line.split(" "))
    return _cut(line, most)


def printable(text: str) -> str:
    """A text whose characters all show: others, as an escape that colours a terminal, as they are written in Python."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _cut(text: str, most: int) -> str:
    """A text whose middle is left out where it is too long."""
    if len(text) <= most:
        return text
    last = most // 2 - 3
    return f"{text[: most - last - 3]}...{text[-last:]}"
