"""A configuration file: the words of a command line as TOML, one a line. Every run writes its own, and commands that learn read it.

    # lifelong run --config run.toml
    scenario = "split-digits"
    strategy = "EWC(strength=100.0)"
    seeds = 20
    eval-every = 50

A key is an option's name without its dashes, or an argument's in small letters. Text may name Python files, which are executed
as if the command line named them: who hands over a configuration file names its files.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifelong.core.files import RunError, reason, write

FILE = "run.toml"
LARGEST = 1_000_000  # bytes that are read; a configuration has some dozen lines
Word = str | bool | list[str]


def write_configuration(folder: Path, command: str, words: Mapping[str, Any]) -> None:
    """Write the words of a command into a folder's run.toml. Raises RunError where that cannot be written."""
    lines = [f"# lifelong {command} --config {FILE}: what is on the command line wins"]
    lines += [
        f"{name} = {_as_toml(list(value) if isinstance(value, tuple) else value)}" for name, value in words.items()
    ]
    write(folder / FILE, ("\n".join(lines) + "\n").encode())


def read_configuration(path: Path) -> dict[str, Word]:
    """The words of a configuration file as they would stand on a command line: numbers are texts again.

    Raises RunError, in one line, for a file that is not there, is no TOML, or holds tables, dates or lists in lists.
    """
    if not os.path.isfile(path):  # a folder or a pipe would be none either; and a name too long is borne
        raise RunError(f"--config {str(path)[:100]}: there is no such file")
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST)
        held = tomllib.loads(content.decode())
    except OSError as error:
        raise RunError(f"--config {path}: it cannot be read ({reason(error)})") from None
    except UnicodeDecodeError:
        raise RunError(f"--config {path}: it is no text; write it like strategy = 'EWC(strength=100.0)'") from None
    except (ValueError, RecursionError) as error:
        words = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number is too long, or lists too deep"
        raise RunError(f"--config {path}: {words[:120]}; write it like strategy = 'EWC(strength=100.0)'") from None
    return {name: _word(path, name, value) for name, value in held.items()}


def _as_toml(value: Any) -> str:
    """JSON is TOML here, but for the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _word(path: Path, name: str, value: Any) -> Word:
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        return _text(path, name, value)
    if isinstance(value, list) and all(isinstance(i, str | int | float) and not isinstance(i, bool) for i in value):
        return [_text(path, name, item) for item in value]
    raise RunError(
        f"--config {path}: {name[:40]!r} is a {type(value).__name__}; a word is a text, a number, true, or a list of texts"
    )


def _text(path: Path, name: str, value: str | float) -> str:
    try:
        return str(value)
    except ValueError:  # a hexadecimal number of thousands of digits
        raise RunError(f"--config {path}: {name[:40]!r} is a number that is too long") from None
