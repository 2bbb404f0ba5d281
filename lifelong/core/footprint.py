"""What a run will hold in memory, found before it starts: by arithmetic, and on tensors that have shapes and no values.

Nothing here takes the room that it counts. The figures are lower bounds, of what the run cannot do without, so that what
is refused could not have run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.core.fleet import initial_state
from lifelong.core.initialisation import Random
from lifelong.core.learner import AnyLearner
from lifelong.core.problem import Problem
from lifelong.core.sampler import BLOCK, NUMBERS, padded
from lifelong.core.settings import fleets_of_settings
from scenarios.errors import ConfigurationError
from scenarios.machine import MOST_TASKS, free_memory, most_threads, processors
from scenarios.stream import Seed, Stream, Task, seed_of, stream_index

MOST_MEMBERS = 10_000  # learned together: each is drawn by itself before they are stacked
PLAN = 8 + 8 + 1 + 1  # bytes of a row that is shown: row, task, first sight, validity
MOST_STEPS = 10**10  # of a run, one after another: the fastest of them would take days
ENDLESS = 2**70  # bytes of what no number can count

HINTS = {
    "the network and its optimiser": "take a smaller --model",
    "the memory of the strategy": "keep fewer rows in --strategy",
    "the rows of a step": "take a smaller --batch, or replay fewer rows in --strategy",
    "the plan of what is shown": "ask for fewer --iterations or --epochs, or a smaller --batch",
    "the rows and classes of all tasks": "ask for fewer tasks",
    "the rows of an iteration": "ask for fewer tasks, shots or rows in --init",
    "what is measured along the way": "evaluate less often, with a larger --eval-every",
}


OF_STARTS = ("the rows of an iteration",)


class ResourceError(ConfigurationError):
    """A request that is too large for this machine; its message names the option to change."""


def use_threads(count: int) -> None:
    """Let torch use so many threads. Raises ResourceError for fewer than 1 and for many more than there are processors."""
    if not 1 <= count <= most_threads():
        raise ResourceError(
            f"--threads {count}: this machine has {processors()} processors: take 1 to {most_threads()}"
        )
    torch.set_num_threads(count)


def estimate_memory(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int | Seed],
    device: torch.device | str = "cpu",
    fleet: int = 0,
    eval_every: int = 0,
) -> dict[str, int]:
    """Bytes that a run holds at least, by what they are for. fleet: how many members learn together, 0 for all.

    Raises ResourceError, naming what to change, where that is more than the device has free, and for more steps than can
    be taken.
    """
    tasks, budget, room = len(stream), stream.budget, free_on(torch.device(device))
    if tasks > MOST_TASKS:
        raise ResourceError(f"a stream of {tasks:,} tasks is more than {MOST_TASKS:,}: ask for fewer tasks")
    if not math.isfinite(budget.epochs):
        raise ResourceError(f"--epochs {budget.epochs}: it must be a finite number")
    settings = fleets_of_settings(learner)
    together = max(min(fleet or len(alike) * len(seeds), len(alike) * len(seeds)) for alike in settings)
    if together > MOST_MEMBERS:
        raise ResourceError(
            f"{together:,} seeds and settings together are more than {MOST_MEMBERS:,}: learn them in turn, with --fleet 1000"
        )
    classes = together * tasks * (2 * stream.classes + 8 * stream.dataset.classes)
    refuse_above(room, {"the rows and classes of all tasks": classes}, together)  # before the tasks are drawn
    drawn = stream.tasks_of(seed_of(seeds[0]).order)
    shown = [_rows_shown(stream, drawn, task) for task in range(tasks)]
    steps = [rows // budget.batch * budget.repeats for rows in shown]
    parts = {
        "the rows and classes of all tasks": classes + together * _bytes_of_rows(drawn),
        "the plan of what is shown": together * PLAN * max(shown),
        "what is measured along the way": 8
        * together
        * tasks
        * sum(count // eval_every for count in steps if eval_every),
    }
    refuse_above(room, parts, together)
    if sum(steps) > MOST_STEPS:
        raise ResourceError(
            f"{sum(steps):,} steps are more than {MOST_STEPS:,}: ask for fewer --iterations, --epochs or --repeats"
        )
    for alike in settings:
        alone = _of_member(alike[0].learner, stream, drawn, seed_of(seeds[0]))
        members = min(together, len(alike) * len(seeds))
        refuse_above(room, parts | {name: members * size for name, size in alone.items()}, members)
        for name, size in alone.items():
            parts[name] = max(parts.get(name, 0), members * size)
    return parts


def _rows_shown(stream: Stream, drawn: list[Task], task: int) -> int:
    """Rows that a phase shows, filled up to whole batches."""
    budget = stream.budget
    return -(-budget.rows(stream.schedule.size(drawn, task)) // budget.batch) * budget.batch


def free_on(device: torch.device) -> int:
    """Bytes that may still be taken on a device."""
    if device.type == "cuda":
        return min(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device), 2**62)
    return free_memory()


def refuse_above(room: int, parts: dict[str, int], together: int) -> None:
    """Raise ResourceError where the parts are more than the room; `together` members share them."""
    total = sum(parts.values())
    if total <= room:
        return
    largest = max(parts, key=lambda name: parts[name])
    members = room * together // total if total < ENDLESS and largest not in OF_STARTS else 0
    hint = f"learn fewer seeds at once, as with --fleet {members}" if members else HINTS[largest]
    size = f"at least {_gigabytes(total)}" if total < ENDLESS else "more memory than can be counted"
    raise ResourceError(f"this run needs {size}, most of it for {largest}, and {_gigabytes(room)} are free: {hint}")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:,.2f} GB"


def _bytes_of_rows(drawn: list[Task]) -> int:
    """Row numbers and permutations of all tasks of one seed, padded to the longest."""
    parts = ((task.train, task.validation, task.test) for task in drawn)
    longest = [max(max(map(len, rows)), 1) for rows in zip(*parts, strict=True)]
    permuted = sum(task.permutation.numel() for task in drawn if task.permutation is not None)
    return 8 * (len(drawn) * sum(longest) + permuted)


# --- one member, on tensors without values ----------------------------------------------------------------------------

_KNOWN: dict[Any, dict[str, int]] = {}  # what was weighed before


def _of_member(learner: AnyLearner, stream: Stream, drawn: list[Task], seed: Seed) -> dict[str, int]:
    """Bytes of one member's state and step, by what they are for; nothing where they cannot be found in advance."""
    if learner.looped:
        return {}
    dataset, budget = stream.dataset, stream.budget
    sizes = tuple((len(task.train), len(task.validation), task.permutation is None, task.angle == 0) for task in drawn)
    key = (
        learner,
        dataset.shape,
        dataset.x.dtype,
        len(dataset.y),
        dataset.classes,
        stream.setting,
        stream.classes,
        sizes,
    )
    key = (*key, budget.batch, stream.open, stream.task_ends, stream.paradigm)
    if key not in _KNOWN:
        if len(_KNOWN) > 1000:
            _KNOWN.clear()
        _KNOWN[key] = _weighed(learner, stream, seed)
    return _KNOWN[key]


