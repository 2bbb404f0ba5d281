"""Episodes: N-way K-shot tasks drawn from the classes of a dataset, many at once, and sine waves to regress.

What tasks are drawn from is a `TaskSource`, as a `ClassPool` of classes; what was drawn is an `Episode`, whose every field has
a leading T, one for each task. Draws depend on the generator alone, so the same words give the same episodes, everywhere.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from scenarios.brief import in_brief
from scenarios.stream import Dataset, ScenarioError

TURNS = 4  # right angles: each is a class of its own where rotations are wanted


class Support(NamedTuple):
    """The labelled rows of one task: x [R, ...], y int64 [R], or float [R, D] where numbers are predicted.

    weight: how much each row counts [R], 0 for one that only fills up; about: a task_embedding of each class [N, A]. Both are
    empty tuples where there are none.
    """

    x: Tensor
    y: Tensor
    weight: Any = ()
    about: Any = ()
    __repr__ = in_brief


class Episode(NamedTuple):
    """T tasks: support_x [T, N K, ...] and query_x [T, N Q, ...], bytes or floats as in the dataset, in random order.

    support_y, query_y: int64, or float [T, N K, D] where numbers are predicted; classes int64 [T, N]: places in the
    source. support_weight [T, N K], query_weight [T, N Q]: how much a row counts, so that tasks of different shots fill
    tensors of one shape; about [T, N, A]: descriptors of the classes. These three are empty tuples where there are none.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    classes: Tensor
    support_weight: Any = ()
    query_weight: Any = ()
    about: Any = ()
    __repr__ = in_brief

    @property
    def support(self) -> Support:
        """All that an answer may see besides the queries."""
        return Support(self.support_x, self.support_y, self.support_weight, self.about)

    def some(self, first: int, last: int) -> Episode:
        """The tasks from `first` on, before `last`."""
        return tree_map(lambda leaf: leaf[first:last], self)

    def task(self, place: int) -> Episode:
        """One task, without the leading T."""
        return tree_map(lambda leaf: leaf[place], self)


def shuffled(tasks: int, rows: int, generator: torch.Generator) -> Tensor:
    """A random order of the rows of each task, int64 [T, R]: in any other, a row's place could tell its class."""
    return torch.rand(tasks, rows, generator=generator).argsort(1)


class TaskSource(ABC):
    """What tasks are drawn from. kind: "classes", which are told apart, or "numbers", which are predicted.

    len: of the classes that may be drawn; turns: how often each original class stands among them.
    """

    kind: str = "classes"
    turns: int = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """The data set, in a word."""

    @property
    @abstractmethod
    def hash(self) -> str:
        """Which tasks it holds, in 16 hexadecimal digits or words."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of a row, as a network takes it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def check(self, way: int, shot: int, query: int) -> None:
        """Raise a ConfigurationError where no such episode can be drawn."""

    @abstractmethod
    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T tasks, the rows of each in random order."""

    @property
    def device(self) -> torch.device:
        """Where its tensors lie."""
        return torch.device("cpu")

    def to(self, device: torch.device | str) -> TaskSource:
        """The same source on another device. Raises ScenarioError where it cannot be moved."""
        if torch.device(device) != self.device:
            raise ScenarioError(f"{self.name} draws its tasks on {self.device} alone: use --device {self.device}")
        return self

    @property
    def about_size(self) -> int:
        """Numbers of a class's descriptor, A; 0 where classes are not described."""
        return 0

    @property
    def content(self) -> str:
        """What its rows are: two sources are tested on the same episodes where this and `hash` agree."""
        return self.hash

    @property
    def tests(self) -> dict[str, TaskSource]:
        """The sources that a learner of this one is tested on, by name."""
        return {self.name: self}

    def outputs(self, way: int) -> int:
        """Outputs that answer an episode of N ways."""
        return way

    def queries(self, shot: int, wanted: int) -> int:
        """The most queries of each class, up to a wanted number, that every class has besides its support."""
        return wanted

    def labels(self, episode: Episode) -> Tensor:
        """The support's labels among all classes of the source, int64 [T, R]."""
        return episode.classes.gather(1, episode.support_y)

    def as_dataset(self) -> Dataset:
        """The dataset that its rows are of. Raises ScenarioError where there is none."""
        raise ScenarioError(f"{self.name} has no dataset of rows to learn class after class")

    def some(self, first: int, last: int) -> TaskSource:
        """The source of the classes at some places. Raises ScenarioError where classes cannot be set apart."""
        raise ScenarioError(f"the classes of {self.name} cannot be divided")

    def numbers(self, part: TaskSource, first: int, places: Tensor) -> Tensor:
        """Places in a source made by `some(first, ...)` as places in this one."""
        raise ScenarioError(f"the classes of {self.name} cannot be divided")


