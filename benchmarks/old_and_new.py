"""Two commits beside each other: milliseconds of a step, new over old, and both over the floor, in turn on one thread.

Milliseconds are of the processor, so that others on the machine count little. Each commit is checked out into a folder of
its own and served by a process that stays alive (`step_server.py`). The floor of a step has two parts, measured in the
same run: its bare matrix products, forward and backward (for replay those of its doubled rows), and the memory traffic of
the optimiser, 7 numbers of each parameter at the speed of a copy.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from page import record
from timing import ADAM_TRAFFIC, NARROW, ROUNDS, WIDE, in_turn, parameter_copy, products, repeated

ROOT = Path(__file__).resolve().parent.parent
TITLE = "new over old"
NOTE = (
    "Steps after one finished task, {old} and {new} in turn, median of {rounds} rounds; milliseconds are the new commit's,"
    " of a step and seed. Over products: the new step over its bare matrix products; over the floor: over these and the"
    " memory traffic of Adam, 7 numbers of each parameter at the speed of a copy."
)


@dataclass(frozen=True)
class Case:
    """What is timed: a method on a fleet. widths: layers; together: steps in a row."""

    method: str
    strategy: str
    widths: tuple[int, ...]
    batch: int
    seeds: int
    together: int

    @property
    def name(self) -> str:
        """In a line."""
        layers = "-".join(map(str, self.widths[:-1]))
        return f"{self.method}, {layers}, batch {self.batch}, {self.seeds} seed{'s' * (self.seeds > 1)}"

    @property
    def rows(self) -> int:
        """Of a step: replay doubles them."""
        return self.batch * (2 if self.method == "replay" else 1)

    def request(self, rounds: int) -> dict[str, Any]:
        """As a server is asked."""
        return {
            "name": self.name,
            "strategy": self.strategy,
            "model": f"MLP{self.widths[1:-1]}",
            "optimiser": "Adam(0.001)",
            "batch": self.batch,
            "seeds": self.seeds,
            "iterations": self.together * (rounds + 1),
            "steps": self.together,
        }


METHODS = {
    "fine-tuning": "FineTuning()",
    "EWC": "EWC()",
    "SI": "SI()",
    "LwF": "LwF()",
    "replay": "Replay(size=1000)",
}
# Avalanche's EWC in its default mode: a penalty for each past task, which is one paraboloid here, and the Fisher of batches
ONLINE = {k: METHODS[k] for k in ("fine-tuning", "replay")} | {"EWC": "EWC(strength=2.0, online=False, fisher='batch')"}
CASES = [Case(method, text, WIDE, 128, 10, 8) for method, text in METHODS.items()]
CASES += [Case(method, text, NARROW, 10, seeds, 100) for seeds in (1, 20) for method, text in ONLINE.items()]


def git(*words: str) -> str:
    """What git says. Raises SystemExit with its last line where it refuses."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {words[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


class Server:
    """A commit's process."""

    def __init__(self, commit: str, folder: Path) -> None:
        git("worktree", "add", "--detach", str(folder), commit)
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, str(ROOT / "benchmarks" / "step_server.py")]
        self.commit, self.without = commit, set[str]()
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        tree = Path(self._answer()["tree"])
        if tree.resolve() != folder.resolve():
            raise SystemExit(f"{commit} was not imported from its own folder: lifelong was found elsewhere first")

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.commit} ended: its error stands above")
        return json.loads(line)

    def seconds(self, request: dict[str, Any]) -> float:
        """Of one step; not a number where this commit cannot take it."""
        assert self.process.stdin
        if request["name"] in self.without:
            return float("nan")
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self._answer()
        if "error" in answer:
            self.without.add(request["name"])
            print(f"  {self.commit} has no figure of {request['name']}: {answer['error']}", flush=True)
        return answer.get("seconds", float("nan"))

    def end(self) -> None:
        """No more requests."""
        self.process.terminate()
        self.process.wait()


@contextmanager
def served(commits: dict[str, str]) -> Iterator[dict[str, Server]]:
    """A server for each commit, by name; their folders go with them."""
    servers: dict[str, Server] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, commit in commits.items():
                servers[name] = Server(commit, Path(folder) / name)
            yield servers
        finally:
            for server in servers.values():
                server.end()
            for name in commits:
                subprocess.run(
                    ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(Path(folder) / name)],
                    capture_output=True,
                )
            git("worktree", "prune")


def compared(case: Case, servers: dict[str, Server], rounds: int) -> dict[str, float]:
    """Seconds of a step of old and new and of both parts of the floor, in turn."""
    device, request = torch.device("cpu"), case.request(rounds)
    floor = products(device, case.seeds, case.rows, case.widths), parameter_copy(device, case.seeds, case.widths)
    measures: dict[str, Callable[[], float]] = {
        name: partial(server.seconds, request) for name, server in servers.items()
    }
    for name, call in zip(("products", "copy"), floor, strict=True):
        repeated(call, 3)
        measures[name] = partial(repeated, call, case.together)
    seconds = in_turn(measures, rounds)
    return {**seconds, "traffic": ADAM_TRAFFIC / 2 * seconds.pop("copy")}


def figures(case: Case, seconds: dict[str, float]) -> dict[str, float]:
    """What is recorded of a case."""
    old, new, floor = seconds["old"], seconds["new"], seconds["products"]
    return {
        f"{case.name}: ms": 1e3 * new / case.seeds,
        f"{case.name}: new / old": new / old,
        f"{case.name}: over products": new / floor,
        f"{case.name}: over the floor": new / (floor + seconds["traffic"]),
    }


HEAD = f"{'ms a step and seed':48} {'old':>8} {'new':>8} {'new/old':>8} {'products':>9} {'traffic':>8} {'x both':>7} {'old x':>6}"


def line(case: Case, seconds: dict[str, float]) -> str:
    """A case as it is printed."""
    old, new, matrix, traffic = (1e3 * seconds[k] / case.seeds for k in ("old", "new", "products", "traffic"))
    floor = matrix + traffic
    return f"{case.name:48} {old:8.3f} {new:8.3f} {new / old:8.3f} {matrix:9.3f} {traffic:8.3f} {new / floor:7.2f} {old / floor:6.2f}"


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("old", help="the commit to compare with")
    words.add_argument("new", nargs="?", default="HEAD", help="by default the one that is checked out")
    words.add_argument("--rounds", type=int, default=ROUNDS)
    words.add_argument("--only", default="", help="cases whose name contains this")
    words.add_argument("--output", type=Path, help="a record to put the figures into, as docs/speed.json")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the commits' folders go also when it is ended
    commits = {
        name: git("rev-parse", "--short=10", f"{text}^{{commit}}")
        for name, text in (("old", chosen.old), ("new", chosen.new))
    }
    found: dict[str, float] = {}
    with served(commits) as servers:
        print(f"old {commits['old']}, new {commits['new']}\n{HEAD}", flush=True)
        for case in CASES:
            if chosen.only in case.name:
                seconds = compared(case, servers, chosen.rounds)
                print(line(case, seconds), flush=True)
                found |= {name: value for name, value in figures(case, seconds).items() if not math.isnan(value)}
    if chosen.output:
        record(TITLE, NOTE.format(**commits, rounds=chosen.rounds), found, chosen.output)


if __name__ == "__main__":
    main()
