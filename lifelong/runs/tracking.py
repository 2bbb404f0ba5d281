"""TensorBoard and Weights & Biases: watchers of a run, told the same events as the display. Nothing is sent anywhere.

The x axis is the iteration over all tasks. Shown are the mean over seeds, and each seed by itself where there are several;
where numbers of the learner varied, each setting has its own. Members that learn in several fleets, one after another, have a mean
for each fleet, as of the whole there is none before the last is through.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from lifelong.core.loop import Progress
from lifelong.notation.user_code import suggest
from lifelong.runs.folder import RunFolder
from lifelong.runs.request import seed_text
from scenarios.errors import ConfigurationError

Watch = Callable[[Progress], None]
Log = Callable[[dict[str, float], int], None]  # numbers by name, at an iteration


class TrackingError(ConfigurationError):
    """No such tracker, or one that is not installed."""


def numbers(event: Progress) -> dict[str, float]:
    """What an event says, by name: loss, accuracy on each task, and their mean over the tasks seen so far, fractions of 1."""
    found: dict[str, float] = {}
    if event.loss is not None:
        found |= _of_members("loss", event, event.loss)
    if event.accuracy is not None:
        accuracy = event.accuracy.cpu()
        seen = min(event.task + (event.iteration > 0), event.tasks)
        for t in range(event.tasks):
            found |= _of_members(f"accuracy/task {t + 1}", event, accuracy[:, t], each=False)
        if seen:
            found |= _of_members("average accuracy so far", event, accuracy[:, :seen].mean(1))
    return {name: value for name, value in found.items() if value == value}


def _of_members(name: str, event: Progress, values: Tensor, each: bool = True) -> dict[str, float]:
    """Of values [S], for each setting: the mean, of this fleet where there are several, and each seed where there are several."""
    found: dict[str, float] = {}
    settings = event.settings or ("",) * len(event.seeds)
    for words in dict.fromkeys(settings):
        places = [place for place, other in enumerate(settings) if other == words]
        start = f"{name}/{words}" if words else name
        if each and (len(places) > 1 or event.fleets > 1):
            found |= {f"{start}/seed {seed_text(event.seeds[place])}": float(values[place]) for place in places}
        mean = f"{start}/mean" if each and len(places) > 1 else start
        if event.fleets == 1:
            found[mean] = float(values[places].nanmean())
        elif len(places) > 1 or not each:
            found[f"{mean} of fleet {event.fleet + 1}"] = float(values[places].nanmean())
    return found


@contextmanager
def _tensorboard(folder: RunFolder) -> Iterator[Log]:
    writer = _library("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder.path / "tensorboard"))
    try:

        def log(found: dict[str, float], place: int) -> None:
            for name, value in found.items():
                writer.add_scalar(name, value, place)

        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(folder: RunFolder) -> Iterator[Log]:
    wandb = _library("wandb", "wandb")
    quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True)
    session = wandb.init(
        mode="offline", project="lifelong", name=folder.request.slug, dir=str(folder.path), config=folder.request.configuration,
        settings=quiet, reinit="create_new",
    )  # fmt: skip
    try:
        yield lambda found, place: session.log({"iteration": place, **found})
    finally:
        session.finish()


TRACKERS: dict[str, Callable[[RunFolder], Any]] = {"tensorboard": _tensorboard, "wandb": _wandb}


def trackers_named(words: str) -> list[str]:
    """The trackers of a list like "tensorboard,wandb". Raises TrackingError for another, or one that is not installed."""
    names = [name.strip() for name in words.split(",") if name.strip()]
    for name in names:
        if name not in TRACKERS:
            raise TrackingError(f"--track {name[:40]!r}: {suggest(name, list(TRACKERS))}")
        _library(name, name)
    return list(dict.fromkeys(names))


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise TrackingError(f"--track {package}: it is not installed: pip install 'lifelong[track]'") from None


@contextmanager
def tracked(folder: RunFolder, names: Sequence[str], watch: Watch | None = None) -> Iterator[Watch | None]:
    """While this lasts, what is told goes to `watch` and to the trackers, which write below the run's folder."""
    if not names:
        yield watch
        return
    with ExitStack() as stack:
        logs = [stack.enter_context(TRACKERS[name](folder)) for name in names]

        def tell(event: Progress) -> None:
            found = numbers(event)
            for log in logs if found else []:
                log(found, event.done)
            if watch:
                watch(event)

        yield tell
