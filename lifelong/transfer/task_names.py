"""What the tasks of a stream are called in a table: by their classes, or by what is done to the rows."""

from __future__ import annotations

from scenarios.stream import Stream, Task

NAMED = 5  # classes of a task that are all named


def task_names(stream: Stream, order: int) -> tuple[str, ...]:
    """A name for each task as the seed `order` draws them: "4, 9"; "36°" or "pixels 2" where all tasks share their classes."""
    tasks = stream.tasks_of(order)
    by_class = [_classes(stream, task) for task in tasks]
    if len(tasks) < 2 or any(name != by_class[0] for name in by_class):
        return tuple(by_class)
    if any(task.angle for task in tasks):
        return tuple(f"{task.angle:.3g}°" for task in tasks)
    if tasks[0].permutation is not None:
        return tuple(f"pixels {task.number + 1}" for task in tasks)
    return tuple(f"task {task.number + 1}" for task in tasks)


def _classes(stream: Stream, task: Task) -> str:
    """The original classes in the order of the task's labels, by what the data call them; of many the first and the count."""
    labels = stream.dataset.labels or tuple(range(stream.dataset.classes))
    original = sorted((int(label), place) for place, label in enumerate(task.label.tolist()) if label >= 0)
    names = [str(labels[place]) for _, place in original]
    return ", ".join(names) if len(names) <= NAMED else f"{', '.join(names[: NAMED - 1])} ... ({len(names)})"
