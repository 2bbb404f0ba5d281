"""Context-dependent gating, XdG (Masse, Grant and Freedman, 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.models.base import Hook
from lifelong.strategies.architecture.gates import gated_by, hidden_layers, ungated


@dataclass(frozen=True)
class XdG(Strategy):
    """Turn a random share of the hidden units off in each task, while it is learned and when it is told at a question.

    h <- g_t h in each hidden layer, g_t [H] fixed: 0 for round(share x H) units drawn for task t, 1 for the others. Of a
    convolution, channels. (Masse et al., 2018, with 80 %; van de Ven et al., 2022, with the 90 % that is the default
    and the number of units rounded down.)

    In a sum: SI, with which the authors put it together, follows the gated gradients, and so does what adds rows to the
    batch, as Replay and DER. What runs the network by itself does so without its gates: EWC, MAS, LwF, LFL, A-GEM, GEM, OGD,
    GPM, MIR, GSS, FDR, generative replay. For these use a network that has gates of its own,
    `Conditioned(MLP(...), by="gates")`. Memory: rank int64 [T, H] of each hidden layer.
    """

    share: float = 0.9
    keeps = "gates for each task: a bit for each hidden unit"
    witness = "a plain float64 loop: tests/reference/witnesses/test_xdg.py"
    defaults = "published for Split-MNIST (van de Ven et al., 2022)"
    off = {"share": 0.0}
    acts_at_once = True
    requires = Requirements(settings=("task",), task_id=True, hooks=True)

    def __post_init__(self) -> None:
        require(self, 0 <= self.share < 1, "share of the units lies in 0 ... 1, and below 1")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """Each unit's place in a random order, for each task: the first ones are off."""
        ranks = {}
        for name, units in hidden_layers(problem, params).items():
            ranks[name] = torch.rand(problem.tasks, units, generator=generator).argsort(1).to(problem.device)
        return params, ranks

    def notes_beside(self, other: Strategy) -> list[str]:
        """Of what runs the network without its gates."""
        return ungated(self, other)

    def gates(self, problem: Problem, memory: Memory, task: Tensor) -> Hook:
        """The gates of each row's task."""
        half = 0.5  # rounds the number of units
        return gated_by(
            {name: (rank[task] + half > self.share * rank.shape[1]).to(problem.dtype) for name, rank in memory.items()}
        )

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """The plain loss, through the gates."""
        outputs = problem.outputs(params, batch.x, self.gates(problem, memory, batch.task))
        return (batch.weight * problem.loss_rows(outputs.logits, batch)).sum(), outputs

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scores through the gates of each row's task."""
        return problem.logits(params, x, self.gates(problem, memory, task))
