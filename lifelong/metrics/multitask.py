"""What tasks gain by being learned together."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.result import Result
from lifelong.metrics.base import NotMeasured, diagonal_of


def multi_task_gains(joint: Result, alone: Result) -> Tensor:
    """What each task gained by being learned with the others, [S, T]; below 0 is negative transfer.

    Of classes (a_joint[j] - a_alone[j]) / a_alone[j], a the accuracy, higher is better. Of numbers
    (e_alone[j] - e_joint[j]) / e_alone[j], e = mean square error / variance, lower is better. joint: a run with the baseline
    joint; alone: one with isolate, on the same seeds and tasks. A task that is at 0 alone has no finite gain, and one whose
    alone is near 0 a meaningless one: read the two beside it. Raises NotMeasured for other runs.
    """
    if joint.paradigm != "joint":
        raise NotMeasured("this asks what learning together gave: give a run with --baseline joint")
    if alone.paradigm != "isolate":
        raise NotMeasured("this compares with each task learned alone: give a run with --baseline isolate")
    if joint.seeds != alone.seeds or joint.tasks != alone.tasks:
        raise NotMeasured("the run and its isolate baseline need the same seeds and tasks")
    together, single = joint.at_task_ends[:, -1], diagonal_of(alone.at_task_ends)
    numbers = torch.zeros(joint.tasks, dtype=torch.bool)
    numbers[list(joint.numbers)] = True
    base = torch.where(numbers, 1 - single, single)
    return (together - single) / base  # e_alone - e_joint = a_joint - a_alone


def multi_task_gain(joint: Result, alone: Result) -> Tensor:
    """delta-m, the mean over tasks of `multi_task_gains`, [S] (Maninis et al., 2019; Vandenhende et al., 2021)."""
    return multi_task_gains(joint, alone).mean(1)
