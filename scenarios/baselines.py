"""Baselines made from a stream: they change only what is trained on, never what is tested."""

from __future__ import annotations

from dataclasses import replace

from scenarios.stream import ScenarioError, Stream


def joint(stream: Stream) -> Stream:
    """All tasks at once: one phase of T x iterations over all rows, each row with its own task, head and mask."""
    return _reading(stream, "joint")


def isolate(stream: Stream) -> Stream:
    """Each task alone: T runs of one task from the same start, put together."""
    return _reading(stream, "isolate")


def _reading(stream: Stream, reading: str) -> Stream:
    if stream.reading != "continual":
        raise ScenarioError(f"{reading} starts from a continual stream, and this one is {stream.reading} already")
    return replace(stream, reading=reading)
