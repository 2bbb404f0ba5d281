"""A request written as text, run: the command line, a notebook and a worker elsewhere call the same function."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from lifelong.adaptation.few_shot import few_shot_probes, read_shots
from lifelong.core.files import RunError, goes_on, held_alone, remove_partials
from lifelong.core.footprint import use_threads
from lifelong.core.loop import Progress, check_request, cost, run
from lifelong.core.probes import Probe
from lifelong.core.result import Result
from lifelong.core.stopped import Stopped
from lifelong.notation.user_code import name_files
from lifelong.probes.linear_probe import LinearProbeAccuracy
from lifelong.runs.folder import RunFolder
from lifelong.runs.initialisation_files import learn_for_run, weigh_start
from lifelong.runs.request import Request, default_folder
from scenarios.stream import seed_of

Watch = Callable[[Progress], None]
DAY = 86_400  # seconds
MANY_STEPS = 500_000  # below which no run takes a day


def execute(
    work: Request | RunFolder,
    *,
    out: Path | str = "runs",
    name: str = "",
    every: float = 60.0,
    watch: Watch | None = None,
    watch_start: Callable[[Any], None] | None = None,
) -> Result:
    """Run a request in a new folder, or go on with the run of a folder, and give what it measured.

    out, name: where the new folder is made, see `new_folder`. every: seconds between checkpoints. watch: told a few times
    a second where the run stands; watch_start: the same while a start is learned. Ctrl-C saves and raises Stopped, a
    second one ends at once. A finished folder is not learned again: its summary and status are written from its results.
    Raises a ConfigurationError for what cannot be run, before anything is written, and where another process works in the folder.
    """
    folder = work if isinstance(work, RunFolder) else new_folder(work, out, name, every)
    with held_alone(folder.path), goes_on(folder.path, f"`lifelong resume {folder.path}`"):
        remove_partials(folder.path)
        return folder.settle() if folder.finished else _executed(folder, watch, watch_start)


def _executed(folder: RunFolder, watch: Watch | None, watch_start: Callable[[Any], None] | None) -> Result:
    """Learn what a folder lacks, and write what was measured."""
    try:
        with stopping(folder):
            result = _learned(folder, watch, watch_start)
    except (Stopped, KeyboardInterrupt):
        raise Stopped(f"`lifelong resume {folder.path}` goes on") from None
    except torch.OutOfMemoryError:
        size = max(1, (folder.request.fleet or len(folder.request.seeds)) // 2)
        raise RunError(f"the device has not enough memory for this fleet: try --fleet {size}") from None
    folder.complete(result)
    return result


def _learned(folder: RunFolder, watch: Watch | None, watch_start: Callable[[Any], None] | None) -> Result:
    """Learn the start where it is one that is learned, then the run."""
    request = folder.request
    use_threads(request.threads)
    learner, stream, start = request.build()
    folder.describe("running")
    folder.start = learn_for_run(start, folder, watch_start)
    folder.describe("running")
    return run(
        learner,
        stream,
        request.members,
        start,
        eval_every=request.eval_every,
        eval_rows=request.eval_rows,
        probes=probes_of(request),
        device=request.device,
        fleet=request.fleet,
        compiled=request.compile,
        watch=watch,
        checkpointer=folder,
    )


def probes_of(request: Request) -> tuple[Probe, ...]:
    """What a request asks to be measured besides accuracy."""
    heads = (LinearProbeAccuracy(),) if request.linear_probe else ()
    return (*few_shot_probes(read_shots(request.few_shot)), *heads, *request.probes())


def check(request: Request) -> None:
    """Raise a ConfigurationError for what cannot be run."""
    learner, stream, start = request.build()
    weigh_start(start)
    probes = probes_of(request)
    check_request(learner, stream, request.members, request.device, probes, request.fleet, request.eval_every)
    if ".py:" in f"{request.strategy}{request.learner}{request.model}":
        from lifelong.contracts.check import try_out

        try_out(learner, len(stream))


def new_folder(request: Request, out: Path | str = "runs", name: str = "", every: float = 60.0) -> RunFolder:
    """A new run's folder, made only once the request is known to be sound; named after the request where no name is given."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RunError(f"--name {name} leads out of {out}: say with --out where the run's folder is made")
    name_files(request.texts)  # who hands over a request names its files; a folder that is read does not
    check(request)
    out = Path(out)
    return RunFolder.create(out / name if name else default_folder(out, request), request, every)


def estimated(request: Request) -> str:
    """What a run will take, in words, from a few of its steps."""
    use_threads(request.threads)
    check(request)
    learner, stream, _ = request.build()
    seconds, size = cost(learner, stream, request.members, request.device, request.fleet)
    words = f"{about(seconds)} of training and {size / 1e6:.0f} MB of tensors"
    return f"{words}: {len(request.seeds)} seeds, {len(stream)} tasks, {stream.classes} classes"


def warning_of_days(request: Request) -> str:
    """A line on a run that takes days, by a few of its steps; "" for any other."""
    learner, stream, _ = request.build()
    steps = sum(stream.steps(stream.tasks_of(seed_of(request.members[0]).order)))
    fleets = -(-len(request.seeds) // (request.fleet or len(request.seeds)))
    if steps * fleets < MANY_STEPS or learner.looped:
        return ""
    seconds, _ = cost(learner, stream, request.members, request.device, request.fleet)
    return f"this takes {about(seconds)}: Ctrl-C saves it, and `lifelong resume` goes on" if seconds > DAY else ""


def about(seconds: float) -> str:
    """A time in words, as in "about 3 hours"."""
    for unit, size in (("days", DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:,.0f} {unit}"
    return f"about {seconds:.0f} seconds"


@contextmanager
def stopping(checkpointer: Any) -> Iterator[None]:
    """Ctrl-C asks the checkpointer to stop, at the next place where it can save; a second one ends at once.

    Where nothing is learned yet, as while a stream is planned, there is nothing to save: KeyboardInterrupt, then.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if checkpointer.stop_asked:
            os._exit(130)  # what was saved is whole: files are written aside and renamed
        checkpointer.stop_asked = True
        if not getattr(checkpointer, "begun", True):
            raise KeyboardInterrupt
        os.write(2, b"\nstopping at the next place where it can be saved; Ctrl-C again ends at once\n")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
