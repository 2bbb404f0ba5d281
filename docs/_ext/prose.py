"""Docstrings, which are plain text, as Markdown: what is written in them stays as it is, formulas and brackets too."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any

SPECIAL = re.compile(r"([\\*_<>\[\]{}#|~$])")
FOLLOWS = re.compile(r"(?:Both|It|Its|They|Their|That|This|These|Then|So|Else)\b")
SENTENCE = r"(?<=[\w)\]\"'`])[.] (?=[A-Z(`]{more})"


def escaped(text: str) -> str:
    """Plain text such that Markdown shows it as it stands; what is between backticks is code already."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if i % 2 else SPECIAL.sub(r"\\\1", piece) for i, piece in enumerate(pieces))


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring in one line each; indented ones keep their lines and their indent."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text or "")):
        for indented, lines in _runs(block.splitlines()):
            found.append("\n".join(lines) if indented else " ".join(" ".join(lines).split()))
    return [paragraph for paragraph in found if paragraph.strip()]


def _runs(lines: Sequence[str]) -> list[tuple[bool, list[str]]]:
    """Lines in runs that are indented or not."""
    runs: list[tuple[bool, list[str]]] = []
    for line in lines:
        indented = line.startswith("    ")
        if not runs or runs[-1][0] != indented:
            runs.append((indented, []))
        runs[-1][1].append(line)
    return runs


def fenced(text: str, language: str = "text") -> str:
    """A block of code."""
    return f"```{language}\n{textwrap.dedent(text)}\n```"


def markdown(text: str) -> str:
    """A docstring as Markdown: paragraphs, and blocks where it is indented."""
    return "\n\n".join(fenced(p) if p.startswith("    ") else escaped(p) for p in paragraphs(text))


def sentences(paragraph: str, more: str = "") -> list[str]:
    """The sentences of a paragraph, each with its full stop. more: what else a sentence may begin with."""
    parts = re.split(SENTENCE.format(more=f"|{more}" if more else ""), paragraph)
    return [f"{part}." if i < len(parts) - 1 else part for i, part in enumerate(parts)]


def first_line(thing: Any) -> str:
    """The one line that says what a thing is."""
    return (paragraphs(inspect.getdoc(thing) or "") or [""])[0]


def settings_in(text: str, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What a docstring says of fields, as in "size: M, rows kept.", by name; and the paragraphs that are left.

    names: of the fields. A sentence may name several, as in "rows, memory: as in `Replay`".
    """
    if not names:
        return {}, paragraphs(text)
    word = "|".join(map(re.escape, names))
    named = re.compile(rf"(?:{word})(?:(?:, | and )(?:{word}))*: ")
    said: dict[str, str] = {}
    left: list[str] = []
    for paragraph in paragraphs(text):
        if paragraph.startswith("    "):
            left.append(paragraph)
            continue
        rest, last = [], ""
        for sentence in sentences(paragraph, named.pattern):
            if not named.match(sentence):
                if FOLLOWS.match(sentence) and last:  # it speaks of the field before it
                    said[last] += f" {sentence}"
                else:
                    rest.append(sentence)
                    last = ""
                continue
            starts = [
                0,
                *(found.end() - len(found[0]) + 2 for found in re.finditer(rf"; (?={named.pattern})", sentence)),
            ]
            for start, end in zip(starts, [*starts[1:], len(sentence)], strict=True):
                words, _, about = sentence[start:end].partition(": ")
                said |= {name: about.strip(" ;") for name in re.split(r", | and ", words)}
                last = re.split(r", | and ", words)[-1]
        if rest:
            left.append(" ".join(rest))
    return said, left


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table; right: columns of numbers. Cells are Markdown already."""
    rule = ["---:" if i in right else "---" for i in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))


def cell(text: str) -> str:
    """Plain text in a table's cell; what is code in it bears its bars, too."""
    return re.sub(r"(?<!\\)\|", r"\\|", escaped(text))


def code(text: str) -> str:
    """Words as code, in a table's cell too."""
    return f"`{text}`".replace("|", "\\|")


def default_of(field: dataclasses.Field) -> str:
    """A field's default as one would write it; "" where there is none."""
    if field.default is not dataclasses.MISSING:
        return written(field.default)
    return written(field.default_factory()) if field.default_factory is not dataclasses.MISSING else ""


def written(value: Any) -> str:
    """A value as one would write it: of a record the fields alone that are not at their defaults."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    given = []
    for field in dataclasses.fields(value):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if field.init and getattr(value, field.name) != default:
            given.append(f"{field.name}={written(getattr(value, field.name))}")
    return (
        repr(value) if len(given) == len(dataclasses.fields(value)) else f"{type(value).__name__}({', '.join(given)})"
    )


def fields_said(kind: type, names: Sequence[str]) -> dict[str, str]:
    """What a class and those that it comes from say of its fields, the nearest first."""
    said: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        said |= settings_in(vars(base).get("__doc__") or "", names)[0]
    return said
