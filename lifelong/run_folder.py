"""A run on disk: plain files, each written whole or not at all, never pickled."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lifelong.files import RunError, filled, load_tensors, named, save_tensors, write
from lifelong.loop import Course, Stopped
from lifelong.metrics import Estimate, summary
from lifelong.own_code import FILES, digest_of
from lifelong.request import Request
from lifelong.result import Result


class RunFolder:
    """The folder of one run, and the keeper that the loop reports to.

    every: seconds between checkpoints; a checkpoint is written at the first step boundary after that.
    """

    latest: Path | None = None  # the folder in use, for the line that tells how to resume

    def __init__(self, path: Path, request: Request, every: float = 60.0) -> None:
        self.path, self.request, self.every = path, request, every
        RunFolder.latest = path
        self.saved = time.monotonic()
        self.stop_asked = False
        self.start: dict[str, Any] = {}  # where the start came from

    @classmethod
    def create(cls, path: Path, request: Request, every: float = 60.0) -> RunFolder:
        """A new folder with its run.json, written before the first step."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise RunError(f"{path} exists already: choose another --name, or `lifelong resume {path}`") from None
        except OSError as error:
            raise RunError(f"{path} cannot be made ({error.strerror}): choose another --out") from None
        folder = cls(path, request, every)
        folder.describe("running")
        return folder

    @classmethod
    def open(cls, path: Path, every: float = 60.0) -> RunFolder:
        """A folder that exists, with the request that its run.json holds."""
        return cls(path, read_request(path), every)

    def describe(self, status: str) -> None:
        """Write run.json: the configuration as text that rebuilds it, versions, machine, plug-ins, status."""
        about = {
            "request": dataclasses.asdict(self.request),
            "command": self.request.command,
            "status": status,
            "start": self.start or {"made by": self.request.init},
            "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
            "plugins": dict(FILES),
        }
        write(self.path / "run.json", json.dumps(about, indent=2).encode())

    def check_plugins(self) -> list[str]:
        """Refuse a plug-in file that changed since the run began; tell what else differs from then."""
        about = read_json(self.path / "run.json")
        for file, digest in about.get("plugins", {}).items():
            if digest_of(file)[:16] != digest:  # before anything in it is executed
                raise RunError(f"{file} changed since {self.path} began: put it back, or start a new run")
        now = {"torch": torch.__version__.split("+")[0], "threads": torch.get_num_threads()}
        then = {"torch": about["versions"]["torch"], "threads": about["machine"]["threads"]}
        return [
            f"{name} was {then[name]} and is {now[name]}: equal to the bit no longer holds"
            for name in now
            if now[name] != then[name]
        ]

    # --- the keeper's three calls ---------------------------------------------------------------------------------

    def restore(self, chunk: int, course: Course) -> Course | Result:
        """The result of a finished chunk, the course that a checkpoint holds, or the course as it is."""
        done = self._learner(chunk)
        if done.exists():
            return self._chunk_result(done)
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return course
        tensors, about = load_tensors(path)
        if about["chunk"] != chunk or about["request"] != repr(self.request):
            if about["chunk"] < chunk:
                return course  # of a chunk that has finished since
            raise RunError(f"{path} is of another run: delete it to start again")
        for name in ("untrained", "losses", "diverged", "few_shot"):
            setattr(course, name, tensors[name].to(getattr(course, name).device))
        course.state = filled(course.state, tensors, "state", path)
        course.accuracy = [row.to(course.losses.device) for row in tensors["accuracy"].unbind(1)]
        course.when = [tuple(row) for row in tensors["when"].tolist()]
        course.task, course.iteration, course.seconds = about["task"], about["iteration"], about["seconds"]
        return course

    def boundary(self, chunk: int, course: Course) -> None:
        """Save when it is time, or when a stop was asked for."""
        if not self.stop_asked and time.monotonic() - self.saved < self.every:
            return
        tensors = {"state" + name: leaf for name, leaf in named(course.state).items()}
        for name in ("untrained", "losses", "diverged", "few_shot"):
            tensors[name] = getattr(course, name)
        tensors["accuracy"] = torch.stack(course.accuracy, 1)
        tensors["when"] = torch.tensor(course.when)
        where = {"chunk": chunk, "task": course.task, "iteration": course.iteration, "seconds": course.seconds}
        save_tensors(self.path / "checkpoint.safetensors", tensors, {**where, "request": repr(self.request)})
        self.saved = time.monotonic()
        if self.stop_asked:
            raise Stopped

    def finish(self, chunk: int, course: Course, result: Result) -> None:
        """Write the chunk's final parameters, memory and results; its checkpoint is needed no more."""
        tensors = {"state" + name: leaf for name, leaf in named(course.state._replace(optimiser={})).items()}
        tensors |= {"result." + name: value for name, value in result.tensors().items()}
        save_tensors(self._learner(chunk), tensors, _about(result))
        (self.path / "checkpoint.safetensors").unlink(missing_ok=True)

    def complete(self, result: Result) -> None:
        """Write results and summary of the whole run."""
        save_tensors(self.path / "results.safetensors", result.tensors(), _about(result))
        about = summary_json(result, self.request) | {"start": self.start or {"made by": self.request.init}}
        write(self.path / "summary.json", json.dumps(about, indent=2).encode())
        self.describe("diverged" if not bool(result.kept.all()) else "done")

    def _learner(self, chunk: int) -> Path:
        return self.path / f"learner-{chunk}.safetensors"

    def _chunk_result(self, path: Path) -> Result:
        tensors, about = load_tensors(path)
        own = {name[len("result.") :]: value for name, value in tensors.items() if name.startswith("result.")}
        return _result(own, about)


