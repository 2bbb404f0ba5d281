"""What every scenario is: a sequence of tasks over one dataset of data, drawn anew for each seed.

A `Dataset` is a data set as tensors. A `Stream` says which rows of it make up each task, what their labels are, and
which classes may be answered. Nothing about learning lives here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, overload

import torch
from torch import Tensor

from scenarios.brief import cut, in_brief
from scenarios.errors import ConfigurationError

SETTINGS = ("task", "domain", "class")
PARTS = ("train", "validation", "test")


class ScenarioError(ConfigurationError):
    """A request that no stream can honour; its message is one line and says what would be right."""


def generator(*words: object) -> torch.Generator:
    """A random generator that depends on nothing but the words: the same luck alone, in a fleet, or after a resume."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Seed(NamedTuple):
    """What a seed means, told apart: order of classes and tasks; start, the first weights; data, batches and draws."""

    order: int
    start: int
    data: int

    def __str__(self) -> str:
        return f"{self.order}/{self.start}/{self.data}"


def seed_of(seed: int | Seed) -> Seed:
    """A plain seed is the same for all three."""
    return seed if isinstance(seed, Seed) else Seed(seed, seed, seed)


@dataclass(frozen=True)
class Dataset:
    """One data set as tensors: training rows first, test rows after them.

    x: pixels or features, uint8 (divided by 255 when read) or floating point [N, ...].
    y: original class numbers, int64 [N], from 0 to `classes` - 1. labels: what the data themselves call these classes,
    in that order; empty where they are called by their numbers.
    targets: numbers [N, D] that tasks may ask for instead of a class, NaN where one is missing. origin: where the rows
    came from, in a line, where they are made of others; "" else.
    Raises ScenarioError for a label that is no class.
    """

    name: str
    x: Tensor
    y: Tensor
    train_rows: int
    classes: int
    labels: tuple[int | str, ...] = ()
    targets: Tensor | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        if self.labels and len(self.labels) != self.classes:
            raise ScenarioError(
                f"{self.name}: {len(self.labels)} labels are named, and there are {self.classes} classes"
            )
        if self.y.device.type != "cpu" or vars(self.y).get("checked_classes") == self.classes:
            return  # looking at another device would wait for it, and what was checked here does not change there
        wrong = (self.y < 0) | (self.y >= self.classes)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            raise ScenarioError(
                f"{self.name}: row {row} has the label {int(self.y[row])}, and classes are 0 to {self.classes - 1}"
            )
        vars(self.y)["checked_classes"] = self.classes  # so that a copy of the dataset is not checked again

    def __repr__(self) -> str:
        kind, test = str(self.x.dtype).removeprefix("torch."), len(self.y) - self.train_rows
        rows = f"{self.train_rows:,} training and {test:,} test rows of {kind}{list(self.shape)}"
        return cut(f"Dataset({self.name}: {rows}, {self.classes} classes)")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self.x.shape[1:])

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset on another device."""
        targets = None if self.targets is None else self.targets.to(device)
        return replace(self, x=self.x.to(device), y=self.y.to(device), targets=targets)

    def content_hash(self) -> str:
        """SHA-256 of the decoded rows, first 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.y, self.targets):
            if tensor is not None:  # as they lie: a copy of a mapped table may be more than memory holds
                digest.update(tensor.cpu().contiguous().numpy().data.cast("B") if tensor.numel() else b"")
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """One task of a stream as one seed sees it.

    train, validation, test: rows of the dataset, int64 [n]; label: original class -> class of the stream, int64, -1
    where the class is not in this task; classes: the stream's classes that occur in this task.
    given: original classes as training shows them, one for each row of `train`, where they differ from the dataset's:
    noise, or -1 where a label is missing. columns: for a task of numbers, which of the dataset's targets it asks for, one
    for each of `classes`, which are then outputs rather than classes.
    """

    number: int
    train: Tensor
    validation: Tensor
    test: Tensor
    label: Tensor
    classes: tuple[int, ...]
    permutation: Tensor | None = None
    angle: float = 0.0
    given: Tensor | None = None
    columns: tuple[int, ...] = ()

    def __repr__(self) -> str:
        rows = f"{len(self.train):,} training, {len(self.validation):,} validation, {len(self.test):,} test rows"
        asked = f"outputs {self.classes} for numbers" if self.columns else f"classes {self.classes}"
        return cut(f"Task({self.number}: {rows}, {asked})")

    def of_places(self, places: Tensor) -> Task:
        """The task with some of its training rows, by their places among them."""
        given = None if self.given is None else self.given[places]
        return replace(self, train=self.train[places], given=given)


