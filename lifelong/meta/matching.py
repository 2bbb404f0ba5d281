"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.inner_loop import memberships
from lifelong.meta.context import attended, context_layers, in_context
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta
from lifelong.meta.metric import LearnedComparison, embedded, log_weights
from lifelong.models.base import Net
from scenarios.episodes import Support


@dataclass(frozen=True)
class MatchingNet(LearnedComparison):
    """Attention over the support: p(y = c | q) = sum of a(q, x_i) over the rows of class c, a = softmax over i of s(q, x_i).

    s = sharpness x cosine of f(q) and g(x_i), or - sharpness x |f(q) - g(x_i)|^2. distance: "cosine" as in the paper, or
    "euclidean", which with one shot answers as ProtoNet. sharpness: 1 in the paper, where of five classes none is ever
    given more than 0.65. full_context: f and g see the whole support, see `lifelong.meta.context`; then its order
    matters. steps: of the attention that f takes, K in the paper. Scores are log p; their cross-entropy is minimised.
    """

    distance: str = "cosine"
    sharpness: float = 10.0
    full_context: bool = False
    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance not in ("cosine", "euclidean"):
            raise InitialisationError(f"MatchingNet(distance={self.distance!r}): it is one of cosine, euclidean")
        if self.sharpness <= 0 or self.steps < 0:
            raise InitialisationError("MatchingNet: sharpness is above 0, steps at least 0")

    @property
    def ordered(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """Whether the order of a support's rows matters: where an LSTM goes along them."""
        return self.full_context

    def layers(self, width: int, generator: torch.Generator) -> Net:
        """Those of the two LSTMs, where there are any."""
        return context_layers(width, generator) if self.full_context else {}

    def query_scores(
        self, distribution: TaskDistribution, meta: Meta, support: Support, query: Tensor, way: int
    ) -> Tensor:
        """log p [Q, N]."""
        shown, asked = embedded(distribution, meta, support, query, way)
        weights = log_weights(support, shown.dtype)
        if self.full_context:
            shown = in_context(meta["comparison"], shown, weights > -torch.inf)
            asked = attended(meta["comparison"], asked, shown, weights, self.steps)
        attention = (self.sharpness * self.similarity(asked, shown) + weights).log_softmax(1)
        other = memberships(support.y, way, torch.bool).logical_not()  # [R, N]
        return attention[:, :, None].masked_fill(other, -torch.inf).logsumexp(1)

    def similarity(self, asked: Tensor, shown: Tensor) -> Tensor:
        """Of queries [Q, F] to support [R, F]: cosine, or minus the squared distance [Q, R]."""
        if self.distance == "cosine":
            return F.normalize(asked) @ F.normalize(shown).T
        return -(asked[:, None] - shown).square().sum(2)

    @property
    def answered_by(self) -> str:
        """How it answers."""
        return f"{self.distance} attention over the support" + (" in full context" if self.full_context else "")