@dataclass(frozen=True)
class ClassPool(TaskSource):
    """Classes that episodes are drawn from: original numbers, sorted; and the rows of each.

    rows int64 [classes, most rows], padded; count int64 [classes]; turns: 4 where each right angle of rotation makes a
    class of its own, else 1.
    """

    dataset: Dataset
    classes: tuple[int, ...]
    rows: Tensor = field(repr=False)
    count: Tensor = field(repr=False)
    turns: int = 1
    __repr__ = in_brief

    def __len__(self) -> int:
        return len(self.classes) * self.turns

    @property
    def name(self) -> str:
        """The dataset's."""
        return self.dataset.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The dataset's."""
        return self.dataset.shape

    @property
    def device(self) -> torch.device:
        """Where its dataset lies."""
        return self.rows.device

    @property
    def content(self) -> str:
        """The content of the dataset."""
        return self.dataset.content_hash()

    @property
    def hash(self) -> str:
        """What was split: SHA-256 of the data set's name, the sorted classes and the turns, 16 hexadecimal digits."""
        words = f"{Path(self.dataset.name).name}/{self.dataset.classes}/{','.join(map(str, self.classes))}/{self.turns}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def to(self, device: torch.device | str) -> ClassPool:
        """The same pool on another device."""
        return replace(self, dataset=self.dataset.to(device), rows=self.rows.to(device), count=self.count.to(device))

    def check(self, way: int, shot: int, query: int) -> None:
        """Raise ScenarioError where no such episode can be drawn."""
        if way < 1:
            raise ScenarioError(f"way={way}: an episode has at least 1 class")
        if way > len(self):
            raise ScenarioError(f"{way}-way episodes need {way} classes, and {self.dataset.name} has {len(self)} here")
        least = int(self.count.min())
        if shot < 0 or query < 1:
            raise ScenarioError(f"shot={shot}, query={query}: shots are at least 0, queries at least 1")
        if shot + query > least:
            raise ScenarioError(
                f"shot={shot} and query={query} need {shot + query} images of each class, and one of {self.dataset.name}"
                f" has {least}: ask for fewer"
            )

    def queries(self, shot: int, wanted: int) -> int:
        """Those of the smallest class."""
        return min(wanted, max(1, int(self.count.min()) - shot))

    def as_dataset(self) -> Dataset:
        """The dataset."""
        return self.dataset

    def some(self, first: int, last: int) -> ClassPool:
        """The pool of the classes at some places of this one."""
        here = slice(first, last)
        return replace(self, classes=self.classes[here], rows=self.rows[here], count=self.count[here])

    def numbers(self, part: TaskSource, first: int, places: Tensor) -> Tensor:
        """Places in a pool made by `some(first, ...)` as places in this one."""
        count = len(part) // part.turns
        return places // count * len(self.classes) + first + places % count

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T tasks of N classes: K support and Q query rows of each, all different; labels 0 ... N - 1 at random.

        Rows come in random order, so that no place tells a label. A class may be drawn at several right angles of one
        task where the pool turns. Random numbers come from the CPU.
        """
        device = self.device
        picked = torch.rand(tasks, len(self), generator=generator).topk(way, 1).indices.to(device)
        ticket = torch.rand(tasks, way, self.rows.shape[1], generator=generator).to(device)
        drawn, turn = picked % len(self.classes), picked // len(self.classes)
        absent = torch.arange(self.rows.shape[1], device=device) >= self.count[drawn][..., None]
        places = ticket.masked_fill(absent, -1.0).topk(shot + query, 2).indices
        row = self.rows[drawn].gather(2, places)  # [T, N, K + Q]

        def part(first: int, last: int) -> tuple[Tensor, Tensor]:
            order = shuffled(tasks, way * (last - first), generator).to(device)
            label = order // max(last - first, 1)  # [T, R]
            x = self.dataset.x[row[:, :, first:last].flatten(1).gather(1, order)]
            return turned(x, turn.gather(1, label)) if self.turns > 1 else x, label

        return Episode(*part(0, shot), *part(shot, shot + query), picked)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Images [T, R, ..., H, W] turned by right angles, int64 [T, R]: 0, 1, 2 or 3."""
    if x.shape[-1] != x.shape[-2]:
        raise ScenarioError(f"right angles turn square images, and these are {x.shape[-2]} x {x.shape[-1]}")
    result = x.clone()
    for angle in range(1, TURNS):
        chosen = turn == angle
        result[chosen] = torch.rot90(x[chosen], angle, (-2, -1))
    return result


