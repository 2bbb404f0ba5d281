"""The contract on a stream: what every scenario must pass, ours and yours. `lifelong check` runs it."""

from __future__ import annotations

from collections.abc import Iterator

from lifelong.contracts.learners import Check, CheckFailed, equal, outcome
from scenarios.stream import Stream


def tasks_are_sound(stream: Stream) -> None:
    """Parts of a task share no row, every part but validation has rows, and labels fit the stream's classes."""
    for task in stream:
        parts = [set(rows.tolist()) for rows in (task.train, task.validation, task.test)]
        if parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]:
            raise CheckFailed(f"task {task.number} trains on rows that it is validated or tested on")
        if not parts[0] or not parts[2]:
            raise CheckFailed(f"task {task.number} has no training or no test rows")
        y = stream.dataset.y.cpu()
        for rows in (task.train, task.test):
            labels = task.label[y[rows]]
            if int(labels.min()) < 0 or not set(labels.unique().tolist()) <= set(task.classes):
                raise CheckFailed(f"task {task.number} has rows whose class is not one of its own")
        if max(task.classes) >= stream.classes:
            raise CheckFailed(f"task {task.number} names class {max(task.classes)} of {stream.classes}")


def seeds_reproduce(stream: Stream) -> None:
    """The same seed gives the same tasks."""
    for seed in (0, 1):
        a, b = (stream.tasks_of(seed) for _ in range(2))
        equal(
            [[t.train, t.test, t.label] for t in a],
            [[t.train, t.test, t.label] for t in b],
            f"two draws of seed {seed}",
        )


def indexing_is_iterating(stream: Stream) -> None:
    """Length, index, slice and iteration agree."""
    tasks = list(stream)
    if len(tasks) != len(stream):
        raise CheckFailed(f"it says {len(stream)} tasks and gives {len(tasks)}")
    for i, task in enumerate(tasks):
        equal([stream[i].train, stream[i].test], [task.train, task.test], f"stream[{i}] and the {i}th in turn")
    part = stream[1:] if len(stream) > 1 else stream[:]
    if len(list(part)) != max(len(stream) - 1, 1):
        raise CheckFailed("a slice does not hold the tasks that it names")


def promised_disjoint(stream: Stream) -> None:
    """Unless the stream says otherwise: where tasks show the same transformation, they share no training row;
    class-incremental ones share no class."""
    if not stream.disjoint:
        return
    tasks = list(stream)
    plain = all(task.permutation is None and not task.angle for task in tasks)
    for i, a in enumerate(tasks):
        for b in tasks[i + 1 :]:
            if plain and set(a.train.tolist()) & set(b.train.tolist()):
                raise CheckFailed(f"tasks {a.number} and {b.number} share rows")
            if stream.setting != "domain" and set(a.classes) & set(b.classes):
                raise CheckFailed(f"tasks {a.number} and {b.number} share classes")


STREAM_CHECKS = (
    Check("its tasks are sound", tasks_are_sound, "Look at the rows and labels that `tasks(dataset, seed)` gives."),
    Check(
        "a seed gives the same tasks again",
        seeds_reproduce,
        "Draw from scenarios.stream.generator(seed, ...), not from a global generator.",
    ),
    Check(
        "indexing is iterating",
        indexing_is_iterating,
        "Set `length` to the number of tasks that the task generator gives.",
    ),
    Check(
        "tasks are as disjoint as promised",
        promised_disjoint,
        "Number classes apart, make the stream domain-incremental, or say disjoint=False.",
    ),
)


def check_stream(stream: Stream) -> Iterator[tuple[str, str, str]]:
    """The contract on one stream."""
    for check in STREAM_CHECKS:
        yield check.name, outcome(check, stream), check.mend
