"""Model-agnostic meta-learning (Finn, Abbeel and Levine, 2017), and the methods that are settings of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.core.inner_loop import FirstOrder, OnFeatures, adapted, batch_of
from lifelong.core.learner import Learner
from lifelong.core.problem import scaled
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import MetaLearner, in_chunks, query_loss
from lifelong.meta.initialisation_learner import InitialisationError, Meta, params_of
from lifelong.models.base import chosen
from lifelong.optimisers.per_parameter import PerParameterSGD
from scenarios.episodes import Episode, Support


@dataclass(frozen=True, kw_only=True)
class MAML(MetaLearner):
    """A start from which a few steps of gradient descent on a task's support answer its queries.

    min over p of mean over tasks of L(p_k; query), p_0 = p, p_{j+1} = p_j - rate x grad L(p_j; support), k = steps.
    order: 1 takes the inner gradients as constants (first-order MAML). adapts: which parameters take inner steps, in
    the words of a learner's trained parameters: "head" is ANIL (Raghu et al., 2020), and then the trunk is passed through
    once. learn_rates: each parameter's rate is learned too, from `rate` on (Meta-SGD; Li et al., 2017). test_steps: inner
    steps when tested, 0 for `steps`. chunk: tasks that are differentiated together, 0 for all; fewer take less memory.
    """

    any_way: ClassVar[bool] = False

    steps: int = 1
    rate: float = 0.4
    order: int = 2
    adapts: str = "all"
    learn_rates: bool = False
    test_steps: int = 0
    chunk: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2):
            raise InitialisationError(f"MAML(order={self.order}): it is 2, or 1 for the first-order approximation")
        if self.steps < 0 or self.test_steps < 0 or self.rate < 0:
            raise InitialisationError("MAML: steps and rate are at least 0")

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, and the rates where they are learned."""
        meta = super().init(distribution, generator)
        moving = chosen(meta["net"], self.adapts)  # refuses words that select nothing
        return {**meta, "rates": PerParameterSGD(self.rate).init(moving)} if self.learn_rates else meta

    def inner_learner(self, distribution: TaskDistribution, meta: Meta, way: int) -> tuple[Learner, Any]:
        """What learns a task's support by its `step`, and its optimiser's state before the first: here gradient descent.

        What a method changes about the inner loop, it says here: an optimiser that is learned, rates for each step, the
        parameters that move.
        """
        strategy = FirstOrder() + distribution.objective if self.order == 1 else distribution.objective
        learner = Learner(distribution.model, strategy, PerParameterSGD(self.rate), self.adapts)
        rates = {"net": meta["rates"]} if self.learn_rates else learner.optimiser.init(learner.trained(params_of(meta)))
        return learner, rates

    def adapt(self, distribution: TaskDistribution, meta: Meta, support: Support, way: int) -> Meta:
        """What was learned, with the parameters after the inner steps on one task's support."""
        if not len(support.y):
            return meta
        params, x = params_of(meta), scaled(support.x, distribution.dtype)
        if self.adapts == "head":  # a trunk that does not adapt gives the same features at every step
            x = distribution.problem(way).features(params, x)
            distribution = replace(distribution, model=OnFeatures(distribution.model))
        problem = distribution.problem(way)
        learner, optimiser = self.inner_learner(distribution, meta, way)
        state = learner.init(problem, params, torch.Generator())._replace(optimiser=optimiser)
        batch = batch_of(x, support.y, problem.classes, distribution.dtype, support.weight)
        return {**meta, **adapted(learner, problem, state, batch, self.test_steps or self.steps).params}

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
            value, gradient = super().gradient(distribution, meta, chunk, progress)
            gradient, loss = tree_map(lambda g, share=share: share * g, gradient), loss + share * value
            total = gradient if total is None else tree_map(torch.add, total, gradient)
        assert total is not None
        return loss, total

    @property
    def differentiates(self) -> bool:
        """Not in first order, where inner gradients count as constants."""
        return self.order == 2

    def project(self, meta: Meta) -> Meta:
        """Learning rates stay at least 0."""
        return {**meta, "rates": tree_map(lambda r: r.clamp(min=0), meta["rates"])} if self.learn_rates else meta

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
        """A support image counts at every inner step that it passes the trunk at, twice where that is differentiated too."""
        passes = 1 if self.adapts == "head" else self.steps * self.order
        return self.tasks * distribution.train.outputs(self.way) * (self.shot * passes + self.query)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return f"{self.test_steps or self.steps} inner steps on {self.adapts}"
