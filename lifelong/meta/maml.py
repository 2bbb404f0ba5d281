"""Model-agnostic meta-learning (Finn, Abbeel and Levine, 2017), and the methods that are settings of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.adaptation.steps import FirstOrder, MeanSquares, OnFeatures, adapted, batch_of, loss_of
from lifelong.learner import Learner, State
from lifelong.meta.stage import Meta, Stage, StageError, Study, in_chunks, params_of
from lifelong.model import chosen
from lifelong.optimisers import GivenRates
from lifelong.problem import Params, Problem, scaled
from lifelong.strategy import FineTuning
from scenarios.episodes import Episode


@dataclass(frozen=True)
class MAML(Stage):
    """A start from which a few steps of gradient descent on a task's support answer its queries.

    min over p of mean over tasks of L(p_k; query), p_0 = p, p_{j+1} = p_j - rate x grad L(p_j; support), k = steps.
    order: 1 takes the inner gradients as constants (first-order MAML). adapts: which parameters take inner steps, in
    `Learner.trains`'s words: "head" is ANIL (Raghu et al., 2020), and then the trunk is passed through once.
    learn_rates: each parameter's rate is learned too, from `rate` on (Meta-SGD; Li et al., 2017). test_steps: inner
    steps when tested, 0 for `steps`. chunk: tasks that are differentiated together, 0 for all; fewer take less memory.
    """

    any_way = False
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
            raise StageError(f"MAML(order={self.order}): it is 2, or 1 for the first-order approximation")
        if self.steps < 0 or self.test_steps < 0 or self.rate < 0:
            raise StageError("MAML: steps and rate are at least 0")

    def init(self, study: Study, generator: torch.Generator) -> Meta:
        """The network, and the rates where they are learned."""
        meta = super().init(study, generator)
        chosen(meta["net"], self.adapts)  # refuses words that select nothing
        if self.learn_rates:
            meta["rates"] = GivenRates(self.rate).init(chosen(meta["net"], self.adapts))
        return meta

    def learner(self, model: Any, regression: bool) -> Learner:
        """The inner loop's learner: the house's own, with plain gradient descent."""
        strategy = FirstOrder() if self.order == 1 else FineTuning()
        return Learner(model, strategy + MeanSquares() if regression else strategy, GivenRates(self.rate), self.adapts)

    def adapt(self, study: Study, meta: Meta, support: Tensor, labels: Tensor, way: int, steps: int) -> Params:
        """Parameters after some inner steps on one task's support."""
        problem, params, x = study.problem(way), params_of(meta), scaled(support, study.dtype)
        if not len(support):
            return params
        if self.adapts == "head":  # a trunk that does not adapt gives the same features at every step
            x = problem.features(params, x)
            problem = Problem(**{**vars(problem), "model": OnFeatures(study.model)})
        learner = self.learner(problem.model, study.regression)
        moving = learner.trained(params)
        rates = {"net": meta["rates"]} if self.learn_rates else learner.optimiser.init(moving)
        state = State(params, rates, learner.sum.init(problem, params, torch.Generator())[1])
        return adapted(learner, problem, state, batch_of(x, labels, way, study.dtype), steps).params

    def loss(self, study: Study, meta: Meta, drawn: Episode) -> Tensor:
        """Mean over tasks of the loss on the queries after the inner steps."""

        def one(task: Episode) -> Tensor:
            params = self.adapt(study, meta, task.support_x, task.support_y, self.way, self.steps)
            batch = batch_of(task.query_x, task.query_y, self.way, study.dtype)
            return loss_of(study.problem(self.way), params, batch)

        return torch.func.vmap(one)(drawn).mean()

    def gradient(self, study: Study, meta: Meta, drawn: Episode) -> tuple[Tensor, Meta]:
        """Backward once for each chunk, so that no more than a chunk's graph is alive."""
        chunks = in_chunks(drawn, self.chunk)
        total, loss = None, drawn.classes.new_zeros((), dtype=study.dtype)
        for chunk in chunks:
            share = len(chunk.classes) / len(drawn.classes)
            value, gradient = super().gradient(study, meta, chunk)
            gradient, loss = tree_map(lambda g, share=share: share * g, gradient), loss + share * value
            total = gradient if total is None else tree_map(torch.add, total, gradient)
        assert total is not None
        return loss, total

    def settle(self, meta: Meta) -> Meta:
        """Learning rates stay at least 0."""
        return {**meta, "rates": tree_map(lambda r: r.clamp(min=0), meta["rates"])} if self.learn_rates else meta

    def answers(self, study: Study, meta: Meta, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Scores [Q, N] of the adapted network."""
        steps = self.test_steps or self.steps
        params = self.adapt(study, meta, support, labels, way, steps)
        return study.problem(way).logits(params, scaled(query, study.dtype))

    @property
    def tests_way(self) -> int:
        """Its head has one output for each class of an episode."""
        return self.way

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot

    def images(self, study: Study) -> int:
        """A support image counts at every inner step that it passes the trunk at, twice where that is differentiated too."""
        passes = 1 if self.adapts == "head" else self.steps * self.order
        return self.tasks * self.ways(study) * (self.shot * passes + self.query)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return f"{self.test_steps or self.steps} inner steps on {self.adapts}"
