"""Riemannian walk (Chaudhry, Dokania, Ajanthan and Torr, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.models.base import Net
from lifelong.strategies.expectations import WITHOUT_OLD_DATA, expected
from lifelong.strategies.regularisation.quadratic import quadratic_gradient
from scenarios.stream import Stream


@dataclass(frozen=True)
class RWalk(Strategy):
    """Hold each weight as firmly as it matters now, EWC's Fisher, and as it helped on the way, SI's path, together.

    penalty = strength x sum_i (F'_i + s'_i) (p_i - c_i)^2, without a half; F' and s' are F and s brought to 0 ... 1 over all
    weights, (v - min) / (max - min), and c are the weights at the end of the last task. Both are made along the way, in
    intervals of so many steps, from the gradients g of the loss without this penalty, and so cost no pass of their own:
        F <- share x (mean of g^2 over the interval) + (1 - share) x F,    over all tasks, from 0,
        s_task <- s_task + max(0, path) / (F (p - p_begun)^2 / 2 + damping),    of the F before this interval,
    where path sums -g x movement over the interval and F (p - p_begun)^2 / 2 is how far the answers moved (the KL divergence, to
    second order). At a task's end s <- (s + s_task) / 2, after the first s <- s_task.

    The paper leaves the interval that the end of a task cuts short; the authors' code drops it, and here it counts.
    Their code moreover leaves the half out, damps with 0.001, and adds (s + s_task) / 2 to s where the paper puts it in
    its place. Avalanche moves F at every step, takes max(0, .) at a task's end alone and divides by the maximum; FACIL takes
    F from a pass over the task at its end and spares the heads. The paper's own results in class-incremental streams come
    with rows of old tasks: RWalk() + Replay(...).

    Memory: seven tensors shaped like the net, and two counts. Raises StrategyError for numbers out of range.
    """

    strength: float = 1.0
    share: float = 0.9
    interval: int = 10
    damping: float = 0.001
    off = {"strength": 0.0}
    anchors = True
    previous_params = True
    requires = Requirements(task_ends=True)
    keeps = "seven copies of the weights"
    witness = "a plain float64 loop: tests/reference/witnesses/test_rwalk.py"
    defaults = "the authors' for permuted MNIST"

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")
        require(self, 0 <= self.share <= 1, "share lies in 0 ... 1")
        require(self, self.interval >= 1 and self.damping > 0, "interval must be at least 1 and damping above 0")

    def notes(self, stream: Stream) -> list[str]:
        """What the literature found without old rows."""
        return expected(WITHOUT_OLD_DATA, "RWalk", stream)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """What the intervals gather, F, s_task and s, the penalty's importance and centre; steps of the interval, tasks."""
        net = params["net"]
        sums = ("path", "squares", "fisher", "task_score", "score", "importance")
        memory: dict[str, Any] = {name: {key: torch.zeros_like(value) for key, value in net.items()} for name in sums}
        weights = {name: {key: value.clone() for key, value in net.items()} for name in ("begun", "centre")}
        return params, {**memory, **weights, "steps": problem.zeros(), "done": problem.zeros()}

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Add the penalty's, 2 x strength x importance x (p - c), and note the gradient without it."""
        return quadratic_gradient(grads, params, memory, 2 * self.strength), {"loss": grads["net"]}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Add this step to the interval; close the interval when it is full."""
        net, previous, path, squares = params["net"], step.previous["net"], {}, {}
        for name, gradient in step.notes["loss"].items():  # of fixed parameters there is none
            path[name] = torch.addcmul(memory["path"][name], gradient, previous[name] - net[name])
            squares[name] = torch.addcmul(memory["squares"][name], gradient, gradient)
        memory = {**memory, "path": {**memory["path"], **path}, "squares": {**memory["squares"], **squares}}
        memory["steps"] = memory["steps"] + 1
        return params, self._closed(memory, net, memory["steps"] >= self.interval)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Close the open interval, and hold on to the weights as they are now."""
        net, memory = params["net"], self._closed(memory, params["net"], memory["steps"] > 0)
        new, kept = memory["task_score"], torch.where(memory["done"] > 0, 0.5, 0.0)
        score = {name: kept * memory["score"][name] + (1 - kept) * value for name, value in new.items()}
        fisher, scaled = in_unit_range(memory["fisher"]), in_unit_range(score)
        return params, {
            **memory, "score": score, "task_score": {name: torch.zeros_like(value) for name, value in new.items()},
            "importance": {name: fisher[name] + scaled[name] for name in net}, "centre": dict(net), "begun": dict(net),
            "done": memory["done"] + 1,
        }  # fmt: skip

    def _closed(self, memory: Memory, net: Net, full: Tensor) -> Memory:
        """The memory with the interval turned into score and Fisher, and a new interval begun, where it is full."""
        fisher, score, begun = {}, {}, {}
        for name, p in net.items():
            now, old = memory["fisher"][name], memory["begun"][name]
            moved = now * (p - old).square() / 2  # the KL divergence that this weight's way made
            gained = memory["path"][name].relu() / (moved + self.damping)
            mean = memory["squares"][name] / memory["steps"].clamp(min=1)
            score[name] = memory["task_score"][name] + torch.where(full, gained, 0.0)
            fisher[name] = torch.where(full, self.share * mean + (1 - self.share) * now, now)
            begun[name] = torch.where(full, p, old)
        fresh = {
            key: {name: torch.where(full, 0.0, value) for name, value in memory[key].items()}
            for key in ("path", "squares")
        }
        steps = torch.where(full, 0.0, memory["steps"])
        return {**memory, **fresh, "fisher": fisher, "task_score": score, "begun": begun, "steps": steps}


def in_unit_range(values: Net) -> Net:
    """(v - min) / (max - min), the least and the greatest of all tensors together; 0 where all are equal."""
    least = torch.stack([value.min() for value in values.values()]).min()
    spread = torch.stack([value.max() for value in values.values()]).max() - least
    return {name: (value - least) / torch.where(spread > 0, spread, 1.0) for name, value in values.items()}
