"""Model-agnostic meta-learning (Finn, Abbeel and Levine, 2017), and the methods that are settings of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.utils._pytree import tree_map

from lifelong.core.inner_loop import FirstOrder
from lifelong.core.learner import Learner
from lifelong.core.strategy import Strategy
from lifelong.meta.adapting import Adapting, check_order
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta, params_of
from lifelong.models.base import Net, chosen
from lifelong.optimisers.base import Optimiser
from lifelong.optimisers.per_parameter import PerParameterSGD


@dataclass(frozen=True, kw_only=True)
class MAML(Adapting):
    """A start from which a few steps of gradient descent on a task's support answer its queries.

    min over p of mean over tasks of L(p_k; query), p_0 = p, p_{j+1} = p_j - rate x grad L(p_j; support), k = steps.
    order: 1 takes the inner gradients as constants (first-order MAML). adapts: which parameters take inner steps, in
    the words of a learner's trained parameters: "head" is ANIL (Raghu et al., 2020), and then the trunk is passed through
    once; "trunk" is BOIL (Oh et al., 2021). learn_rates: each parameter's rate is learned too, from `rate` on (Meta-SGD;
    Li et al., 2017). test_steps: inner steps when tested, 0 for `steps`. chunk: tasks that are differentiated together, 0
    for all; fewer take less memory.
    """

    least: ClassVar[dict[str, int]] = {**Adapting.least, "rate": 0}

    rate: float = 0.4
    order: int = 2
    learn_rates: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self)

    def init(self, distribution: TaskDistribution, generator: torch.Generator) -> Meta:
        """The network, and the rates where they are learned."""
        meta = super().init(distribution, generator)
        return {**meta, **self.rates_of(meta["net"])}

    def rates_of(self, net: Net) -> Meta:
        """Where they are learned, the first rates of the parameters that move. Raises ModelError where none does."""
        moving = chosen(net, self.adapts)
        return {"rates": self.optimiser.init(moving)} if self.learn_rates else {}

    @property
    def optimiser(self) -> Optimiser:
        """Of the inner loop; its state are its rates."""
        return PerParameterSGD(self.rate)

    def objective(self, distribution: TaskDistribution) -> Strategy:
        """What the inner loop minimises, and what its gradients are to the outer one."""
        return FirstOrder() + distribution.objective if self.order == 1 else distribution.objective

    def inner_learner(self, distribution: TaskDistribution, meta: Meta, way: int) -> tuple[Learner, Any]:
        """Gradient descent, and its rates."""
        learner = Learner(distribution.model, self.objective(distribution), self.optimiser, self.adapts)
        rates = {"net": meta["rates"]} if self.learn_rates else learner.optimiser.init(learner.trained(params_of(meta)))
        return learner, rates

    @property
    def differentiates(self) -> bool:
        """Not in first order, where inner gradients count as constants."""
        return self.order == 2

    def project(self, meta: Meta) -> Meta:
        """Learning rates stay at least 0."""
        return {**meta, "rates": tree_map(lambda r: r.clamp(min=0), meta["rates"])} if self.learn_rates else meta

    def images(self, distribution: TaskDistribution) -> int:
        """A support image counts at every inner step that it passes the trunk at, twice where that is differentiated too."""
        return self.passed(distribution, 1 if self.adapts == "head" else self.steps * self.order)
