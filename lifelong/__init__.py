"""Continual and lifelong learning: streams of tasks, learned by a fleet of seeds, measured on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.core.learner import Learner
    from lifelong.core.loop import run
    from lifelong.core.strategy import FineTuning, Strategy
    from lifelong.learners.nearest_class_mean import NearestClassMean
    from lifelong.runs.folder import load

_PLACES = {
    "Learner": "lifelong.core.learner",
    "NearestClassMean": "lifelong.learners.nearest_class_mean",
    "run": "lifelong.core.loop",
    "load": "lifelong.runs.folder",
    "FineTuning": "lifelong.core.strategy",
    "Strategy": "lifelong.core.strategy",
}
__all__ = ["FineTuning", "Learner", "NearestClassMean", "Strategy", "load", "run"]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `lifelong --help` does not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)
