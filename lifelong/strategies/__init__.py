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
    from lifelong.strategies.architecture.cwr import CWR as CWR
    from lifelong.strategies.architecture.cwr import CWRStar as CWRStar
    from lifelong.strategies.architecture.hat import HAT as HAT
    from lifelong.strategies.architecture.packnet import PackNet as PackNet
    from lifelong.strategies.architecture.separate_networks import SeparateNetworks as SeparateNetworks
    from lifelong.strategies.architecture.xdg import XdG as XdG
    from lifelong.strategies.distillation.lfl import LFL as LFL
    from lifelong.strategies.distillation.lwf import LwF as LwF
    from lifelong.strategies.lookahead.lamaml import CMAML as CMAML
    from lifelong.strategies.lookahead.lamaml import LaMAML as LaMAML
    from lifelong.strategies.lookahead.lamaml import SyncLaMAML as SyncLaMAML
    from lifelong.strategies.lookahead.mer import MER as MER
    from lifelong.strategies.multitask.aligned import AlignedMTL as AlignedMTL
    from lifelong.strategies.multitask.cagrad import CAGrad as CAGrad
    from lifelong.strategies.multitask.dwa import DWA as DWA
    from lifelong.strategies.multitask.famo import FAMO as FAMO
    from lifelong.strategies.multitask.gradnorm import GradNorm as GradNorm
    from lifelong.strategies.multitask.gradvac import GradVac as GradVac
    from lifelong.strategies.multitask.imtl import IMTLG as IMTLG
    from lifelong.strategies.multitask.mgda import MGDA as MGDA
    from lifelong.strategies.multitask.nash import NashMTL as NashMTL
    from lifelong.strategies.multitask.pcgrad import PCGrad as PCGrad
    from lifelong.strategies.multitask.rlw import RLW as RLW
    from lifelong.strategies.multitask.soft_sharing import SoftSharing as SoftSharing
    from lifelong.strategies.multitask.weights import TaskWeights as TaskWeights
    from lifelong.strategies.multitask.weights import UncertaintyWeights as UncertaintyWeights
    from lifelong.strategies.plasticity.continual_backprop import ContinualBackprop as ContinualBackprop
    from lifelong.strategies.plasticity.l2_init import L2Init as L2Init
    from lifelong.strategies.plasticity.shrink_and_perturb import ShrinkAndPerturb as ShrinkAndPerturb
    from lifelong.strategies.projection.agem import AGEM as AGEM
    from lifelong.strategies.projection.gem import GEM as GEM
    from lifelong.strategies.projection.gpm import GPM as GPM
    from lifelong.strategies.projection.ogd import OGD as OGD
    from lifelong.strategies.regularisation.ewc import EWC as EWC
    from lifelong.strategies.regularisation.l2_last import L2Last as L2Last
    from lifelong.strategies.regularisation.l2sp import L2SP as L2SP
    from lifelong.strategies.regularisation.mas import MAS as MAS
    from lifelong.strategies.regularisation.rwalk import RWalk as RWalk
    from lifelong.strategies.regularisation.si import SI as SI
    from lifelong.strategies.regularisation.warm_up import WarmUp as WarmUp
    from lifelong.strategies.replay.bic import BiC as BiC
    from lifelong.strategies.replay.brain_inspired import BrainInspiredReplay as BrainInspiredReplay
    from lifelong.strategies.replay.cls_er import CLSER as CLSER
    from lifelong.strategies.replay.der import DER as DER
    from lifelong.strategies.replay.der import DERPlusPlus as DERPlusPlus
    from lifelong.strategies.replay.erace import ERACE as ERACE
    from lifelong.strategies.replay.eraml import ERAML as ERAML
    from lifelong.strategies.replay.fdr import FDR as FDR
    from lifelong.strategies.replay.gdumb import GDumb as GDumb
    from lifelong.strategies.replay.generative_replay import GenerativeReplay as GenerativeReplay
    from lifelong.strategies.replay.gss import GSS as GSS
    from lifelong.strategies.replay.icarl import ICaRL as ICaRL
    from lifelong.strategies.replay.lucir import LUCIR as LUCIR
    from lifelong.strategies.replay.mir import MIR as MIR
    from lifelong.strategies.replay.replay import ClassReplay as ClassReplay
    from lifelong.strategies.replay.replay import Replay as Replay
    from lifelong.strategies.replay.scr import SupervisedContrastiveReplay as SupervisedContrastiveReplay
    from lifelong.strategies.replay.wa import WA as WA
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "strategies"))
