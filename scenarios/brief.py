"""Records of tensors in a line: what a person at a prompt wants to see of them is their shapes, not their numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

WIDTH = 120  # characters of a line


def in_brief(self: Any) -> str:  # a method of the class that it is put into
    """A record in one line of at most 120 characters: write `__repr__ = in_brief` in its class.

    Tensors are shown as dtype and shape, trees of them by their number, records inside by their name; what is empty is
    left out.
    """
    if dataclasses.is_dataclass(self):
        names = [field.name for field in dataclasses.fields(self) if field.repr]
    else:
        names = self._fields
    values = {name: getattr(self, name) for name in names}
    parts = [f"{name}={_shown(value)}" for name, value in values.items() if not _is_empty(value)]
    return cut(f"{type(self).__name__}({', '.join(parts)})")


def cut(line: str) -> str:
    """A line, its end left out where it is too long."""
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 4]}...)"


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    count = _count(value)
    if count:
        return f"{count} tensor{'s' * (count > 1)}"
    return f"{type(value).__name__}(...)" if type(value).__repr__ is in_brief else repr(value)


def _count(tree: Any) -> int:
    """How many tensors lie in a dictionary, a list or a tuple."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple | list):
        return sum(1 if isinstance(value, Tensor) else _count(value) for value in tree)
    return 0


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, tuple | list | dict | str) and not len(value))
