"""Adapting to a task from a few examples: methods of adaptation, few-shot evaluation, selection of the learning rate."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.adaptation.few_shot import FewShot as FewShot
    from lifelong.adaptation.few_shot import FewShotProbe as FewShotProbe
    from lifelong.adaptation.layerwise import AutoRGN as AutoRGN
    from lifelong.adaptation.layerwise import GradualUnfreezing as GradualUnfreezing
    from lifelong.adaptation.layerwise import LayerwiseRates as LayerwiseRates
    from lifelong.adaptation.methods import AdaptationMethod as AdaptationMethod
    from lifelong.adaptation.methods import BiasTuning as BiasTuning
    from lifelong.adaptation.methods import FullFineTuning as FullFineTuning
    from lifelong.adaptation.methods import LinearProbe as LinearProbe
    from lifelong.adaptation.methods import ProbeThenFineTune as ProbeThenFineTune
    from lifelong.adaptation.methods import Scratch as Scratch
    from lifelong.adaptation.methods import SurgicalFineTuning as SurgicalFineTuning
    from lifelong.strategies.regularisation.l2sp import L2SP as L2SP
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "adaptations"))
