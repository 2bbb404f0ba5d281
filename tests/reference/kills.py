"""Runs that are killed with signal 9 at random moments, twice each, and resumed: every file equals that of a whole run.

    python -m tests.reference.kills                            every strategy and learner that there is, 3 sequences each
    python -m tests.reference.kills "DER(size=50)" --kills 20  one of them; --learner where it is one

A test of minutes, which `make test` leaves out: `tests/test_resume.py` has a few of them.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

FLAGS = ["--seeds", "2", "--iterations", "100", "--eval-every", "25", "--device", "cpu"]
OFTEN = ["--checkpoint-every", "0.01"]
FILES = ("results.safetensors", "learner-0.safetensors")
Subject = tuple[str, str]  # --strategy or --learner, and its text


def subjects() -> list[Subject]:
    """Everything that can be named and learns one task after another, in its default settings."""
    from lifelong.contracts.learners import _together
    from lifelong.notation.expression import vocabulary

    found = []
    for kind, flag in (("strategies", "--strategy"), ("learners", "--learner")):
        made = [make() for make in vocabulary(kind).values()]
        found += [(flag, repr(subject)) for subject in made if not _together(subject)]
    return found


def setting_of(text: str, flag: str) -> str:
    """Class-incremental where it is meant for that."""
    from lifelong.contracts.learners import first_setting
    from lifelong.notation.expression import parse

    return first_setting(parse(text, "strategies" if flag == "--strategy" else "learners"))


def begun(folder: Path, *words: str) -> subprocess.Popen:
    """The command line in a process of its own, saving at every chance."""
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "cli", *words, *OFTEN], cwd=folder, env=where, **quiet)


def killed(process: subprocess.Popen, checkpoint: Path, after: float) -> bool:
    """Kill it some seconds after it has something saved; whether it was still running."""
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
        time.sleep(0.001)
    time.sleep(after)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


def same(whole: Path, folder: Path) -> list[str]:
    """The tensors in which two runs differ."""
    different = []
    for file in FILES:
        left, right = load_file(whole / file), load_file(folder / file)
        if left.keys() != right.keys():
            different.append(f"{file}: other names")
        # bit for bit, so that NaN equals itself
        different += [
            f"{file}: {name}"
            for name, value in left.items()
            if name in right and value.numpy().tobytes() != right[name].numpy().tobytes()
        ]
    return different


def sequences(subject: Subject, kills: int, folder: Path) -> tuple[int, list[str]]:
    """How many processes were killed while running, and what differed."""
    flag, text = subject
    words = ["run", "split-blobs(validation=0.1)", flag, text, "--setting", setting_of(text, flag), *FLAGS]
    process, checkpoint = begun(folder, *words, "--name", "whole"), folder / "runs/whole/checkpoint.safetensors"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.001)
    saved = time.monotonic()
    if process.wait():
        return 0, [f"{text}: the whole run failed"]
    span, chance, count, different = time.monotonic() - saved, random.Random(text), 0, []
    for number in range(kills):
        path = folder / f"runs/killed{number}"
        checkpoint = path / "checkpoint.safetensors"
        count += killed(begun(folder, *words, "--name", path.name), checkpoint, chance.uniform(0, 0.7 * span))
        count += killed(begun(folder, "resume", f"runs/{path.name}"), checkpoint, chance.uniform(0, 0.5 * span))
        if begun(folder, "resume", f"runs/{path.name}").wait():
            different.append(f"{path.name}: it could not be resumed")
        else:
            different += [f"{path.name}: {difference}" for difference in same(folder / "runs/whole", path)]
    return count, different


def main() -> int:
    """A line for each subject; 1 where any differed, or none was killed while it ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*")
    parser.add_argument("--learner", action="store_true", help="the subjects are learners")
    parser.add_argument("--kills", type=int, default=3, help="sequences of two kills for each subject")
    arguments = parser.parse_args()
    flag = "--learner" if arguments.learner else "--strategy"
    failed = False
    for subject in [(flag, text) for text in arguments.subjects] or subjects():
        with tempfile.TemporaryDirectory() as folder:
            count, different = sequences(subject, arguments.kills, Path(folder))
        verdict = "; ".join(different) or "the same to the bit"
        print(f"{subject[1]}: {count} of {2 * arguments.kills} killed while running: {verdict}", flush=True)
        failed |= bool(different) or not count
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