def class_pool(
    dataset: Dataset, classes: tuple[int, ...] | None = None, part: str = "all", rotations: bool = False
) -> ClassPool:
    """The pool of these classes (all, if none are named) over a dataset's "train", "test" or "all" rows."""
    wanted = tuple(sorted(range(dataset.classes) if classes is None else classes))
    if not wanted or wanted[0] < 0 or wanted[-1] >= dataset.classes or len(set(wanted)) < len(wanted):
        raise ScenarioError(f"classes of {dataset.name} are numbered 0 ... {dataset.classes - 1}, each named once")
    bounds = {
        "all": (0, len(dataset.y)),
        "train": (0, dataset.train_rows),
        "test": (dataset.train_rows, len(dataset.y)),
    }
    if part not in bounds:
        raise ScenarioError(f"part={part!r} is not known: it is one of {', '.join(bounds)}")
    first, last = bounds[part]
    return class_pool_of_rows(dataset, wanted, torch.arange(first, last), rotations)


def class_pool_of_rows(dataset: Dataset, classes: tuple[int, ...], rows: Tensor, rotations: bool = False) -> ClassPool:
    """The pool of some rows of a dataset."""
    y = dataset.y.cpu()[rows]
    rows_by_class = [rows[y == c] for c in classes]
    if any(not len(r) for r in rows_by_class):
        raise ScenarioError(f"a class of {dataset.name} has no rows here, so no episode can show it")
    padded = torch.nn.utils.rnn.pad_sequence(rows_by_class, batch_first=True)
    device = dataset.x.device
    count = torch.tensor([len(r) for r in rows_by_class])
    return ClassPool(dataset, tuple(classes), padded.to(device), count.to(device), TURNS if rotations else 1)


