"""Plain values from a file, held to the kinds that are expected: what is malformed is one line with the file and the key.

A kind is a type, as in `int`, `float | None`, `list[int]`, `dict[str, float]` or `Any`; a tuple of the values that are
allowed; or a dictionary of kinds by key, where a key that ends in "?" may be missing. Whole numbers fit 64 bits, other
numbers are finite, and text neither steers a terminal nor is too long for a message or an expression.
"""

from __future__ import annotations

import math
import types
import typing
import unicodedata
from pathlib import Path
from typing import Any

from scenarios.errors import ConfigurationError

LARGEST = 2**63  # whole numbers from here on fit no tensor
LONGEST = 20_000  # characters of a text
WORDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list",
    tuple: "a list", type(None): "null",
}  # fmt: skip


class TypedError(ConfigurationError):
    """A value of a file that is not of its kind; what is wrong with which key, without the file."""


def check(value: Any, kind: Any, key: str = "") -> None:
    """Raise TypedError where a value is not of a kind; key: its place in the file."""
    if isinstance(kind, dict):
        return _check_object(value, kind, key)
    if kind is Any:
        return None
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, tuple):
        if value not in kind:
            raise _wrong(value, f"one of {', '.join(map(repr, kind))}", key)
    elif origin in (types.UnionType, typing.Union):
        _check_one_of(value, inside, key)
    elif origin in (list, tuple):
        _check_kind(value, list, key)
        for place, item in enumerate(value):
            check(item, inside[0], f"{key}[{place}]")
    elif origin is dict:
        _check_kind(value, dict, key)
        for name, item in value.items():
            _check_kind(name, str, key)
            check(item, inside[1], _inside(key, name))
    else:
        _check_kind(value, kind, key)
    return None


def _check_object(value: Any, kinds: dict[str, Any], key: str) -> None:
    _check_kind(value, dict, key)
    for name, kind in kinds.items():
        name, optional = name.removesuffix("?"), name.endswith("?")
        if name in value:
            check(value[name], kind, _inside(key, name))
        elif not optional:
            raise TypedError(f"{_inside(key, name)} is missing")


def _check_one_of(value: Any, kinds: tuple[Any, ...], key: str) -> None:
    wrong = TypedError(f"{_shown(key)} is of no kind")
    for kind in kinds:
        try:
            return check(value, kind, key)
        except TypedError as error:
            wrong = error
    raise wrong


def _check_kind(value: Any, kind: type, key: str) -> None:
    """A value of a plain kind; whole numbers are numbers, and true and false are not."""
    right = isinstance(value, (int, float) if kind is float else kind)
    if not right or (isinstance(value, bool) and kind in (int, float)):
        raise _wrong(value, WORDS.get(kind, kind.__name__), key)
    if isinstance(value, str):
        _check_text(value, key)
    elif isinstance(value, int | float) and not (abs(value) < LARGEST if kind is int else math.isfinite(_real(value))):
        raise TypedError(f"{_shown(key)} is no number that can be used")


def _real(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _check_text(value: str, key: str) -> None:
    if len(value) > LONGEST:
        raise TypedError(f"{_shown(key)} is longer than {LONGEST:,} characters")
    # what is no printable letter: escape codes of a terminal, and halves of letters that cannot be written at all
    if any(unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() for c in value):
        raise TypedError(f"{_shown(key)} holds what would steer the terminal")


def _inside(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _shown(key: str) -> str:
    """A place as a message says it."""
    plain = "".join(c if c.isprintable() else "?" for c in key)
    return plain if 0 < len(plain) <= 60 else f"{plain[:57]}..." if plain else "it"


def _wrong(value: Any, wanted: str, key: str) -> TypedError:
    return TypedError(f"{_shown(key)} is {WORDS.get(type(value), type(value).__name__)}, and must be {wanted}")


def damaged(path: Path | str, why: object) -> str:
    """What is said of a file that is not as it should be, in one line."""
    return f"{path} is damaged, or of another version of lifelong: {why}"
