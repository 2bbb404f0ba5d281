"""Initialisations that are learned: meta-learned, or pre-trained on other classes. One method a file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.core.initialisation import Initialisation as Initialisation
    from lifelong.core.initialisation import Random as Random
    from lifelong.meta.anml import ANML as ANML
    from lifelong.meta.distribution import TaskDistribution as TaskDistribution
    from lifelong.meta.episodic import MetaLearner as MetaLearner
    from lifelong.meta.initialisation_learner import InitialisationLearner as InitialisationLearner
    from lifelong.meta.learned import load_learned as load_learned
    from lifelong.meta.maml import MAML as MAML
    from lifelong.meta.oml import OML as OML
    from lifelong.meta.pretraining import pretrain as pretrain
    from lifelong.meta.protonet import ProtoNet as ProtoNet
    from lifelong.meta.r2d2 import R2D2 as R2D2
    from lifelong.meta.reptile import Reptile as Reptile
    from lifelong.meta.supervised import MultiTask as MultiTask
    from lifelong.meta.supervised import Pretrained as Pretrained
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "initialisations"))
