from __future__ import annotations

from typing import NamedTuple

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


@pytest.fixture(scope="session")
def nursery():
    """Where processes of the command line come from."""
    from tests.processes import Nursery

    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def cli(tmp_path, tmp_path_factory, nursery):
    """Run the command line in a process of its own: (exit code, standard output, standard error)."""
    import os

    said = tmp_path_factory.mktemp("said")

    def call(*words: object, timeout: float = 120):
        environment = {"LIFELONG_DATA": str(tmp_path / "data"), **os.environ, "COLUMNS": "100"}
        output, errors = said / "output", said / "errors"
        process = nursery.begin(words, tmp_path, environment, str(output), str(errors))
        return Done(process.wait(timeout), output.read_text(), errors.read_text())

    return call
