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
    from lifelong.meta.cavia import CAVIA as CAVIA
    from lifelong.meta.descriptor_net import DescriptorNet as DescriptorNet
    from lifelong.meta.distribution import TaskDistribution as TaskDistribution
    from lifelong.meta.episodic import MetaLearner as MetaLearner
    from lifelong.meta.film import FiLMNet as FiLMNet
    from lifelong.meta.graph import GraphNet as GraphNet
    from lifelong.meta.imaml import IMAML as IMAML
    from lifelong.meta.infinite_mixture import InfiniteMixturePrototypes as InfiniteMixturePrototypes
    from lifelong.meta.initialisation_learner import InitialisationLearner as InitialisationLearner
    from lifelong.meta.learned import load_learned as load_learned
    from lifelong.meta.lstm_optimiser import LSTMOptimiser as LSTMOptimiser
    from lifelong.meta.maml import MAML as MAML
    from lifelong.meta.maml_plus_plus import MAMLPlusPlus as MAMLPlusPlus
    from lifelong.meta.mann import MANN as MANN
    from lifelong.meta.matching import MatchingNet as MatchingNet
    from lifelong.meta.metaoptnet import MetaOptNetRidge as MetaOptNetRidge
    from lifelong.meta.neural_process import NeuralProcess as NeuralProcess
    from lifelong.meta.oml import OML as OML
    from lifelong.meta.pretraining import pretrain as pretrain
    from lifelong.meta.protonet import ProtoNet as ProtoNet
    from lifelong.meta.r2d2 import R2D2 as R2D2
    from lifelong.meta.recurrent import RecurrentLearner as RecurrentLearner
    from lifelong.meta.relation import RelationNet as RelationNet
    from lifelong.meta.reptile import Reptile as Reptile
    from lifelong.meta.sequence import SequenceLearner as SequenceLearner
    from lifelong.meta.siamese import Siamese as Siamese
    from lifelong.meta.snail import SNAIL as SNAIL
    from lifelong.meta.supervised import MultiTask as MultiTask
    from lifelong.meta.supervised import Pretrained as Pretrained
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "initialisations"))
