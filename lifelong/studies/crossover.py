"""Fine-tuning against meta-learning as examples grow: from how many rows of each class on does fine-tuning win?

Starts are learned from the same classes for the same number of examples, and answer the same episodes of classes that
none of them saw: by fine-tuning all weights from a fresh head, or by the meta-learner's own way. Each is given k rows of
each class, nested: the first k of one order. Rates of fine-tuning are chosen on episodes of validation classes, for each
start and k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from lifelong.adaptation.methods import FullFineTuning, adapted_net
from lifelong.adaptation.rate_selection import select_rate
from lifelong.core.inner_loop import batch_of
from lifelong.core.learner import Learner
from lifelong.core.loop import device_of
from lifelong.core.stage import Stage, Tell, told_to_nobody
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta
from lifelong.meta.pretraining import pretrain, with_trunk
from lifelong.meta.testing import MOST_EPISODES
from lifelong.metrics import Estimate, estimate
from lifelong.models.base import Net
from lifelong.optimisers.adam import Adam
from lifelong.runs.folder import OVERLAP
from lifelong.runs.initialisation_files import opened
from lifelong.transfer.established import LEVEL, p_of_no_difference
from scenarios.brief import in_brief
from scenarios.episodes import Episode, Support, TaskSource, class_pool, split_classes
from scenarios.stream import generator

SHOTS = (1, 2, 5, 10, 15)
FLOOR = "random"
RANDOM = f"{FLOOR}, fine-tuned"
WIDENINGS = 3  # of the grid of rates, by two each time
FEWEST = 6  # episodes of each seed that choose rates
TOGETHER = 8  # episodes that are answered at once
# episodes and rates that are fine-tuned at once; and where a network has convolutions, whose images at every layer are kept
# for the way back and would fill a memory, support and query images of these
TUNED, IMAGES = 40, 512
DIGITS = 9  # of a mean difference: equal shares of right answers may differ by a rounding after these


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
        if len(self.shots) < 2 or list(self.shots) != sorted(set(self.shots)) or self.shots[0] < 1:
            raise InitialisationError(
                f"a curve needs at least 2 numbers of shots, the smallest first, not {self.shots}"
            )
        if not 1 <= self.episodes <= MOST_EPISODES or self.choosing < 1 or self.steps < 1 or self.query < 1:
            raise InitialisationError(
                f"episodes={self.episodes}, steps={self.steps}, query={self.query}: they are at least 1, and episodes at"
                f" most {MOST_EPISODES:,}"
            )


@dataclass(frozen=True)
class Crossover:
    """Where the difference of two curves over k turns from below 0 to above; None where it does not within what was measured.

    k: of the mean difference, between two measured k by a line over log k. low: the largest k up to which it is
    established below 0 throughout; high: the smallest from which on it is above. Between them nothing is settled. ahead,
    behind: the measured k at which the mean is above and below 0.
    """

    k: float | None
    low: int | None
    high: int | None
    ahead: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


@dataclass(frozen=True)
class CrossoverStudy:
    """Accuracy [S, K] of each arm, by what it is: a start and its way of answering. rates: of the fine-tuned arms, by k.

    ends: of each fine-tuned arm, the k whose best rate lies at an end of the grid, so that a better one may lie beyond.
    over: what the first axis is, and what intervals are over: seeds, or the episodes where there is one seed. data: whose
    classes were told apart. together: whether a network normalises the rows of an episode together, so that an answer
    depends on the other queries.
    """

    protocol: CrossoverProtocol
    accuracy: dict[str, Tensor]
    rates: dict[str, tuple[float, ...]]
    over: str = "seeds"
    data: str = ""
    together: bool = False
    ends: dict[str, tuple[int, ...]] = field(default_factory=dict)
    __repr__ = in_brief

    @property
    def shots(self) -> tuple[int, ...]:
        """The numbers of rows of each class, K of them."""
        return self.protocol.shots

    def curve(self, arm: str) -> list[Estimate]:
        """Accuracy at each k with its 95 % interval."""
        return [estimate(self.accuracy[arm][:, k]) for k in range(len(self.shots))]

    def difference(self, arm: str, other: str) -> list[Estimate]:
        """arm - other at each k, paired."""
        return [estimate((self.accuracy[arm] - self.accuracy[other])[:, k]) for k in range(len(self.shots))]

    def crossover(self, arm: str, other: str) -> Crossover:
        """From which k on `arm` is better than `other`."""
        return crossover(self.shots, self.accuracy[arm] - self.accuracy[other])


def crossover(shots: Sequence[int], differences: Tensor) -> Crossover:
    """Where differences [S, K] turn from below 0 to above; see `Crossover`.

    k = k_i (k_{i+1} / k_i)^(d_i / (d_i - d_{i+1})) for the last i with d_i < 0, d the means, where a later d is above 0:
    curves that only touch do not cross. Established: the 95 % interval is without 0, or, of differences without any
    spread, the sign test's p is below 5 %. That is asked from the first k upwards and from the last downwards, each time
    until it fails, and such a sequence of tests needs no correction for their number (Maurer, Hothorn and Lehmacher, 1995).
    """
    means = [round(mean, DIGITS) for mean in differences.to(torch.float64).mean(0).tolist()]
    ahead, behind = (tuple(k for k, mean in zip(shots, means, strict=True) if sign * mean > 0) for sign in (1, -1))
    k = None
    if behind and ahead and ahead[-1] > behind[-1]:
        i = shots.index(behind[-1])
        k = math.exp(math.log(shots[i]) + math.log(shots[i + 1] / shots[i]) * means[i] / (means[i] - means[i + 1]))
    clear = [p_of_no_difference(column) < LEVEL for column in differences.unbind(1)]
    below = [known and mean < 0 for known, mean in zip(clear, means, strict=True)]
    above = [known and mean > 0 for known, mean in zip(clear, means, strict=True)]
    low = max((shots[i] for i in range(len(shots)) if all(below[: i + 1])), default=None)
    high = min((shots[i] for i in range(len(shots)) if all(above[i:])), default=None)
    return Crossover(k, low, high, ahead, behind)


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


@dataclass(frozen=True)
class Start:
    """A start, and the tasks that its network is made for; has_own_way: whether it also answers in its own way.

    metas: what was learned for each of S seeds, by seed.
    """

    method: InitialisationLearner
    distribution: TaskDistribution
    metas: Mapping[int, Meta]
    has_own_way: bool = True
    __repr__ = in_brief

    def heads(self, way: int, seeds: Sequence[int]) -> list[Net]:
        """Each seed's network before anything was learned, the same for every start of that network."""
        return [self.method.fresh(self.distribution, way, generator(seed, "crossover head")) for seed in seeds]

    def nets(self, way: int, seeds: Sequence[int]) -> list[Net]:
        """What was learned, under those heads."""
        heads = zip(seeds, self.heads(way, seeds), strict=True)
        return [with_trunk(head, self.metas[seed]["net"]) for seed, head in heads]


