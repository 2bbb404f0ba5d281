"""What must hold of every command line, and who tries it: a line that fails is tried again alone before it counts."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CODES = (0, 1, 2, 130)  # as cli.py says
LONGEST = 300  # characters of a line on standard error
SLOWEST = 10.0  # processor seconds until a line has ended; learning is interrupted before
LOST = 60.0  # seconds on the wall after which a line is hopeless, on a busy machine too
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PAGE = ("--help", "--json", "--csv", "list", "explain", "--show-completion", "check", "new")  # their output is a page


@dataclass(frozen=True)
class Trial:
    """A command line and how it ended; place: where it was when it was interrupted."""

    words: list[str]
    code: int | None
    out: str = ""
    errors: str = ""
    seconds: float = 0.0
    place: list[str] = field(default_factory=list)

    @property
    def failure(self) -> str:
        """The class of what is wrong with it, "" where nothing is."""
        said = self.out + self.errors
        if self.code is None:
            return "hang"
        if "Traceback (most recent call last)" in said:
            return f"traceback: {[line for line in said.splitlines() if line.strip()][-1][:80]}"
        if self.code not in CODES:
            return f"exit code {self.code}"
        if self.seconds > SLOWEST:
            return "slow"
        if STEERING.search(said):
            return "steers the terminal"
        if any(len(line) > LONGEST for line in self.errors.splitlines()):
            return "long message"
        if not set(self.words) & set(PAGE) and any(len(line) > LONGEST for line in self.out.splitlines()):
            return "long output"
        refusals = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        if self.code == 2 and (len(refusals) != 1 or self.errors.splitlines()[-1:] != refusals):
            return "exit code 2 without one line that says why, and says it last"
        if self.code == 1 and not self.errors.strip():
            return "exit code 1 without a word"
        return "" if self.code != 0 or not refusals else "exit code 0 with an error"


class Trials:
    """Tries command lines in folders of their own, and counts what is wrong by its class."""

    def __init__(self, place: Path, command: tuple[str, ...] = ("-m", "tests.fuzz.worker")) -> None:
        self.place, self.command, self.process = place, command, None
        self.model, self.number = place / "model", 0
        self.lines, self.interrupted, self.ended, self.seconds = 0, Counter[str](), Counter[str](), 0.0
        self.failures: dict[str, list[Trial]] = {}

    def prepare(self, lines: Iterable[list[str]], files: dict[str, bytes]) -> None:
        """The folder that each line finds: some files, and what some commands leave."""
        self.model.mkdir(parents=True)
        for name, content in files.items():
            self.model.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            self.model.joinpath(name).write_bytes(content)
        for words in lines:
            done = self._asked(words, self.model)
            assert done.code == 0, done

    def try_all(self, lines: Iterable[list[str]], tell: Any = None) -> None:
        """Try lines, each hundred of them in a folder of its own."""
        for words in lines:
            if self.lines % 100 == 0:
                folder = self._fresh()
            trial = self._asked(words, folder)
            if trial.failure and trial.failure != "slow":  # not for what a line before it left behind
                self._forget()
                folder = self._fresh()
                trial = self._asked(words, folder)
            self.lines, self.seconds = self.lines + 1, self.seconds + trial.seconds
            self.ended[f"{words[0] if words else ''}: {trial.code}"] += 1
            if trial.place:
                self.interrupted[f"{words[0]}: {_deepest(trial.place)}"] += 1
            if trial.failure:
                self.failures.setdefault(trial.failure, []).append(trial)
            if tell:
                tell(self, trial)

    def alone(self, words: list[str]) -> Trial:
        """One line in a folder of its own, not counted."""
        return self._asked(words, self._fresh())

    def close(self) -> None:
        """Leave nothing behind."""
        self._end()
        shutil.rmtree(self.place, ignore_errors=True)

    def _fresh(self) -> Path:
        """A new copy of the folder, in place of the last one."""
        shutil.rmtree(self.place / f"{self.number}", ignore_errors=True)
        self.number += 1
        return Path(shutil.copytree(self.model, self.place / f"{self.number}" / "in" / "side"))

    def _asked(self, words: list[str], folder: Path) -> Trial:
        """One line, in the process that is there, or in a new one."""
        if self.process is None:
            self._begin(folder)
        self._write({"folder": str(folder), "words": words})
        answer = self._answer(LOST)
        if answer is None or "lost" in answer:
            if answer is None:
                self._end()
            return Trial(words, None if answer is None else answer["lost"], seconds=LOST if answer is None else 0.0)
        return Trial(words, **answer)

    def _begin(self, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFELONG_FUZZ_")}
        environment |= {
            "LIFELONG_DATA": str(self.place / "data"),
            "LIFELONG_CONFIG": str(self.place / "configuration"),
        }
        environment |= {
            "COLUMNS": "100",
            "HOME": str(self.place),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        self.process = subprocess.Popen(
            [sys.executable, *self.command], cwd=ROOT, env=environment, start_new_session=True, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._answer(120) == {"ready": True}

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """What the process answers, or None where it does not in time."""
        process, text, deadline = self.process, b"", time.monotonic() + seconds
        assert process is not None and process.stdout is not None
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            text += os.read(process.stdout.fileno(), 1 << 20)
        return json.loads(text)

    def _forget(self) -> None:
        """A new process for the lines that follow, forked where the imports are done."""
        if self.process is not None:
            self._write(None)

    def _write(self, asked: Any) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write((json.dumps(asked) + "\n").encode())

    def _end(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def _deepest(place: list[str]) -> str:
    """The innermost function of ours that a line was in."""
    ours = [name for name in place if "/lifelong/" in name or "/scenarios/" in name]
    return re.sub(r".*/(lifelong|scenarios)/", r"\1/", ours[0]) if ours else "outside"
