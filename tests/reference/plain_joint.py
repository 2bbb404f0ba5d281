"""A plain float64 loop over the batches of a joint stream: autograd's gradients, torch's optimisers, no learner of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from lifelong.contracts.learners import tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import Session
from lifelong.core.problem import log_softmax
from lifelong.models.perceptron import MLP
from lifelong.optimisers.sgd import SGD
from scenarios.joint import joint

DOUBLE = torch.float64
RATE = 0.1
TASKS = 3


def stream_of_three(iterations: int = 12, batch: int = 8):
    """Three tasks with heads of their own; now and then a batch lacks one of them."""
    return joint(tiny("task", iterations=iterations, batch=batch))


def learner_of(part: Any, model: Any = None) -> Learner:
    """A part on a small network, by plain steps."""
    return Learner(model or MLP(5), part, SGD(RATE))


class Plain:
    """One seed's network, batches and losses, without our loop."""

    def __init__(self, part: Any, stream: Any = None, model: Any = None) -> None:
        self.session = Session(learner_of(part, model), stream or stream_of_three(), [0], dtype=DOUBLE)
        index = {name: value[0] for name, value in self.session.fleet.problem.index.items()}
        self.problem = dataclasses.replace(self.session.fleet.problem, index=index)
        first = self.session.first_state().params["net"]
        self.net = {name: value[0].clone().requires_grad_() for name, value in first.items()}

    def batches(self) -> Iterator[Any]:
        """All of them, in order."""
        for phase in range(TASKS):
            for batch in self.session.sampler.batches(phase):
                yield tree_map(lambda leaf: leaf[0], batch)

    def rows(self, batch: Any) -> Tensor:
        """The loss of each row [B], graph and all."""
        features = self.problem.model.features(self.net, batch.x)
        log_p = log_softmax(self.problem.model.head(self.net, features), batch.allowed)
        return F.nll_loss(log_p, batch.y, reduction="none")

    def of_tasks(self, batch: Any) -> tuple[list[int], list[Tensor]]:
        """The tasks with rows in the batch, and the mean loss of each."""
        rows = self.rows(batch)
        here = [t for t in range(TASKS) if bool((batch.task == t).any())]
        return here, [rows[batch.task == t].mean() for t in here]

    def gradient(self, loss: Tensor, names: tuple[str, ...] = ()) -> Tensor:
        """Autograd's, flat, of all parameters or of some."""
        leaves = [self.net[name] for name in names] if names else list(self.net.values())
        found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in zip(found, leaves, strict=True)])  # fmt: skip

    def step(self, direction: Tensor) -> None:
        """One plain step along a flat direction."""
        with torch.no_grad():
            sizes = [value.numel() for value in self.net.values()]
            for value, part in zip(self.net.values(), direction.split(sizes), strict=True):
                value -= RATE * part.view_as(value)


Rule = Callable[[Plain, Any], Tensor | None]


def apart(part: Any, stream: Any = None, model: Any = None) -> Callable[[Rule], float]:
    """A part in our loop, once; then, for each rule in the plain one, the largest gap of the weights after all steps.

    rule(plain, batch): the flat direction of a step, or None where it took the step itself.
    """
    from lifelong.contracts.learners import states

    stream = stream or stream_of_three()
    ours = states(learner_of(part, model), stream, [0], DOUBLE).params["net"]

    def of(rule: Rule) -> float:
        plain = Plain(part, stream, model)
        for batch in plain.batches():
            direction = rule(plain, batch)
            if direction is not None:
                plain.step(direction)
        return max(float((ours[name][0] - value.detach()).abs().max()) for name, value in plain.net.items())

    return of


def gap(part: Any, rule: Rule, stream: Any = None, model: Any = None) -> float:
    """The same of one rule."""
    return apart(part, stream, model)(rule)
