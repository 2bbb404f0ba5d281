"""The contract: what every strategy, learner and stream must pass, ours and yours. `lifelong check` runs it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from lifelong import expression
from lifelong.learner import AnyLearner, Learner, State
from lifelong.loop import Course, Session, Stopped, run
from lifelong.model import MLP
from lifelong.optimisers import SGD, Adam
from lifelong.problem import Problem
from lifelong.result import Result
from lifelong.strategy import FineTuning, Strategy, fills, parts_of
from scenarios.baselines import joint
from scenarios.refusal import Refusal
from scenarios.split import split
from scenarios.stream import SETTINGS, Budget, Stream
from scenarios.synthetic import blobs


class Broken(Exception):
    """A check that does not hold; the message says what was seen."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the contract: what must hold, how it is tried, and how to mend it."""

    name: str
    holds: Callable[..., None]
    mend: str


def tiny(setting: str = "class", iterations: int = 6, tasks: int = 3) -> Stream:
    """A stream of milliseconds: Gaussian clouds, two classes in each task."""
    return split(blobs(tasks * 2, 6, 24), tasks, setting, budget=Budget(iterations=iterations, batch=4))


def stream_for(subject: Any, setting: str = "class", tasks: int = 3) -> Stream:
    """The tiny stream as this subject reads it: jointly where a part of it weighs tasks learned together."""
    stream = tiny(setting, tasks=tasks)
    return joint(stream) if _together(subject) else stream


def _together(subject: Any) -> bool:
    """Whether a part needs tasks that are learned together."""
    return isinstance(subject, Strategy) and any(part.multi_task for part in parts_of(subject))


def states(learner: AnyLearner, stream: Stream, seeds: list[int], dtype: torch.dtype) -> State:
    """The final state of a fleet, by the loop's own way."""
    kept: list[State] = []

    class Last:
        def restore(self, chunk: int, course: Course) -> Course:
            return course

        def boundary(self, chunk: int, course: Course) -> None:
            return None

        def finish(self, chunk: int, course: Course, result: Result) -> None:
            kept.append(course.state)

    run(learner, stream, seeds, dtype=dtype, keeper=Last())
    return kept[0]


def largest_gap(a: Any, b: Any) -> float:
    """The largest absolute difference between two trees, infinity where their shapes differ; NaN equals NaN."""
    left, right = tree_leaves(a), tree_leaves(b)
    if len(left) != len(right) or any(x.shape != y.shape for x, y in zip(left, right, strict=True)):
        return float("inf")
    gaps = [0.0]
    for x, y in zip(left, right, strict=True):
        different = (x != y) & ~((x != x) & (y != y))
        gap = (x.to(torch.float64) - y.to(torch.float64)).abs()
        gaps.append(float(torch.where(different, gap.nan_to_num(torch.inf), 0.0).max()) if x.numel() else 0.0)
    return max(gaps)


def equal(a: Any, b: Any, what: str, tolerance: float = 0.0) -> None:
    """Raise Broken unless two trees agree."""
    gap = largest_gap(a, b)
    if not gap <= tolerance:
        raise Broken(f"{what} differ by {gap:.3g}")


def _learner(subject: Any, optimiser: Any = None) -> AnyLearner:
    return (
        Learner(MLP(8), subject, optimiser or Adam(0.01))
        if isinstance(subject, Strategy)
        else dataclasses.replace(subject, model=MLP(8))
    )


def alone_is_fleet(subject: Any) -> None:
    """Seed 3 in a fleet of one and of three, every setting, float32, to the bit."""
    for setting in SETTINGS:
        alone = states(_learner(subject), stream_for(subject, setting), [3], torch.float32)
        fleet = states(_learner(subject), stream_for(subject, setting), [1, 3, 4], torch.float32)
        equal(
            alone.params, tree_map(lambda leaf: leaf[1:2], fleet.params), f"{setting}: parameters alone and in a fleet"
        )


def fleet_is_pure(subject: Any) -> None:
    """The fleet, in place, and the pure `step` and `end_task`, seed by seed, in float64."""
    # a large epsilon and a small rate: Adam would else make full steps of rounding errors, and SGD overshoot a stiff penalty
    for optimiser in (Adam(0.01, epsilon=1e-4), SGD(0.005, momentum=0.9)):
        learner, stream, seeds = _learner(subject, optimiser), stream_for(subject), [0, 2]
        fleet = states(learner, stream, seeds, torch.float64)
        one = Session(learner, stream, seeds, dtype=torch.float64)
        start = one.first_state()
        for s in range(len(seeds)):
            problem = dataclasses.replace(one.fleet.problem, rules={k: v[s] for k, v in one.feed.rules.items()})
            state = tree_map(lambda leaf, s=s: leaf[s].clone(), start)
            for task in range(one.tasks):
                for batch in one.feed.batches(task):
                    state = learner.step(problem, state, tree_map(lambda leaf, s=s: leaf[s], batch))
                if stream.reading != "joint" or task == one.tasks - 1:
                    finished = tree_map(lambda leaf, s=s: leaf[s], one.feed.finished(task))
                    state = learner.end_task(problem, state, finished)
            equal(state.params, tree_map(lambda leaf, s=s: leaf[s], fleet.params), "fleet and pure step", 1e-9)


