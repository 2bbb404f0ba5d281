"""Memories of rows, pure and of fixed shapes: which rows are kept. A strategy says how many, and what is done with them.

A policy is a record, as in `Replay(size=200, memory=Ring())`; its state is a dictionary of tensors, row numbers rather
than pixels. What travels with a row (scores, features, a weight) is an extra: a named tensor, an entry for each place.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.memory.base import RowMemory as RowMemory
    from lifelong.memory.class_balanced import ClassBalanced as ClassBalanced
    from lifelong.memory.herding import Herding as Herding
    from lifelong.memory.per_class import PerClass as PerClass
    from lifelong.memory.reservoir import Reservoir as Reservoir
    from lifelong.memory.ring import Ring as Ring
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "memories"))
