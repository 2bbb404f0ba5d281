"""A run that is killed at any moment and resumed equals the run that never was, to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import Child

FLAGS = ["--seeds", "2", "--iterations", "30", "--eval-every", "10", "--device", "cpu"]
LONG = ["--iterations", "1000"]  # for what is to be caught at work, however late this process looks
STRATEGIES = ["EWC(strength=50.0) + Replay(size=20)", "FineTuning()", "SI(strength=5.0)"]


@pytest.fixture
def start(tmp_path, nursery):
    """Begin a run that saves at every chance, and give its process."""

    def begin(name: str, strategy: str, more: Sequence[str] = ()) -> Child:
        return nursery.begin([*words_for(name, strategy), *more], tmp_path)

    return begin


def words_for(name: str, strategy: str) -> list[str]:
    return ["run", "split-blobs", "--strategy", strategy, *FLAGS, "--name", name, "--checkpoint-every", "0.01"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A whole run of the first strategy, in a process with imports and hashes of its own."""
    folder = tmp_path_factory.mktemp("imported")
    places = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "cli", *words_for("whole", STRATEGIES[0])]
    assert subprocess.run(words, cwd=folder, env=places, capture_output=True, timeout=120).returncode == 0
    return folder / "runs/whole"


def same(left: Path, right: Path) -> None:
    for file in ("results.safetensors", "learner-0.safetensors"):
        whole, resumed = load_file(left / file), load_file(right / file)
        assert whole.keys() == resumed.keys()
        for key, value in whole.items():
            assert (value == resumed[key]).all(), (file, key)


def saved(process: Child, checkpoint: Path) -> float:
    """Wait until it has saved something, or has ended; when that was."""
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    return time.monotonic()


def test_a_process_of_its_own_learns_the_same(imported, cli, tmp_path):
    """Nothing depends on which modules were imported before, nor on how a process hashes names."""
    assert cli(*words_for("whole", STRATEGIES[0]))[0] == 0
    same(imported, tmp_path / "runs/whole")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_kill_and_resume(tmp_path, cli, start, strategy):
    whole, chance = start("whole", strategy), random.Random(strategy)
    span = -saved(whole, tmp_path / "runs/whole/checkpoint.safetensors")
    assert whole.wait() == 0
    span += time.monotonic()
    killed = 0
    for name in ("killed0", "killed1"):
        process = start(name, strategy)
        saved(process, tmp_path / "runs" / name / "checkpoint.safetensors")
        time.sleep(chance.uniform(0, 0.5 * span))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        code, _, errors = cli("resume", f"runs/{name}")
        assert code == 0, errors
        same(tmp_path / "runs/whole", tmp_path / "runs" / name)
    assert killed, "every run ended before it could be killed"


def test_interrupt_saves_and_says_how_to_go_on(tmp_path, cli, start):
    process = start("stopped", "SI()", LONG)
    saved(process, tmp_path / "runs/stopped/checkpoint.safetensors")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 1
    assert cli("resume", "runs/stopped")[0] == 0


def test_a_checkpoint_cut_short_is_one_line(tmp_path, cli, start):
    process = start("cut", "FineTuning()", LONG)
    checkpoint = tmp_path / "runs/cut/checkpoint.safetensors"
    saved(process, checkpoint)
    process.send_signal(signal.SIGKILL)
    process.wait()
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    code, out, errors = cli("resume", "runs/cut")
    assert (code, out) == (2, "") and "damaged" in errors and errors.count("\n") == 1
    checkpoint.unlink()
    assert cli("resume", "runs/cut")[0] == 0


def test_a_checkpoint_of_another_run_is_refused(tmp_path, cli, start):
    for name, strategy in (("one", "FineTuning()"), ("two", "SI()")):
        process = start(name, strategy, LONG)
        saved(process, tmp_path / f"runs/{name}/checkpoint.safetensors")
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / "runs/one/checkpoint.safetensors").replace(tmp_path / "runs/two/checkpoint.safetensors")
    code, _, errors = cli("resume", "runs/two")
    assert code == 2 and "another run" in errors and errors.count("\n") == 1


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    from lifelong.core import files

    path = tmp_path / "file"
    files.write(path, b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.RunError, match="No space left"):
        files.write(path, b"after")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
