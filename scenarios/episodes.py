"""Episodes: N-way K-shot tasks drawn from the classes of a table, many at once, and sine waves to regress.

Which classes may be drawn is a `Pool`; what was drawn is an `Episode`, whose every field has a leading T, one for
each task. Draws depend on the generator alone, so the same words give the same episodes, everywhere.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scenarios.stream import ScenarioError, Table

TURNS = 4  # right angles: each is a class of its own where rotations are wanted


class Episode(NamedTuple):
    """T tasks: support_x [T, N K, ...] and query_x [T, N Q, ...], bytes or floats as in the table; y int64, or float
    [T, N K, 1] in regression; classes int64 [T, N], places in the pool (turn x classes + class)."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Pool:
    """Classes that episodes are drawn from: original numbers, sorted; and the rows of each.

    rows int64 [classes, most rows], padded; count int64 [classes]; turns: 4 where each right angle of rotation makes a
    class of its own, else 1.
    """

    table: Table
    classes: tuple[int, ...]
    rows: Tensor = field(repr=False)
    count: Tensor = field(repr=False)
    turns: int = 1

    def __len__(self) -> int:
        return len(self.classes) * self.turns

    @property
    def hash(self) -> str:
        """What was split: SHA-256 of the data set's name, the sorted classes and the turns, 16 hexadecimal digits."""
        words = f"{Path(self.table.name).name}/{self.table.classes}/{','.join(map(str, self.classes))}/{self.turns}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def to(self, device: torch.device | str) -> Pool:
        """The same pool on another device."""
        return replace(self, table=self.table.to(device), rows=self.rows.to(device), count=self.count.to(device))

    def check(self, way: int, shot: int, query: int) -> None:
        """Raise ScenarioError where no such episode can be drawn."""
        if way < 2:
            raise ScenarioError(f"way={way}: an episode tells at least 2 classes apart")
        if way > len(self):
            raise ScenarioError(f"{way}-way episodes need {way} classes, and {self.table.name} has {len(self)} here")
        least = int(self.count.min())
        if shot < 0 or query < 1:
            raise ScenarioError(f"shot={shot}, query={query}: shots are at least 0, queries at least 1")
        if shot + query > least:
            raise ScenarioError(
                f"shot={shot} and query={query} need {shot + query} images of each class, and one of {self.table.name}"
                f" has {least}: ask for fewer"
            )

    def some(self, first: int, last: int) -> Pool:
        """The pool of the classes at some places of this one."""
        here = slice(first, last)
        return replace(self, classes=self.classes[here], rows=self.rows[here], count=self.count[here])

    def numbers(self, part: Pool, first: int, places: Tensor) -> Tensor:
        """Places in a pool made by `some(first, ...)` as places in this one."""
        return places // len(part.classes) * len(self.classes) + first + places % len(part.classes)

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T tasks of N classes: K support and Q query rows of each, all different, labels 0 ... N - 1.

        A class may be drawn at several right angles of one task where the pool turns. Random numbers come from the CPU.
        """
        device = self.rows.device
        picked = torch.rand(tasks, len(self), generator=generator).topk(way, 1).indices.to(device)
        ticket = torch.rand(tasks, way, self.rows.shape[1], generator=generator).to(device)
        own, turn = picked % len(self.classes), picked // len(self.classes)
        absent = torch.arange(self.rows.shape[1], device=device) >= self.count[own][..., None]
        places = ticket.masked_fill(absent, -1.0).topk(shot + query, 2).indices
        row = self.rows[own].gather(2, places)  # [T, N, K + Q]
        x = turned(self.table.x[row], turn) if self.turns > 1 else self.table.x[row]
        y = torch.arange(way, device=device)[None, :, None].expand(tasks, -1, shot + query)

        def part(values: Tensor, first: int, last: int) -> Tensor:
            return values[:, :, first:last].flatten(1, 2)

        return Episode(
            part(x, 0, shot), part(y, 0, shot), part(x, shot, shot + query), part(y, shot, shot + query), picked
        )


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Images [T, N, K, ..., H, W] turned by right angles, int64 [T, N]: 0, 1, 2 or 3."""
    if x.shape[-1] != x.shape[-2]:
        raise ScenarioError(f"right angles turn square images, and these are {x.shape[-2]} x {x.shape[-1]}")
    result = x.clone()
    for angle in range(1, TURNS):
        chosen = turn == angle
        result[chosen] = torch.rot90(x[chosen], angle, (-2, -1))
    return result


