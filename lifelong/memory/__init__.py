"""Memories of rows, pure and of fixed shapes: which rows are kept. A strategy holds one and says what is done with them.

Each has draws and init, insert and pick; the state is a dictionary of tensors, row numbers rather than pixels. What
travels with a row (scores, features, a weight) is an extra: named tensors, one entry for each kept row.
"""

from lifelong.memory.drawn import Drawn, drawn, drawn_rows, draws_of, filled_first, replayed
from lifelong.memory.per_class import PerClass
from lifelong.memory.per_task import PerTask
from lifelong.memory.reservoir import Reservoir

__all__ = ["Drawn", "PerClass", "PerTask", "Reservoir", "drawn", "drawn_rows", "draws_of", "filled_first", "replayed"]


def __dir__() -> list[str]:
    """The public names alone."""
    return __all__
