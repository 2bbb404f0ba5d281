"""Implicit MAML (Rajeswaran, Finn, Kakade and Levine, 2019): the meta-gradient from where adaptation ends alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lifelong.core.inner_loop import loss_of
from lifelong.core.learner import Learner
from lifelong.meta.adapting import Adapting, flat, like
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta, params_of
from lifelong.models.base import Net, chosen
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.plasticity.l2_init import L2Init
from scenarios.episodes import Episode, Support


@dataclass(frozen=True, kw_only=True)
class IMAML(Adapting):
    """A start p in whose neighbourhood each task is solved: q = argmin of L(q; support) + strength / 2 |q - p|^2.

    q is approached by `steps` steps of gradient descent from p at `rate`. By the implicit function theorem the gradient is
    d L(q; query) / d p = (1 + H / strength)^{-1} grad L(q; query), H the Hessian of L(q; support): solved by `solver_steps`
    steps of conjugate gradient, so that no inner step is differentiated, and memory does not grow with them. It is the
    derivative of the loss where both are taken to their end. Conjugate gradient wants H + strength to be positive, and
    stops before a direction in which it is not: at these settings, the paper's, fresh Conv4s of 32 and 64 channels with
    batch norm meet one within the five steps on 10 of 16 tasks of Omniglot. damping: added to the strength in the gradient
    alone, as in the authors' code (10 there), against that; it is then the gradient of a stronger pull.
    """

    least: ClassVar[dict[str, int]] = {**Adapting.least, "steps": 1, "solver_steps": 0, "rate": 0, "damping": 0}

    steps: int = 16
    rate: float = 0.1
    strength: float = 2.0
    solver_steps: int = 5
    damping: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength > 0:
            raise InitialisationError(f"IMAML(strength={self.strength}): the pull towards the start is above 0")

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network."""
        meta = super().init(distribution, generator)
        chosen(meta["net"], self.adapts)  # refuses words that select nothing
        return meta

    def inner_learner(self, distribution: TaskDistribution, meta: Meta, way: int) -> tuple[Learner, Any]:
        """Gradient descent on the loss and the pull towards the start."""
        proximal = distribution.objective + L2Init(self.strength / 2)
        return Learner(distribution.model, proximal, SGD(self.rate), self.adapts), {}

    def gradient_of_tasks(
        self, distribution: TaskDistribution, meta: Meta, drawn: Episode, progress: Tensor
    ) -> tuple[Tensor, Meta]:
        """Mean over tasks of the loss on the queries, and of the implicit gradient."""

        def of_task(task: Episode) -> tuple[Tensor, Net]:
            trained = replace(self, test_steps=0)
            return self.implicit(distribution, trained.adapt(distribution, meta, task.support, self.way), task)

        loss, gradient = torch.func.vmap(of_task)(drawn)
        return loss.mean(), {**meta, "net": {name: value.mean(0) for name, value in gradient.items()}}

    def implicit(self, distribution: TaskDistribution, solved: Meta, task: Episode) -> tuple[Tensor, Net]:
        """One task's loss on the queries at its solution, 0-d, and the gradient by the start of every parameter.

        With s = strength + damping and w the solution of (H + s) w = grad L(q; query): s w for parameters that adapt; for
        others, which the solution depends on, grad L(q; query) - (d/dp grad_q L(q; support)) w.
        """
        net = params_of(solved)["net"]

        def queries(net: Net) -> Tensor:
            scores = self.query_scores(distribution, {**solved, "net": net}, task.support, task.query_x, self.way)
            return distribution.loss(scores, task.query_y, task.query_weight)

        slope, loss = torch.func.grad_and_value(queries)(net)
        if not len(task.support_y):
            return loss, slope
        pull = self.strength + self.damping
        pull_back = torch.func.vjp(lambda net: self._slopes(distribution, net, task.support), net)[1]

        def product(direction: Tensor) -> Tensor:  # the Hessian is symmetric: pulling back is pushing forward
            (pulled,) = pull_back(direction)
            return direction + flat(chosen(pulled, self.adapts)) / pull

        moved = conjugate_gradient(product, flat(chosen(slope, self.adapts)), self.solver_steps)
        (mixed,) = pull_back(moved / pull)
        gradient = {name: slope[name] - mixed[name] for name in net}
        return loss, {**gradient, **like(moved, chosen(net, self.adapts))}

    def _slopes(self, distribution: TaskDistribution, net: Net, support: Support) -> Tensor:
        """grad L(q; support) [P] of the parameters that adapt."""
        _, problem, _, batch = self.begun(distribution, {"net": net}, support, self.way)
        moving = chosen(net, self.adapts)
        return flat(torch.func.grad(lambda some: loss_of(problem, {"net": {**net, **some}}, batch))(moving))

    @property
    def differentiates(self) -> bool:
        """Only in the limit of many steps."""
        return False

    def images(self, distribution: TaskDistribution) -> int:
        """A support image counts at every inner step, and at every product with the Hessian."""
        steps = self.solver_steps + (1 if self.adapts == "head" else self.steps)
        return self.passed(distribution, steps)

    def small(self) -> IMAML:
        """Few steps."""
        return replace(super().small(), steps=3, solver_steps=2)


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """x [P] after some steps of conjugate gradient from 0 on A x = b, A symmetric, positive and given by its product.

    A fixed number of them, so that it can be mapped; where the residual is 0 already, a step changes nothing. From the
    first direction on in which A is not positive none is taken: x stays as it is, and is b where that is the very first.
    """
    x, residual = torch.zeros_like(b), b
    direction, size = residual, residual.dot(residual)
    positive = torch.ones_like(size, dtype=torch.bool)
    for step in range(steps):
        turned = product(direction)
        curvature = direction.dot(turned)
        positive = positive & ((curvature > 0) | (size == 0))
        length = torch.where(positive, _share(size, curvature), 0)
        x, residual = x + length * direction, residual - length * turned
        x = x if step else torch.where(positive, x, b)
        before, size = size, residual.dot(residual)
        direction = residual + _share(size, before) * direction
    return x


def _share(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))
