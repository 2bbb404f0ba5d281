"""Named pure functions of a Result: each gives one number for each seed, [S], and its docstring names the paper.

a[t, j] is the accuracy on task j after task t (both from 1), T the number of tasks. Of tasks that ask for numbers it is
1 - mean square error / variance: 1 at best, 0 for the mean of what is asked, and below 0 without limit, so that more
than 1 can be forgotten. The two have no common mean: where a stream has tasks of both kinds, metrics over tasks refuse.
Where the peers compute another number under the same name, theirs has a name of its own here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.result import Result
from scenarios.refusal import Refusal
from scenarios.stream import Seed

Metric = Callable[[Result], Tensor]
METRICS: dict[str, Metric] = {}
NEEDS: dict[str, str] = {}


class NotMeasured(Refusal):
    """This result cannot give that metric; the message says why, and which flag would."""


def metric(needs: str = "") -> Callable[[Metric], Metric]:
    """Register a metric. needs: "order" for one that compares task ends, "curve" for one that reads evaluations between,
    "few_shot" for one that reads adaptations to coming tasks."""

    def register(function: Metric) -> Metric:
        METRICS[function.__name__] = function
        NEEDS[function.__name__] = needs
        return function

    return register


def available(result: Result) -> dict[str, Metric]:
    """The metrics that this result can give."""
    names = {}
    for name, function in METRICS.items():
        try:
            function(result)
        except NotMeasured:
            continue
        names[name] = function
    return names


def _matrix(result: Result, at_least: int = 1) -> Tensor:
    """a [S, T, T]; refuses where a comparison over task ends has no meaning."""
    if at_least > 1 and result.reading != "continual":
        raise NotMeasured(
            f"a {result.reading} run learns no task after another, so nothing can be forgotten or transferred"
        )
    if 0 < len(result.numbers) < result.tasks:
        raise NotMeasured(
            "the stream has tasks of classes and of numbers, whose scores have no common mean: read them by task"
        )
    if result.tasks < at_least:
        raise NotMeasured(f"this needs at least {at_least} tasks, and the stream has {result.tasks}")
    return result.at_task_ends


def _diagonal(a: Tensor) -> Tensor:
    return a.diagonal(dim1=1, dim2=2)


@metric()
def average_accuracy(result: Result) -> Tensor:
    """Mean over tasks of the accuracy at the end: 1/T sum_j a[T, j] (Lopez-Paz and Ranzato, 2017).

    Of `isolate`: 1/T sum_j a[j, j], each task by the network that learned it alone.
    """
    a = _matrix(result)
    return _diagonal(a).mean(1) if result.reading == "isolate" else a[:, -1].mean(1)


@metric("order")
def average_incremental_accuracy(result: Result) -> Tensor:
    """Mean over t of the mean accuracy on the first t tasks: 1/T sum_t 1/t sum_{j<=t} a[t, j] (Rebuffi et al., 2017)."""
    a = _matrix(result, 2)
    return torch.stack([a[:, t, : t + 1].mean(1) for t in range(a.shape[1])], 1).mean(1)


@metric("order")
def learning_accuracy(result: Result) -> Tensor:
    """Mean accuracy on each task just after it was learned: 1/T sum_j a[j, j] (Riemer et al., 2019)."""
    return _diagonal(_matrix(result, 2)).mean(1)


@metric("order")
def forgetting(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (max_{l<T} a[l, j] - a[T, j]), best over strictly earlier task ends (Chaudhry et al., 2018)."""
    a = _matrix(result, 2)
    return (a[:, :-1, :-1].amax(1) - a[:, -1, :-1]).mean(1)


