"""Learning from a few examples: the continual learner's own pure `step`, some times on one support set.

Every function here is of one task; `torch.func.vmap` maps it over tasks, seeds, rates. MAML's inner loop, a transfer
method's fine-tuning and the few-shot column of a comparison are all `adapted`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.learner import Learner, State
from lifelong.core.problem import Problem, scaled
from lifelong.core.strategy import Strategy
from lifelong.models.base import Hook, Model, Net
from scenarios.stream import Dataset

_NO_TABLE = Dataset("episode", torch.empty(0, 1), torch.empty(0, dtype=torch.int64), 0, 1)


def episode_problem(model: Model, way: int, dtype: torch.dtype = torch.float32) -> Problem:
    """An episode as a problem: one task of N classes, its rows brought by the batch rather than looked up."""
    return Problem(model, _NO_TABLE, {}, "task", way, 1, 1, dtype)


def batch_of(x: Tensor, y: Tensor, way: int, dtype: torch.dtype = torch.float32, weight: Any = ()) -> Batch:
    """Rows [B, ...] and labels int64 [B] (or, in regression, targets float [B, N]) as a batch.

    weight: how much each row counts [B], brought to a sum of 1; nothing for equal weights.
    """
    count, device = x.shape[0], x.device
    number = torch.zeros(count, dtype=torch.int64, device=device)
    yes = torch.ones(count, dtype=torch.bool, device=device)
    regression = y.is_floating_point()
    return Batch(
        row=number - 1,
        task=number,
        x=scaled(x, dtype),
        y=number if regression else y,
        weight=shares(weight, count, dtype, device),
        allowed=yes[:, None].expand(-1, way),
        first_seen=yes,
        shown=yes,
        progress=torch.zeros((), dtype=dtype, device=device),
        target=y.to(dtype) if regression else (),
        soft=torch.ones(count, dtype=dtype, device=device) if regression else (),
        bounds=(count,),
    )


def shares(weight: Any, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights [B] brought to a sum of 1; where there are none, every row has the same share."""
    if isinstance(weight, Tensor):
        return weight.to(dtype) / weight.to(dtype).sum()
    return torch.full((count,), 1 / max(count, 1), dtype=dtype, device=device)


def adapted(learner: Learner, problem: Problem, state: State, batch: Batch, steps: int) -> State:
    """The state after some steps on one batch; differentiable through every one of them."""
    for _ in range(steps):
        state = learner.step(problem, state, batch)
    return state


def loss_of(problem: Problem, params: Params, batch: Batch) -> Tensor:
    """The weighted loss of a batch, 0-d: cross-entropy, or the mean square where the batch bears targets alone."""
    return _objective(problem, params, batch)[0]


def _objective(problem: Problem, params: Params, batch: Batch) -> tuple[Tensor, Outputs]:
    if isinstance(batch.target, Tensor):
        outputs = problem.outputs(params, batch.x)
        return (batch.weight * (outputs.logits - batch.target).square().sum(1)).sum(), outputs
    return problem.objective(params, batch)


@dataclass(frozen=True)
class MeanSquares(Strategy):
    """Regression: the loss of a row is its squared distance to its target."""

    def objective(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> tuple[Tensor, Outputs]:
        """sum_i w_i |f(x_i) - target_i|^2."""
        return _objective(problem, params, batch)


@dataclass(frozen=True)
class FirstOrder(Strategy):
    """Gradients count as constants, so that nothing is differentiated twice."""

    def grads(
        self, problem: Problem, params: Params, memory: Memory, batch: Batch, grads: Params
    ) -> tuple[Params, Any]:
        """The same numbers, cut from their graph."""
        return tree_map(torch.Tensor.detach, grads), {}


@dataclass(frozen=True)
class OnFeatures:
    """The head of another network; its rows are features already, so that a fixed trunk is passed through once."""

    model: Model
    task_embedding = False
    mixes_rows = False
    shows_layers = True

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """The head alone has no fresh parameters: take the whole network's."""
        return self.model.init(shape, classes, generator)

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The rows themselves."""
        return x

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """The other network's scores [B, C]."""
        return self.model.head(net, features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The other network's [C, F]."""
        return self.model.head_rows(net)


def memberships(labels: Tensor, way: int, dtype: torch.dtype, weight: Any = ()) -> Tensor:
    """How much each row counts in each class [R, N]: its weight in its own, 0 in others; labels int64 [R], weight [R] or nothing."""
    member = (labels[:, None] == torch.arange(way, device=labels.device)).to(dtype)
    return member * weight.to(dtype)[:, None] if isinstance(weight, Tensor) else member


def class_means(features: Tensor, labels: Tensor, way: int, weight: Any = ()) -> Tensor:
    """Weighted mean of each class's features [N, F]: features [R, F], labels int64 [R], weight [R] or nothing."""
    member = memberships(labels, way, features.dtype, weight)
    return (member.T @ features) / member.sum(0)[:, None]


def nearest_means(support: Tensor, labels: Tensor, query: Tensor, way: int, weight: Any = ()) -> Tensor:
    """Minus the squared distance of query features [Q, F] to the mean of each class's support features: [Q, N].

    weight: how much each support row counts in its class's mean [R]; nothing for equal weights.
    """
    means = class_means(support, labels, way, weight)
    return -(query[:, None] - means[None]).square().sum(2)
