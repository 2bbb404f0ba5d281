"""The same bytes for every method: a part that keeps rows gets as many as there is room for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from lifelong.core.initialisation import Random
from lifelong.core.learner import AnyLearner
from lifelong.core.loop import prepared_fleet
from lifelong.core.settings import fleets_of_settings
from lifelong.core.storage import Stored, in_bytes, row_bytes, stored
from lifelong.notation.varied import Varied
from scenarios.errors import ConfigurationError
from scenarios.stream import Stream

UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9}
MOST = 1e15
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([kmg]?b?)\s*", re.IGNORECASE | re.ASCII)


class BudgetError(ConfigurationError):
    """A number of bytes that cannot be read, or that a method cannot keep to."""


def read_bytes(text: str) -> int:
    """`500kB`, `1.5 MB` or `784000` as a number of bytes; powers of 1000."""
    match = _SIZE.fullmatch(text)
    unit = match[2].lower() if match else ""
    if not match or (unit and not unit.endswith("b")):
        raise BudgetError(f"--memory {text[:40]!r} cannot be read: write bytes, as in 784000, 500kB or 1.5MB")
    size = float(match[1]) * UNITS[unit]
    if not 1 <= size <= MOST:
        raise BudgetError(f"--memory {text[:40]}: a budget is from 1 byte to {in_bytes(MOST)}")
    return int(size)


def kept(learner: AnyLearner, stream: Stream) -> Stored:
    """What a learner keeps beside its network, for one seed: rows as images, weights and statistics of its own.

    Where numbers vary, in the setting that keeps most: sizes differ between fleets alone.
    """
    sizes = []
    for settings in fleets_of_settings(learner):
        _, state = prepared_fleet(settings[0].learner, stream, [0], Random())
        sizes.append(stored([state.memory, state.params.get("own", {})], stream.dataset))
    return max(sizes, key=lambda size: size.total)


def fitted(learner: AnyLearner, stream: Stream, budget: int) -> AnyLearner:
    """The learner with the number of rows that fills so many bytes; itself where it keeps none and has room enough.

    Raises BudgetError where it needs more bytes than that, where it is not said which of two parts they are for, and where
    the size itself varies.
    """
    for place in _sized(learner):
        if isinstance(_value(learner, place), Varied):
            part, name = _part_and_field(learner, place)
            raise BudgetError(f"--memory says the {name} of {part!r}, which varies: leave one of the two out")
    places = [place for place in _sized(learner) if _value(learner, place) > 0]
    if len(places) > 1:
        words = " and ".join(repr(part) for part, _ in (_part_and_field(learner, place) for place in places))
        raise BudgetError(f"--memory {in_bytes(budget)}: both {words} keep rows: leave one out, or say their sizes")
    if learner.looped:
        raise BudgetError(f"--memory: what {learner!r} keeps cannot be counted")
    if not places:
        size = kept(learner, stream).total
        if size > budget:
            raise BudgetError(f"{learner_words(learner)} keeps {in_bytes(size)}, more than --memory {in_bytes(budget)}")
        return learner
    return _filled(learner, stream, budget, places[0])


def _filled(learner: AnyLearner, stream: Stream, budget: int, place: tuple[int, str]) -> AnyLearner:
    """The largest size that fits, between doublings: what is kept need not grow evenly, as with a place for each class."""

    def fits(count: int) -> bool:
        try:
            return kept(_with(learner, place, count), stream).total <= budget
        except BudgetError:
            raise
        except ConfigurationError:  # too few for each class to have a place: fewer do not fit either
            return True

    brought = sum(len(task.train) for task in stream.tasks_of(stream.seed))  # more places would stay empty
    most = max(1, min(budget // row_bytes(stream.dataset), brought))
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    found = _with(learner, place, low) if low else learner
    if not low or kept(found, stream).total > budget:
        least = kept(_with(learner, place, 1), stream).total
        raise BudgetError(
            f"{learner_words(learner)} keeps {in_bytes(least)} with one row, more than --memory {in_bytes(budget)}"
        )
    return found


def learner_words(learner: Any) -> str:
    """The method alone: the strategy of one, a learner itself."""
    return repr(learner.strategy) if learner.adapts_by_rule else repr(learner)


def _sized(learner: Any) -> list[tuple[int, str]]:
    """Number of the part, -1 for the learner itself, and the field that says how much it keeps."""
    if not learner.adapts_by_rule:
        return [(-1, learner.sized_by)] if learner.sized_by else []
    return [(number, part.sized_by) for number, part in enumerate(learner.parts) if part.sized_by]


def _part_and_field(learner: Any, place: tuple[int, str]) -> tuple[Any, str]:
    number, name = place
    return (learner if number < 0 else learner.parts.parts[number]), name


def _value(learner: Any, place: tuple[int, str]) -> int:
    part, name = _part_and_field(learner, place)
    return getattr(part, name)


def _with(learner: Any, place: tuple[int, str], count: int) -> Any:
    """The learner with another size of one of its parts."""
    part, name = _part_and_field(learner, place)
    changed = replace(part, **{name: count})
    if place[0] < 0:
        return changed
    parts = list(learner.parts.parts)
    parts[place[0]] = changed
    total = parts[0]
    for more in parts[1:]:
        total = total + more
    return replace(learner, strategy=total)
