"""The settings of a learner whose numbers vary, and which of them can be learned as one fleet."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from lifelong.varied import Path, settings_of, varied_paths


class Setting(NamedTuple):
    """One concrete learner of several, and the words that tell it apart: empty where there is but one."""

    words: str
    learner: Any


def fleets_of_settings(learner: Any) -> list[list[Setting]]:
    """Every setting of a learner, those together that differ in real numbers alone.

    A whole number can be a size, a word or a switch chooses what is computed: each of their values begins a new fleet.
    So does a number that says when within a task something happens: a fleet turns to another phase at one share.
    """
    paths = [path for path, _ in varied_paths(learner)]
    fleets: dict[tuple[Any, ...], list[Setting]] = {}
    for setting in settings_of(learner):
        values = [_at(setting, path) for path in paths]
        words = ", ".join(f"{path[-1]}={value!r}" for path, value in zip(paths, values, strict=True))
        apart = tuple(v for path, v in zip(paths, values, strict=True) if not is_real(learner, path))
        apart += setting.schedule
        fleets.setdefault(apart, []).append(Setting(words, setting))
    return list(fleets.values())


def is_real(record: Any, path: Path) -> bool:
    """Whether a field is a real number by its declaration, rather than a count, a size or a word."""
    for name in path[:-1]:
        record = getattr(record, name) if isinstance(name, str) else record[name]
    if isinstance(record, tuple):
        return True
    kinds = {field.name: field.type for field in dataclasses.fields(record)}
    return kinds[str(path[-1])] in ("float", float)


def _at(record: Any, path: Path) -> Any:
    for name in path:
        record = getattr(record, name) if isinstance(name, str) else record[name]
    return record