def split_classes(dataset: Dataset, held: int, generator: torch.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The classes of a dataset in two: some to learn from, and `held` of them to validate on; each sorted."""
    if not 0 < held < dataset.classes - 1:
        raise ScenarioError(f"{held} classes cannot be held out of the {dataset.classes} of {dataset.name}")
    order = torch.randperm(dataset.classes, generator=generator).tolist()
    return tuple(sorted(order[held:])), tuple(sorted(order[:held]))


def check_apart(a: Dataset, b: Dataset) -> None:
    """Raise ScenarioError where two datasets share a row: what a start learned must not be what it is tested on.

    Rows are compared by their numbers, whatever the datasets are called and whether they hold 0 ... 255 or 0 ... 1.
    """
    if a.shape != b.shape:
        return
    in_bytes = a.x.dtype != b.x.dtype and torch.uint8 in (a.x.dtype, b.x.dtype)

    def digests(dataset: Dataset) -> set[bytes]:
        x = dataset.x.cpu().flatten(1)
        if in_bytes and x.dtype != torch.uint8:
            x = x[((255 * x).round() - 255 * x).abs().amax(1) < 0.01]  # only these rows can be bytes
            x = (255 * x).round().clamp(0, 255).to(torch.uint8)
        elif x.dtype != torch.uint8:
            x = x.to(torch.float32)
        return {hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in x.numpy()}

    shared = len(digests(a) & digests(b))
    if shared:
        raise ScenarioError(
            f"{a.name} and {b.name} share {shared} rows, so the start would have seen what it is tested on: name other"
            " data, or allow it with allow_overlap=True, which then stands in every dataset"
        )


@dataclass(frozen=True)
class Sines(TaskSource):
    """Sine waves y = a sin(x - p) to regress (Finn et al., 2017): amplitude, phase and x drawn uniformly from ranges.

    place: the device that draws are moved to.
    """

    kind = "numbers"

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    x: tuple[float, float] = (-5.0, 5.0)
    place: str = field(default="cpu", repr=False, compare=False)

    @property
    def name(self) -> str:
        """In a word."""
        return "sines"

    @property
    def shape(self) -> tuple[int, ...]:
        """One number."""
        return (1,)

    @property
    def outside(self) -> Sines:
        """Waves beyond the amplitudes of this range: half as wide again, from its upper end on."""
        low, high = self.amplitude
        return replace(self, amplitude=(high, high + (high - low) / 2))

    def shifted(self, quantity: str, share: float) -> Sines:
        """Waves whose amplitude, phase or x is drawn from a range that lies higher, by a share of its width.

        From a share of 1 on, none of this range's values are among them. Raises ScenarioError for another quantity.
        """
        if quantity not in ("amplitude", "phase", "x"):
            raise ScenarioError(f"{quantity!r} of a wave is not known: it is one of amplitude, phase, x")
        low, high = getattr(self, quantity)
        distance = share * (high - low)
        return replace(self, **{quantity: (low + distance, high + distance)})

    @property
    def tests(self) -> dict[str, TaskSource]:
        """Waves of this range, and beyond it."""
        return {"inside": self, "outside": self.outside}

    @property
    def device(self) -> torch.device:
        """Where draws lie."""
        return torch.device(self.place)

    def to(self, device: torch.device | str) -> Sines:
        """The same waves on another device."""
        return replace(self, place=str(device))

    def __len__(self) -> int:
        return 1

    @property
    def hash(self) -> str:
        """SHA-256 of the ranges, 16 hexadecimal digits."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def check(self, way: int, shot: int, query: int) -> None:
        """Raise ScenarioError where no such episode can be drawn."""
        if shot < 0 or query < 1:
            raise ScenarioError(f"shot={shot}, query={query}: shots are at least 0, queries at least 1")

    def outputs(self, way: int) -> int:
        """The number that is predicted."""
        return 1

    def labels(self, episode: Episode) -> Tensor:
        """The points themselves: all waves are of one kind."""
        return episode.support_y

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T waves: K support and Q query points of each, x and y float [T, K, 1]; classes [T, 0]; way is not used.

        Points are independent of one another, so their order tells nothing.
        """

        def uniform(bounds: tuple[float, float], *size: int) -> Tensor:
            return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(*size, generator=generator)

        amplitude, phase = uniform(self.amplitude, tasks, 1, 1), uniform(self.phase, tasks, 1, 1)
        x = uniform(self.x, tasks, shot + query, 1)
        y = amplitude * torch.sin(x - phase)
        x, y, none = (value.to(self.device) for value in (x, y, torch.zeros(tasks, 0, dtype=torch.int64)))
        return Episode(x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:], none)


NAMED_SOURCES: dict[str, type[Sines]] = {"sines": Sines}  # that need no data
