"""A run on disk: plain files, each written whole or not at all, never pickled."""

from __future__ import annotations

import ast
import copy
import functools
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor

from lifelong.core.files import (
    FORMAT,
    RunError,
    check_format,
    filled,
    fitting,
    load_tensors,
    make_folder,
    named,
    read_json,
    save_tensors,
    write,
    write_json,
)
from lifelong.core.fleet import PLACE
from lifelong.core.loop import Done, Event, Options, Session, Stepped, Stopped, TaskEnded, TrainingState, chunks
from lifelong.core.result import Result
from lifelong.metrics import Estimate, probed, summary
from lifelong.runs import user_files
from lifelong.runs.configuration import FILE as CONFIGURATION
from lifelong.runs.configuration import write_configuration
from lifelong.runs.prediction import Predictor
from lifelong.runs.request import Request
from scenarios.brief import cut
from scenarios.disk import reason, remove_left_by_the_dead, shown
from scenarios.typed import TypedError, check, damaged

PARTIAL = ".{process}-partial-"  # a folder that is being made by a process
MEASURED = ("untrained", "losses", "diverged")


class RunFolder:
    """The folder of one run, and the checkpointer that the loop reports to.

    every: seconds between checkpoints; a checkpoint is written at the first step boundary after that. resolved: what the
    request's words stand for (`Request.resolved`).
    """

    def __init__(self, path: Path, request: Request, every: float = 60.0) -> None:
        self.path, self.request, self.every = path, request, every
        self.saved = time.monotonic()
        self.stop_asked = self.begun = False  # begun: something was learned that a stop would save
        self.start: dict[str, Any] = {}  # where the start came from
        self.resolved: dict[str, Any] = {}
        self.made: dict[str, Any] = {  # on what the run began
            "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
            "machine": {"processor": platform.machine(), "threads": request.threads},
        }

    @classmethod
    def create(cls, path: Path, request: Request, every: float = 60.0) -> RunFolder:
        """A new folder with its run.json, written before the first step."""
        folder = cls(path, request.with_files(), every)
        folder.resolved = folder.request.resolved()
        if os.path.exists(path):  # unlike Path.exists it bears a name that is too long, which is refused next
            raise RunError(f"{path} exists already: choose another --name, or `lifelong resume {path}`")
        make_folder(path.parent)
        remove_left_by_the_dead(path.parent, PARTIAL)
        try:  # the folder is there with its run.json, or not at all
            folder.path = Path(tempfile.mkdtemp(prefix=PARTIAL.format(process=os.getpid()), dir=path.parent))
            try:
                folder.describe("running")
                write_configuration(folder.path, "run", request.configuration)
                folder.path.chmod(0o777 & ~_mask())
                folder.path.rename(path)
            except BaseException:
                for name in ("run.json", CONFIGURATION):
                    (folder.path / name).unlink(missing_ok=True)
                folder.path.rmdir()
                raise
        except OSError as error:
            if os.path.exists(path):  # another process was faster
                raise RunError(f"{path} exists already: choose another --name") from None
            raise RunError(f"{shown(path)} cannot be made ({reason(error)}): choose another folder") from None
        folder.path = path
        return folder

    @classmethod
    def open(cls, path: Path, every: float = 60.0) -> RunFolder:
        """A folder that exists, with the request that its run.json holds."""
        folder = cls(path, read_request(path), every)
        about = read_about(path)
        folder.start, folder.resolved = about.get("start", {}), about.get("resolved", {})
        folder.made = {name: about.get(name, usual) for name, usual in folder.made.items()}
        return folder

    def describe(self, status: str) -> None:
        """Write run.json: the words as typed, what they stand for, the files that they name, versions, machine, status."""
        about = {
            "format": FORMAT,
            "request": self.request.as_json(),
            "command": self.request.command,
            "status": status,
            "resolved": self.resolved,
            "files": user_files.as_json(self.request.files),
            "start": self.start or {"made by": self.request.init},
            **self.made,
        }
        write_json(self.path / "run.json", about)

    def changes(self) -> list[str]:
        """What differs from when the run began; raises RunError where its data or a file that it names differ."""
        about = read_about(self.path)
        check_data(self.path, self.request, self.resolved)
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
        if os.path.lexists(done):
            return self._chunk_result(done)
        path = self.path / "checkpoint.safetensors"
        if not os.path.lexists(path):
            return state
        tensors, about = load_tensors(path, CHECKPOINT)
        if about["chunk"] != chunk or about["request"] != repr(self.request):
            if about["chunk"] < chunk:
                return state  # of a chunk that has finished since
            raise RunError(f"{path} is of another run: delete it to start again")
        return _restored(session, state, tensors, about, path)

    def __call__(self, chunk: int, session: Session, event: Event) -> None:
        """Save when it is time, or when a stop was asked for; at the end, the result."""
        self.begun = True
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
        self.settle(result)

    @property
    def finished(self) -> bool:
        """Whether its results are there."""
        return os.path.lexists(self.path / "results.safetensors")

    def settle(self, result: Result | None = None) -> Result:
        """Write the summary and the status that follow from the results; they may be missing after a kill."""
        if result is None:
            result = load_result(self.path)
        about = summary_json(result, self.request) | {"start": self.start or {"made by": self.request.init}}
        about["resolved"] = self.resolved
        write(self.path / "summary.json", json.dumps(about, indent=2).encode())
        for name in (
            "checkpoint.safetensors",
            "start.checkpoint.safetensors",
        ):  # of a process that was killed just then
            (self.path / name).unlink(missing_ok=True)
        self.describe("diverged" if not bool(result.kept.all()) else "done")
        return result

    def _learner(self, chunk: int) -> Path:
        return self.path / f"learner-{chunk}.safetensors"

    def _chunk_result(self, path: Path) -> Result:
        tensors, about = load_tensors(path)
        measured = {name[len("result.") :]: value for name, value in tensors.items() if name.startswith("result.")}
        return Result.of(measured, about, path)


