"""Random loss weighting: the control that every adaptive weight must beat (Lin et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lifelong.core.batch import Batch, Memory, Params, normal
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy
from lifelong.strategies.multitask.gradients import GAINS
from scenarios.stream import Stream


@dataclass(frozen=True)
class RLW(Strategy):
    """Weigh the tasks at random, anew in each step: loss = sum_i a_i n_i / B L_i, a = T softmax(z), z_i standard normal.

    L_i: mean loss of the batch's n_i rows of task i, of B. The paper's weights add up to 1; here they are T times that, so
    that their mean is the plain joint loss, at the same learning rate.
    """

    keeps = "nothing"
    witness = "its formula, in a plain float64 loop: tests/reference/test_task_weights.py"
    requires = Requirements(paradigm="joint")

    def draws(self, problem: Problem) -> Shapes:
        """A number for each task."""
        return {"weights": (problem.tasks,)}

    def notes(self, stream: Stream) -> list[str]:
        """What to expect."""
        return [GAINS.format("RLW")]

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Scale each row's weight by its task's."""
        weights = problem.tasks * torch.softmax(normal(batch.draws["weights"].to(problem.dtype)), 0)
        return batch.replace(weight=batch.weight * weights[batch.task])
