"""What a person sees while something is learned or tested: live in a terminal, else plain lines now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from lifelong import metrics
from lifelong.core.loop import Progress as LoopEvent
from lifelong.core.stage import Stage, Tell
from lifelong.display.console import errors, say
from lifelong.meta.pretraining import Begun, Event, Stepped, Validated
from scenarios.errors import in_a_line


def in_time(seconds: float) -> str:
    """A time that a person waits, rounded as far as it can be known: "8 s", "4 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Turns:
    """Runs that are learned one after another: which this is, what each took, and how long all of them still take."""

    def __init__(self, count: int) -> None:
        self.count, self.took = count, []

    @property
    def place(self) -> str:
        """As in "3 of 7"."""
        return f"{len(self.took) + 1} of {self.count}"

    def left(self, since: float, still: float) -> float:
        """Seconds until all are done. since, still: of the present one; those to come take as long as those so far."""
        known = [*self.took, since + still]
        return still + (self.count - len(known)) * sum(known) / len(known)


class Stages:
    """Shows which part of some work is under way, and how long all of it still takes: a live line in a terminal, else plain lines."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.title, self.quiet, self.began = title, quiet, time.monotonic()
        self.first: int | None = None
        self.live: Progress | None = None
        self.bar: TaskID | None = None

    def __enter__(self) -> Tell:
        return self.tell

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def tell(self, stage: Stage | str) -> None:
        """Take in which part begins, or a word on it."""
        if self.quiet:
            return
        if not errors.is_terminal:
            say(str(stage))
            return
        if self.live is None:
            self.live = Progress(
                BarColumn(12), TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
                TextColumn("{task.fields[left]}", markup=False), console=errors, transient=True,
            )  # fmt: skip
            self.bar = self.live.add_task(self.title, total=None, left="")
            self.live.start()
        assert self.bar is not None
        if not isinstance(stage, Stage):
            self.live.update(self.bar, description=_short(f"{self.title}: {stage}"))
            return
        done, since = stage.number - 1, time.monotonic() - self.began
        self.first = done if self.first is None else self.first  # those before it were kept from another day
        learned = done - self.first
        left = f"left {in_time(since * (stage.count - done) / learned)}" if learned else ""
        self.live.update(self.bar, description=_short(str(stage)), completed=done, total=stage.count, left=left)


class RunDisplay:
    """Shows a run from its start's learning to its end: give `start` and `run` to `lifelong.runs.execute.execute`."""

    def __init__(self, title: str, turns: Turns | None = None) -> None:
        self.stage, self.watcher = PretrainingWatcher("start"), Watcher(title, turns)

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self.stage.__exit__()
        self.watcher.__exit__()

    def start(self, event: Event) -> None:
        """Take in what happened while a start is learned."""
        self.stage.tell(event)

    def run(self, event: LoopEvent) -> None:
        """Take in what happened while the run learns; a start has been learned by then."""
        self.stage.__exit__()
        self.watcher.tell(event)


class PretrainingWatcher:
    """Shows where a start's learning stands: a live line in a terminal, else one plain line for each validation."""

    def __init__(self, title: str) -> None:
        self.title, self.live, self.bar, self.told = title, None, None, 0.0

    def __enter__(self) -> Callable[[Any], None]:
        return self.tell

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def tell(self, event: Event) -> None:
        """Take in what happened."""
        place, count = event.state.iteration, event.iterations
        if isinstance(event, Begun):
            words = f"{self.title}: {count} iterations" + (f", going on after {place}" if place else "")
            errors.print(words, soft_wrap=True)
        if errors.is_terminal:
            if time.monotonic() - self.told > 0.25 or not isinstance(event, Stepped):
                self.told = time.monotonic()
                self._show(event)
        elif isinstance(event, Validated):
            errors.print(f"{self.title}: iteration {place} of {count}, {self._words(event)}", soft_wrap=True)

    def _words(self, event: Event) -> str:
        state = event.state
        loss = f"loss {float(state.losses[:, state.iteration - 1].mean()):.4f}" if state.iteration else ""
        if not state.validated:
            return loss
        scores = state.validated[-1][1].mean(0)
        width = metrics.estimate(scores).half_width
        return f"{loss}  validation {float(scores.mean()):.4f}" + ("" if width is None else f" ± {width:.4f}")

    def _show(self, event: Event) -> None:
        if self.live is None:
            self.live = _bar("", TextColumn("{task.fields[words]}", markup=False))
            self.bar = self.live.add_task(self.title, total=event.iterations, words="")
            self.live.start()
        assert self.bar is not None
        self.live.update(self.bar, completed=event.state.iteration, words=self._words(event))