def _mask() -> int:
    """What new folders may not be, as the user set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


CHECKPOINT = {
    "chunk": int, "task": int, "iteration": int, "seconds": dict[str, float], "probes": list[str], "request": str,
}  # fmt: skip


def _restored(
    session: Session, state: TrainingState, tensors: dict[str, Tensor], about: dict[str, Any], path: Path
) -> TrainingState:
    """The state that a checkpoint holds. Raises RunError where it does not fit the run."""
    members, tasks = len(session.members), state.untrained.shape[1]
    accuracy = fitting(path, tensors, "accuracy", (members, -1, tasks))
    when = fitting(path, tensors, "when", (accuracy.shape[1], 4), torch.int64)
    kept = {f"probe {name}": tensors.get(f"probe {name}") for name in about["probes"]}
    right = 0 <= about["task"] <= session.tasks and about["iteration"] >= 0 and {*state.seconds} <= {*about["seconds"]}
    right &= about["task"] == session.tasks or about["iteration"] <= _longest(session, about["task"])
    if not right or any(value is None or value.ndim < 2 or len(value) != members for value in kept.values()):
        raise RunError(f"{path} is of another run: delete it to start again")
    for name in MEASURED:
        usual = getattr(state, name)
        setattr(state, name, fitting(path, tensors, name, tuple(usual.shape), usual.dtype).to(usual.device))
    tree = filled(session.fleet.tensors(state.fleet), tensors, "state", path)
    state.fleet = session.fleet.restored(state.fleet, tree)
    device = state.losses.device
    state.accuracy = [row.to(device) for row in accuracy.unbind(1)]
    state.when = [tuple(row) for row in when.tolist()]
    state.probes = {
        name: [value.to(device) for value in fitted.unbind(1)]
        for name, fitted in zip(about["probes"], kept.values(), strict=True)
        if fitted is not None
    }
    state.task, state.iteration, state.seconds = about["task"], about["iteration"], about["seconds"]
    return state


def _longest(session: Session, task: int) -> int:
    """Iterations of a task, for the member that takes the most; other chunks may go on for longer."""
    lengths = session.options.lengths
    return max(session.sampler.length(task), lengths[task] if lengths else 0)


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
    parts = result.by_setting()
    metrics = {words: {name: _plain(value) for name, value in summary(part).items()} for words, part in parts.items()}
    probes = {words: found for words, part in parts.items() if (found := _probes_json(part))}
    return {
        **({"metrics": metrics[""]} if list(metrics) == [""] else {"settings": metrics}),
        **({"probes": probes.get("", probes)} if probes else {}),
        "seeds": list(result.seeds),
        "diverged": lost,
        "seconds": result.seconds,
        "command": request.command,
    }


def _probes_json(result: Result) -> dict[str, Any]:
    """What probes found, each in its own unit: how many moments, and the first, the last and the mean."""
    return {
        name: {"moments": found.moments, **{when: _plain(getattr(found, when)) for when in ("first", "last", "mean")}}
        for name, found in probed(result).items()
    }


def load_result(path: Path) -> Result:
    """What a finished run measured."""
    file = path / "results.safetensors"
    return Result.of(*load_tensors(file), file)


REQUEST = {f"{name}?": kind for name, kind in get_type_hints(Request).items() if name not in ("files", "scenario")}
ABOUT = {  # what a run.json holds
    "request": {"scenario": str, **REQUEST},
    "command?": str,
    "status?": ("running", "done", "diverged"),
    "resolved?": dict[str, Any],
    "files?": dict[str, dict[str, str]],
    "plugins?": dict[str, str],
    "start?": dict[str, Any],
    "versions?": {"torch": str},
    "machine?": {"threads": int},
}
RESOLVED = {
    "data": {"name": str, "content": str, "origin?": str}, "scenario": str, "setting": str, "tasks": int, "model": str,
    "method": str, "optimiser": str, "budget": {"iterations": int, "epochs": float, "batch": int, "repeats?": int},
}  # fmt: skip
START = {"made by?": str, "overlap allowed?": bool}


def read_about(path: Path) -> dict[str, Any]:
    """What the run.json of a folder holds. Raises RunError, in one line with the key, where it is malformed."""
    file = path / "run.json"
    if not os.path.lexists(file):
        raise RunError(f"{path} is not a run: it has no run.json")
    about = read_json(file)
    check_format(about, path)
    try:
        check(about, ABOUT)
        if about.get("resolved"):
            check(about["resolved"], RESOLVED, "resolved")
        check(about.get("start", {}), START, "start")
    except TypedError as error:
        raise RunError(damaged(file, error)) from None
    return about


def read_request(path: Path) -> Request:
    """The request that a run's folder holds. Raises RunError where it names code without a digest of its content."""
    request = saved_request(read_about(path), path / "run.json")
    refuse_unlisted(request.texts, request, path / "run.json")
    return request


