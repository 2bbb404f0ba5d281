"""Killed at any moment and resumed: which commands, where they are killed, and what must come out all the same.

A kill is drawn from its number: one of the commands, and a moment: before the n-th time that it changes the disk (see
`tests.processes.limited`), or after some time. Then whatever goes on is asked for: `resume` of the folder, where there is
one, else the same command again. It must end as a run does that nobody disturbed: equal tensors, to the bit, a right
status, a summary that follows from the results, and no file that the other has not.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tests.processes import Nursery

QUICK = ("--seeds", "2", "--iterations", "6", "--device", "cpu")
OFTEN = ("--checkpoint-every", "0")
TIMED = ("seconds", "training", "evaluation", "processor seconds")  # what a clock says


@dataclass(frozen=True)
class Command:
    """Words, and the folder or file that they make; goes_on: the words that go on, where these are others."""

    words: tuple[str, ...]
    makes: str
    goes_on: tuple[str, ...] = ()


def run(*words: str, scenario: str = "split-blobs") -> Command:
    model = () if {"--model", "GenerativeClassifier()"} & {*words} else ("--model", "MLP(6)")
    return Command(
        ("run", scenario, *words, *model, *QUICK, *OFTEN, "--name", "x"), "runs/x", ("resume", "runs/x", *OFTEN)
    )


def commands() -> list[Command]:
    """Every strategy, learner and baseline with its usual numbers; a pretraining, comparisons, a start in a run, a transfer."""
    from lifelong.notation.expression import parse, vocabulary

    found = []
    for name in sorted(vocabulary("strategies")):
        try:
            strategy = parse(f"{name}()", "strategies")
        except ValueError:  # it has no usual numbers
            continue
        needs = strategy.requires
        words = ("--baseline", "joint") if needs.paradigm == "joint" else ()
        setting = "task" if needs.task_id or "class" not in needs.settings else "class"
        scenario = "split-blobs(validation=0.2)" if needs.validation else "split-blobs"
        if name == "SoftSharing":  # which ties what each task has for itself
            words = (*words, "--model", "SharedLayers(MLP(6, 6), depth=0)")
        found.append(run("--strategy", f"{name}()", *words, "--setting", setting, scenario=scenario))
    found += [run("--learner", f"{name}()", scenario="split-digits") for name in sorted(vocabulary("learners"))]
    found += [run("--baseline", name) for name in ("joint", "isolate")]
    found += [
        run("--strategy", "EWC() + Replay(size=20)", "--fleet", "1", "--eval-every", "2"),
        run("--few-shot", "1,2", "--linear-probe"),
    ]
    stage = "ProtoNet(way=2, query=2, iterations=6, data='other.npz')"
    found.append(run("--init", stage, scenario="split(data='my.npz', tasks=2)"))
    pretrain = (
        "pretrain",
        "sines",
        "--init",
        "MAML(iterations=6, tasks=2)",
        "--output",
        "s.safetensors",
        "--episodes",
        "2",
        *OFTEN,
    )
    found.append(Command(pretrain, "s.safetensors", pretrain))
    few = ("--setting", "task", "--seeds", "2", "--iterations", "4", "--device", "cpu", "--model", "MLP(6)")
    found.append(Command(("compare", "split-blobs", *few, "--paradigms", "multi-task"), "runs", ("resume",)))
    start = "MAML(data='other.npz', iterations=2, tasks=2, way=2, query=2, shot=1)"
    mixed = (
        "compare",
        "split(data='my.npz', tasks=2)",
        "--ingredients",
        "--meta",
        start,
        "--strategy",
        "Replay(size=4)",
        *few,
        "--batch",
        "4",
    )
    found.append(Command(mixed, "runs", ("resume",)))
    found.append(
        Command(("compare", "split-blobs", "--strategy", "EWC()", "--baselines", "joint", *few), "runs", ("resume",))
    )
    found.append(
        Command(
            ("features", "my.npz", "--model", "MLP(6)", "--out", "t.npz"),
            "t.npz",
            ("features", "my.npz", "--model", "MLP(6)", "--out", "t.npz"),
        )
    )
    return found


class Place:
    """A folder in which commands run, are killed and go on; and what each makes where nobody disturbs it."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self.folder, self.nursery = folder, nursery
        nursery.begin(("--version",), folder).wait()  # it has imported what it imports from now on
        self.commands = commands()
        self.whole: dict[int, tuple[dict[str, Any], float, int]] = {}

    def clear(self) -> Path:
        """An empty folder with the data."""
        place = self.folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        generator = np.random.default_rng(0)
        y = np.repeat((3, 7, 9, 12), 12)
        x = (generator.normal(size=(48, 5)) + np.arange(5) * (y[:, None] % 5)).astype(np.float32)
        np.savez(place / "my.npz", x=x, y=y)
        np.savez(place / "other.npz", x=generator.normal(size=(60, 5)).astype(np.float32) + 9, y=np.arange(60) % 6)
        return place

    def begin(self, words: tuple[str, ...], **limits: Any) -> Any:
        """A command in that folder."""
        environment = {**os.environ, "LIFELONG_CONFIG": str(self.folder / "own"), "COLUMNS": "100"}
        said = str(self.folder / "said")
        return self.nursery.begin(words, self.folder / "place", environment, os.devnull, said, **limits)

    def undisturbed(self, number: int) -> tuple[dict[str, Any], float, int]:
        """What a command makes, the seconds that it takes, and how often it changes the disk."""
        if number not in self.whole:
            place = self.clear()
            began = time.monotonic()
            count = self.folder / "count"
            code = self.begin(self.commands[number].words, counts=str(count)).wait(120)
            assert code == 0, (self.commands[number], (self.folder / "said").read_text())
            self.whole[number] = (made(place), time.monotonic() - began, int(count.read_text()))
        return self.whole[number]


