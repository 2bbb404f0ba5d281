"""Hard attention to the task, HAT (Serra, Suris, Miron and Karatzoglou, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.core.batch import Batch, FinishedTask, Memory, Outputs, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.models.base import Net
from lifelong.strategies.architecture.gates import gated_by, hidden_layers, ungated
from lifelong.strategies.architecture.head_rows import of_classes

STEEPEST, WIDEST = 50.0, 6.0  # the authors' bounds of s e under the cosh, and of e


@dataclass(frozen=True)
class HAT(Strategy):
    """Learn for each task which hidden units it uses, and let later tasks change no weight between units in use.

    h <- a_t h in each hidden layer, a_t = sigmoid(s e_t) [H], e_t learned, at first standard normal numbers; s = 1 / steepness +
    (steepness - 1 / steepness) x progress of the task, and steepness for answers. After a task A <- max(A, a_t). penalty = strength x
    sum_i a_i (1 - A_i) / sum_i (1 - A_i) over all hidden units i. Weights from unit j to i move by 1 - min(A_j, A_i) of their step,
    biases and the first layer's weights by 1 - A_i; the head is free. The gradient of e, which the sigmoid quenches, is
    scaled by steepness (cosh(s e) + 1) / (s (cosh(e) + 1)), and e stays within +-6. (Serra et al., 2018, eq. 1 to 6, and the
    authors' code for what is bounded.)

    There s rises anew in each epoch, here over each task. They scale the gradient by 1 - min(A_j, A_i), here it is the step:
    the same for plain gradient descent, as theirs is, where Adam would undo the first; and what belongs to other tasks, their
    heads and e, stays where it is, whatever moments an optimiser carries on. For an MLP alone: raises StrategyError
    where the hidden layers do not follow one another. In a sum, what runs the network by itself does so without its
    gates, as with `XdG`. Own parameters: e [T, H] of each hidden layer.
    """

    strength: float = 0.75
    steepness: float = 400.0
    keeps = "an embedding of each task for each hidden unit"
    witness = "a plain float64 loop: tests/reference/witnesses/test_hat.py"
    defaults = "published"
    previous_params = True
    acts_at_once = True
    requires = Requirements(settings=("task",), task_ends=True, task_id=True, hooks=True)

    def __post_init__(self) -> None:
        require(self, self.strength >= 0, "strength must be at least 0")
        require(self, self.steepness >= 1, "steepness must be at least 1")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """e, and A, 0 as yet, of each hidden layer."""
        net, layers = params["net"], hidden_layers(problem, params)
        sizes, weights = list(layers.items()), [net.get(f"{name}.weight") for name in layers]
        shapes: list[tuple[int, ...]] = [() if weight is None else tuple(weight.shape) for weight in weights]
        above = list(layers.values())
        follow = [shape[1:] for shape in shapes] == [(n,) for n in above]
        follow = follow and [shape[0] for shape in shapes[1:]] == above[:-1]
        require(
            self, bool(sizes) and follow, "takes a network of hidden layers that follow one another, as MLP(100, 100)"
        )
        drawn = {name: torch.randn(problem.tasks, units, generator=generator) for name, units in sizes}
        embeddings = {name: e.to(problem.device, problem.dtype) for name, e in drawn.items()}
        return {**params, "own": embeddings}, {name: problem.zeros(units) for name, units in sizes}

    def rise(self, progress: Tensor) -> Tensor:
        """s."""
        return 1 / self.steepness + (self.steepness - 1 / self.steepness) * progress

    def notes_beside(self, other: Strategy) -> list[str]:
        """Of what runs the network without its gates."""
        return ungated(self, other)

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """The plain loss, through the gates of each row's task."""
        gates = {name: (self.rise(batch.progress) * e[batch.task]).sigmoid() for name, e in params["own"].items()}
        outputs = problem.outputs(params, batch.x, gated_by(gates))
        return (batch.weight * problem.loss_rows(outputs.logits, batch)).sum(), outputs

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """The price of units that no task uses yet."""
        used = torch.cat(list(memory.values()))
        e = torch.cat([e[batch.task[:1]][0] for e in params["own"].values()])
        free = 1 - used
        price = ((self.rise(batch.progress) * e).sigmoid() * free).sum()
        return self.strength * price / free.sum().clamp(min=torch.finfo(e.dtype).tiny)

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """Undo what the sigmoid takes from the gradient of e."""
        s, embeddings = self.rise(batch.progress), {}
        for name, gradient in grads["own"].items():
            e = params["own"][name]
            steep = (s * e).clamp(-STEEPEST, STEEPEST).cosh() + 1
            embeddings[name] = gradient * (self.steepness / s) * steep / (e.cosh() + 1)
        return {**grads, "own": embeddings}, {}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Take back the share of the step that would change old tasks."""
        task, before = step.batch.task[:1], step.previous
        free = of_classes(problem, params["net"], problem.index["classes_of"][task][0].to(problem.dtype))
        free |= open_weights(params["net"], memory)
        net = {n: before["net"][n] + free[n] * (value - before["net"][n]) for n, value in params["net"].items()}
        embeddings = {}
        for name, e in params["own"].items():
            ours = (torch.arange(len(e), device=e.device) == task)[:, None]
            embeddings[name] = torch.where(ours, e.clamp(-WIDEST, WIDEST), before["own"][name])
        return {**params, "net": net, "own": embeddings}, memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """The task's units are in use."""
        used = {
            n: torch.maximum(a, (self.steepness * params["own"][n][task.number[None]][0]).sigmoid())
            for n, a in memory.items()
        }
        return params, used

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scores through the gates of each row's task."""
        gates = {name: (self.steepness * e[task]).sigmoid() for name, e in params["own"].items()}
        return problem.logits(params, x, gated_by(gates))


def open_weights(net: Net, used: Net) -> Net:
    """How freely each weight and bias of the hidden layers may move, 0 ... 1."""
    free, below = {}, None
    for name, above in used.items():
        both = above if below is None else torch.minimum(below[:, None], above)
        free[f"{name}.weight"] = (1 - both).expand_as(net[f"{name}.weight"])
        free[f"{name}.bias"] = 1 - above
        below = above
    return free
