"""How well networks take to tasks that nobody trained on: by one rule of adaptation, by class means, by answers of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.adaptation.few_shot import AdaptationJobs, FewShotEvaluator
from lifelong.adaptation.rate_selection import select_rate
from lifelong.core.inner_loop import nearest_means
from lifelong.models.base import Net
from scenarios.brief import in_brief

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
WIDENINGS = 3
# scores [Q, N] of queries, from the rows and labels of a support
Answers = Callable[[Tensor, Tensor, Tensor], Tensor]


class Adapted(NamedTuple):
    """Accuracy [S, K] after adapting by the rule; its rates [K]; whether each was better than its neighbours on both sides."""

    accuracy: Tensor
    rates: list[float]
    inside: bool
    __repr__ = in_brief


class HeldOutTasks:
    """The held-out tasks of a stream, and those that rates are chosen on; nobody trains on either.

    choosing, held: numbers of tasks. Networks come as [G, ...], G = starts x S: the seeds of the first start, those of the
    second, and so on; where there are several starts their mean counts.
    """

    def __init__(self, evaluator: FewShotEvaluator, choosing: range, held: range, way: int) -> None:
        self.evaluator, self.choosing, self.held, self.way = evaluator, choosing, held, way
        self.seeds, self.shots = len(evaluator.seeds), evaluator.protocol.shots
        self.index = evaluator.problem.index

    def adapted(self, nets: Net, kept: Tensor) -> Adapted:
        """By the protocol's rule, at the rate that is best on the tasks to choose by, for each k by itself.

        kept: seeds [S] that count in the choice.
        """
        kept = kept.to(self.evaluator.device)

        def score(rates: Sequence[float]) -> Tensor:
            each = [self._mean_score(nets, rates, k, kept) for k in self.shots]
            return torch.stack(each, 1)  # [R, K]

        chosen = select_rate(score, RATES, WIDENINGS)
        scores = []
        for k, rate in zip(self.shots, chosen.rates.tolist(), strict=True):
            jobs = self._jobs(nets, [rate], self.held)
            scores.append(self._mean(self.evaluator.accuracy(nets, jobs, k)))
        return Adapted(torch.stack(scores, 1), chosen.rates.tolist(), chosen.inside)

    def by_means(self, nets: Net) -> Tensor:
        """Accuracy [S, K] of the nearest class mean of the features."""
        jobs = self._jobs(nets, [0.0], self.held)
        return torch.stack([self._mean(self.evaluator.accuracy_by_means(nets, jobs, k)) for k in self.shots], 1)

    def answered(self, answers: Sequence[Answers]) -> Tensor:
        """Accuracy [S, K] of answers of their own, one for each seed."""
        scores = [
            torch.stack([torch.stack([self.of_task(s, t, k, of_seed) for t in self.held]).mean() for k in self.shots])
            for s, of_seed in enumerate(answers)
        ]
        return torch.stack(scores)

    def of_task(self, s: int, t: int, shot: int, answers: Answers) -> Tensor:
        """Accuracy of one seed's answers on a task's test rows, from `shot` rows of each class."""
        problem = replace(self.evaluator.problem, index={name: value[s] for name, value in self.index.items()})
        shown = self.evaluator.support[s, t, :, :shot].flatten()
        rows = self.index["rows_test"][s, t, : int(self.index["count_test"][s, t])]
        place = self.index["classes_of"][s, t].cumsum(0) - 1
        (x, y), (query, truth) = (
            (problem.x(part, told), place[problem.y(part, told)])
            for part in (shown, rows)
            for told in [torch.full_like(part, t)]
        )
        return (answers(x, y, query).argmax(1) == truth).to(torch.float64).mean()

    def pixel_means(self, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        """The answers of the nearest class mean of the pixels."""
        return nearest_means(x.flatten(1), y, query.flatten(1), self.way)

    def _mean_score(self, nets: Net, rates: Sequence[float], shot: int, kept: Tensor) -> Tensor:
        """Mean accuracy [R] on the validation rows of the tasks to choose by.

        Each network tries so many of these that the seeds together, or the starts of a seed, try all: to adapt costs more
        than to learn.
        """
        jobs = self._jobs(nets, rates, self.choosing)
        starts, count = len(next(iter(nets.values()))) // self.seeds, len(self.choosing)
        each = 1 if starts > 1 else max(-(-count // self.seeds), min(2, count))
        first = jobs.seed * each + jobs.start // self.seeds
        wanted = kept[jobs.seed] & ((jobs.task - self.choosing.start - first) % count < each)
        jobs = AdaptationJobs(*(value[wanted] for value in jobs))
        return self.evaluator.accuracy(nets, jobs, shot, part="validation").view(len(rates), -1).mean(1)

    def _jobs(self, nets: Net, rates: Sequence[float], tasks: range) -> AdaptationJobs:
        jobs = self.evaluator.grid(nets, rates)
        here = (jobs.task >= tasks.start) & (jobs.task < tasks.stop)
        return AdaptationJobs(*(value[here] for value in jobs))

    def _mean(self, scores: Tensor) -> Tensor:
        """Of scores [G x H] the mean over tasks and starts [S]."""
        return scores.view(-1, self.seeds, len(self.held)).mean((0, 2)).cpu()
