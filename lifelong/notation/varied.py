"""Hyper-parameters that differ between the members of a fleet: `EWC(strength=vary(1, 10, 100))` is three settings."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from scenarios.errors import ConfigurationError

Path = tuple[str | int, ...]  # names of fields and places in tuples, from a record down to a value
MOST_SETTINGS = 10_000


class VariedError(ConfigurationError):
    """Values that cannot be varied, or records that do not differ in numbers alone; its message is one line."""


@dataclasses.dataclass(frozen=True)
class Varied:
    """Several values in the place of one number; each gives a setting of its own. Raises VariedError for others.

    It stands below or above another value where all of its values do, so that a record that checks a field's range when it
    is made can be written in Python too; each setting is checked again by itself.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise VariedError(f"{self!r}: there is nothing to vary: give two values or more, as in vary(1, 10, 100)")
        for value in self.values:
            if not is_number(value) or not math.isfinite(value):
                raise VariedError(f"{self!r}: {value!r} is not a finite number, and only numbers can be varied")
        if len(set(self.values)) < len(self.values):
            raise VariedError(f"{self!r}: a value is given twice: leave it out")

    def __lt__(self, other: Any) -> bool:
        return all(value < other for value in self.values)

    def __le__(self, other: Any) -> bool:
        return all(value <= other for value in self.values)

    def __gt__(self, other: Any) -> bool:
        return all(value > other for value in self.values)

    def __ge__(self, other: Any) -> bool:
        return all(value >= other for value in self.values)

    def __repr__(self) -> str:
        return f"vary({', '.join(map(repr, self.values))})"


def vary(*values: float) -> Any:
    """The values that a hyper-parameter takes, one setting each, as in `vary(1, 10, 100)`.

    It may stand wherever a number does, which is why its type is not told.
    """
    return Varied(values)


def is_number(value: Any) -> bool:
    """Whether it is a plain number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_record(value: Any) -> bool:
    """Whether it is an instance of a dataclass whose fields may hold varied values."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type | Varied)


def varied_paths(record: Any) -> list[tuple[Path, Varied]]:
    """Where a record holds varied values, in order of appearance: through nested dataclasses and tuples."""
    return [(path, value) for path, value in _leaves(record) if isinstance(value, Varied)]


def settings_of(record: Any) -> list[Any]:
    """Every concrete setting of a record: the product of all its varied values, the last of them changing fastest.

    Each is checked by its own `__post_init__`. A record without varied values is its own only setting. Raises
    VariedError for more than MOST_SETTINGS settings.
    """
    found = varied_paths(record)
    if not found:
        return [record]
    _countable(math.prod(len(value.values) for _, value in found), repr(record))
    paths = [path for path, _ in found]
    return [
        _replaced(record, dict(zip(paths, values, strict=True)), checked=True)
        for values in itertools.product(*(value.values for _, value in found))
    ]


def with_values(record: Any, values: Mapping[Path, Any]) -> Any:
    """A copy of a record with other values at some paths, unchecked: `__post_init__` does not run.

    So a value may be a tensor that a fleet maps over, or a `Varied`. Raises VariedError for a path that is not there.
    """
    return _replaced(record, values, checked=False)


