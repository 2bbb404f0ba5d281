"""What each task counts in a joint loss: by hand, or learned with the network (Kendall, Gal and Cipolla, 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, StrategyError, require
from lifelong.strategies.multitask.gradients import GAINS
from scenarios.stream import Stream


@dataclass(frozen=True)
class TaskWeights(Strategy):
    """Weigh the tasks by hand: loss = sum_i a_i n_i / B L_i, with a_i the weight of task i.

    L_i: mean loss of the batch's n_i rows of task i, of B. Nothing is normalised: weights of 2 throughout are a loss of
    twice the size. Empty: all 1, the plain joint loss. Raises StrategyError unless there is one weight for each task.
    """

    weights: tuple[float, ...] = ()
    keeps = "weights of the tasks"
    witness = "its formula, by hand: tests/reference/test_multitask.py"
    requires = Requirements(paradigm="joint")

    def __post_init__(self) -> None:
        plain = isinstance(self.weights, tuple) and all(isinstance(a, int | float) for a in self.weights)
        require(self, plain and min((*self.weights, 0)) >= 0, "weights are numbers of at least 0, as in (1.0, 2.0)")

    def notes(self, stream: Stream) -> list[str]:
        """What to expect."""
        return [GAINS.format(type(self).__name__)]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """weights a [T]."""
        if self.weights and len(self.weights) != problem.tasks:
            raise StrategyError(f"{self!r}: {len(self.weights)} weights, and the stream has {problem.tasks} tasks")
        return params, {"weights": problem.zeros().new_tensor(self.weights or (1.0,) * problem.tasks)}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Scale each row's weight by its task's."""
        return batch.replace(weight=batch.weight * memory["weights"][batch.task])


@dataclass(frozen=True)
class UncertaintyWeights(Strategy):
    """Learn what each task counts with the network: s_i, the logarithm of the variance of task i's answers.

    loss = sum_i n_i / B (exp(-s_i) L_i + s_i / 2), L_i the mean loss of the batch's n_i rows of task i, of B: the
    paper's form for classification, each task by its share of the batch, so that s = 0 is the plain joint loss and its
    gradient. At rest exp(s_i) = 2 L_i. Where another part scaled rows' weights, s_i / 2 is scaled with them. start: all
    s_i at first. They are the part's own parameters, and the run's optimiser trains
    them at its own rate; its weight decay, where it has one, draws them to 0.
    """

    start: float = 0.0
    keeps = "a number for each task"
    witness = "its formula, by autograd: tests/reference/test_multitask.py"
    defaults = "ours"
    requires = Requirements(paradigm="joint")

    def notes(self, stream: Stream) -> list[str]:
        """What to expect."""
        return [GAINS.format(type(self).__name__)]

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """log_variance s [T], beside the network's parameters."""
        return {**params, "own": {"log_variance": problem.zeros(problem.tasks) + self.start}}, {}

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """sum_b w_b (exp(-s_i) l_b + s_i / 2), i the task of row b."""
        outputs = problem.outputs(params, batch.x)
        s = params["own"]["log_variance"][batch.task]  # [B]
        return (batch.weight * ((-s).exp() * problem.loss_rows(outputs.logits, batch) + s / 2)).sum(), outputs
