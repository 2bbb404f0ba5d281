"""Meta-learners that learn a task's support by some steps of an inner learner, and answer with the network it leaves."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lifelong.core.batch import Batch
from lifelong.core.inner_loop import OnFeatures, adapted, batch_of
from lifelong.core.learner import Learner, State
from lifelong.core.problem import Problem, scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner, in_chunks, query_loss
from lifelong.meta.initialisation_learner import InitialisationError, Meta, params_of
from scenarios.episodes import Episode, Support


@dataclass(frozen=True, kw_only=True)
class Adapting(MetaLearner):
    """What methods share that take inner steps: p_0 = p, p_{j+1} = `inner_learner`'s step on the support, k = steps.

    adapts: which parameters take inner steps, in the words of a learner's trained parameters: "all", "head", "trunk"
    (all but the head), or names; where it is "head", the trunk is passed through once. test_steps: inner steps when
    tested, 0 for `steps`. chunk: tasks that are differentiated together, 0 for all; fewer take less memory.
    """

    any_way: ClassVar[bool] = False
    least: ClassVar[dict[str, int]] = {**MetaLearner.least, "steps": 0, "test_steps": 0, "chunk": 0}

    steps: int = 1
    adapts: str = "all"
    test_steps: int = 0
    chunk: int = 0

    @abstractmethod
    def inner_learner(self, distribution: TaskDistribution, meta: Meta, way: int) -> tuple[Learner, Any]:
        """What learns a task's support by its `step`, and its optimiser's state before the first.

        What a method changes about the inner loop, it says here: an optimiser that is learned, rates for each step, the
        parameters that move.
        """

    def begun(
        self, distribution: TaskDistribution, meta: Meta, support: Support, way: int
    ) -> tuple[Learner, Problem, State, Batch]:
        """All that stands before the first inner step on one task's support."""
        params, x = params_of(meta), scaled(support.x, distribution.dtype)
        if self.adapts == "head":  # a trunk that does not adapt gives the same features at every step
            x = distribution.problem(way).features(params, x)
            distribution = replace(distribution, model=OnFeatures(distribution.model))
        problem = distribution.problem(way)
        learner, optimiser = self.inner_learner(distribution, meta, way)
        state = learner.init(problem, params, torch.Generator())._replace(optimiser=optimiser)
        return learner, problem, state, batch_of(x, support.y, problem.classes, distribution.dtype, support.weight)

    def adapt(self, distribution: TaskDistribution, meta: Meta, support: Support, way: int) -> Meta:
        """What was learned, with the parameters after the inner steps on one task's support."""
        if not len(support.y):
            return meta
        begun = self.begun(distribution, meta, support, way)
        return {**meta, **adapted(*begun, self.test_steps or self.steps).params}

    def loss(self, distribution: TaskDistribution, meta: Meta, drawn: Episode, progress: Tensor) -> Tensor:
        """Mean over tasks of the loss on the queries after `steps` inner steps."""
        return query_loss(replace(self, test_steps=0), distribution, meta, drawn)

    def gradient(
        self, distribution: TaskDistribution, meta: Meta, drawn: Episode, progress: Tensor
    ) -> tuple[Tensor, Meta]:
        """Backward once for each chunk, so that no more than a chunk's graph is alive."""
        count = len(drawn.support_x)
        total, loss = None, torch.zeros((), dtype=distribution.dtype, device=drawn.support_x.device)
        for chunk in in_chunks(drawn, self.chunk):
            share = len(chunk.support_x) / count
            value, gradient = self.gradient_of_tasks(distribution, meta, chunk, progress)
            gradient, loss = tree_map(lambda g, share=share: share * g, gradient), loss + share * value
            total = gradient if total is None else tree_map(torch.add, total, gradient)
        assert total is not None
        return loss, total

    def gradient_of_tasks(
        self, distribution: TaskDistribution, meta: Meta, drawn: Episode, progress: Tensor
    ) -> tuple[Tensor, Meta]:
        """Of the tasks of one chunk: by default the derivative of `loss`."""
        return super().gradient(distribution, meta, drawn, progress)

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """Scores [Q, N] of the adapted network."""
        return distribution.problem(way).logits(params_of(meta), scaled(query, distribution.dtype))

    @property
    def tests_way(self) -> int:
        """Its head has one output for each class of an episode."""
        return self.way

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot

    def images(self, distribution: TaskDistribution) -> int:
        """A support image counts at every inner step that it passes the trunk at."""
        return self.passed(distribution, 1 if self.adapts == "head" else self.steps)

    def passed(self, distribution: TaskDistribution, of_support: int, of_queries: int = 1) -> int:
        """Images that pass in one iteration, where those of the supports and of the queries pass so many times."""
        rows = self.shot * of_support + self.query * of_queries
        return self.tasks * distribution.train.outputs(self.way) * rows

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return f"{self.test_steps or self.steps} inner steps on {self.adapts}"


def check_order(record: Any) -> None:
    """Raise InitialisationError where a record's order is neither 1 nor 2."""
    if record.order not in (1, 2):
        name = type(record).__name__
        raise InitialisationError(f"{name}(order={record.order}): it is 2, or 1 for the first-order approximation")


def flat(tree: Any) -> Tensor:
    """The leaves of a tree one after another, [P]."""
    return torch.cat([leaf.reshape(-1) for leaf in tree_flatten(tree)[0]])


def like(vector: Tensor, tree: Any) -> Any:
    """A vector [P] as a tree of the same shapes."""
    leaves, form = tree_flatten(tree)
    pieces = vector.split([leaf.numel() for leaf in leaves])
    return tree_unflatten([piece.view(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)], form)