def pool(table: Table, classes: tuple[int, ...] | None = None, part: str = "all", rotations: bool = False) -> Pool:
    """The pool of these classes (all, if none are named) over a table's "train", "test" or "all" rows."""
    wanted = tuple(sorted(range(table.classes) if classes is None else classes))
    if not wanted or wanted[0] < 0 or wanted[-1] >= table.classes or len(set(wanted)) < len(wanted):
        raise ScenarioError(f"classes of {table.name} are numbered 0 ... {table.classes - 1}, each named once")
    bounds = {"all": (0, len(table.y)), "train": (0, table.train_rows), "test": (table.train_rows, len(table.y))}
    if part not in bounds:
        raise ScenarioError(f"part={part!r} is not known: it is one of {', '.join(bounds)}")
    first, last = bounds[part]
    return pool_of_rows(table, wanted, torch.arange(first, last), rotations)


def pool_of_rows(table: Table, classes: tuple[int, ...], rows: Tensor, rotations: bool = False) -> Pool:
    """The pool of some rows of a table."""
    y = table.y.cpu()[rows]
    own = [rows[y == c] for c in classes]
    if any(not len(r) for r in own):
        raise ScenarioError(f"a class of {table.name} has no rows here, so no episode can show it")
    padded = torch.nn.utils.rnn.pad_sequence(own, batch_first=True)
    device = table.x.device
    count = torch.tensor([len(r) for r in own])
    return Pool(table, tuple(classes), padded.to(device), count.to(device), TURNS if rotations else 1)


def split_classes(table: Table, held: int, generator: torch.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The classes of a table in two: some to learn from, and `held` of them to validate on; each sorted."""
    if not 0 < held < table.classes - 1:
        raise ScenarioError(f"{held} classes cannot be held out of the {table.classes} of {table.name}")
    order = torch.randperm(table.classes, generator=generator).tolist()
    return tuple(sorted(order[held:])), tuple(sorted(order[:held]))


def check_apart(a: Table, b: Table) -> None:
    """Raise ScenarioError where two tables share a row: what a start learned must not be what it is tested on.

    Rows are compared by their numbers, whatever the tables are called and whether they hold 0 ... 255 or 0 ... 1.
    """
    if a.shape != b.shape:
        return
    in_bytes = a.x.dtype != b.x.dtype and torch.uint8 in (a.x.dtype, b.x.dtype)

    def digests(table: Table) -> set[bytes]:
        x = table.x.cpu().flatten(1)
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
            " data, or allow it with allow_overlap=True, which then stands in every table"
        )


@dataclass(frozen=True)
class Sines:
    """Sine waves y = a sin(x - p) to regress (Finn et al., 2017): amplitude, phase and x drawn uniformly from ranges."""

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    x: tuple[float, float] = (-5.0, 5.0)

    @property
    def outside(self) -> Sines:
        """Waves beyond the amplitudes of this range: half as wide again, from its upper end on."""
        low, high = self.amplitude
        return replace(self, amplitude=(high, high + (high - low) / 2))

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

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T waves: K support and Q query points of each, x and y float [T, K, 1]; classes [T, 0]; way is not used."""

        def uniform(bounds: tuple[float, float], *size: int) -> Tensor:
            return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(*size, generator=generator)

        amplitude, phase = uniform(self.amplitude, tasks, 1, 1), uniform(self.phase, tasks, 1, 1)
        x = uniform(self.x, tasks, shot + query, 1)
        y = amplitude * torch.sin(x - phase)
        none = torch.zeros(tasks, 0, dtype=torch.int64)
        return Episode(x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:], none)
