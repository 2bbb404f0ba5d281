"""Less-forgetting learning (Jung, Ju, Jung and Kim, 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.expectations import WITHOUT_OLD_DATA, expected
from lifelong.strategies.regularisation.heads import entries_of
from scenarios.stream import Stream


@dataclass(frozen=True)
class LFL(Strategy):
    """Leave the classes' boundaries where they are, and see the new rows as the network before this task saw them.

    penalty = strength / 2 x mean over the stream's rows of |f(x) - f_old(x)|^2, f the features [F] before the head; and the
    head's weights and biases of all classes seen in earlier tasks are put back after each step.

    The paper has two domains of the same classes, so that its whole head is fixed; where later tasks bring new classes,
    theirs must learn, and do here until their task is over. Its loss has a weight for the cross-entropy, too, and a lower
    rate for the new domain: the optimiser's. It gives no strength that carries over from layer to layer: 0.1 is ours.
    Avalanche takes the mean over features as well: its lambda_e is strength x F / 2; and it fixes the head of all classes.

    Memory: the last network, classes seen [C], whether a task has ended. Raises StrategyError for a negative strength.
    """

    strength: float = 0.1
    fixed_head: bool = True
    off = {"strength": 0.0, "fixed_head": False}
    requires = Requirements(task_ends=True)
    keeps = "the last network"
    passes = (2.0, 1.0)
    runs_network = True
    witness = "a plain float64 loop: tests/reference/witnesses/test_lfl.py"
    defaults = "ours"
    previous_params = True

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found in class-incremental streams; where tasks share their classes it gains."""
        return expected(WITHOUT_OLD_DATA, "LFL", stream) if stream.setting == "class" else []

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The old network, classes seen [C], and a flag for when they count."""
        old = {name: value.clone() for name, value in params["net"].items()}
        seen = torch.zeros(problem.classes, dtype=torch.bool, device=problem.device)
        return params, {"old": old, "seen": seen, "on": problem.zeros()}

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """How far the features of the stream's rows have moved; exactly 0 during the first task."""
        rows = batch.stream
        shown = batch.shown[rows].to(problem.dtype)
        gap = outputs.features[rows] - problem.features({"net": memory["old"]}, batch.x[rows])
        share = shown / shown.sum().clamp(min=1)
        return memory["on"] * self.strength / 2 * (gap.square().sum(1) @ share)

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Put the old classes' part of the head back."""
        if not self.fixed_head:
            return params, memory
        net, previous = params["net"], step.previous["net"]
        fixed = entries_of(problem, net, memory["seen"])
        return {**params, "net": {**net, **{name: torch.where(fixed[name], previous[name], net[name]) for name in fixed}}}, memory  # fmt: skip

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """The network becomes the old one, and its classes stay."""
        seen = memory["seen"] | task.classes
        return params, {"old": dict(params["net"]), "seen": seen, "on": torch.ones_like(memory["on"])}
