"""Look-ahead meta-learning (Gupta, Yadav and Paull, 2020): La-MAML, and its two relatives Sync and C-MAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import replayed
from lifelong.memory.reservoir import Reservoir
from lifelong.models.base import Net
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.lookahead.pieces import pieces, slope
from lifelong.strategies.replay.rehearsal import Rehearsal
from scenarios.stream import Stream

WITNESS = "a plain float64 loop: tests/reference/witnesses/test_lamaml.py"


@dataclass(frozen=True)
class CMAML(Rehearsal):
    """Step ahead through the batch, a piece after another, and descend the losses met on the way of batch and memory.

    From w_0 = w, w_i = w_(i-1) - alpha grad L(piece i; w_(i-1)) for i = 1 ... k; the learner's optimiser gets the gradient
    with respect to w of the mean over i of L(batch and R rows of the memory; w_i), scaled down to the norm `clip` where it is
    longer. alpha is `inner`, a number. Gradients of the steps ahead count as constants unless second_order.

    steps: k; with as many as the batch has rows each is a piece, as in the paper, whose batches have 10. size: M rows,
    kept as memory says; rows: R, 0 for as many as the stream brings; replacement: whether one row may be drawn twice, as
    the authors' code comes to. What differs: their code clamps the gradients of the steps ahead, throws the result away, and replays, after
    the first task, the memory of that task's end. They take each batch up to 10 times: `--repeats 5`; with SGD(0.1).
    A step costs k passes of all its rows. Needs no task ends.
    """

    inner: float = 0.1
    steps: int = 10
    size: int = 200
    rows: int = 0
    replacement: bool = True
    clip: float = 2.0
    second_order: bool = False
    memory: RowMemory = field(default_factory=Reservoir)
    off = {}
    own_gradient = True
    keeps = "rows"
    witness = WITNESS
    defaults = "the authors' for rotated MNIST"
    passes = (23.0, 21.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, min(self.size, self.steps) >= 1, "size and steps must be at least 1")
        require(self, self.clip > 0 and self.inner > 0, "clip and inner must be above 0")

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows; each row of the batch and of the memory has the same weight."""
        draw = self.picked(memory, batch)
        came, again = batch.shown[batch.stream].sum(), draw.valid.sum()
        share = came.to(problem.dtype) / (came + again).clamp(min=1)
        return replayed(problem, batch, memory, draw, share)

    def rates(self, problem: Problem, params: Params) -> Net:
        """alpha of each weight, or of all in one."""
        return {name: problem.zeros() + self.inner for name in params["net"]}

    def met(self, problem: Problem, params: Params, moving: Net, rates: Net, batch: Batch) -> Tensor:
        """The mean of the losses met on the way ahead, 0-d."""
        losses = []
        for rows in pieces(batch, self.steps):
            gradient = slope(problem, params, moving, rows)
            if not self.second_order:
                gradient = {name: value.detach() for name, value in gradient.items()}
            moving = {name: p - rates[name].relu() * gradient[name] for name, p in moving.items()}
            losses.append(problem.objective({**params, "net": {**params["net"], **moving}}, batch)[0])
        return torch.stack(losses).mean()

    def slopes(self, problem: Problem, params: Params, batch: Batch, grads: Params) -> tuple[Net, Net]:
        """The gradients by weights and by rates, each no longer than `clip`; the weights' with that of penalties."""
        moving, rates = {name: params["net"][name] for name in grads["net"]}, self.rates(problem, params)
        by_weight, by_rate = torch.func.grad(lambda w, alpha: self.met(problem, params, w, alpha, batch), (0, 1))(
            moving, rates
        )
        by_weight, by_rate = shortened(by_weight, self.clip), shortened(by_rate, self.clip)
        return {name: value + grads["net"][name] for name, value in by_weight.items()}, by_rate

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The gradient of what was met, for the optimiser."""
        return {**grads, "net": self.slopes(problem, params, batch, grads)[0]}, {}


@dataclass(frozen=True)
class SyncLaMAML(CMAML):
    """C-MAML whose rates are learned: each weight has an alpha of its own, at first `inner`, which descends the same losses.

    A step ahead takes max(alpha, 0); alpha moves by `rate` against its gradient, scaled down to the norm `clip` where it
    is longer, at the same time as the optimiser moves the weights. All else is as in `CMAML`.
    """

    inner: float = 0.15
    rate: float = 0.1
    defaults = "the authors' for rotated and permuted MNIST"
    keeps = "rows, and a rate for each weight"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.rate > 0, "rate must be above 0")

    @property
    def optimiser(self) -> SGD:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """The rates'."""
        return SGD(self.rate)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """A rate for each weight, as own parameters; the memory."""
        params, memory = super().init(problem, params, generator)
        rates = {name: torch.zeros_like(value) + self.inner for name, value in params["net"].items()}
        return {**params, "own": rates}, memory

    def rates(self, problem: Problem, params: Params) -> Net:
        """The learned ones."""
        return params["own"]

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The gradients of what was met, for the optimisers of weights and rates."""
        by_weight, by_rate = self.slopes(problem, params, batch, grads)
        return {**grads, "net": by_weight, "own": by_rate}, {}


@dataclass(frozen=True)
class LaMAML(SyncLaMAML):
    """C-MAML whose learned rates move the weights, too: w <- w - max(alpha', 0) g, alpha' being alpha after its own step.

    g is the gradient of the losses met on the way ahead, by the weights; alpha and its step are as in `SyncLaMAML`. So where
    old rows and new ones disagree about a weight, its rate falls, below 0 to a standstill. The optimiser goes unheard,
    and there is no sum with other parts.
    """

    rate: float = 0.3
    defaults = "the authors' for rotated and permuted MNIST"
    alone = "moves the weights itself, and hands on no gradient"

    def notes(self, stream: Stream) -> list[str]:
        """That the rates are its own."""
        return ["LaMAML moves the weights by rates of its own: the optimiser and its learning rate go unheard"]

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The rates' gradient for their optimiser; none for the weights, which move in `after_step`."""
        by_weight, by_rate = self.slopes(problem, params, batch, grads)
        none = {name: torch.zeros_like(value) for name, value in by_weight.items()}
        return {**grads, "net": none, "own": by_rate}, by_weight

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Move the weights by the new rates; offer the stream's rows to the memory."""
        net, rates = params["net"], params["own"]
        moved = {name: net[name] - rates[name].relu() * value for name, value in step.notes.items()}
        params, memory = super().after_step(problem, params, memory, step)
        return {**params, "net": {**net, **moved}}, memory


def shortened(tree: Net, longest: float | Tensor) -> Net:
    """A gradient scaled down to a norm where it is longer."""
    norm = torch.stack([value.square().sum() for value in tree.values()]).sum().sqrt()
    scale = (longest / (norm + 1e-6)).clamp(max=1)  # as torch's clip_grad_norm_
    return {name: value * scale for name, value in tree.items()}