def saved_request(about: dict[str, Any], where: Path) -> Request:
    """The request that a file holds beside the files that it names. Raises RunError where it is malformed."""
    try:
        check(about, {name: ABOUT[name] for name in ("request", "files?", "plugins?")})
    except TypedError as error:
        raise RunError(damaged(where, error)) from None
    held = about["request"]
    unknown = set(held) - {"scenario", *(name.removesuffix("?") for name in REQUEST)}
    if unknown:
        raise RunError(damaged(where, f"request has {len(unknown)} words that are not known"))
    seeds = held.get("seeds", Request.seeds)
    if not seeds or min(seeds) < 0:
        raise RunError(damaged(where, "request.seeds must be whole numbers of at least 0, and one of them at least"))
    files = user_files.from_json(about.get("files", {}), about.get("plugins", {}), where)
    return Request(**{**held, "seeds": tuple(seeds), "files": files})


def refuse_unlisted(texts: Sequence[str], request: Request, where: Path) -> None:
    """Raise RunError where texts of a file name code without a digest of its content."""
    listed = {file.name for file in request.files if file.content}
    unlisted = [name for name in user_files.code_named(texts) if name not in listed]
    if unlisted:
        raise RunError(f"{where} names {unlisted[0][:100]} and not what was in it: such code is not executed")


def check_data(path: Path, request: Request, resolved: dict[str, Any]) -> None:
    """Raise RunError where the data are not those that the run began with."""
    then = resolved.get("data", {}).get("content")
    if then and then != request.build()[1].dataset.content_hash():
        name = resolved["data"]["name"]
        raise RunError(f"the data of {path} ({name}) changed since it began: put them back, or start a new run")


OVERLAP = " (overlap allowed)"  # a start's data may share classes or rows with what it is tested on


_KEY = re.compile(r"\[('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+)\]|\.(\w+)")  # of a place in a tree


def params_name(place: str) -> tuple[str, int | None]:
    """The plain name of a parameter from its place in a file, "" for what is none; and whose it is, where it is of one.

    "state.params['net']['head.bias']" is net.head.bias; "state.params['own']['DER/0']['scale']" is DER.scale;
    "state['3']['head.bias']" is the head.bias of member 3 of a looped fleet.
    """
    keys = [ast.literal_eval(quoted) if quoted else word for quoted, word in _KEY.findall(place.removeprefix("state"))]
    words = [str(key) for key in keys]
    if place.startswith("state.params["):
        return ".".join([words[2].removesuffix("/0"), *words[3:]] if words[1] == "own" else words[1:]), None
    if place.startswith("state[") and words[1:] != [PLACE]:
        return ".".join(words[1:]), int(words[0])
    return "", None


