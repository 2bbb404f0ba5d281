"""Baselines made from a stream: they change only what is trained on, never what is tested."""

from __future__ import annotations

import re
from dataclasses import replace

from scenarios.stream import ScenarioError, Stream


def joint(stream: Stream, sampling: str = "proportional") -> Stream:
    """All tasks at once: one phase of T x iterations over all rows, each row with its own task, head and mask.

    sampling: how often a task is drawn: "proportional" (to its rows; every row once an epoch), "uniform",
    "round-robin" (each batch of one task, in turn), or "temperature(t)": in proportion to rows ** (1 / t).
    """
    sampling_exponent(sampling)
    return replace(_reading(stream, "joint"), sampling=sampling)


def sampling_exponent(sampling: str) -> float:
    """The power of a task's rows that its share is in proportion to. Raises ScenarioError for words that say none."""
    if sampling in ("proportional", "uniform", "round-robin"):
        return float(sampling == "proportional")
    match = re.fullmatch(r"temperature\((\d+(?:\.\d+)?)\)", sampling)
    if match and float(match[1]) > 0:
        return 1 / float(match[1])
    raise ScenarioError(
        f"sampling={sampling!r} is not known: it is proportional, uniform, round-robin or temperature(2)"
    )


def isolate(stream: Stream) -> Stream:
    """Each task alone: T runs of one task from the same start, put together."""
    return _reading(stream, "isolate")


def _reading(stream: Stream, reading: str) -> Stream:
    if stream.reading != "continual":
        raise ScenarioError(f"{reading} starts from a continual stream, and this one is {stream.reading} already")
    return replace(stream, reading=reading)