@metric("order")
def forgetting_avalanche(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (a[j, j] - a[T, j]): the first value against the last, as Avalanche 0.6 reports it."""
    a = _matrix(result, 2)
    return (_diagonal(a)[:, :-1] - a[:, -1, :-1]).mean(1)


@metric("order")
def forgetting_mammoth(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (max_{l<=T} a[l, j] - a[T, j]): the last row counts in the maximum, so it is never negative."""
    a = _matrix(result, 2)
    return (a[:, :, :-1].amax(1) - a[:, -1, :-1]).mean(1)


@metric("order")
def forgetting_pycil(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (max_{j<=l<=T} a[l, j] - a[T, j]): best since the task was learned, the last row included."""
    a = _matrix(result, 2)
    last = a.shape[1] - 1
    return torch.stack([a[:, j:, j].amax(1) - a[:, last, j] for j in range(last)], 1).mean(1)


@metric("order")
def backward_transfer(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} (a[T, j] - a[j, j]) (Lopez-Paz and Ranzato, 2017, over T-1 tasks as in the paper)."""
    return -forgetting_avalanche(result)


@metric("order")
def forward_transfer(result: Result) -> Tensor:
    """1/(T-1) sum_{j>1} (a[j-1, j] - b[j]), b the accuracy of a random draw (Lopez-Paz and Ranzato, 2017).

    Degenerate in class-incremental streams, where unseen classes are never answered, and with heads not yet trained:
    there it says minus the luck of the random net and is not given.
    """
    a = _matrix(result, 2)
    if result.setting != "domain":
        raise NotMeasured(
            f"zero-shot forward transfer is degenerate in a {result.setting}-incremental stream: heads untrained"
        )
    upper = a.diagonal(offset=1, dim1=1, dim2=2)
    return (upper - result.untrained[:, 1:]).mean(1)


def _curve(result: Result) -> tuple[Tensor, Tensor]:
    """Accuracy at every evaluation after the start [S, E, T], and the number of tasks ended before each [E]."""
    _matrix(result, 2)
    if not (result.when[1:, 2] == 0).any():
        raise NotMeasured("this reads evaluations along the way: run with --eval-every N")
    ended = result.when[1:, 0] + result.when[1:, 2]
    return result.accuracy[:, 1:], ended


@metric("curve")
def min_accuracy(result: Result) -> Tensor:
    """1/(T-1) sum_{j<T} of the lowest accuracy on j at any evaluation after j ended (De Lange et al., 2023)."""
    accuracy, ended = _curve(result)
    after = [accuracy[:, _since_end(result, ended, j), j].amin(1) for j in range(result.tasks - 1)]
    return torch.stack(after, 1).mean(1)


def _since_end(result: Result, ended: Tensor, j: int) -> Tensor:
    """Evaluations after task j ended, its own end left out."""
    own_end = (result.when[1:, 0] == j) & (result.when[1:, 2] == 1)
    return (ended > j) & ~own_end


@metric("curve")
def worst_case_accuracy(result: Result) -> Tensor:
    """a[T, T] / T + (1 - 1/T) x min_accuracy (De Lange et al., 2023)."""
    return _matrix(result, 2)[:, -1, -1] / result.tasks + (1 - 1 / result.tasks) * min_accuracy(result)


@metric("curve")
def windowed_forgetting(result: Result, window: int = 10) -> Tensor:
    """Mean over tasks of the largest drop between two evaluations at most `window` apart (De Lange et al., 2023)."""
    accuracy, _ = _curve(result)
    drops = torch.full_like(accuracy[:, 0], -torch.inf)  # [S, T]
    for gap in range(1, min(window, accuracy.shape[1])):
        drops = torch.maximum(drops, (accuracy[:, :-gap] - accuracy[:, gap:]).amax(1))
    return drops.mean(1)


@metric("curve")
def average_anytime_accuracy(result: Result) -> Tensor:
    """Mean over evaluations of the mean accuracy on the tasks begun so far (Caccia et al., 2022)."""
    accuracy, _ = _curve(result)
    begun = result.when[1:, 0] + 1
    return torch.stack([accuracy[:, e, : int(n)].mean(1) for e, n in enumerate(begun)], 1).mean(1)


@metric("curve")
def learning_curve_area(result: Result) -> Tensor:
    """Mean over tasks of the area under the task's accuracy while it is learned, as a share of 1 (after Chaudhry et al., 2019)."""
    _curve(result)
    return _areas(result).mean(1)


def few_shot_curve(result: Result) -> Tensor:
    """F_k for each k of `result.shots`, [S, K]: what was learned before, worth in accuracy after k rows of each class.

    F_k = 1/(T-1) sum_{j>1} (acc(adapt(theta_{j-1}, k rows of j)) - acc(adapt(theta_0, the same rows))), theta_0 a random
    draw, both with the same fresh head, rule and rate (after Chen et al., 2023, who compare few-shot probes so).
    """
    _matrix(result, 2)
    if not result.shots:
        raise NotMeasured("this reads adaptations from a few rows of each coming task: run with --few-shot 1,5,10")
    return (result.few_shot[:, 0] - result.few_shot[:, 1])[:, 1:].mean(1)


@metric("few_shot")
def few_shot_forward_transfer(result: Result) -> Tensor:
    """`few_shot_curve` at the largest k: the forward transfer that stands where the zero-shot one is degenerate."""
    return few_shot_curve(result)[:, -1]


def _alone(result: Result, isolated: Result) -> Tensor:
    """b [S, T], the accuracy of each task's own network; refuses where the two runs cannot be paired."""
    if isolated.reading != "isolate":
        raise NotMeasured("this compares with each task learned alone: give a run with --baseline isolate")
    if result.seeds != isolated.seeds or result.tasks != isolated.tasks:
        raise NotMeasured("the run and its isolate baseline need the same seeds and tasks")
    return _diagonal(_matrix(isolated))


def transfer_gain(result: Result, isolated: Result) -> Tensor:
    """1/(T-1) sum_{j>1} (a[j, j] - b[j]), b[j] of a network that learned task j alone: transfer with all of j's rows.

    With the sign turned and a joint reference it is `intransigence`. Task 1 has nothing before it and is left out.
    """
    return (_diagonal(_matrix(result, 2)) - _alone(result, isolated))[:, 1:].mean(1)


def learning_speed(result: Result, isolated: Result) -> Tensor:
    """1/(T-1) sum_{j>1} (AUC_j - AUC_j^alone) / (1 - AUC_j^alone) (Wolczyk et al., 2021, forward transfer).

    AUC_j: area under the accuracy on j while it is learned, from just before, as a share of 1. Both runs need the same
    evaluations along the way.
    """
    _curve(result)
    _alone(result, isolated)
    if not torch.equal(result.when, isolated.when):
        raise NotMeasured("both runs need the same evaluations: the same --eval-every, --eval-rows and iterations")
    own, alone = _areas(result), _areas(isolated)
    return ((own - alone) / (1 - alone))[:, 1:].mean(1)


def _areas(result: Result) -> Tensor:
    """AUC_j [S, T]; the curve of a task that is learned alone begins at the run's start, not at the task before."""
    areas = []
    for j in range(result.tasks):
        own = (result.when[:, 0] == j) & (result.when[:, 1] > 0)
        ended = (result.when[:, 0] == j - 1) & (result.when[:, 2] == 1)
        first = result.before if j == 0 or result.reading == "isolate" else result.accuracy[:, ended][:, 0]
        x = torch.cat([torch.zeros(1), result.when[own][:, 1]]).to(result.accuracy.dtype)
        y = torch.cat([first[:, j : j + 1], result.accuracy[:, own, j]], 1)
        areas.append(torch.trapezoid(y, x, dim=1) / x[-1])
    return torch.stack(areas, 1)


def multi_task_gains(joint: Result, alone: Result) -> Tensor:
    """(a_joint[j] - a_alone[j]) / a_alone[j], [S, T]: what each task gained by being learned with the others.

    Below 0 is negative transfer. joint: a run with the baseline joint; alone: one with isolate, on the same seeds and
    tasks. A task that is at 0 alone has no finite gain. Raises NotMeasured for other runs, and for tasks of numbers, whose
    score may be 0 or less.
    """
    if joint.reading != "joint":
        raise NotMeasured("this asks what learning together gave: give a run with --baseline joint")
    if joint.numbers:
        raise NotMeasured("a gain relative to the score alone needs one above 0, and this stream asks for numbers")
    single = _alone(joint, alone)
    return (_matrix(joint)[:, -1] - single) / single


def multi_task_gain(joint: Result, alone: Result) -> Tensor:
    """delta-m, the mean over tasks of `multi_task_gains`, [S] (Maninis et al., 2019; Vandenhende et al., 2021)."""
    return multi_task_gains(joint, alone).mean(1)


def intransigence(result: Result, joint_upto: list[Result]) -> Tensor:
    """1/T sum_k (a*[k] - a[k, k]), a*[k] the accuracy on task k of a joint run on tasks 1 ... k (Chaudhry et al., 2018)."""
    best = torch.stack([r.at_task_ends[:, -1, k] for k, r in enumerate(joint_upto)], 1)
    return (best - _diagonal(_matrix(result))).mean(1)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the half-width of its 95 % interval (none with one seed); diverged seeds left out."""

    mean: float
    half_width: float | None
    per_seed: tuple[float | None, ...]

    def text(self, digits: int = 2) -> str:
        """In percent, as in "91.23 ± 0.45"."""
        if self.mean != self.mean:
            return "–"
        width = "" if self.half_width is None else f" ± {100 * self.half_width:.{digits}f}"
        return f"{100 * self.mean:.{digits}f}{width}"


def estimate(values: Tensor, kept: Tensor | None = None) -> Estimate:
    """Student's t interval over seeds: mean ± t(0.975, n - 1) x s / sqrt(n), for values [S]; seeds not kept are left out."""
    kept = torch.ones(len(values), dtype=torch.bool) if kept is None else kept
    used = values[kept].to(torch.float64)
    n = len(used)
    half_width = None
    if n > 1:
        from scipy.stats import t

        half_width = float(t.ppf(0.975, n - 1) * used.std(unbiased=True) / n**0.5)
    per_seed = tuple(float(v) if k else None for v, k in zip(values, kept, strict=True))
    return Estimate(float(used.mean()) if n else float("nan"), half_width, per_seed)


def variance_shares(values: Tensor, seeds: Sequence[Seed]) -> dict[str, float]:
    """How much of the variance of values [S] goes with each meaning of a seed: "order", "start", "data", "together".

    seeds: every combination of some seeds of each, once. With m_v the mean over members whose order is v, the share of
    order is var_v(m_v) / var, its sum of squares in a factorial analysis of variance (Fisher, 1925); "together" is what
    no meaning explains by itself. Raises NotMeasured for other seeds, and where all values are equal.
    """
    values, names = values.to(torch.float64), Seed._fields
    levels = [sorted({seed[i] for seed in seeds}) for i in range(len(names))]
    if set(itertools.product(*levels)) != set(seeds) or len(set(seeds)) < len(seeds):
        raise NotMeasured("shares of the variance need every combination of some orders, starts and data, each once")
    total = values.var(correction=0)
    if not total > 0:
        raise NotMeasured("all values are equal, so there is no variance to divide")
    shares = {}
    for i, name in enumerate(names):
        means = [values[[seed[i] == level for seed in seeds]].mean() for level in levels[i]]
        shares[name] = float(torch.stack(means).var(correction=0) / total)
    return shares | {"together": 1 - sum(shares.values())}


def one_setting(result: Result) -> None:
    """Raise NotMeasured where numbers of the learner varied: no mean is taken over settings."""
    if len(set(result.settings)) > 1:
        raise NotMeasured("numbers of the learner varied in this result: take each of result.by_setting()")


def summary(result: Result) -> dict[str, Estimate]:
    """Every metric that the result can give, as an estimate over its seeds. Raises NotMeasured where numbers varied."""
    one_setting(result)
    return {name: estimate(function(result), result.kept) for name, function in available(result).items()}


def paired(metric: Metric, a: Result, b: Result) -> Estimate:
    """metric(a) - metric(b), seed by seed, over the seeds that both have and neither lost. Raises NotMeasured."""
    one_setting(a)
    one_setting(b)
    shared = [seed for seed in a.seeds if seed in b.seeds]
    if not shared:
        raise NotMeasured("the two runs have no seed in common")
    ia = torch.tensor([a.seeds.index(seed) for seed in shared])
    ib = torch.tensor([b.seeds.index(seed) for seed in shared])
    return estimate(metric(a)[ia] - metric(b)[ib], a.kept[ia] & b.kept[ib])
