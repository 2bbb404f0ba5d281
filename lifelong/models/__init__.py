"""Networks as frozen records: `init` makes parameters, `features` and `head` are pure functions of them. One network a file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.models.anml import Gated as Gated
    from lifelong.models.base import Model as Model
    from lifelong.models.conditioned import Conditioned as Conditioned
    from lifelong.models.convolutional import Conv4 as Conv4
    from lifelong.models.cross_stitch import CrossStitch as CrossStitch
    from lifelong.models.mmoe import MMoE as MMoE
    from lifelong.models.module import Module as Module
    from lifelong.models.perceptron import MLP as MLP
    from lifelong.models.shared_layers import SharedLayers as SharedLayers
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "models"))