def _weighed(learner: AnyLearner, stream: Stream, seed: Seed) -> dict[str, int]:
    problem = _without_values(learner, stream, seed)
    phases = {"network": "the network and its optimiser", "memory": "the memory of the strategy"}
    result: dict[str, int] = {}
    try:
        phase = phases["network"]
        with torch.device("meta"):
            learner.model.init(problem.shape, problem.classes, torch.Generator())
            phase = phases["memory"]
            state = initial_state(learner, problem, seed, Random())
        # members are made one by one and then stacked, so that all is there twice
        result[phases["network"]] = 2 * _bytes((state.params, state.optimiser))
        result[phases["memory"]] = 2 * _bytes(state.memory)
        phase = "the rows of a step"
        result[phase] = _bytes_of_step(learner, problem, state)
    except (RuntimeError, OverflowError, MemoryError) as error:
        if isinstance(error, MemoryError | OverflowError) or any(
            word in str(error) for word in ("overflow", "too large")
        ):
            result[phase] = ENDLESS
    except Exception:  # it does not fit the stream, or reads values: that is said when it is made with values
        pass
    return result


def _without_values(learner: AnyLearner, stream: Stream, seed: Seed) -> Problem:
    """The problem of one seed with shapes alone."""
    known = stream_index(stream, [seed.order])
    if learner.model.task_embedding:
        known["task_embedding"] = torch.eye(len(stream))[None]
    dataset = replace(
        stream.dataset,
        x=stream.dataset.x.to("meta"),
        y=stream.dataset.y.to("meta"),
        targets=tree_map(_meta, stream.dataset.targets),
    )
    return Problem(
        model=learner.model,
        dataset=dataset,
        index={name: value[0].to("meta") for name, value in known.items()},
        setting=stream.setting,
        classes=stream.classes,
        tasks=len(stream) if stream.task_ends else 1,
        batch=stream.budget.batch,
        task_rows=padded(int(known["count_train"].max())),
        validation_rows=padded(int(known["count_validation"].max())),
        task_ends=stream.task_ends,
    )


def _meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _bytes_of_step(learner: AnyLearner, problem: Problem, state: Any) -> int:
    """The random numbers of a block of steps, drawn and stacked, and the largest tensor of one step."""
    drawn, numbers = [], 0
    for part in learner.draws(problem):
        drawn.append({name: torch.empty(shape, device="meta") for name, shape in part.step.items()})
        for shape in part.step.values():
            size = math.prod(shape)
            numbers += 2 * 4 * size * max(1, min(BLOCK, NUMBERS // max(size, 1)))
    largest = _Largest()
    with torch.device("meta"), largest:
        row = torch.zeros(problem.batch, dtype=torch.int64)
        shown = torch.ones(problem.batch, dtype=torch.bool)
        batch = problem.batch_of_rows(row, row, shown.to(problem.dtype))
        batch = batch.replace(first_seen=shown, shown=shown, progress=torch.zeros(()), draws=tuple(drawn))
        learner.gradients(problem, state, batch)
    return numbers + largest.size


class _Largest(TorchDispatchMode):
    """Watches what operations make, and keeps the size in bytes of the largest tensor."""

    size = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = operation(*arguments, **(named or {}))
        self.size = max(
            [
                self.size,
                *(leaf.numel() * leaf.element_size() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)),
            ]
        )
        return result


def _bytes(tree: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