class Loaded:
    """A finished run, read back: `result`, `request`, `resolved`, `labels`, `params`, and `predict`."""

    def __init__(self, path: Path) -> None:
        self.path, self.request = path, read_request(path)
        self._whole, self._members = (
            self.request,
            None,
        )  # what ran, and which of its members this is about; None for all
        if not os.path.lexists(path / "results.safetensors"):
            raise RunError(f"{path} is not finished: `lifelong resume {path}` goes on with it")
        self.result = load_result(path)
        about = read_about(path)
        self.start: dict[str, Any] = about.get("start", {})
        self._resolved: dict[str, Any] = about.get("resolved", {})

    def __repr__(self) -> str:
        return cut(f"Loaded({self.path}: {self.request.scenario}, {self.name}, {self.result.in_words})")

    @functools.cached_property
    def resolved(self) -> dict[str, Any]:
        """What the run's words stand for, as it was recorded, or as it is now for a run of an earlier version."""
        return self._resolved or self.request.resolved()

    @property
    def name(self) -> str:
        """What learned, as it was typed, from which start, and whether that start may have seen the stream's classes."""
        return self.request.method + self.origin

    @property
    def origin(self) -> str:
        """From which start, where it is no random draw."""
        origin = "" if self.request.init == "Random()" else f" from {self.request.init}"
        return origin + (OVERLAP if self.start.get("overlap allowed") else "")

    @property
    def data_origin(self) -> str:
        """Where the rows of its data came from, as a table of features says it; empty for data of their own."""
        return str(self.resolved["data"].get("origin", ""))

    def by_setting(self) -> list[Loaded]:
        """The run as one for each setting, each with its own members and the numbers that it took in its words."""
        settings = self.request.settings()
        if list(settings) == [""]:
            return [self]
        results, views = self.result.by_setting(), []
        for words, request in settings.items():
            view = copy.copy(self)
            for name in ("resolved", "_predictor"):  # what was cached of the whole run
                view.__dict__.pop(name, None)
            view.request, view.result = request, results[words]
            view._members = [place for place, other in enumerate(self.result.settings) if other == words]
            view._resolved = {**self.resolved, **request.method_resolved()}
            views.append(view)
        return views

    def to_csv(self) -> str:
        """The accuracies as lines of text."""
        return self.result.to_csv()

    def sessions(self) -> list[tuple[Session, Any]]:
        """The session of each chunk of members that ran together, and its fleet's final state without the optimiser's.

        Of the whole run, whatever setting this is of. Raises RunError where the run's data or a file that it names changed since.
        """
        check_data(self.path, self._whole, self._resolved)
        learner, stream, start = self._whole.build()
        result = []
        for chunk, members in enumerate(chunks(learner, self._whole.members, self._whole.fleet)):
            session, file = Session.of_members(members, stream, Options(init=start)), self._file(chunk)
            state = session.first_state()
            tree = filled(session.fleet.tensors(state), load_tensors(file)[0], "state", file, ".optimiser")
            result.append((session, session.fleet.restored(state, tree)))
        return result

    def _file(self, chunk: int) -> Path:
        return self.path / f"learner-{chunk}.safetensors"

    @property
    def params(self) -> dict[str, Tensor]:
        """The final parameters of all seeds by name, each [S, ...].

        As in "net.head.bias"; a part's own parameters as in "GenerativeReplay.decoder.weight", and of a second part of
        that name "GenerativeReplay/1.decoder.weight". Of learners that are no pure functions of tensors: their named
        tensors. Raises RunError where the members differ in shape.
        """
        members: dict[str, dict[tuple[int, int], Tensor]] = {}
        chunk = 0
        while os.path.lexists(self._file(chunk)):
            for place, value in load_tensors(self._file(chunk))[0].items():
                try:
                    name, member = params_name(place)
                    values = list(enumerate(value) if member is None else [(member, value)])
                except (IndexError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                    raise RunError(damaged(self._file(chunk), f"{place[:60]!r} is no place of a tensor")) from None
                if name:
                    members.setdefault(name, {}).update({(chunk, s): each for s, each in values})
            chunk += 1
        try:
            stacked = {name: torch.stack([held[s] for s in sorted(held)]) for name, held in members.items()}
            return stacked if self._members is None else {name: value[self._members] for name, value in stacked.items()}
        except RuntimeError:
            raise RunError(f"{self.path}: its members' parameters differ in shape, and have no common tensor") from None

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.sessions(), self.result.paradigm, self._members)

    @property
    def labels(self) -> tuple[int | str, ...]:
        """The data's own labels, L of them: the columns of `predict`."""
        return self._predictor.labels

    def predict(self, x: Any, task: int | None = None) -> Tensor:
        """Scores [S, B, L] of raw rows [B, ...] for the data's own labels; see `lifelong.runs.prediction.Predictor.scores`."""
        return self._predictor.scores(x, task)

    def predict_labels(self, x: Any, task: int | None = None) -> Any:
        """The label that each seed finds most likely for each raw row, a numpy array [S, B]."""
        return self._predictor.best_labels(x, task)


def load(path: str | Path) -> Loaded:
    """A finished run, from its folder."""
    return Loaded(Path(path))
