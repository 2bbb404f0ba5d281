"""Fine-tuning against meta-learning as examples grow: from how many rows of each class on does fine-tuning win?

Starts are learned from the same classes for the same number of examples, and answer the same episodes of classes that
none of them saw: by fine-tuning all weights from a fresh head, or by the meta-learner's own way. Each is given k rows of
each class, nested: the first k of one order. Rates of fine-tuning are chosen on episodes of validation classes, for each
start and k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lifelong.adaptation.methods import FullFineTuning, adapted_net
from lifelong.core.inner_loop import batch_of
from lifelong.core.learner import Learner
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta
from lifelong.meta.pretraining import pretrain, with_trunk
from lifelong.metrics import Estimate, estimate
from lifelong.models.base import Net
from lifelong.optimisers.adam import Adam
from scenarios.brief import in_brief
from scenarios.episodes import Episode, Support, TaskSource
from scenarios.stream import generator

SHOTS = (1, 2, 5, 10, 15)
RANDOM = "random, fine-tuned"
TOGETHER = 8  # episodes that are adapted to at once


@dataclass(frozen=True)
class CrossoverProtocol:
    """Episodes of `way` classes: K shots, `query` queries; how many test and how many choose rates; fine-tuning's steps and rates.

    examples: that pass through each learned start, forward and backward.
    """

    shots: tuple[int, ...] = SHOTS
    way: int = 5
    query: int = 5
    episodes: int = 100
    choosing: int = 24
    steps: int = 50
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03)
    examples: int = 200_000

    def __post_init__(self) -> None:
        if list(self.shots) != sorted(set(self.shots)) or self.shots[0] < 1 or len(self.shots) < 2:
            raise InitialisationError(
                f"a curve needs at least 2 numbers of shots, the smallest first, not {self.shots}"
            )


@dataclass(frozen=True)
class Crossover:
    """Where the difference of two curves over k turns from below 0 to above; None where it does not within what was measured.

    k: of the mean difference, between two measured k by a line over log k. low: the largest k up to which the 95 %
    interval lies below 0 throughout; high: the smallest from which on it lies above. Between them nothing is settled.
    """

    k: float | None
    low: int | None
    high: int | None

    @property
    def text(self) -> str:
        """As in "k = 3.2, settled outside 1 ... 5"."""
        point = "none" if self.k is None else f"k = {self.k:.1f}"
        known = [f"below 0 up to {self.low}"] * (self.low is not None) + [f"above 0 from {self.high}"] * (self.high is not None)  # fmt: skip
        return f"{point}; {' and '.join(known) or 'settled nowhere'}"


@dataclass(frozen=True)
class CrossoverStudy:
    """Accuracy [S, K] of each arm, by what it is: a start and its way of answering. rates: of the fine-tuned arms, by k."""

    shots: tuple[int, ...]
    accuracy: dict[str, Tensor]
    rates: dict[str, tuple[float, ...]]
    __repr__ = in_brief

    def curve(self, arm: str) -> list[Estimate]:
        """Accuracy at each k with its 95 % interval over seeds."""
        return [estimate(self.accuracy[arm][:, k]) for k in range(len(self.shots))]

    def difference(self, arm: str, other: str) -> list[Estimate]:
        """arm - other at each k, paired over seeds."""
        return [estimate((self.accuracy[arm] - self.accuracy[other])[:, k]) for k in range(len(self.shots))]

    def crossover(self, arm: str, other: str) -> Crossover:
        """From which k on `arm` is better than `other`."""
        return crossover(self.shots, self.difference(arm, other))


def crossover(shots: Sequence[int], differences: Sequence[Estimate]) -> Crossover:
    """Where a difference that is known at some k turns from below 0 to above; see `Crossover`.

    k = k_i (k_{i+1} / k_i)^(d_i / (d_i - d_{i+1})) for the last i with d_i < 0 <= d_{i+1}.
    """
    means = [difference.mean for difference in differences]
    turns = [i for i in range(len(shots) - 1) if means[i] < 0 <= means[i + 1]]
    k = None
    if turns and all(mean >= 0 for mean in means[turns[-1] + 1 :]):
        i = turns[-1]
        k = math.exp(math.log(shots[i]) + math.log(shots[i + 1] / shots[i]) * means[i] / (means[i] - means[i + 1]))
    below = [d.half_width is not None and d.mean + d.half_width < 0 for d in differences]
    above = [d.half_width is not None and d.mean - d.half_width > 0 for d in differences]
    low = max((shots[i] for i in range(len(shots)) if all(below[: i + 1])), default=None)
    high = min((shots[i] for i in range(len(shots)) if all(above[i:])), default=None)
    return Crossover(k, low, high)


def first_of_each(episode: Episode, way: int, shot: int) -> tuple[Tensor, Tensor]:
    """The first k support rows of each class of T episodes, x [T, N k, ...] and y int64 [T, N k], in their order."""
    y = episode.support_y
    member = torch.nn.functional.one_hot(y, way)  # [T, R, N]
    rank = ((member.cumsum(1) * member).sum(2) - 1).to(torch.int64)  # how many of its class came before
    places = torch.where(rank < shot, torch.arange(y.shape[1], device=y.device), y.shape[1])
    kept = places.sort(1).values[:, : way * shot]
    x = episode.support_x
    index = kept.view(*kept.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index), y.gather(1, kept)


def crossover_study(
    distribution: TaskDistribution,
    test: TaskSource,
    starts: Sequence[InitialisationLearner],
    seeds: Sequence[int],
    protocol: CrossoverProtocol | None = None,
    own_way: Sequence[str] = ("MAML", "ProtoNet"),
    tell: Callable[[str], None] = lambda line: None,
) -> CrossoverStudy:
    """Every start fine-tuned, and those of `own_way` besides by their own way of answering.

    distribution: the classes that starts learn from, and those on which rates are chosen; test: classes apart from both.
    """
    protocol = protocol or CrossoverProtocol()
    most = protocol.shots[-1]
    parts = {"choosing": (distribution.validation, protocol.choosing), "test": (test, protocol.episodes)}
    drawn = {
        name: [
            source.draw(count, protocol.way, most, protocol.query, generator(seed, "crossover", name)) for seed in seeds
        ]
        for name, (source, count) in parts.items()
    }
    problem, accuracy, rates = distribution.problem(protocol.way), {}, {}
    heads = [problem.model.init(distribution.shape, protocol.way, generator(seed, "crossover head")) for seed in seeds]
    nets = {RANDOM: heads}
    for start in starts:
        name = type(start).__name__
        start = replace(start, iterations=max(1, protocol.examples // start.images(distribution)))
        tell(f"learning {start!r}")
        found = pretrain(start, distribution, seeds, episodes=protocol.choosing)
        nets[f"{name}, fine-tuned"] = [with_trunk(head, found.of(s)["net"]) for s, head in enumerate(heads)]
        if name in own_way:
            tell(f"answering as {name} does")
            each = [
                torch.stack(
                    [_own(start, distribution, found.of(s), drawn["test"][s], protocol, k) for k in protocol.shots]
                )
                for s in range(len(seeds))
            ]
            accuracy[f"{name}, its own way"] = torch.stack(each)
    for arm, each in nets.items():
        tell(f"adapting: {arm}")
        accuracy[arm], rates[arm] = _fine_tuned(distribution, each, drawn, protocol)
    return CrossoverStudy(protocol.shots, accuracy, rates)


def _own(
    start: InitialisationLearner, distribution: TaskDistribution, meta: Meta, drawn: Episode,
    protocol: CrossoverProtocol, shot: int,
) -> Tensor:  # fmt: skip
    """Mean accuracy, 0-d, of a start's own answers to all episodes."""
    x, y = first_of_each(drawn, protocol.way, shot)

    def of_task(x: Tensor, y: Tensor, query: Tensor, labels: Tensor) -> Tensor:
        scores = start.predict(distribution, meta, Support(x, y), query, protocol.way)
        return (scores.argmax(1) == labels).to(torch.float64).mean()

    with torch.no_grad():
        pieces = zip(*(value.split(TOGETHER) for value in (x, y, drawn.query_x, drawn.query_y)), strict=True)
        return torch.cat([torch.func.vmap(of_task)(*piece) for piece in pieces]).mean()


