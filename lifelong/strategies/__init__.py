"""Methods that are written as verbs of a strategy, one file each, by family; every public one in here is found by itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.core.strategy import FineTuning as FineTuning
    from lifelong.core.strategy import Requirements as Requirements
    from lifelong.core.strategy import Strategy as Strategy
    from lifelong.strategies.architecture.packnet import PackNet as PackNet
    from lifelong.strategies.distillation.lwf import LwF as LwF
    from lifelong.strategies.multitask.mgda import MGDA as MGDA
    from lifelong.strategies.multitask.pcgrad import PCGrad as PCGrad
    from lifelong.strategies.multitask.weights import TaskWeights as TaskWeights
    from lifelong.strategies.multitask.weights import UncertaintyWeights as UncertaintyWeights
    from lifelong.strategies.projection.agem import AGEM as AGEM
    from lifelong.strategies.regularisation.ewc import EWC as EWC
    from lifelong.strategies.regularisation.l2sp import L2SP as L2SP
    from lifelong.strategies.regularisation.mas import MAS as MAS
    from lifelong.strategies.regularisation.si import SI as SI
    from lifelong.strategies.replay.bic import BiC as BiC
    from lifelong.strategies.replay.cls_er import CLSER as CLSER
    from lifelong.strategies.replay.der import DER as DER
    from lifelong.strategies.replay.der import DERPlusPlus as DERPlusPlus
    from lifelong.strategies.replay.gdumb import GDumb as GDumb
    from lifelong.strategies.replay.generative_replay import GenerativeReplay as GenerativeReplay
    from lifelong.strategies.replay.icarl import ICaRL as ICaRL
    from lifelong.strategies.replay.lucir import LUCIR as LUCIR
    from lifelong.strategies.replay.replay import ClassReplay as ClassReplay
    from lifelong.strategies.replay.replay import Replay as Replay
    from lifelong.strategies.replay.scr import SupervisedContrastiveReplay as SupervisedContrastiveReplay
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "strategies"))
