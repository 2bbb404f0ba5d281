"""Classes that are described: each has numbers beside its rows, so that one without a labelled row can be told (zero-shot)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from scenarios.brief import in_brief
from scenarios.episodes import TURNS, ClassPool, Episode, class_pool, class_pool_of_rows
from scenarios.stream import Dataset, ScenarioError, generator


@dataclass(frozen=True)
class DescribedPool(ClassPool):
    """A pool of classes with a descriptor of each, float [classes x turns, A]; its episodes bear those of their classes."""

    about: Tensor = field(repr=False, kw_only=True)
    __repr__ = in_brief

    @property
    def about_size(self) -> int:
        """A."""
        return self.about.shape[1]

    @property
    def content(self) -> str:
        """Other episodes than the plain pool's: the rows that describe are left out."""
        return self.hash

    @property
    def hash(self) -> str:
        """The pool's and its descriptors', 16 hexadecimal digits."""
        words = super().hash.encode() + self.about.cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(words).hexdigest()[:16]

    def to(self, device: torch.device | str) -> DescribedPool:
        """The same pool on another device."""
        return described(super().to(device), self.about)

    def some(self, first: int, last: int) -> DescribedPool:
        """The pool of the classes at some places of this one."""
        by_turn = self.about.view(self.turns, len(self.classes), -1)
        return described(super().some(first, last), by_turn[:, first:last].flatten(0, 1))

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """Those of the pool, with `about` [T, N, A]."""
        episode = super().draw(tasks, way, shot, query, generator)
        return episode._replace(about=self.about[episode.classes])


def described(pool: ClassPool, about: Tensor) -> DescribedPool:
    """A pool with descriptors [classes x turns, A] of its classes. Raises ScenarioError where there are more or fewer."""
    if about.ndim != 2 or len(about) != len(pool):
        raise ScenarioError(f"descriptors of shape {tuple(about.shape)}: one row for each of {len(pool)} classes")
    given = {f.name: getattr(pool, f.name) for f in fields(ClassPool)}
    return DescribedPool(**given, about=about.to(pool.device))


def described_blobs(
    classes: int = 100, features: int = 20, numbers: int = 10, per_class: int = 30, spread: float = 1.0, seed: int = 0
) -> DescribedPool:
    """Gaussian clouds whose centres are one linear map of their descriptors: m_c = a_c M / sqrt(A), a_c and M standard normal.

    Rows are m_c + spread x noise; classes that were never seen are of the same map.
    """
    if min(classes, features, numbers, per_class) < 1 or spread < 0:
        raise ScenarioError("described blobs need at least 1 of everything, and a spread of at least 0")
    random = generator("described blobs", seed)
    matrix = torch.randn(numbers, features, generator=random) / numbers**0.5
    about = torch.randn(classes, numbers, generator=random)
    noise = torch.randn(per_class, classes, features, generator=random)
    x = (about @ matrix + spread * noise).flatten(0, 1)
    y = torch.arange(classes).repeat(per_class)
    dataset = Dataset("described blobs", x, y, len(y), classes, labels=tuple(range(classes)))
    return described(class_pool(dataset), about)


def described_by_images(
    dataset: Dataset,
    classes: tuple[int, ...] | None = None,
    rows: int = 5,
    rotations: bool = False,
    part: str = "all",
) -> DescribedPool:
    """Classes described by the mean of their first `rows` images, A = their pixels; episodes are drawn from the others.

    What describes a class is thus an image of it that nobody is asked for: for Omniglot the mean of five writers' characters.
    A class at a right angle is described by the turned mean. Raises ScenarioError where a class has no image left.
    """
    wanted = tuple(sorted(range(dataset.classes) if classes is None else classes))
    whole = class_pool(dataset, wanted, part)
    if rows < 1 or rows >= int(whole.count.min()):
        raise ScenarioError(
            f"rows={rows}: a class of {dataset.name} has {int(whole.count.min())} rows, and one at least is to be left"
        )
    if rotations and (len(dataset.shape) < 2 or dataset.shape[-1] != dataset.shape[-2]):
        raise ScenarioError(f"right angles turn square images, and a row of {dataset.name} has shape {dataset.shape}")
    images = dataset.x[whole.rows[:, :rows]].to(torch.float32).mean(1)
    images = images / 255 if dataset.x.dtype == torch.uint8 else images
    turned = [images.rot90(turn, (-2, -1)) if turn else images for turn in range(TURNS if rotations else 1)]
    left = torch.cat([row[rows:count] for row, count in zip(whole.rows.cpu(), whole.count.tolist(), strict=True)])
    return described(class_pool_of_rows(dataset, wanted, left, rotations), torch.cat(turned).flatten(1))
