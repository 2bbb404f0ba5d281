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
from lifelong.loop import Done, Event, Session, Stepped, Stopped, TaskEnded, TrainingState
from lifelong.metrics import Estimate, summary
from lifelong.own_code import FILES, digest_of
from lifelong.request import Request
from lifelong.result import Result

MEASURED = ("untrained", "losses", "diverged")


class RunFolder:
    """The folder of one run, and the checkpointer that the loop reports to.

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

    # --- the checkpointer's two calls ---------------------------------------------------------------------------------

    def restore(self, chunk: int, session: Session, state: TrainingState) -> TrainingState | Result:
        """The result of a finished chunk, the state that a checkpoint holds, or the state as it is."""
        done = self._learner(chunk)
        if done.exists():
            return self._chunk_result(done)
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return state
        tensors, about = load_tensors(path)
        if about["chunk"] != chunk or about["request"] != repr(self.request):
            if about["chunk"] < chunk:
                return state  # of a chunk that has finished since
            raise RunError(f"{path} is of another run: delete it to start again")
        for name in MEASURED:
            setattr(state, name, tensors[name].to(state.losses.device))
        tree = filled(session.fleet.tensors(state.fleet), tensors, "state", path)
        state.fleet = session.fleet.restored(state.fleet, tree)
        state.accuracy = [row.to(state.losses.device) for row in tensors["accuracy"].unbind(1)]
        state.when = [tuple(row) for row in tensors["when"].tolist()]
        state.probes = {
            name: [value.to(state.losses.device) for value in tensors[f"probe {name}"].unbind(1)]
            for name in about["probes"]
        }
        state.task, state.iteration, state.seconds = about["task"], about["iteration"], about["seconds"]
        return state

    def __call__(self, chunk: int, session: Session, event: Event) -> None:
        """Save when it is time, or when a stop was asked for; at the end, the result."""
        if isinstance(event, Done):
            return self._finish(chunk, session, event)
        within = isinstance(event, Stepped) and not event.last and session.fleet.resumes_within_tasks
        asked = self.stop_asked or time.monotonic() - self.saved >= self.every
        if asked and (within or isinstance(event, TaskEnded)):
            self._save(chunk, session, event.state)
            if self.stop_asked:
                raise Stopped

    def _save(self, chunk: int, session: Session, state: TrainingState) -> None:
        """Write the checkpoint."""
        tensors = {"state" + name: leaf for name, leaf in named(session.fleet.tensors(state.fleet)).items()}
        tensors |= {name: getattr(state, name) for name in MEASURED}
        tensors |= {f"probe {name}": torch.stack(values, 1) for name, values in state.probes.items()}
        tensors["accuracy"] = torch.stack(state.accuracy, 1)
        tensors["when"] = torch.tensor(state.when)
        about = {
            "chunk": chunk, "task": state.task, "iteration": state.iteration, "seconds": state.seconds,
            "probes": list(state.probes), "request": repr(self.request),
        }  # fmt: skip
        save_tensors(self.path / "checkpoint.safetensors", tensors, about)
        self.saved = time.monotonic()

    def _finish(self, chunk: int, session: Session, event: Done) -> None:
        """Write the chunk's final parameters, memory and results; its checkpoint is needed no more."""
        leaves = named(session.fleet.tensors(event.state.fleet))
        tensors = {"state" + name: leaf for name, leaf in leaves.items() if not name.startswith(".optimiser")}
        tensors |= {"result." + name: value for name, value in event.result.tensors().items()}
        save_tensors(self._learner(chunk), tensors, event.result.about())
        (self.path / "checkpoint.safetensors").unlink(missing_ok=True)

    def complete(self, result: Result) -> None:
        """Write results and summary of the whole run."""
        save_tensors(self.path / "results.safetensors", result.tensors(), result.about())
        about = summary_json(result, self.request) | {"start": self.start or {"made by": self.request.init}}
        write(self.path / "summary.json", json.dumps(about, indent=2).encode())
        self.describe("diverged" if not bool(result.kept.all()) else "done")

    def _learner(self, chunk: int) -> Path:
        return self.path / f"learner-{chunk}.safetensors"

    def _chunk_result(self, path: Path) -> Result:
        tensors, about = load_tensors(path)
        own = {name[len("result.") :]: value for name, value in tensors.items() if name.startswith("result.")}
        return Result.of(own, about)


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
        self.result = Result.of(tensors, about)

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
