"""Data and streams of tasks; knows torch and numpy, and nothing above."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios.public import offered

if TYPE_CHECKING:  # what type checkers see; tests/test_public.py says which line is missing
    from scenarios.catalogue import CATALOGUE as CATALOGUE
    from scenarios.catalogue import Entry as Entry
    from scenarios.catalogue import build as build
    from scenarios.catalogue import find as find
    from scenarios.catalogue import register as register
    from scenarios.datasets import dataset_from_arrays as dataset_from_arrays
    from scenarios.datasets import load_dataset as load_dataset
    from scenarios.errors import ConfigurationError as ConfigurationError
    from scenarios.joint import isolate as isolate
    from scenarios.stream import Budget as Budget
    from scenarios.stream import Dataset as Dataset
    from scenarios.stream import Schedule as Schedule
    from scenarios.stream import Seed as Seed
    from scenarios.stream import Stream as Stream
    from scenarios.stream import Task as Task
    from scenarios.stream import TaskGenerator as TaskGenerator
    from scenarios.stream import generator as generator
    from scenarios.synthetic import blobs as blobs
else:
    __getattr__, __dir__ = offered(__name__)
