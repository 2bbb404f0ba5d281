from __future__ import annotations

import os
from typing import NamedTuple

# what is equal to the bit is held to it by one order of sums: else MKL chooses another kernel for a fleet of one than for a
# fleet of three on some processors (AMD's with AVX-512), and the last bit of a product depends on the company
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

import pytest
import torch

torch.set_num_threads(1)


class Done(NamedTuple):
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def own_configuration(tmp_path_factory, monkeypatch):
    """The list of files that the user ran is each test's own."""
    monkeypatch.setenv("LIFELONG_CONFIG", str(tmp_path_factory.mktemp("configuration")))


@pytest.fixture(autouse=True)
def own_catalogue():
    """Scenarios that a test registers are gone after it, so that no test depends on those before it."""
    from lifelong.notation import user_code
    from scenarios.catalogue import CATALOGUE

    before = dict(CATALOGUE)
    yield
    if before != CATALOGUE:
        CATALOGUE.clear()
        CATALOGUE.update(before)
        user_code._MODULES.clear()  # a file that is loaded again registers again


@pytest.fixture(scope="session")
def nursery():
    """Where processes of the command line come from."""
    from tests.processes import Nursery

    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def bench(tmp_path_factory, nursery):
    """A sound file of every kind, and commands that read them."""
    from tests.faults import Workbench

    return Workbench(tmp_path_factory.mktemp("bench"), nursery)


@pytest.fixture
def cli(tmp_path, tmp_path_factory, nursery):
    """Run the command line in a process of its own: (exit code, standard output, standard error)."""
    said = tmp_path_factory.mktemp("said")

    def call(*words: object, timeout: float = 120):
        environment = {"LIFELONG_DATA": str(tmp_path / "data"), **os.environ, "COLUMNS": "100"}
        output, errors = said / "output", said / "errors"
        process = nursery.begin(words, tmp_path, environment, str(output), str(errors))
        return Done(process.wait(timeout), output.read_text(), errors.read_text())

    return call
