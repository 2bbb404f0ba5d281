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


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run the command line in a process of its own: (exit code, standard output, standard error)."""
    import os
    import subprocess
    import sys

    def call(*words: object, timeout: float = 120):
        environment = {
            **os.environ,
            "LIFELONG_DATA": os.environ.get("LIFELONG_DATA", str(tmp_path / "data")),
            "COLUMNS": "100",
        }
        done = subprocess.run(
            [sys.executable, "-m", "cli", *map(str, words)],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call