def made(place: Path) -> dict[str, Any]:
    """Everything that a command made: tensors, and JSON without what a clock says, by file."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        name = str(file.relative_to(place))
        if file.suffix == ".safetensors":
            found[name] = load_file(file)
        elif file.suffix == ".json":
            found[name] = without_clock(json.loads(file.read_text()))
        else:
            found[name] = file.read_bytes()
    return found


def without_clock(held: Any) -> Any:
    if isinstance(held, dict):
        # a start's file says how long it took to learn, and so its content is of that day
        start = str(held.get("path", "")).endswith(".safetensors")
        left = (*TIMED, "digest", *(["content"] if start else []))
        return {name: without_clock(value) for name, value in held.items() if name not in left}
    return [without_clock(value) for value in held] if isinstance(held, list) else held


def difference(left: dict[str, Any], right: dict[str, Any]) -> str:
    """What differs between two sets of files, "" where nothing does."""
    if left.keys() != right.keys():
        return f"files: {sorted(left.keys() ^ right.keys())}"
    for name, value in left.items():
        other = right[name]
        if not name.endswith(".safetensors"):
            if value != other:
                return f"{name} differs"
        elif value.keys() != other.keys() or not all(same(value[key], other[key]) for key in value):
            return f"{name} differs"
    return ""


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.numpy().tobytes() == right.numpy().tobytes()


def killed(place: Place, number: int, seed: int = 0) -> tuple[str, str]:
    """One kill: what differs afterwards, "" where nothing does; and what happened, in words."""
    chance = random.Random(f"{seed}/{number}")
    chosen = number % len(place.commands) if number < 10**6 else 0
    command = place.commands[chosen]
    whole, seconds, changes = place.undisturbed(chosen)
    folder = place.clear()
    at = chance.randrange(changes) if chance.random() < 0.7 else -1
    words = f"kill {number}: {' '.join(command.words)}: change {at} of {changes}"
    child = place.begin(command.words, dies_at=at)
    if at < 0:
        moment = chance.uniform(0, seconds)
        words = f"kill {number}: {' '.join(command.words)}: after {moment:.2f} s of {seconds:.2f}"
        time.sleep(moment)
        child.send_signal(signal.SIGKILL)
    code = child.wait(120)
    again = goes_on(command, folder)
    for asked in again:
        code = place.begin(asked).wait(120)
        if code != 0 and not finished(asked, place):
            return f"{' '.join(asked)} ends with {code}: {(place.folder / 'said').read_text()[-300:]}", words
    return difference(whole, made(folder)), f"{words}; then {[' '.join(asked)[:60] for asked in again]}"


def finished(asked: tuple[str, ...], place: Place) -> bool:
    """Whether a command that makes a file said that it is there already: it was killed after it had written it."""
    return asked[0] == "pretrain" and "exists already" in (place.folder / "said").read_text()


def goes_on(command: Command, folder: Path) -> list[tuple[str, ...]]:
    """What is to be asked for after a kill: to resume what is there, and the command itself for what is not."""
    if command.goes_on == ("resume",):
        kinds = ("paradigms.json", "ingredients.json", "run.json")
        places = sorted({file.parent for kind in kinds for file in folder.glob(f"runs/[!.]*/{kind}")})
        again = [("resume", str(place.relative_to(folder))) for place in places]
        wanted = 2 if "--baselines" in command.words else 1
        if len(again) == wanted:
            return again
        shutil.rmtree(folder / "runs", ignore_errors=True)  # what was not begun is asked for again, from the start
        return [command.words]
    there = os.path.exists(folder / command.makes) or command.goes_on[0] != "resume"
    return [command.goes_on if there else command.words]
