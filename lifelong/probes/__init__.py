"""What is measured besides accuracy, by name: how much a network can still learn, whether tasks pull it apart, what forgot.

Each is a record that `run(probes=[...])` takes, and `lifelong run --probe "DormantUnits(), EffectiveRank()"` names. A probe
touches nothing that is learned; what one must have is written in `lifelong.core.probes`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.probes.conflict import GradientConflict as GradientConflict
    from lifelong.probes.linear_probe import LinearProbeAccuracy as LinearProbeAccuracy
    from lifelong.probes.plasticity import DormantUnits as DormantUnits
    from lifelong.probes.plasticity import EffectiveRank as EffectiveRank
    from lifelong.probes.plasticity import OnlineAccuracy as OnlineAccuracy
    from lifelong.probes.plasticity import StableRank as StableRank
    from lifelong.probes.plasticity import WeightMagnitude as WeightMagnitude
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "probes"))
