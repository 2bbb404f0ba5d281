"""Experience replay with complementary learning systems, CLS-ER (Arani, Sarfraz and Zonooz, 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Shapes, require
from lifelong.memory.base import RowMemory
from lifelong.memory.drawn import replayed
from lifelong.memory.reservoir import Reservoir
from lifelong.models.base import Net
from lifelong.strategies.replay.rehearsal import Rehearsal


@dataclass(frozen=True)
class CLSER(Rehearsal):
    """Two slow copies of the network, one quicker than the other; old rows are to keep the better copy's scores.

    loss = mean L over the stream's rows and R replayed ones together + strength x mean |h(x') - z'|^2 / C over the
    replayed ones, z' the scores of the stable copy where it gives the true class more probability, else of the plastic
    one. After each step a copy becomes a copy + (1 - a) net with its own probability, else it stays: a = min(1 - 1 / (t + 1),
    decay) after t steps. The stable copy answers. (Arani et al., 2022, eq. 1 to 5 and algorithm 1, and their code.)

    size: M, rows kept. plastic_chance, stable_chance: how often a copy moves; plastic_decay, stable_decay: a in the
    long run, where a copy lags about 1 / (1 - a) steps behind, as it chances to move: with the 0.999 that the authors take for
    CIFAR-10 a run of a few hundred steps is answered by a network that has hardly begun; the defaults are theirs for
    Split-MNIST. rows: R, 0 for as many as the stream brings; replacement: whether a row may be drawn twice in a step;
    memory: which rows are kept. A row that is shown in several epochs is offered to the memory each time. What differs
    from the source: where a row competes among some classes alone (task-incremental), only their scores count, and C is
    their number. Raises StrategyError for negative fields, chances and decays above 1.
    """

    size: int = 200
    strength: float = 2.0
    plastic_chance: float = 1.0
    stable_chance: float = 0.9
    plastic_decay: float = 0.99
    stable_decay: float = 0.99
    rows: int = 0
    replacement: bool = False
    memory: RowMemory = field(default_factory=Reservoir)
    keeps: ClassVar[str] = "rows, two slow copies of the network"
    witness: ClassVar[str] = "a plain float64 loop: tests/reference/witnesses/test_cls_er.py"
    defaults: ClassVar[str] = "published for Split-MNIST"
    passes = (4.0, 2.0)
    offered_again = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.strength >= 0, "strength must be at least 0")
        shares = (self.plastic_chance, self.stable_chance, self.plastic_decay, self.stable_decay)
        require(self, min(shares) >= 0 and max(shares) <= 1, "chances and decays lie between 0 and 1")

    def draws(self, problem: Problem) -> Shapes:
        """Whether each copy moves, too."""
        return {**super().draws(problem), "plastic": (1,), "stable": (1,)}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The memory, both copies and the number of steps."""
        params, memory = super().init(problem, params, generator)
        copies = {name: {key: p.clone() for key, p in params["net"].items()} for name in ("plastic", "stable")}
        return params, {**memory, **copies, "steps": problem.zeros()}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows, each with the weight of a row of the stream."""
        if not len(memory["row"]):
            return batch
        draw, shown = self.picked(memory, batch), batch.shown[batch.stream].sum()
        return replayed(problem, batch, memory, draw, shown.to(problem.dtype) / (shown + draw.valid.sum()))

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """strength x the mean square between scores and those of the better copy."""
        if not len(memory["row"]):
            return batch.weight.new_zeros(())
        draw = self.picked(memory, batch)
        rows = slice(batch.mine.start, batch.mine.start + len(draw.place))
        x, allowed, y = batch.x[rows], batch.allowed[rows], batch.y[rows].clamp(min=0)[:, None]
        plastic, stable = (problem.logits({"net": memory[name]}, x) for name in ("plastic", "stable"))
        sure = [scores.masked_fill(~allowed, -torch.inf).softmax(1).gather(1, y) for scores in (plastic, stable)]
        better = torch.where(sure[1] > sure[0], stable, plastic)
        each = torch.where(allowed, outputs.logits[rows] - better, 0).square().sum(1) / allowed.sum(1)  # [R]
        return self.strength * (draw.weight(batch.weight.new_ones(())) * each).sum()

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Offer the rows to the memory; each copy moves, or stays."""
        params, memory = super().after_step(problem, params, memory, step)
        steps, draws = memory["steps"] + 1, step.batch.draws
        plastic = draws["plastic"][0] < self.plastic_chance
        stable = draws["stable"][0] < self.stable_chance
        return params, {
            **memory,
            "plastic": followed(memory["plastic"], params["net"], steps, self.plastic_decay, plastic),
            "stable": followed(memory["stable"], params["net"], steps, self.stable_decay, stable),
            "steps": steps,
        }

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """The stable copy's scores."""
        return problem.logits({"net": memory["stable"]}, x)


def followed(copy: Net, net: Net, steps: Tensor, decay: float, moves: Tensor) -> Net:
    """a copy + (1 - a) net where it moves, a = min(1 - 1 / (steps + 1), decay)."""
    early = 1 - 1 / (steps + 1)
    kept = torch.where(moves, torch.minimum(early, torch.zeros_like(early) + decay), 1)
    return {name: kept * slow + (1 - kept) * net[name] for name, slow in copy.items()}
