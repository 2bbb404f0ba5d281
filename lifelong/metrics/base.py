"""What a metric is, where they are found, and the accuracies that they read.

a[t, j] is the accuracy on task j after task t (both from 1), T the number of tasks. Of tasks that ask for numbers it is
1 - mean square error / variance: 1 at best, 0 for the mean of what is asked, and below 0 without limit, so that more
than 1 can be forgotten. The two have no common mean: where a stream has tasks of both kinds, metrics over tasks refuse.
Where the peers compute another number under the same name, theirs has a name of its own here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lifelong.core.result import Result
from scenarios.errors import ConfigurationError

Metric = Callable[[Result], Tensor]
METRICS: dict[str, Metric] = {}
NEEDS: dict[str, str] = {}


class NotMeasured(ConfigurationError):
    """This result cannot give that metric; the message says why, and which flag would."""


def metric(needs: str = "") -> Callable[[Metric], Metric]:
    """Register a metric. needs: "order" for one that compares task ends, "curve" for one that reads evaluations between,
    "few_shot" for one that reads adaptations to coming tasks, "probe" for one that reads heads fitted anew."""

    def register(function: Metric) -> Metric:
        METRICS[function.__name__] = function
        NEEDS[function.__name__] = needs
        return function

    return register


def available(result: Result) -> dict[str, Metric]:
    """The metrics that this result can give."""
    names = {}
    for name, function in METRICS.items():
        try:
            function(result)
        except NotMeasured:
            continue
        names[name] = function
    return names


def accuracy_matrix(result: Result, at_least: int = 1) -> Tensor:
    """a [S, T, T]; refuses where a comparison over task ends has no meaning."""
    if at_least > 1 and result.paradigm != "continual":
        raise NotMeasured(
            f"a {result.paradigm} run learns no task after another, so nothing can be forgotten or transferred"
        )
    if 0 < len(result.numbers) < result.tasks:
        raise NotMeasured(
            "the stream has tasks of classes and of numbers, whose scores have no common mean: read them by task"
        )
    if result.tasks < at_least:
        raise NotMeasured(f"this needs at least {at_least} tasks, and the stream has {result.tasks}")
    return result.at_task_ends


def diagonal_of(a: Tensor) -> Tensor:
    """a[t, t] of [S, T, T], as [S, T]: each task just after it was learned."""
    return a.diagonal(dim1=1, dim2=2)


def accuracy_curve(result: Result) -> tuple[Tensor, Tensor]:
    """Accuracy at every evaluation after the start [S, E, T], and the number of tasks ended before each [E]."""
    accuracy_matrix(result, 2)
    if not (result.when[1:, 2] == 0).any():
        raise NotMeasured("this reads evaluations along the way: run with --eval-every N")
    ended = result.when[1:, 0] + result.when[1:, 2]
    return result.accuracy[:, 1:], ended


def curve_areas(result: Result) -> Tensor:
    """AUC_j [S, T]; the curve of a task that is learned alone begins at the run's start, not at the task before."""
    areas = []
    for j in range(result.tasks):
        within = (result.when[:, 0] == j) & (result.when[:, 1] > 0)
        ended = (result.when[:, 0] == j - 1) & (result.when[:, 2] == 1)
        first = result.before if j == 0 or result.paradigm == "isolate" else result.accuracy[:, ended][:, 0]
        x = torch.cat([torch.zeros(1), result.when[within][:, 1]]).to(result.accuracy.dtype)
        y = torch.cat([first[:, j : j + 1], result.accuracy[:, within, j]], 1)
        areas.append(torch.trapezoid(y, x, dim=1) / x[-1])
    return torch.stack(areas, 1)
