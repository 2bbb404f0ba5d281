"""Learners of other kinds than gradient descent, one file each; every public one in here is found by itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifelong.notation.registry import found
from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong.core.learner import AnyLearner as AnyLearner
    from lifelong.core.learner import Learner as Learner
    from lifelong.core.looped import LoopedLearner as LoopedLearner
    from lifelong.core.looped import LoopedMember as LoopedMember
    from lifelong.learners.closed_form import ClosedForm as ClosedForm
    from lifelong.learners.fecam import FeCAM as FeCAM
    from lifelong.learners.generative_classifier import GenerativeClassifier as GenerativeClassifier
    from lifelong.learners.nearest_class_mean import NearestClassMean as NearestClassMean
    from lifelong.learners.random_features import RandomFeaturesRidge as RandomFeaturesRidge
    from lifelong.learners.randumb import RanDumb as RanDumb
    from lifelong.learners.streaming_lda import StreamingLDA as StreamingLDA
else:
    __getattr__, __dir__ = offered(__name__, partial(found, "learners"))
