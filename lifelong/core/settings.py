"""The settings of a learner whose numbers vary, and which of them can be learned as one fleet."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from lifelong.notation.varied import Path, settings_of, varied_paths


class Setting(NamedTuple):
    """One concrete learner of several, and the words that tell it apart: empty where there is but one."""

    words: str
    learner: Any


def fleets_of_settings(learner: Any) -> list[list[Setting]]:
    """Every setting of a learner, those together that differ in real numbers alone.

    A whole number can be a size, a word or a switch chooses what is computed: each of their values begins a new fleet.
    So does a number that says when within a task something happens: a fleet turns to another phase at one share; and 0 for
    a number of the optimiser, which may then keep less, as without momentum.
    """
    paths = [path for path, _ in varied_paths(learner)]
    fleets: dict[tuple[Any, ...], list[Setting]] = {}
    for setting in settings_of(learner):
        values = [_at(setting, path) for path in paths]
        words = ", ".join(f"{_name(path)}={value!r}" for path, value in zip(paths, values, strict=True))
        apart = tuple(v for path, v in zip(paths, values, strict=True) if not is_real(learner, path))
        apart += tuple(v == 0 for path, v in zip(paths, values, strict=True) if path[0] == "optimiser")
        apart += setting.schedule
        fleets.setdefault(apart, []).append(Setting(words, setting))
    return list(fleets.values())


def is_real(record: Any, path: Path) -> bool:
    """Whether a field is a real number by its declaration, rather than a count, a size or a word."""
    fields = [i for i, name in enumerate(path) if isinstance(name, str)]
    record = _at(record, path[: fields[-1]])
    kinds = {field.name: field.type for field in dataclasses.fields(record)}
    kind = kinds[str(path[fields[-1]])]
    if len(path) - 1 > fields[-1]:  # within a tuple: MLP's widths are declared tuple[int, ...]
        return "int" not in str(kind)
    return kind in ("float", float)


def _name(path: Path) -> str:
    """The last name of a path, with a place in a tuple behind it: strength, widths[0]."""
    last = max(i for i, name in enumerate(path) if isinstance(name, str))
    return str(path[last]) + "".join(f"[{place}]" for place in path[last + 1 :])


def _at(record: Any, path: Path) -> Any:
    for name in path:
        record = getattr(record, name) if isinstance(name, str) else record[name]
    return record
