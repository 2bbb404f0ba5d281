"""Forward transfer: what earlier tasks are worth to later ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.core.result import Result
from lifelong.metrics.base import NotMeasured, accuracy_curve, accuracy_matrix, curve_areas, diagonal_of, metric


@metric("order")
def forward_transfer(result: Result) -> Tensor:
    """1/(T-1) sum_{j>1} (a[j-1, j] - b[j]), b the accuracy of a random draw (Lopez-Paz and Ranzato, 2017).

    Degenerate in class-incremental streams, where unseen classes are never answered, and with heads not yet trained:
    there it says minus the luck of the random net and is not given.
    """
    a = accuracy_matrix(result, 2)
    if result.setting != "domain":
        raise NotMeasured(
            f"zero-shot forward transfer is degenerate in a {result.setting}-incremental stream: heads untrained"
        )
    upper = a.diagonal(offset=1, dim1=1, dim2=2)
    return (upper - result.untrained[:, 1:]).mean(1)


def few_shot_curve(result: Result) -> Tensor:
    """F_k for each k of `result.shots`, [S, K]: what was learned before, worth in accuracy after k rows of each class.

    F_k = 1/(T-1) sum_{j>1} (acc(adapt(theta_{j-1}, k rows of j)) - acc(adapt(theta_0, the same rows))), theta_0 a random
    draw, both with the same fresh head, rule and rate (after Chen et al., 2023, who compare few-shot probes so).
    """
    accuracy_matrix(result, 2)
    if not result.shots:
        raise NotMeasured("this reads adaptations from a few rows of each coming task: run with --few-shot 1,5,10")
    return (result.few_shot[:, 0] - result.few_shot[:, 1])[:, 1:].mean(1)


@metric("few_shot")
def few_shot_forward_transfer(result: Result) -> Tensor:
    """`few_shot_curve` at the largest k: the forward transfer that stands where the zero-shot one is degenerate."""
    return few_shot_curve(result)[:, -1]


def accuracy_alone(result: Result, isolated: Result) -> Tensor:
    """b [S, T], the accuracy of each task's own network; refuses where the two runs cannot be paired."""
    if isolated.paradigm != "isolate":
        raise NotMeasured("this compares with each task learned alone: give a run with --baseline isolate")
    if result.seeds != isolated.seeds or result.tasks != isolated.tasks:
        raise NotMeasured("the run and its isolate baseline need the same seeds and tasks")
    return diagonal_of(accuracy_matrix(isolated))


def transfer_gain(result: Result, isolated: Result) -> Tensor:
    """1/(T-1) sum_{j>1} (a[j, j] - b[j]), b[j] of a network that learned task j alone: transfer with all of j's rows.

    With the sign turned and a joint reference it is `intransigence`. Task 1 has nothing before it and is left out.
    """
    return (diagonal_of(accuracy_matrix(result, 2)) - accuracy_alone(result, isolated))[:, 1:].mean(1)


def learning_speed(result: Result, isolated: Result) -> Tensor:
    """1/(T-1) sum_{j>1} (AUC_j - AUC_j^alone) / (1 - AUC_j^alone) (Wolczyk et al., 2021, forward transfer).

    AUC_j: area under the accuracy on j while it is learned, from just before, as a share of 1. Both runs need the same
    evaluations along the way.
    """
    accuracy_curve(result)
    accuracy_alone(result, isolated)
    if not torch.equal(result.when, isolated.when):
        raise NotMeasured("both runs need the same evaluations: the same --eval-every, --eval-rows and iterations")
    after_others, alone = curve_areas(result), curve_areas(isolated)
    return ((after_others - alone) / (1 - alone))[:, 1:].mean(1)
