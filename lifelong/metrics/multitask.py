"""What tasks gain by being learned together."""

from __future__ import annotations

from torch import Tensor

from lifelong.core.result import Result
from lifelong.metrics.base import NotMeasured, accuracy_matrix
from lifelong.metrics.transfer import accuracy_alone


def multi_task_gains(joint: Result, alone: Result) -> Tensor:
    """(a_joint[j] - a_alone[j]) / a_alone[j], [S, T]: what each task gained by being learned with the others.

    Below 0 is negative transfer. joint: a run with the baseline joint; alone: one with isolate, on the same seeds and
    tasks. A task that is at 0 alone has no finite gain. Raises NotMeasured for other runs, and for tasks of numbers, whose
    score may be 0 or less.
    """
    if joint.paradigm != "joint":
        raise NotMeasured("this asks what learning together gave: give a run with --baseline joint")
    if joint.numbers:
        raise NotMeasured("a gain relative to the score alone needs one above 0, and this stream asks for numbers")
    single = accuracy_alone(joint, alone)
    return (accuracy_matrix(joint)[:, -1] - single) / single


def multi_task_gain(joint: Result, alone: Result) -> Tensor:
    """delta-m, the mean over tasks of `multi_task_gains`, [S] (Maninis et al., 2019; Vandenhende et al., 2021)."""
    return multi_task_gains(joint, alone).mean(1)
