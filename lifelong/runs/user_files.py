"""A user's own files that a run was made with: where they lay, and what was in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.core.files import RunError, digest
from lifelong.notation import expression
from scenarios.typed import TypedError, check, damaged

_CODE = re.compile(r"([^\s()+,'\"=]+\.py)(?=:)")
_DATA = re.compile(r"""\bdata\s*=\s*(['"])(.+?)\1""")


@dataclass(frozen=True)
class UserFile:
    """A file or folder: as it was named, its absolute path, and the digest of its content ("" for a folder)."""

    name: str
    path: str
    content: str

    def check(self) -> None:
        """Raise RunError where it is gone or changed; nothing in it is executed."""
        if not os.path.exists(self.path):
            raise RunError(f"{self.path} is not there any more, and the run was made with it: put it back")
        if self.content and digest(Path(self.path)) != self.content:
            raise RunError(f"{self.path} changed since the run began: put it back, or start a new run")


def code_named(texts: Sequence[str]) -> list[str]:
    """The Python files that some expressions name, as in `my_idea.py:MyIdea()`."""
    return list(dict.fromkeys(match[1] for text in texts for match in _CODE.finditer(text)))


def named_in(texts: Sequence[str]) -> list[str]:
    """The Python files and the data that some expressions name, and texts that are the names of a start's file."""
    data = [match[2] for text in texts for match in _DATA.finditer(text)]
    data = [name for name in data if Path(name).suffix or os.path.isdir(name)]
    starts = [text for text in texts if text.endswith(".safetensors")]
    return list(dict.fromkeys([*code_named(texts), *data, *starts]))


def recorded(texts: Sequence[str], folders: Sequence[str] = (), known: Sequence[UserFile] = ()) -> tuple[UserFile, ...]:
    """The files that some expressions name and some folders, as they are now. Raises RunError where one cannot be read.

    known: files that were found before, perhaps from another folder; what they are the names of is looked for there.
    """
    found, places = [], {file.name: file.path for file in known}
    names = [*named_in(texts), *(name for name in places if any(name in text for text in texts))]
    names += [folder for folder in folders if os.path.isdir(places.get(folder, folder))]
    for name in dict.fromkeys(names):
        path = Path(places.get(name, name)).absolute()
        found.append(UserFile(name, str(path), "" if os.path.isdir(path) else digest(path)))
    return tuple(found)


def as_json(files: Sequence[UserFile]) -> dict[str, dict[str, str]]:
    """By name, for run.json."""
    return {file.name: {"path": file.path, "content": file.content} for file in files}


def from_json(
    held: dict[str, Any], plugins: dict[str, str] | None = None, where: Path = Path("it")
) -> tuple[UserFile, ...]:
    """What `as_json` wrote; `plugins`: paths and digests as runs of earlier versions kept them.

    Raises RunError, with the file `where` they are from, for anything else.
    """
    try:
        check(held, dict[str, dict[str, str]], "files")
        for name, kept in held.items():
            check(kept, {"path": str, "content": str}, f"files.{name}")
    except TypedError as error:
        raise RunError(damaged(where, error)) from None
    earlier = [UserFile(name, str(Path(name).absolute()), content) for name, content in (plugins or {}).items()]
    return tuple(earlier) + tuple(UserFile(name, kept["path"], kept["content"]) for name, kept in held.items())


@contextmanager
def in_place(files: Sequence[UserFile]) -> Iterator[None]:
    """While this lasts, a Python file that is named is looked for where the run found it."""
    before = dict(expression.PLACES)
    expression.PLACES.update({file.name: file.path for file in files})
    try:
        yield
    finally:
        expression.PLACES.clear()
        expression.PLACES.update(before)
