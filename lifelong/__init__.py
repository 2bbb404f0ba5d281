"""Continual and lifelong learning: streams of tasks, learned by a fleet of seeds, measured on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from lifelong import adaptation as adaptation
    from lifelong import learners as learners
    from lifelong import memory as memory
    from lifelong import meta as meta
    from lifelong import metrics as metrics
    from lifelong import models as models
    from lifelong import optimisers as optimisers
    from lifelong import probes as probes
    from lifelong import strategies as strategies
    from lifelong.core.batch import Batch as Batch
    from lifelong.core.batch import FinishedTask as FinishedTask
    from lifelong.core.batch import Memory as Memory
    from lifelong.core.batch import Outputs as Outputs
    from lifelong.core.batch import Params as Params
    from lifelong.core.batch import Step as Step
    from lifelong.core.learner import AnyLearner as AnyLearner
    from lifelong.core.learner import Learner as Learner
    from lifelong.core.learner import State as State
    from lifelong.core.loop import run as run
    from lifelong.core.problem import Problem as Problem
    from lifelong.core.result import Result as Result
    from lifelong.core.strategy import FineTuning as FineTuning
    from lifelong.core.strategy import Requirements as Requirements
    from lifelong.core.strategy import Strategy as Strategy
    from lifelong.learners.nearest_class_mean import NearestClassMean as NearestClassMean
    from lifelong.models.convolutional import Conv4 as Conv4
    from lifelong.models.module import Module as Module
    from lifelong.models.perceptron import MLP as MLP
    from lifelong.notation.varied import vary as vary
    from lifelong.optimisers.adam import Adam as Adam
    from lifelong.optimisers.adam import AdamW as AdamW
    from lifelong.optimisers.sgd import SGD as SGD
    from lifelong.runs.execute import execute as execute
    from lifelong.runs.export import frame as frame
    from lifelong.runs.folder import load as load
    from lifelong.runs.request import Request as Request
    from scenarios.catalogue import build as build
    from scenarios.errors import ConfigurationError as ConfigurationError
    from scenarios.stream import Budget as Budget
    from scenarios.stream import Dataset as Dataset
    from scenarios.stream import Seed as Seed
    from scenarios.stream import Stream as Stream
    from scenarios.stream import Task as Task

    __version__: str
else:
    __getattr__, __dir__ = offered(__name__)
