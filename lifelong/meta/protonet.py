"""Prototypical networks (Snell, Swersky and Zemel, 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.adaptation.steps import nearest_means
from lifelong.meta.stage import Meta, Stage, StageError, Study, params_of
from lifelong.problem import scaled
from scenarios.episodes import Episode


@dataclass(frozen=True)
class ProtoNet(Stage):
    """Features in which the nearest class mean is right: scores are -|f(x) - mean of f over the class's support|^2.

    The loss is the cross-entropy of those scores. way is that of training, 60 for Omniglot in the paper, and need not be
    that of the test. The head is never used.
    """

    way: int = 20
    query: int = 5
    tasks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shot < 1:
            raise StageError("ProtoNet(shot=0): a class without support has no mean; shot is at least 1")

    def check(self, study: Study) -> None:
        """Classes only."""
        if study.regression:
            raise StageError("ProtoNet tells classes apart, and this is a regression: use MAML or Reptile")
        super().check(study)

    def loss(self, study: Study, meta: Meta, drawn: Episode) -> Tensor:
        """Mean over tasks of the queries' cross-entropy."""

        def one(task: Episode) -> Tensor:
            scores = self.answers(study, meta, task.support_x, task.support_y, task.query_x, self.way)
            return F.cross_entropy(scores, task.query_y)

        return torch.func.vmap(one)(drawn).mean()

    def answers(self, study: Study, meta: Meta, support: Tensor, labels: Tensor, query: Tensor, way: int) -> Tensor:
        """Scores [Q, N]; support and queries pass through the network together."""
        x = scaled(torch.cat([support, query]), study.dtype)
        features = study.problem(way).features(params_of(meta), x)
        return nearest_means(features[: len(support)], labels, features[len(support) :], way)

    @property
    def tests_shot(self) -> int:
        """As in training."""
        return self.shot