def made(maker: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    """What a maker makes, where arguments may hold varied values: every concrete setting is made, and so checked, first.

    The result is then the first setting with the varied arguments put back into the fields of their names. Raises
    VariedError where the result has no such fields, and whatever the maker raises.
    """
    given = [*positional, *named.values()]
    if not any(varied_paths(value) for value in given):
        return maker(*positional, **named)
    signature = inspect.signature(maker)
    signature.bind(*positional, **named)  # a wrong call says so before many are made
    alternatives = [settings_of(value) for value in given]
    _countable(math.prod(map(len, alternatives)), ", ".join(map(repr, given)))
    count = len(positional)
    every = [
        maker(*values[:count], **dict(zip(named, values[count:], strict=True)))
        for values in itertools.product(*alternatives)
    ]
    places = [*_positions(signature.parameters, count), *((name,) for name in named)]
    templates = {place: value for place, value in zip(places, given, strict=True) if varied_paths(value)}
    return with_values(every[0], templates)


def differing(records: Sequence[Any]) -> list[tuple[Path, list[Any]]]:
    """The paths at which concrete records of the same classes differ, with the number that each record has there.

    Raises VariedError where they differ in anything but numbers: classes, lengths of tuples, words, switches.
    """
    first = dict(_leaves(records[0]))
    others = [dict(_leaves(record)) for record in records[1:]]
    if any(list(other) != list(first) for other in others):
        raise VariedError(f"{_named(records)} are not built of the same classes, and so are no settings of one another")
    for place in _records_within(records[0]):
        if any(type(_at(record, place)) is not type(_at(records[0], place)) for record in records):
            raise VariedError(f"{_named(records)} are not built of the same classes: see their {_words(place)}")
    result = []
    for path, value in first.items():
        values = [value, *(other[path] for other in others)]
        if all(other is value or other == value for other in values):
            continue
        if not all(map(is_number, values)):
            raise VariedError(f"{_named(records)} differ in {_words(path)}, which is not a number")
        result.append((path, values))
    return result


# --- trees of records -------------------------------------------------------------------------------------------------


def _children(value: Any) -> list[tuple[str | int, Any]]:
    """The fields of a record that count when it is compared, or the places of a tuple; nothing for other values."""
    if is_record(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare]
    return list(enumerate(value)) if isinstance(value, tuple) else []


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    children = _children(value)
    if not children:
        yield path, value
    for name, child in children:
        yield from _leaves(child, (*path, name))


def _records_within(value: Any, path: Path = ()) -> Iterator[Path]:
    if is_record(value):
        yield path
    for name, child in _children(value):
        yield from _records_within(child, (*path, name))


def _at(value: Any, path: Path) -> Any:
    for name in path:
        value = dict(_children(value))[name]
    return value


def _replaced(value: Any, values: Mapping[Path, Any], checked: bool) -> Any:
    """A copy with other values at some paths; only fields are copied, so nothing that was computed from them is kept."""
    if () in values:
        return values[()]
    within: dict[str | int, dict[Path, Any]] = {}
    for path, new in values.items():
        within.setdefault(path[0], {})[path[1:]] = new
    missing = [name for name in within if name not in dict(_children(value))]
    if missing:
        raise VariedError(f"{value!r} has no field {missing[0]!r} whose value could be varied")
    if isinstance(value, tuple):
        changed = [
            _replaced(child, within.get(i, {}), checked) if i in within else child for i, child in enumerate(value)
        ]
        return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)  # a named tuple takes them apart
    copy = object.__new__(type(value))
    for field in dataclasses.fields(value):
        child = getattr(value, field.name)
        object.__setattr__(
            copy, field.name, _replaced(child, within[field.name], checked) if field.name in within else child
        )
    if checked and hasattr(copy, "__post_init__"):
        copy.__post_init__()
    return copy


def _positions(parameters: Mapping[str, Any], count: int) -> list[Path]:
    """Where positional arguments land: each in the field of its name, a rest in places of the field of the rest."""
    places: list[Path] = []
    for parameter in parameters.values():
        if len(places) == count or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            break
        if parameter.kind is parameter.VAR_POSITIONAL:
            places += [(parameter.name, place) for place in range(count - len(places))]
        else:
            places.append((parameter.name,))
    return places


def _countable(count: int, words: str) -> None:
    if count > MOST_SETTINGS:
        raise VariedError(
            f"{words[:200]}: these are {count:,} settings, and at most {MOST_SETTINGS:,} are made: vary fewer"
        )


def _named(records: Sequence[Any]) -> str:
    return " and ".join(repr(record)[:80] for record in records[:2])


def _words(path: Path) -> str:
    return ".".join(map(str, path)) or "the whole"
