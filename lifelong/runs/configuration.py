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
        f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)}"
        for name, value in words.items()
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
    except (ValueError, RecursionError) as error:
        words = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is no text"
        raise RunError(f"--config {path}: {words[:120]}; write it like strategy = 'EWC(strength=100.0)'") from None
    return {name: _word(path, name, value) for name, value in held.items()}


def _word(path: Path, name: str, value: Any) -> Word:
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str | int | float) and item is not True for item in value):
        return [str(item) for item in value]
    raise RunError(
        f"--config {path}: {name[:40]!r} is a {type(value).__name__}; a word is a text, a number, true, or a list of texts"
    )