def memory_keeps_shape(subject: Any) -> None:
    """Memory has the same tree, shapes and dtypes before and after two tasks."""
    learner, stream = _learner(subject), stream_for(subject)
    before = Session(learner, stream, [0]).first_state()
    after = states(learner, stream, [0], torch.float32)
    described = [[(tuple(leaf.shape), leaf.dtype) for leaf in tree_leaves(s.memory)] for s in (before, after)]
    if described[0] != described[1]:
        pairs = zip(described[0], described[1], strict=False)
        raise Broken(next((f"{a} became {b}" for a, b in pairs if a != b), "the tree has other leaves"))


def starts_silent(subject: Any) -> None:
    """A part that consolidates gives a penalty of exactly 0, and leaves the gradient alone, during the first task."""
    if not (isinstance(subject, Strategy) and fills(subject, "after_task")) or _together(subject):
        return
    stream = tiny(tasks=2)[:1]
    assert isinstance(stream, Stream)
    one = Session(_learner(subject), stream, [0])
    state, learner = one.first_state(), one.learner
    assert isinstance(learner, Learner)
    for batch in one.feed.batches(0):
        state, _ = one.fleet.step(state, batch, 0.0)
        problem, own = _first(one), tree_map(lambda leaf: leaf[0], state)
        single = tree_map(lambda leaf: leaf[0], batch)
        single = learner.sum.extend(problem, own.params, own.memory, single)
        outputs = problem.outputs(own.params, single.x)
        value = float(learner.sum.penalty(problem, own.params, own.memory, single, outputs))
        if value != 0.0:
            raise Broken(f"its penalty is {value:.3g} before any task has ended")
        gradients = {"net": own.params["net"]}
        changed = learner.sum.grads(problem, own.params, own.memory, single, gradients)
        equal(gradients, changed, "before any task has ended, gradients before and after its `grads`")


def nothing_is_fine_tuning(subject: Any) -> None:
    """With strength 0, or size 0, it is fine-tuning, to the bit."""
    fields = {f.name for f in dataclasses.fields(subject)} if dataclasses.is_dataclass(subject) else set()
    names = fields & {"strength", "size", "per_class"}
    if not isinstance(subject, Strategy) or not names:
        return
    off = dataclasses.replace(subject, **{name: type(getattr(subject, name))(0) for name in names})
    for setting in SETTINGS:
        a, b = (states(_learner(s), stream_for(subject, setting), [0, 1], torch.float32) for s in (off, FineTuning()))
        equal(a.params["net"], b.params["net"], f"{setting}: {off!r} and fine-tuning")


def inputs_untouched(subject: Any) -> None:
    """A pure step writes into none of its arguments."""
    one = Session(_learner(subject), stream_for(subject), [0])
    problem, state = _first(one), tree_map(lambda leaf: leaf[0], one.first_state())
    for batch in one.feed.batches(0):
        single = tree_map(lambda leaf: leaf[0], batch)
        before = tree_map(torch.clone, (state, single))
        new = one.learner.step(problem, state, single)
        equal((state, single), before, "arguments before and after")
        state = new
    finished = tree_map(lambda leaf: leaf[0], one.feed.finished(0))
    before = tree_map(torch.clone, (state, finished))
    one.learner.end_task(problem, state, finished)
    equal((state, finished), before, "arguments before and after the task's end")


def repr_round_trips(subject: Any) -> None:
    """Its repr is the text that builds it."""
    kind = "strategies" if isinstance(subject, Strategy) else "learners"
    if expression.parse(repr(subject), kind) != subject:
        raise Broken(f"{subject!r} does not come back from its own text")


def empty_adds_nothing(subject: Any) -> None:
    """Adding the empty strategy changes nothing."""
    if isinstance(subject, Strategy):
        both = (states(_learner(s), stream_for(subject), [0], torch.float32) for s in (subject, FineTuning() + subject))
        equal(*both, "with and without FineTuning()")


def task_is_withheld(subject: Any) -> None:
    """Where the stream withholds the task, answers do not depend on the number that is told."""
    one = Session(_learner(subject), stream_for(subject), [0])
    state = states(_learner(subject), stream_for(subject), [0], torch.float32)
    row = one.feed.rules["rows_test"][:, 0, :5]
    number = torch.zeros_like(row)
    ready = one.fleet.prepare(state)
    scores = one.fleet.predict(ready, row, number, torch.full_like(row, -1))
    equal(scores, one.fleet.predict(ready, row, number, torch.arange(5)[None] % 3), "answers with other task numbers")


