"""A run that is killed at any moment and resumed equals the run that never was, to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

FLAGS = ["--seeds", "2", "--iterations", "60", "--eval-every", "20", "--device", "cpu"]


def start(folder: Path, name: str, strategy: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cli", "run", "split-blobs", "--strategy", strategy, *FLAGS, "--name", name]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*command, "--checkpoint-every", "0.01"],
        cwd=folder,
        env=where,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def same(folder: Path, a: str, b: str) -> None:
    for file in ("results.safetensors", "learner-0.safetensors"):
        left, right = load_file(folder / "runs" / a / file), load_file(folder / "runs" / b / file)
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert (value == right[key]).all(), (file, key)


@pytest.mark.parametrize("strategy", ["FineTuning()", "EWC(strength=50.0) + Replay(size=20)", "SI(strength=5.0)"])
def test_kill_and_resume(tmp_path, cli, strategy):
    assert start(tmp_path, "whole", strategy).wait(120) == 0
    chance = random.Random(strategy)
    killed = 0
    for attempt in range(2):
        name = f"killed{attempt}"
        process = start(tmp_path, name, strategy)
        checkpoint = tmp_path / "runs" / name / "checkpoint.safetensors"
        deadline = time.monotonic() + 60
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.6))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        code, _, errors = cli("resume", f"runs/{name}")
        assert code == 0, errors
        same(tmp_path, "whole", name)
    assert killed, "every run ended before it could be killed"


def test_interrupt_saves_and_says_how_to_go_on(tmp_path, cli):
    process = start(tmp_path, "stopped", "SI()")
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs/stopped/checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 1
    assert cli("resume", "runs/stopped")[0] == 0


def test_a_checkpoint_cut_short_is_one_line(tmp_path, cli):
    process = start(tmp_path, "cut", "FineTuning()")
    checkpoint = tmp_path / "runs/cut/checkpoint.safetensors"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    code, out, errors = cli("resume", "runs/cut")
    assert (code, out) == (2, "") and "damaged" in errors and errors.count("\n") == 1
    checkpoint.unlink()
    assert cli("resume", "runs/cut")[0] == 0


def test_a_checkpoint_of_another_run_is_refused(tmp_path, cli):
    for name, strategy in (("one", "FineTuning()"), ("two", "SI()")):
        process = start(tmp_path, name, strategy)
        while not (tmp_path / f"runs/{name}/checkpoint.safetensors").exists() and process.poll() is None:
            time.sleep(0.001)
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