def _about(result: Result) -> dict[str, Any]:
    names = ("seeds", "reading", "setting", "open", "seconds", "shots")
    return {name: getattr(result, name) for name in names}


def _result(tensors: dict[str, Tensor], about: dict[str, Any]) -> Result:
    return Result(**tensors, **{**about, "seeds": tuple(about["seeds"]), "shots": tuple(about.get("shots", ()))})


def _plain(estimate: Estimate) -> dict[str, Any]:
    mean = None if estimate.mean != estimate.mean else estimate.mean
    return {"mean": mean, "half_width": estimate.half_width, "per_seed": list(estimate.per_seed)}


def summary_json(result: Result, request: Request) -> dict[str, Any]:
    """What summary.json holds: metrics as fractions of 1, seeds, those that diverged, seconds, the command."""
    lost = [
        {"seed": seed, "task": int(task), "iteration": int(iteration)}
        for seed, (task, iteration) in zip(result.seeds, result.diverged.tolist(), strict=True)
        if task >= 0
    ]
    return {
        "metrics": {name: _plain(value) for name, value in summary(result).items()},
        "seeds": list(result.seeds),
        "diverged": lost,
        "seconds": result.seconds,
        "command": request.command,
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file, or a RunError."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path.parent} is not a run: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None


def read_request(path: Path) -> Request:
    """The request that a run's folder holds."""
    held = read_json(path / "run.json").get("request", {})
    try:
        return Request(**{**held, "seeds": tuple(held["seeds"])})
    except (TypeError, KeyError):
        raise RunError(f"{path / 'run.json'} is damaged, or of another version of lifelong") from None


OVERLAP = " (overlap allowed)"  # a start's data may share classes or rows with what it is tested on


class Loaded:
    """A finished run, read back: `result`, `request`, `learner`, `params`, and `predict`."""

    def __init__(self, path: Path) -> None:
        self.path, self.request = path, read_request(path)
        if not (path / "results.safetensors").exists():
            raise RunError(f"{path} is not finished: `lifelong resume {path}` goes on with it")
        tensors, about = load_tensors(path / "results.safetensors")
        self.result = _result(tensors, about)

    @property
    def name(self) -> str:
        """What learned, from which start, and whether that start may have seen the stream's classes."""
        start = read_json(self.path / "run.json").get("start", {})
        origin = "" if self.request.init == "Random()" else f" from {self.request.init}"
        return self.request.method + origin + (OVERLAP if start.get("overlap allowed") else "")

    def to_csv(self) -> str:
        """The accuracies as lines of text."""
        return self.result.to_csv()

    @property
    def chunks(self) -> list[list[int]]:
        """The seeds that ran together."""
        seeds = list(self.request.seeds)
        size = self.request.fleet or len(seeds)
        return [seeds[first : first + size] for first in range(0, len(seeds), size)]

    def fleet(self, chunk: int = 0) -> tuple[Any, Any]:
        """The fleet of a chunk of seeds and its final state, without the optimiser's."""
        from lifelong.loop import prepared_fleet

        learner, stream, start = self.request.build()
        file = self.path / f"learner-{chunk}.safetensors"
        fleet, state = prepared_fleet(learner, stream, self.chunks[chunk], start)
        tensors, _ = load_tensors(file)
        return fleet, state._replace(
            params=filled(state.params, tensors, "state.params", file),
            memory=filled(state.memory, tensors, "state.memory", file),
        )

    @property
    def params(self) -> dict[str, Tensor]:
        """The final parameters of the first chunk of seeds, each [S, ...], by name."""
        tensors, _ = load_tensors(self.path / "learner-0.safetensors")
        return {
            name[len("state.params") :]: value for name, value in tensors.items() if name.startswith("state.params")
        }

    def predict(self, x: Tensor) -> Tensor:
        """Scores [S, B, C] of the run's seeds (first chunk) for rows [B, ...] of the scenario's shape."""
        fleet, state = self.fleet()
        return fleet.answer(fleet.prepare(state), x)


def load(path: str | Path) -> Loaded:
    """A finished run, from its folder."""
    return Loaded(Path(path))