def learned_starts(
    methods: Sequence[InitialisationLearner],
    distribution: TaskDistribution,
    seeds: Sequence[int],
    protocol: CrossoverProtocol,
    own_way: Sequence[str] = ("MAML", "ProtoNet"),
    tell: Tell = told_to_nobody,
) -> dict[str, Start]:
    """Starts that were learned from the same number of examples, by the name of what learned them.

    Raises InitialisationError for two of a name, since one would take the other's place.
    """
    if len({type(method) for method in methods}) < len(methods):
        raise InitialisationError("two starts are learned by methods of the same name: learn each by itself")
    starts = {}
    for method in methods:
        name, iterations = type(method).__name__, max(1, protocol.examples // method.images(distribution))
        tell(f"learning {name}, {iterations} iterations")
        found = pretrain(replace(method, iterations=iterations), distribution, seeds, episodes=protocol.choosing)
        metas = {seed: found.of(place) for place, seed in enumerate(seeds)}
        starts[name] = Start(method, distribution, metas, name in own_way)
    return starts


def crossover_of(
    starts: Mapping[str, Start],
    choosing: TaskSource,
    test: TaskSource,
    protocol: CrossoverProtocol,
    tell: Tell = told_to_nobody,
) -> CrossoverStudy:
    """Every start by its own way of answering, and its network fine-tuned; random networks beside them.

    choosing: classes on which the rates of fine-tuning are chosen, apart from those of `test`. Raises InitialisationError
    where starts were learned for other seeds, answer other numbers of classes only, or are called as random networks are.
    """
    if FLOOR in starts:
        raise InitialisationError(
            f"a start is called {FLOOR!r}, as networks are that learned nothing: call it otherwise"
        )
    seeds = _seeds_of(starts)
    for name, start in starts.items():
        if start.has_own_way and not start.method.any_way and start.method.tests_way != protocol.way:
            raise InitialisationError(
                f"{name} answers with a head of {start.method.tests_way} outputs: --way {start.method.tests_way},"
                f" not {protocol.way}"
            )
    most = protocol.shots[-1]
    drawn = {
        name: [source.draw(count, protocol.way, most, protocol.query, generator(s, "crossover", name)) for s in seeds]
        for name, source, count in (("choosing", choosing, protocol.choosing), ("test", test, protocol.episodes))
    }
    accuracy, rates, ends = {}, {}, {}
    answering, tuned = (
        {f"{n}, its own way": s for n, s in starts.items() if s.has_own_way},
        _tuned_arms(starts, protocol.way, seeds),
    )
    stages = {name: Stage(i, len(answering) + len(tuned), name) for i, name in enumerate((*answering, *tuned), 1)}
    for name, start in answering.items():
        tell(stages[name])
        each = [
            torch.stack([_own(start, start.metas[seed], episodes, protocol, k) for k in protocol.shots], 1)
            for seed, episodes in zip(seeds, drawn["test"], strict=True)
        ]
        accuracy[name] = _units(each)
    for name, (distribution, nets) in tuned.items():
        tell(stages[name])
        each, rates[name], ends[name] = _fine_tuned(distribution, nets, drawn, protocol)
        accuracy[name] = _units(each)
    together = any(start.distribution.model.mixes_rows for start in starts.values())
    over = "seeds" if len(seeds) > 1 else "episodes"
    return CrossoverStudy(protocol, accuracy, rates, over, test.name, together, ends)


def crossover_of_files(
    paths: Sequence[Path],
    data: str,
    protocol: CrossoverProtocol,
    root: str = "",
    device: str = "cpu",
    tell: Tell = told_to_nobody,
) -> CrossoverStudy:
    """Starts that `lifelong pretrain` wrote, on classes of a data set that they never saw.

    data: its name, default what the first start is to be tested on. A fifth of its classes, at least as many as an episode
    has, choose the rates of fine-tuning; the others test. protocol.way 0 is as the first start was trained, and its
    queries are at most what the smallest class has left. A start that was allowed to see what it is tested on says so in
    its name. Raises a ConfigurationError for starts that predict numbers or need descriptors, and for too few classes or
    rows.
    """
    for path in paths:
        if paths.count(path) > 1:
            raise InitialisationError(f"{path} is named twice: a start is held against fine-tuning, not against itself")
    starts: dict[str, Start] = {}
    for name, path in zip(_names_of(paths), paths, strict=True):
        learned, method, distribution = opened(path, data, root, device)
        if distribution.kind != "classes" or method.described:
            raise InitialisationError(f"{path} predicts numbers or needs descriptors: a curve over k is of classes")
        data = data or learned.about.get("tests on", "")
        name += OVERLAP if learned.about["overlap allowed"] else ""
        starts[name] = Start(method, distribution, {seed: learned.of(seed).meta_of_seed for seed in learned.seeds})
    first = next(iter(starts.values()))
    protocol = replace(protocol, way=protocol.way or first.method.tests_way)
    if protocol.way < 2:
        raise InitialisationError(f"way={protocol.way}: a curve tells at least 2 classes apart")
    dataset = first.distribution.train.as_dataset()
    if dataset.classes < 2 * protocol.way:
        raise InitialisationError(
            f"{dataset.classes} classes of {dataset.name}, and {protocol.way} to an episode: half of them would choose"
            f" rates, so that {2 * protocol.way} are needed; take a smaller --way"
        )
    kept, held = split_classes(
        dataset, max(protocol.way, dataset.classes // 5), generator("crossover", dataset.content_hash())
    )
    test, choosing = class_pool(dataset, kept).to(device_of(device)), class_pool(dataset, held).to(device_of(device))
    most, seeds = protocol.shots[-1], len(first.metas)
    protocol = replace(protocol, choosing=max(FEWEST, -(-protocol.choosing // seeds)))  # all seeds choose one rate
    protocol = replace(protocol, query=min(each.queries(most, protocol.query) for each in (test, choosing)))
    for each in (test, choosing):
        each.check(protocol.way, most, protocol.query)
    return crossover_of(starts, choosing, test, protocol, tell)


def _names_of(paths: Sequence[Path]) -> list[str]:
    """What starts are called: their files' names, whole where two would be called the same, or one as random networks are."""
    names = [path.stem for path in paths]
    return names if len({*names, FLOOR}) == len(names) + 1 else [str(path) for path in paths]


def _seeds_of(starts: Mapping[str, Start]) -> list[int]:
    """The seeds that all starts were learned for. Raises InitialisationError where those of one are others."""
    first, *others = starts
    seeds = sorted(starts[first].metas)
    for name in others:
        if sorted(starts[name].metas) != seeds:
            theirs = ", ".join(map(str, sorted(starts[name].metas)))
            raise InitialisationError(
                f"starts are paired seed by seed: {first} was learned for {', '.join(map(str, seeds))}, and {name} for {theirs}"
            )
    return seeds


def _tuned_arms(
    starts: Mapping[str, Start], way: int, seeds: Sequence[int]
) -> dict[str, tuple[TaskDistribution, list[Net]]]:
    """What is fine-tuned, by name: random networks of each kind, and those of each start."""
    models = dict.fromkeys(repr(start.distribution.model) for start in starts.values())
    arms = {}
    for start in starts.values():
        model = repr(start.distribution.model)
        arms[RANDOM if len(models) == 1 else f"{RANDOM}, {model}"] = (start.distribution, start.heads(way, seeds))
    return arms | {
        f"{name}, fine-tuned": (start.distribution, start.nets(way, seeds)) for name, start in starts.items()
    }


def _units(each: Sequence[Tensor]) -> Tensor:
    """What an interval is over, from each seed's episodes [E, K]: seeds [S, K], or the episodes of a single one."""
    return each[0] if len(each) == 1 else torch.stack([episodes.mean(0) for episodes in each])


def _own(start: Start, meta: Meta, drawn: Episode, protocol: CrossoverProtocol, shot: int) -> Tensor:
    """Accuracy of a start's own answers to each episode, [E]."""
    x, y = first_of_each(drawn, protocol.way, shot)

    def of_task(x: Tensor, y: Tensor, query: Tensor, labels: Tensor) -> Tensor:
        scores = start.method.predict(start.distribution, meta, Support(x, y), query, protocol.way)
        return (scores.argmax(1) == labels).to(torch.float64).mean()

    with torch.no_grad():
        pieces = zip(*(value.split(TOGETHER) for value in (x, y, drawn.query_x, drawn.query_y)), strict=True)
        return torch.cat([torch.func.vmap(of_task)(*piece) for piece in pieces]).cpu()


def _fine_tuned(
    distribution: TaskDistribution, nets: Sequence[Net], drawn: dict[str, list[Episode]], protocol: CrossoverProtocol
) -> tuple[list[Tensor], tuple[float, ...], tuple[int, ...]]:
    """Accuracy [E, K] of each seed's network after fine-tuning; the rate at each k, best on the choosing episodes of all
    seeds; and each k whose best rate lies at an end of the grid, however far that grew."""
    columns, rates, ends = [], [], []
    for shot in protocol.shots:

        def score(rates: Sequence[float], shot=shot) -> Tensor:
            of_seed = [
                _tuned(distribution, net, drawn["choosing"][s], protocol, shot, torch.tensor(rates)).mean(1)
                for s, net in enumerate(nets)
            ]
            return torch.stack(of_seed).mean(0)  # [R]

        selected = select_rate(score, protocol.rates, WIDENINGS)
        rates.append(float(selected.rates))
        ends += [] if selected.inside else [shot]
        columns.append([
            _tuned(distribution, net, drawn["test"][s], protocol, shot, torch.tensor(rates[-1:]))[0]
            for s, net in enumerate(nets)
        ])  # fmt: skip
    return [torch.stack(of_seed, 1) for of_seed in zip(*columns, strict=True)], tuple(rates), tuple(ends)


def _tuned(
    distribution: TaskDistribution, net: Net, episode: Episode, protocol: CrossoverProtocol, shot: int, rates: Tensor
) -> Tensor:
    """Accuracy on each episode after fine-tuning a network at each rate, [R, E]."""
    problem = distribution.problem(protocol.way)
    x, y = first_of_each(episode, protocol.way, shot)

    def right(rate: Tensor, x: Tensor, y: Tensor, query: Tensor, labels: Tensor) -> Tensor:
        learner = Learner(problem.model, optimiser=replace(Adam(), rate=rate))
        batch, asked = batch_of(x, y, protocol.way, problem.dtype), batch_of(query, labels, protocol.way, problem.dtype)
        tuned = adapted_net(FullFineTuning(), learner, protocol.steps, problem, net, batch)
        return (problem.logits({"net": tuned}, asked.x).argmax(1) == labels).to(torch.float64).mean()

    rates = rates.to(x.device, problem.dtype)
    pairs = torch.cartesian_prod(torch.arange(len(rates)), torch.arange(len(x))).to(x.device)  # rate and task, [R E, 2]
    rows = x.shape[1] + episode.query_x.shape[1]
    size = max(1, IMAGES // rows) if any(value.ndim > 2 for value in net.values()) else TUNED
    found = [
        torch.func.vmap(right)(rates[rate], x[task], y[task], episode.query_x[task], episode.query_y[task])
        for rate, task in (piece.unbind(1) for piece in pairs.split(size))
    ]
    return torch.cat(found).view(len(rates), len(x)).cpu()
