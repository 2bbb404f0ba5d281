"""Shrink and perturb (Ash and Adams, 2020; at every step: Dohare et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lifelong.core.batch import FinishedTask, Memory, Params, Step, normal
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Shapes, Strategy, require
from lifelong.models.base import Net
from lifelong.strategies.expectations import NOTHING_OF_OLD_TASKS, expected
from scenarios.stream import Stream

MOMENTS = ("task", "step")


@dataclass(frozen=True)
class ShrinkAndPerturb(Strategy):
    """Draw all weights towards 0 and shake them, so that they can learn anew, from no worse a start than a fresh one.

    p <- shrink x p + noise x e, with e standard normal, for every weight; at every task's end, before it is evaluated
    (every="task": Ash and Adams, 2020, with shrink 0.6 and noise 0.01; their code adds a fresh network
    in place of e), or after every step (every="step").

    Dohare et al. (2024) shake at every step and let the optimiser shrink: ShrinkAndPerturb(shrink=1.0, noise=0.00001,
    every="step") with SGD(weight_decay=...). Ash and Adams learn on with all data so far: on a stream, what the task's end
    shrinks is forgotten in part, and shows in the accuracy after it. Over many tasks, what nothing is learned into settles at a
    spread of noise / sqrt(1 - shrink^2): where that is far below the first weights', as 0.0125 is below the 0.07 of a layer of
    64 inputs, short tasks end in a net too small to learn with. The optimiser's moments stay as they are.

    Draws: a number for each weight, at each task's end or step; at each step that costs about as much as the step.
    Memory: none. Raises StrategyError for numbers out of range and another moment.
    """

    shrink: float = 0.6
    noise: float = 0.01
    every: str = "task"
    off = {"shrink": 1.0, "noise": 0.0}
    acts_at_once = True
    keeps = "nothing"
    witness = "a plain float64 loop: tests/reference/witnesses/test_shrink_and_perturb.py"
    defaults = "published"

    def __post_init__(self) -> None:
        require(self, 0 <= self.shrink <= 1, "shrink lies in 0 ... 1")
        require(self, self.noise >= 0, "noise must be at least 0")
        require(self, self.every in MOMENTS, f"every is one of {', '.join(MOMENTS)}")

    @property
    def requires(self) -> Requirements:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """The end of a task, where it acts then."""
        return Requirements(task_ends=self.every == "task", all_move=True, instead='every="step" does without')

    def notes(self, stream: Stream) -> list[str]:
        """That it is made for something else."""
        return expected(NOTHING_OF_OLD_TASKS, "ShrinkAndPerturb", stream)

    def draws(self, problem: Problem) -> Shapes:
        """A number for each weight, where it acts at each step."""
        return shapes_of(problem) if self.every == "step" else {}

    def task_draws(self, problem: Problem) -> Shapes:
        """The same where it acts at a task's end."""
        return shapes_of(problem) if self.every == "task" else {}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Shrink and shake, where that is every step's."""
        draws = step.batch.draws
        return ({**params, "net": self._shaken(params["net"], draws)} if self.every == "step" else params), memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Shrink and shake, where that is the task's end's."""
        return ({**params, "net": self._shaken(params["net"], task.draws)} if self.every == "task" else params), memory

    def _shaken(self, net: Net, draws: Net) -> Net:
        """The net, shrunk and with its noise."""
        return {name: self.shrink * p + self.noise * normal(draws[name].to(p.dtype)) for name, p in net.items()}


def shapes_of(problem: Problem) -> Shapes:
    """The shape of every parameter of the net, by name."""
    net = problem.model.init(problem.shape, problem.classes, torch.Generator())
    return {name: tuple(value.shape) for name, value in net.items()}