class EpisodeWatcher:
    """Shows how many test episodes were answered: a live bar in a terminal, else a plain line every ten seconds."""

    def __init__(self) -> None:
        self.live: Progress | None = None
        self.bars: dict[str, Any] = {}
        self.told = 0.0

    def __enter__(self) -> Callable[[str, int, int], None]:
        if errors.is_terminal:
            self.live = _bar(" episodes")
            self.live.start()
        return self.tell

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def tell(self, title: str, done: int, wanted: int) -> None:
        """Take in how far the test of one start is."""
        if self.live:
            if title not in self.bars:
                self.bars[title] = self.live.add_task(title, total=wanted)
            self.live.update(self.bars[title], completed=done)
        elif done == 0 or time.monotonic() - self.told > 10:
            self.told = time.monotonic()
            errors.print(f"{title}: {done} of {wanted} episodes", soft_wrap=True)


class Watcher:
    """Shows where the run stands: a live display in a terminal, else one plain line for each task."""

    def __init__(self, title: str, turns: Turns | None = None) -> None:
        self.title, self.began, self.turns = title, time.monotonic(), turns or Turns(1)
        self.first: float | None = None  # the share that was done when it began to look
        self.accuracy: torch.Tensor | None = None
        self.live: Live | None = None

    def __enter__(self) -> Callable[[LoopEvent], None]:
        return self.tell

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def tell(self, event: LoopEvent) -> None:
        """Take in what happened."""
        done = (event.fleet + event.done / max(event.total, 1)) / event.fleets
        if self.first is None:
            self.first = done
        if event.accuracy is not None:
            self.accuracy = event.accuracy.cpu()
        if errors.is_terminal:
            if self.live is None:  # not before there is something to show: one console has one live display
                self.live = Live(console=errors, refresh_per_second=4, transient=True)
                self.live.start()
            self.live.update(self._picture(event, done))
        elif event.accuracy is not None and event.iteration == 0:
            seen = self.accuracy.nanmean(0)[: event.task] if self.accuracy is not None else []
            words = " ".join(f"{100 * float(a):5.1f}" for a in seen)
            line = f"{self.title}: task {event.task} of {event.tasks} done, accuracy so far {words}"
            errors.print(in_a_line(line), soft_wrap=True)

    def _picture(self, event: LoopEvent, done: float) -> Group:
        since = done - (self.first or 0)
        passed = time.monotonic() - self.began
        left = passed * (1 - done) / since if since else float("nan")
        bar = Progress(BarColumn(None), TextColumn("{task.percentage:>3.0f} %"), expand=True)
        bar.add_task("", total=1000, completed=round(1000 * done))
        place = f"task {min(event.task + 1, event.tasks)}/{event.tasks}  iteration {event.iteration}/{event.iterations}"
        words = f"{place}  seeds {len(event.seeds)}  left {in_time(left)}" if since else place
        if since and self.turns.count > 1:
            words += f", of all {in_time(self.turns.left(passed, left))}"
        rows: list[Any] = [Text(self.title), bar, Text(words)]  # a long title must not squeeze the bar
        if self.accuracy is not None:
            means = self.accuracy.nanmean(0).tolist()
            line = "  ".join(f"{t + 1}: {100 * a:.0f} %" for t, a in enumerate(means) if t <= event.task)
            rows.append(Text(f"accuracy by task  {line}"))
        return Group(*rows)


def _short(words: str) -> str:
    """Words that leave room for a bar and two times on a page of 80 columns."""
    return words if len(words) <= 40 else f"{words[:39]}…"


def _bar(unit: str, *more: TextColumn) -> Progress:
    """A bar that vanishes when it is done: what, how far, how long still. unit: of what is counted."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(f"{{task.completed}}/{{task.total}}{unit}"),
        TimeRemainingColumn(),
        *more,
        console=errors,
        transient=True,
    )