class _Killed:
    """A keeper in memory that stops a run after some steps, and hands its course back."""

    def __init__(self, after: int) -> None:
        self.after, self.saved, self.final = after, None, None

    def restore(self, chunk: int, course: Course) -> Course:
        return self.saved or course

    def boundary(self, chunk: int, course: Course) -> None:
        self.after -= 1
        if self.after == 0:
            copy = dataclasses.replace(course, state=tree_map(torch.clone, course.state), losses=course.losses.clone())
            self.saved = dataclasses.replace(copy, accuracy=list(course.accuracy), when=list(course.when))
            raise Stopped

    def finish(self, chunk: int, course: Course, result: Result) -> None:
        self.final = course.state


def killed_is_whole(subject: Any) -> None:
    """A run that was stopped and went on ends where the whole one does, to the bit."""
    whole = states(_learner(subject), stream_for(subject), [0, 1], torch.float32)
    for after in (2, 6, 9):
        keeper = _Killed(after)
        try:
            run(_learner(subject), stream_for(subject), [0, 1], keeper=keeper)
        except Stopped:
            run(_learner(subject), stream_for(subject), [0, 1], keeper=keeper)
        equal(keeper.final, whole, f"stopped after {after} steps, and whole")


def stays_finite(subject: Any) -> None:
    """Parameters are finite after every setting's stream."""
    for setting in SETTINGS:
        state = states(_learner(subject, Adam(1e-3)), stream_for(subject, setting), [0], torch.float32)
        if not all(bool(leaf.isfinite().all()) for leaf in tree_leaves(state.params)):
            raise Broken(f"{setting}: some parameter is not finite")


def _first(one: Session) -> Problem:
    return dataclasses.replace(one.fleet.problem, rules={name: value[0] for name, value in one.feed.rules.items()})


LEARNER_CHECKS = (
    Check(
        "alone and in a fleet it learns the same",
        alone_is_fleet,
        "Keep all state in memory and draw no random numbers: ask for uniforms_per_row.",
    ),
    Check(
        "the fleet equals the pure step",
        fleet_is_pure,
        "Return new tensors, write nothing in place, and use torch.where for choices.",
    ),
    Check(
        "memory keeps its shapes and dtypes",
        memory_keeps_shape,
        "Size every tensor in init; use flags or zero weights for 'not yet'.",
    ),
    Check(
        "it is silent before the first task ends",
        starts_silent,
        "Start importances at 0, or multiply the penalty by a flag.",
    ),
    Check(
        "strength or size 0 is fine-tuning",
        nothing_is_fine_tuning,
        "Scale everything you add by strength; return the batch as it came at size 0.",
    ),
    Check("its inputs stay untouched", inputs_untouched, "Use a + b, not a += b, on tensors that you were given."),
    Check(
        "its repr builds it again", repr_round_trips, "Make it a @dataclass(frozen=True) whose fields are plain values."
    ),
    Check("adding the empty strategy changes nothing", empty_adds_nothing, "Do not look at other parts of a sum."),
    Check("withheld task numbers do not matter", task_is_withheld, "In predict, use the task only where it is not -1."),
    Check(
        "stopped and resumed it is the same",
        killed_is_whole,
        "Keep what changes in memory, not in the object or the module.",
    ),
    Check("it stays finite", stays_finite, "Look for divisions by 0 and logarithms of 0."),
)


def check_strategy(strategy: Strategy) -> Iterator[tuple[str, str, str]]:
    """The contract on one strategy: (check, what was seen or "", how to mend it), one after another."""
    return check_learner(strategy)


def check_learner(subject: Any) -> Iterator[tuple[str, str, str]]:
    """The contract on one strategy or learner."""
    for check in LEARNER_CHECKS:
        yield check.name, _seen(check, subject), check.mend


def _seen(check: Check, subject: Any) -> str:
    try:
        check.holds(subject)
    except Broken as broken:
        return str(broken)
    except Exception as error:  # a user's method may raise anything; the line says what
        words = str(error).strip().splitlines()
        return f"{type(error).__name__}: {words[0] if words else ''}"[:300]
    return ""


# --- streams ------------------------------------------------------------------------------------------------------