class TaskGenerator(Protocol):
    """How a scenario divides a dataset: `tasks(dataset, seed)` is all that a new scenario has to write."""

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The tasks as this seed draws them."""
        ...


@dataclass(frozen=True)
class Budget:
    """How long each task is trained: batches, or else passes over its rows; the rows of a batch; steps on each batch.

    With epochs, every row is shown that many times: `epochs=1` is exactly one pass, its last batch as full as it gets.
    """

    iterations: int = 0
    epochs: float = 0.0
    batch: int = 32
    repeats: int = 1

    def rows(self, size: int) -> int:
        """How many rows are shown of a task of this size."""
        return self.iterations * self.batch if self.iterations else max(1, round(self.epochs * size))

    def steps(self, size: int) -> int:
        """How many steps a task of this size takes."""
        return -(-self.rows(size) // self.batch) * self.repeats


class Shown(NamedTuple):
    """What a phase of a stream shows, in order: row, task int64 [n]; first bool [n], for the first time in the run."""

    row: Tensor
    task: Tensor
    first: Tensor
    __repr__ = in_brief


class Schedule(Protocol):
    """What is shown when: one phase for each task, each of as many rows as the budget says."""

    def size(self, tasks: list[Task], phase: int) -> int:
        """Rows of one pass of a phase."""
        ...

    def shown(self, tasks: list[Task], phase: int, wanted: Sequence[int], *seed: object) -> Shown:
        """The rows of a phase, wanted[phase] of them; wanted: for every phase. seed: words of a generator."""
        ...


def in_orders(count: int, wanted: int, random: torch.Generator) -> Tensor:
    """Random orders of 0 ... count - 1, one after another, cut to length."""
    orders = [torch.randperm(count, generator=random) for _ in range(max(1, math.ceil(wanted / count)))]
    return torch.cat(orders)[:wanted]


@dataclass(frozen=True)
class SequentialSchedule:
    """One task after another, each in random orders of its rows."""

    def size(self, tasks: list[Task], phase: int) -> int:
        """The rows of the task."""
        return len(tasks[phase].train)

    def shown(self, tasks: list[Task], phase: int, wanted: Sequence[int], *seed: object) -> Shown:
        """Random orders of the task's rows, one after another."""
        row = tasks[phase].train
        order = in_orders(len(row), wanted[phase], generator(*seed, tasks[phase].number))
        first = torch.arange(len(order)) < len(row)
        return Shown(row[order], torch.full_like(order, phase), first)


@dataclass(frozen=True)
class Stream:
    """A sequence of tasks: iterate, index, slice, take its length.

    classes: C, the outputs of the network. open: which classes compete, "all", "seen" (so far) or "current".
    paradigm: "continual", or a baseline that changes only what is trained on ("joint", "isolate").
    schedule: what is shown when; task_ends: whether a learner is told when a task ends, how many there are and how far
    the one at hand is. Where it is not, the ends of phases are still when everything is scored. disjoint: whether tasks
    of the same transformation share no training row, and where classes are told apart no class.
    seed: whose draw indexing shows; a run draws its own seeds from `tasks_of`.
    Slicing keeps C and the labels, so that results stay comparable.
    """

    name: str
    dataset: Dataset
    task_generator: TaskGenerator
    setting: str
    length: int
    classes: int
    open: str = "all"
    paradigm: str = "continual"
    schedule: Schedule = field(default_factory=SequentialSchedule)
    task_ends: bool = True
    disjoint: bool = True
    budget: Budget = field(default_factory=Budget)
    chosen: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS:
            raise ScenarioError(f"unknown setting {self.setting!r}: it is one of {', '.join(SETTINGS)}")
        if self.open not in ("all", "seen", "current"):
            raise ScenarioError(f"open={self.open!r} is not known: it is one of all, seen, current")

    def __repr__(self) -> str:
        words = [f"{self.setting}-incremental", f"{len(self)} tasks", f"{self.classes} classes", self.dataset.name]
        words += [] if self.paradigm == "continual" else [self.paradigm]
        return cut(f"Stream({self.name}: {', '.join(words)}, {self.budget!r})")

    def tasks_of(self, seed: int) -> list[Task]:
        """The tasks as this seed draws them."""
        tasks = self.task_generator.tasks(self.dataset, seed)
        return [tasks[i] for i in self.chosen] if self.chosen else tasks

    def __len__(self) -> int:
        return len(self.chosen) or self.length

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks_of(self.seed))

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> Stream: ...

    def __getitem__(self, index: int | slice) -> Task | Stream:
        if isinstance(index, slice):
            chosen = tuple(self.chosen or range(self.length))[index]
            if not chosen:
                raise ScenarioError("that slice of the stream holds no task")
            return replace(self, chosen=chosen)
        return self.tasks_of(self.seed)[index]

    @property
    def asks_numbers(self) -> bool:
        """Whether any task asks for numbers."""
        return any(task.columns for task in self.tasks_of(self.seed))

    def wanted(self, tasks: list[Task]) -> list[int]:
        """Rows shown in each phase."""
        return [self.budget.rows(self.schedule.size(tasks, t)) for t in range(len(tasks))]

    def steps(self, tasks: list[Task]) -> list[int]:
        """Steps of each phase."""
        return [self.budget.steps(self.schedule.size(tasks, t)) for t in range(len(tasks))]

    def to(self, device: torch.device | str) -> Stream:
        """The same stream with its dataset on another device."""
        return replace(self, dataset=self.dataset.to(device))


