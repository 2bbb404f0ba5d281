"""The online test of a start (Javed and White, 2019): its trunk is frozen, and a head learns class after class.

The trunk's features are computed once and become a dataset of their own; the head is a network without hidden layers on
that dataset, learned by the loop's own step. Draws of the classes and learning rates are the members of one fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lifelong.adaptation.rate_selection import select_rate
from lifelong.core.footprint import MOST_MEMBERS, estimate_memory
from lifelong.core.learner import AnyLearner, Learner
from lifelong.core.loop import Member, Options, Session, learned
from lifelong.core.problem import scaled
from lifelong.core.settings import Setting
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, Meta, params_of
from lifelong.meta.learned import LearnedInitialisation
from lifelong.metrics import estimate
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.base import Optimiser
from scenarios.split import class_by_class
from scenarios.stream import Dataset, Stream, seed_of

RATES = tuple(10 ** (e / 2) for e in range(-6, 1))  # 0.001 ... 1, in steps of half a power of ten
SEARCHES = 5  # draws of classes on which the rate is chosen; none of them is tested on
HELD = 0.2  # of each class's training images, by which they are scored
WIDENINGS = 4
MEANS = "nearest class mean of the features"
CHUNK = 512  # images that pass through the trunk together


def features_dataset(distribution: TaskDistribution, meta: Meta) -> Dataset:
    """The distribution's dataset with every row replaced by its features [N, F]."""
    dataset, problem, params = distribution.train.as_dataset(), distribution.problem(1), params_of(meta)
    with torch.no_grad():
        pieces = [problem.features(params, scaled(x, distribution.dtype)) for x in dataset.x.split(CHUNK)]
    return replace(dataset, x=torch.cat(pieces))


def online_accuracy(
    distribution: TaskDistribution,
    start: LearnedInitialisation,
    classes: int,
    strategies: list[str],
    runs: int,
    optimiser: str = "Adam()",
) -> list[dict[str, Any]]:
    """Accuracy on new images of all classes after the last, for each strategy, and that of nearest class means.

    optimiser: of the head; its own rate does not count. For each strategy and start the learning rate with the best
    mean over other draws of classes, scored on training images that they hold out, is taken from a grid that is widened
    until the winner lies inside. "per draw" holds [starts][runs]; the interval is over starts, or over draws where there
    is one start. Raises InitialisationError for an optimiser that does more at a step than its rule times a rate.
    """
    if distribution.model.mixes_rows:
        raise InitialisationError(
            "the online test shows one image at a time, which batch norm cannot: use norm='group'"
        )
    if not 1 <= runs <= MOST_MEMBERS:
        raise InitialisationError(f"--runs {runs}: the classes are drawn 1 to {MOST_MEMBERS:,} times")
    seeds, searches = list(range(runs)), list(range(runs, runs + SEARCHES))
    parsed = [parse(text, "strategies") for text in strategies]
    rule = _rule(optimiser)
    found: dict[str, list[tuple[Tensor, float]]] = {}
    for seed in start.seeds:
        dataset = features_dataset(distribution, start.of(seed).meta_of_seed)
        stream, rehearsal = class_by_class(dataset, classes), class_by_class(dataset, classes, rehearsal=HELD)
        for text, strategy in zip(strategies, parsed, strict=True):
            learner = Learner(MLP(), strategy, rule)
            estimate_memory(learner, stream, seeds)
            rate = best_rate(learner, rehearsal, searches)
            found.setdefault(text, []).append((final_accuracy(learner, stream, seeds, [rate])[0], rate))
        means = NearestClassMean(model=MLP())
        found.setdefault(MEANS, []).append((final_accuracy(means, stream, seeds, [0.0])[0], 0.0))
    return [_row(name, classes, values) for name, values in found.items()]


def _rule(text: str) -> Optimiser:
    """The head's optimiser, in which members of a fleet differ by their rates alone."""
    rule = parse(text, "optimisers")
    for name, usual in (("weight_decay", 0.0), ("schedule", "constant"), ("at_task_end", "kept")):
        if getattr(rule, name) != usual:
            fitting = f"{type(rule).__name__}({name}={usual!r})"
            raise InitialisationError(
                f"the online test's head learns at one rate, by its gradient alone: write {fitting}"
            )
    return rule


def _row(name: str, classes: int, values: list[tuple[Tensor, float]]) -> dict[str, Any]:
    accuracy = torch.stack([a for a, _ in values])  # [starts, runs]
    summary = estimate(accuracy.mean(1) if len(values) > 1 else accuracy[0])
    return {
        "method": name,
        "classes": classes,
        "mean": summary.mean,
        "half_width": summary.half_width,
        "interval over": f"{len(values)} starts" if len(values) > 1 else f"{accuracy.shape[1]} draws",
        "rates": [rate for _, rate in values],
        "per draw": accuracy.tolist(),
    }


def best_rate(learner: AnyLearner, stream: Stream, seeds: list[int]) -> float:
    """The learning rate of the highest mean accuracy, from a grid that grows until it lies inside."""

    def score(rates: Sequence[float]) -> Tensor:
        return final_accuracy(learner, stream, seeds, list(rates)).mean(1)

    return float(select_rate(score, RATES, WIDENINGS).rates)


def final_accuracy(learner: AnyLearner, stream: Stream, seeds: list[int], rates: list[float]) -> Tensor:
    """Mean accuracy over all tasks after the last [rates, seeds]; all of them one fleet. NaN where one diverged.

    A learner without a rate is the same at all of them.
    """
    settings = [learner.at_rate(rate) for rate in rates]
    members = [Member(Setting("", setting), seed_of(seed)) for setting in settings for seed in seeds]
    result, _ = learned(Session.of_members(members, stream, Options()))
    return result.at_task_ends[:, -1].mean(1).view(len(rates), len(seeds))