def tasks_are_sound(stream: Stream) -> None:
    """Parts of a task share no row, every part but validation has rows, and labels fit the stream's classes."""
    for task in stream:
        parts = [set(rows.tolist()) for rows in (task.train, task.validation, task.test)]
        if parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]:
            raise Broken(f"task {task.number} trains on rows that it is validated or tested on")
        if not parts[0] or not parts[2]:
            raise Broken(f"task {task.number} has no training or no test rows")
        y = stream.table.y.cpu()
        for rows in (task.train, task.test):
            labels = task.label[y[rows]]
            if int(labels.min()) < 0 or not set(labels.unique().tolist()) <= set(task.classes):
                raise Broken(f"task {task.number} has rows whose class is not one of its own")
        if max(task.classes) >= stream.classes:
            raise Broken(f"task {task.number} names class {max(task.classes)} of {stream.classes}")


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
        raise Broken(f"it says {len(stream)} tasks and gives {len(tasks)}")
    for i, task in enumerate(tasks):
        equal([stream[i].train, stream[i].test], [task.train, task.test], f"stream[{i}] and the {i}th in turn")
    part = stream[1:] if len(stream) > 1 else stream[:]
    if len(list(part)) != max(len(stream) - 1, 1):
        raise Broken("a slice does not hold the tasks that it names")


def promised_disjoint(stream: Stream) -> None:
    """Where tasks show the same transformation, they share no training row; class-incremental ones share no class."""
    tasks = list(stream)
    plain = all(task.permutation is None and not task.angle for task in tasks)
    for i, a in enumerate(tasks):
        for b in tasks[i + 1 :]:
            if plain and set(a.train.tolist()) & set(b.train.tolist()):
                raise Broken(f"tasks {a.number} and {b.number} share rows")
            if stream.setting != "domain" and set(a.classes) & set(b.classes):
                raise Broken(f"tasks {a.number} and {b.number} share classes")


STREAM_CHECKS = (
    Check("its tasks are sound", tasks_are_sound, "Look at the rows and labels that `tasks(table, seed)` gives."),
    Check(
        "a seed gives the same tasks again",
        seeds_reproduce,
        "Draw from scenarios.stream.generator(seed, ...), not from a global generator.",
    ),
    Check("indexing is iterating", indexing_is_iterating, "Set `length` to the number of tasks that the recipe gives."),
    Check(
        "tasks are as disjoint as promised",
        promised_disjoint,
        "Number classes apart, or make the stream domain-incremental.",
    ),
)


def check_stream(stream: Stream) -> Iterator[tuple[str, str, str]]:
    """The contract on one stream."""
    for check in STREAM_CHECKS:
        yield check.name, _seen(check, stream), check.mend


def try_out(learner: AnyLearner, tasks: int = 2) -> None:
    """A few steps of a learner that a user's file has a part in; raises a Refusal in one line where it breaks."""
    stream = stream_for(getattr(learner, "strategy", None), tasks=tasks)
    stream = dataclasses.replace(stream, budget=Budget(iterations=1, batch=4))
    try:
        states(dataclasses.replace(learner, model=MLP(8)), stream, [0], torch.float32)
    except Refusal:
        raise
    except Exception as error:  # a user's method may raise anything
        words = (str(error).strip().splitlines() or [""])[0][:200]
        raise Refusal(
            f"{learner!r} breaks ({type(error).__name__}: {words}); `lifelong check FILE.py` says how to mend it"
        ) from None


def check_target(target: str) -> Iterator[tuple[str, str, str, str]]:
    """The contract on what a user's file defines: (check, subject, what was seen or "", how to mend it)."""
    from lifelong.meta.checks import check_initialisation
    from lifelong.meta.initialisation import Initialisation
    from scenarios.catalogue import CATALOGUE, build

    path, _, name = target.partition(".py:")
    path = path if path.endswith(".py") else f"{path}.py"
    known = set(CATALOGUE)
    module = expression.load_file(path)
    found: list[tuple[str, Any]] = []
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    if name and name not in own:
        raise Refusal(f"{path}: has no {name!r}: {expression.suggest(name, own)}")
    for key in own:
        value = getattr(module, key)
        method = inspect.isclass(value) and (issubclass(value, Strategy | Initialisation) or hasattr(value, "end_task"))
        if (not name or key == name) and method and dataclasses.is_dataclass(value):
            found.append((key, expression.make(expression.from_file(path, key), f"{path}:{key}", [], {})))
        elif (not name or key == name) and inspect.isclass(value) and issubclass(value, Strategy | Initialisation):
            raise Refusal(f"{path}: {key} must be a frozen dataclass: write @dataclass(frozen=True) above it")
    for key in sorted(set(CATALOGUE) - known) if not name else []:
        found.append((key, build(CATALOGUE[key])))
    if not found:
        raise Refusal(f"{path}: defines no strategy, learner, initialisation or registered scenario to check")
    for key, subject in found:
        contracts = {Stream: check_stream, Initialisation: check_initialisation}
        rows = next((check for kind, check in contracts.items() if isinstance(subject, kind)), check_learner)(subject)
        for check, seen, mend in rows:
            yield check, key, seen, mend