def allowed_classes(stream: Stream, tasks: list[Task]) -> Tensor:
    """Which classes compete in each task, bool [T, C].

    Task-incremental: the classes of the task (its own head). Otherwise all classes, those seen so far, or those of
    the current task, as the stream's `open` says. Outputs that answer with numbers compete with no class.
    """
    current = torch.zeros(len(tasks), stream.classes, dtype=torch.bool)
    for t, task in enumerate(tasks):
        current[t, list(task.classes)] = True
    numeric = torch.tensor([bool(task.columns) for task in tasks])
    if stream.setting == "task" or stream.open == "current":
        return current
    classes = current.cumsum(0) > 0 if stream.open == "seen" else torch.ones_like(current)
    classes = classes & ~current[numeric].any(0)
    return torch.where(numeric[:, None], current, classes)


def stream_index(stream: Stream, seeds: list[int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """What differs between seeds, stacked: the tensors that a fleet maps over.

    rows_* int64 [S, T, maxN] (padded with a row of the task), count_* int64 [S, T], label int64 [S, T, classes of the dataset],
    allowed bool [S, T, C], classes_of bool [S, T, C]; permutation int64 [S, T, F] or angle [S, T] where the stream
    transforms its rows; given int64 [S, rows of the dataset], original classes as training shows them, where some differ;
    column int64 [S, T, C], which target each output is asked for, and numeric bool [S, T], where tasks ask for numbers.
    """
    drawn = [stream.tasks_of(seed) for seed in seeds]
    result: dict[str, list[Tensor]] = {}

    def put(name: str, tensor: Tensor) -> None:
        result.setdefault(name, []).append(tensor)

    for part in PARTS:
        longest = max(max(len(getattr(task, part)) for task in tasks) for tasks in drawn)
        for tasks in drawn:
            rows = torch.zeros(len(tasks), max(longest, 1), dtype=torch.int64)
            for t, task in enumerate(tasks):
                numbers = getattr(task, part)
                if len(numbers):
                    rows[t] = numbers[0]  # padding repeats a row of the task, so that its label exists
                    rows[t, : len(numbers)] = numbers
            put(f"rows_{part}", rows)
            put(f"count_{part}", torch.tensor([len(getattr(task, part)) for task in tasks]))
    for tasks in drawn:
        put("label", torch.stack([task.label for task in tasks]))
        put("allowed", allowed_classes(stream, tasks))
        classes_of = torch.zeros(len(tasks), stream.classes, dtype=torch.bool)
        for t, task in enumerate(tasks):
            classes_of[t, list(task.classes)] = True
        put("classes_of", classes_of)
        if tasks[0].permutation is not None:
            put("permutation", torch.stack([task.permutation for task in tasks if task.permutation is not None]))
        if any(task.angle for task in tasks):
            put("angle", torch.tensor([task.angle for task in tasks], dtype=torch.float32))
    asked = any(task.columns for tasks in drawn for task in tasks)
    noisy = any(task.given is not None for tasks in drawn for task in tasks)
    for tasks in drawn:
        if asked:
            column = torch.full((len(tasks), stream.classes), -1, dtype=torch.int64)
            for t, task in enumerate(tasks):
                column[t, list(task.classes)[: len(task.columns)]] = torch.tensor(task.columns, dtype=torch.int64)
            put("column", column)
            put("numeric", torch.tensor([bool(task.columns) for task in tasks]))
        if noisy:
            given = stream.dataset.y.cpu().clone()
            for task in tasks:
                if task.given is not None:
                    given[task.train] = task.given
            put("given", given)
    if "angle" in result and len(result["angle"]) != len(seeds):
        raise ScenarioError("a stream rotates all of its seeds or none")
    return {name: torch.stack(tensors).to(device) for name, tensors in result.items()}