def _fine_tuned(
    distribution: TaskDistribution, nets: Sequence[Net], drawn: dict[str, list[Episode]], protocol: CrossoverProtocol
) -> tuple[Tensor, tuple[float, ...]]:
    """Accuracy [S, K] after fine-tuning each seed's network, and the rate at each k, best on the choosing episodes of all seeds."""
    columns, rates = [], []
    for shot in protocol.shots:
        chosen = torch.stack([
            _tuned(distribution, net, drawn["choosing"][s], protocol, shot, torch.tensor(protocol.rates))
            for s, net in enumerate(nets)
        ])  # [S, R]  # fmt: skip
        rate = protocol.rates[int(chosen.mean(0).argmax())]
        rates.append(rate)
        found = [
            _tuned(distribution, net, drawn["test"][s], protocol, shot, torch.tensor([rate]))[0]
            for s, net in enumerate(nets)
        ]
        columns.append(torch.stack(found))
    return torch.stack(columns, 1), tuple(rates)


def _tuned(
    distribution: TaskDistribution, net: Net, episode: Episode, protocol: CrossoverProtocol, shot: int, rates: Tensor
) -> Tensor:
    """Mean accuracy over episodes after fine-tuning a network at each rate, [R]."""
    problem = distribution.problem(protocol.way)
    x, y = first_of_each(episode, protocol.way, shot)

    def right(rate: Tensor, x: Tensor, y: Tensor, query: Tensor, labels: Tensor) -> Tensor:
        learner = Learner(problem.model, optimiser=replace(Adam(), rate=rate))
        batch, asked = batch_of(x, y, protocol.way, problem.dtype), batch_of(query, labels, protocol.way, problem.dtype)
        tuned = adapted_net(FullFineTuning(), learner, protocol.steps, problem, net, batch)
        return (problem.logits({"net": tuned}, asked.x).argmax(1) == labels).to(torch.float64).mean()

    by_task = torch.func.vmap(right, (None, 0, 0, 0, 0))
    by_rate = torch.func.vmap(by_task, (0, None, None, None, None))
    pieces = zip(*(value.split(TOGETHER) for value in (x, y, episode.query_x, episode.query_y)), strict=True)
    return torch.cat([by_rate(rates.to(problem.dtype), *piece) for piece in pieces], 1).mean(1)
