"""How much a memory holds: the one place where bytes are counted.

A memory keeps row numbers rather than rows, because the fleet's dataset is there anyway. Elsewhere, and in the
literature, a stored example costs its pixels: so both numbers are given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch.utils._pytree import tree_flatten_with_path

from scenarios.stream import Dataset

ROW_NUMBERS = "row"  # the name under which a part keeps numbers of rows


class Stored(NamedTuple):
    """Bytes. tensors: what lies in memory; examples: of the rows that row numbers stand for."""

    tensors: float = 0.0
    examples: float = 0.0

    @property
    def total(self) -> float:
        """As if rows were kept themselves."""
        return self.tensors + self.examples

    def text(self, between: str = ", ") -> str:
        """As in "84.0 kB, 20.0 kB in memory": with examples as rows, then as they lie; one number where they agree."""
        return in_bytes(self.total) + (f"{between}{in_bytes(self.tensors)} in memory" if self.examples else "")


def stored(memory: Any, dataset: Dataset, seeds: int = 1) -> Stored:
    """What a tree of tensors holds, for one seed where its leaves are [S, ...]."""
    size = Stored()
    for path, leaf in tree_flatten_with_path(memory)[0]:
        rows = leaf.numel() if path and getattr(path[-1], "key", "") == ROW_NUMBERS else 0
        size = Stored(size.tensors + leaf.numel() * leaf.element_size(), size.examples + rows * row_bytes(dataset))
    return Stored(size.tensors / seeds, size.examples / seeds)


def row_bytes(dataset: Dataset) -> int:
    """Bytes of one row of a dataset."""
    return dataset.x[0].numel() * dataset.x.element_size()


def in_bytes(size: float) -> str:
    """A number of bytes as a person reads it, in powers of 1000."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size:.0f} B" if size else "–"
