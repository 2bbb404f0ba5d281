"""Optimisers as frozen records, each in two forms: pure, and in place on a fleet's stacked tensors. One rule a file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.optimisers.adam import Adam as Adam
    from lifelong.optimisers.adam import AdamW as AdamW
    from lifelong.optimisers.base import Optimiser as Optimiser
    from lifelong.optimisers.sgd import SGD as SGD
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "optimisers"))
