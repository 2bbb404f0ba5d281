"""TensorBoard and Weights & Biases: watchers of a run, told the same events as the display. Nothing is sent anywhere.

The x axis is the iteration over all tasks. Shown are the mean over seeds, and each seed by itself where there are several.
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
from scenarios.errors import ConfigurationError

Watch = Callable[[Progress], None]
Log = Callable[[dict[str, float], int], None]  # numbers by name, at an iteration


class TrackingError(ConfigurationError):
    """No such tracker, or one that is not installed."""


def numbers(event: Progress) -> dict[str, float]:
    """What an event says, by name: loss, accuracy on each task, and their mean over the tasks seen so far, fractions of 1."""
    found: dict[str, float] = {}
    if event.loss is not None:
        found |= _of_seeds("loss", event.loss, event.seeds)
    if event.accuracy is not None:
        accuracy = event.accuracy.cpu()
        seen = min(event.task + (event.iteration > 0), event.tasks)
        found |= {f"accuracy/task {t + 1}": float(accuracy[:, t].nanmean()) for t in range(event.tasks)}
        if seen:
            found |= _of_seeds("average accuracy so far", accuracy[:, :seen].mean(1), event.seeds)
    return {name: value for name, value in found.items() if value == value}


def _of_seeds(name: str, values: Tensor, seeds: tuple[int, ...]) -> dict[str, float]:
    """The mean of values [S], and each where there are several."""
    each = {f"{name}/seed {seed}": float(v) for seed, v in zip(seeds, values, strict=True)} if len(seeds) > 1 else {}
    return {name if not each else f"{name}/mean": float(values.nanmean()), **each}


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
    return names


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
                log(found, event.task * event.iterations + event.iteration)
            if watch:
                watch(event)

        yield tell
