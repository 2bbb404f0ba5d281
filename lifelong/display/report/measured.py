"""What a group of runs measured, as its figures, tables and sentences read it: each run a method with a look of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lifelong import metrics
from lifelong.core.learner import Learner
from lifelong.core.result import Result
from lifelong.core.storage import Stored
from lifelong.display.report.colours import COLOURED, OTHER, REFERENCES, Look, look
from lifelong.metrics import Estimate, NotMeasured, estimate
from lifelong.runs.folder import Loaded
from lifelong.runs.groups import RunGroup
from lifelong.studies.differences import FEWEST
from scenarios.datasets import DATASETS, default_root
from scenarios.errors import ConfigurationError

MOST_POINTS = 400  # evaluations that are drawn of a curve; where there are more, the page says so
NAN = Estimate(float("nan"), None, ())


class Point(NamedTuple):
    """A curve at one evaluation: tasks learned by then, the mean with its interval, and whether a task ends there."""

    x: float
    value: Estimate
    ends: bool


class Cost(NamedTuple):
    """What a method keeps beside its network, and the forward and backward passes of a step; None: not known."""

    stored: Stored | None
    method: object | None


@dataclass(frozen=True)
class Method:
    """A run of a group. number: its own in the group, in the order in which the runs were given."""

    name: str
    number: int
    run: Loaded
    look: Look
    reference: bool

    @property
    def result(self) -> Result:
        """What it measured."""
        return self.run.result

    @cached_property
    def summary(self) -> dict[str, Estimate]:
        """Every metric that it has; nothing where all of its seeds diverged."""
        return metrics.summary(self.result) if bool(self.result.kept.any()) else {}

    @property
    def score(self) -> Estimate:
        """Average accuracy at the end; NaN where there is none."""
        return self.summary.get("average_accuracy", NAN)

    @property
    def lost(self) -> int:
        """Seeds that diverged."""
        return int((~self.result.kept).sum())

    @property
    def seeds(self) -> int:
        """Seeds that were measured to the end."""
        return len(self.result.seeds) - self.lost

    @property
    def learns_by_gradient(self) -> bool:
        """Whether it has a training loss: closed forms write none down."""
        return bool((self.result.losses[self.result.kept].nan_to_num() != 0).any())

    @property
    def final(self) -> Tensor:
        """Accuracy on each task at the end, [S kept, T]; of `isolate` by the task's own network."""
        ends = self.result.at_task_ends[self.result.kept]
        return ends.diagonal(dim1=1, dim2=2) if self.result.paradigm == "isolate" else ends[:, -1]

    @property
    def learned(self) -> Tensor:
        """Accuracy on each task just after it was learned, [S kept, T]."""
        return self.result.at_task_ends[self.result.kept].diagonal(dim1=1, dim2=2)

    @cached_property
    def matrix(self) -> Tensor:
        """Accuracy on task j after task t, mean over seeds, [T, T]."""
        return self.result.at_task_ends[self.result.kept].mean(0)

    @cached_property
    def cost(self) -> Cost:
        """Found by making the method anew; unknown where its data or files are not there: nothing is downloaded for it."""
        from lifelong.runs.memory_budget import kept

        if not _data_there(self.run):
            return Cost(None, None)
        try:
            learner, stream, _ = replace(self.run.request, init="Random()").build()
            method = learner.strategy if isinstance(learner, Learner) else learner
            countable = (
                self.result.paradigm == "continual" and not learner.looped
            )  # joint has all rows, isolate T networks
            return Cost(kept(learner, stream) if countable else None, method)
        except ConfigurationError:
            return Cost(None, None)

    def average_curve(self) -> list[Point]:
        """Average accuracy over the tasks begun so far, of a joint run over all, at each evaluation."""
        result = self.result
        count = torch.full((len(result.when),), result.tasks)
        begun = (result.when[:, 0] + 1) if result.paradigm == "continual" else count
        kept = result.accuracy[result.kept]
        return [self._point(e, kept[:, e, : int(begun[e])].mean(1)) for e in self._evaluations()]

    def curve(self, task: int) -> list[Point]:
        """Accuracy on one task at each evaluation."""
        kept = self.result.accuracy[self.result.kept]
        return [self._point(e, kept[:, e, task]) for e in self._evaluations()]

    @property
    def stride(self) -> int:
        """Every how many evaluations one is drawn; those at tasks' ends always are."""
        return -(-len(self.result.when) // MOST_POINTS)

    def _evaluations(self) -> Iterator[int]:
        ends = self.result.when[:, 2] == 1
        return (e for e in range(len(ends)) if e % self.stride == 0 or ends[e])

    def _point(self, evaluation: int, values: Tensor) -> Point:
        learned, iteration, end, _ = self.result.when[evaluation].tolist()
        return Point(learned + (1.0 if end else iteration / self._lengths[learned]), shown(values), bool(end))

    @cached_property
    def _lengths(self) -> list[int]:
        """Iterations of each task."""
        ended = self.result.when[self.result.when[:, 2] == 1]
        lengths = {int(row[0]): max(int(row[1]), 1) for row in ended}
        return [lengths.get(task, 1) for task in range(self.result.tasks)]


def _data_there(run: Loaded) -> bool:
    """Whether its data can be read without a network."""
    name = run.resolved["data"]["name"]
    root = Path(run.request.data_root) if run.request.data_root else default_root()
    return name not in DATASETS or name == "digits" or (root / "datasets" / f"{name}.safetensors").exists()


def shown(values: Tensor) -> Estimate:
    """Mean over seeds; with its interval where there are seeds enough for one that says something."""
    value = estimate(values)
    return value if len(values) >= FEWEST else Estimate(value.mean, None, value.per_seed)


@dataclass(frozen=True)
class Measured:
    """A group's methods, in the order in which they were given, and what all share."""

    group: RunGroup
    methods: tuple[Method, ...]

    @property
    def first(self) -> Method:
        """One of them, for what all share."""
        return self.methods[0]

    @property
    def tasks(self) -> int:
        """T."""
        return self.first.result.tasks

    @property
    def measure(self) -> str:
        """What the scores are called."""
        return "average accuracy" if not self.first.result.numbers else "average explained variance"

    @property
    def unit(self) -> str:
        """What is measured of one task."""
        numbers = len(self.first.result.numbers)
        return "accuracy" if not numbers else "explained variance" if numbers == self.tasks else "score"

    @property
    def units(self) -> str:
        """What the numbers of the tables are."""
        return "%, mean ± half-width of the 95 % interval over seeds" if self.fewest >= FEWEST else "%, mean over seeds"

    @property
    def together(self) -> bool:
        """Whether what is compared learns all tasks at once: then no task is learned after another."""
        return bool(self.rivals) and self.rivals[0].result.paradigm == "joint"

    @property
    def comparable(self) -> bool:
        """Whether the scores of tasks have a common mean."""
        try:
            metrics.average_accuracy(self.first.result)
        except NotMeasured:
            return False
        return True

    @cached_property
    def ranked(self) -> list[Method]:
        """The best first; references among them; those without a score last."""
        return sorted(self.methods, key=lambda m: (m.score.mean != m.score.mean, -m.score.mean))

    @property
    def rivals(self) -> list[Method]:
        """Those that are compared, the best first; references are what they are held against."""
        return [method for method in self.ranked if not method.reference]

    @property
    def references(self) -> list[Method]:
        """Joint and isolated learning, beside methods that learn task after task."""
        return [method for method in self.methods if method.reference]

    @property
    def fewest(self) -> int:
        """Seeds of the method that has fewest; one that lost all has no number that they could be few for."""
        return min((method.seeds for method in self.methods if method.seeds), default=0)


def measured(group: RunGroup) -> Measured:
    """A group with looks: the best eight have a colour, in the order in which they were given; the rest is grey."""
    paradigms = [run.result.paradigm for run in group.runs.values()]
    main = "continual" if "continual" in paradigms else "joint" if "joint" in paradigms else "isolate"
    bare = [
        Method(name, i, run, OTHER, run.result.paradigm != main) for i, (name, run) in enumerate(group.runs.items())
    ]
    rivals = Measured(group, tuple(bare)).rivals
    coloured = sorted(rivals[:COLOURED], key=lambda method: method.number)
    looks = {method.number: look(i) for i, method in enumerate(coloured)}
    looks |= {method.number: REFERENCES[method.result.paradigm] for method in bare if method.reference}
    methods = [Method(m.name, m.number, m.run, looks.get(m.number, OTHER), m.reference) for m in bare]
    return Measured(group, tuple(methods))


def text_of(value: Estimate, digits: int = 2) -> str:
    """A mean and its interval in percent; the mean alone where there are too few seeds for one."""
    few = sum(each is not None for each in value.per_seed) < FEWEST
    return Estimate(value.mean, None, ()).text(digits) if few else value.text(digits)


def means(values: Tensor) -> list[float]:
    """Over seeds, in percent."""
    return (100 * values.mean(0)).tolist()


def worst(values: Sequence[float]) -> int:
    """Where the largest is."""
    return max(range(len(values)), key=lambda i: values[i])


def bounded_tasks(tasks: int, most: int) -> list[int]:
    """All tasks, or so many of them evenly over the stream, the first and the last among them."""
    if tasks <= most:
        return list(range(tasks))
    return sorted({round(i * (tasks - 1) / (most - 1)) for i in range(most)})
