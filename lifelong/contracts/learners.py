"""The contract: what every strategy, learner and stream must pass, ours and yours. `lifelong check` runs it."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.core.batch import Block, FinishedTask
from lifelong.core.files import named
from lifelong.core.fleet import MappedFleet
from lifelong.core.learner import AnyLearner, Learner, State
from lifelong.core.loop import (
    Checkpointer,
    Done,
    Event,
    Options,
    Session,
    Stepped,
    Stopped,
    TaskEnded,
    TrainingState,
    chunks,
    learned,
    run,
)
from lifelong.core.problem import Problem
from lifelong.core.recorded import NotRecorded
from lifelong.core.result import Result
from lifelong.core.settings import is_real
from lifelong.core.strategy import FineTuning, Strategy, fills
from lifelong.models.base import Model, Net
from lifelong.models.perceptron import MLP
from lifelong.notation import expression
from lifelong.notation.user_code import file_of, user_line, words_of
from lifelong.notation.varied import Varied, with_values
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.replay.replay import Replay
from scenarios.errors import ConfigurationError
from scenarios.joint import joint
from scenarios.split import split
from scenarios.stream import SETTINGS, Budget, Stream
from scenarios.synthetic import blobs


class CheckFailed(Exception):
    """A check that does not hold; the message says what was seen."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the contract: what must hold, how it is tried, and how to mend it."""

    name: str
    holds: Callable[..., None]
    mend: str


def tiny(setting: str = "class", iterations: int = 6, tasks: int = 3, batch: int = 4, classes: int = 6) -> Stream:
    """A stream of milliseconds: Gaussian clouds, the classes divided over the tasks; a tenth of the rows validate."""
    budget = Budget(iterations=iterations, batch=batch)
    return split(blobs(classes, 6, 24), tasks, setting, budget=budget, validation=0.1)


def stream_for(subject: Any, setting: str = "class", **sizes: int) -> Stream:
    """The tiny stream as this subject reads it, 4 steps a task: jointly where a part weighs tasks learned together."""
    stream = tiny(setting, **{"iterations": 4, **sizes})
    return joint(stream) if _together(subject) else stream


def _needs(subject: Any) -> list[Any]:
    return [needs for _, needs in _learner(subject).requirements]


def _together(subject: Any) -> bool:
    """Whether a part needs tasks that are learned together."""
    return any(needs.paradigm == "joint" for needs in _needs(subject))


def settings_for(subject: Any) -> list[str]:
    """The settings that it is meant for."""
    needs = _needs(subject)
    told = any(need.task_id for need in needs)
    return [s for s in SETTINGS if all(s in need.settings for need in needs) and (s == "task" or not told)]


def first_setting(subject: Any) -> str:
    """Class-incremental where it is meant for it, else what comes first."""
    fitting = settings_for(subject)
    return "class" if "class" in fitting else fitting[0]


def states(learner: AnyLearner, stream: Stream, seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> Any:
    """The final state of a fleet, as a tree of tensors, by the loop's own way."""
    session = Session(learner, stream, list(seeds), dtype=dtype)
    return session.fleet.tensors(learned(session)[1])


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


def equal(a: Any, b: Any, words: str, tolerance: float = 0.0) -> None:
    """Raise CheckFailed unless two trees agree."""
    gap = largest_gap(a, b)
    if not gap <= tolerance:
        raise CheckFailed(f"{words} differ by {gap:.3g}")


def on_small_network(learner: AnyLearner) -> AnyLearner:
    """The learner on a small network; itself where it brings a network of its own."""
    takes = any(field.name == "model" for field in dataclasses.fields(learner))
    return dataclasses.replace(learner, model=MLP(8)) if takes else learner


def _learner(subject: Any, optimiser: Any = None) -> AnyLearner:
    """A strategy on the network that it is to be checked on, or a learner on a small one."""
    if not hasattr(subject, "objective"):  # a learner
        return subject if subject.looped else on_small_network(subject)
    parts = subject.parts
    return Learner(parts[0].checked_with if parts else MLP(8), subject, optimiser or Adam(0.01))


def _member(tree: Any, s: int) -> Any:
    """One member's part of stacked tensors, or of a looped fleet's."""
    if isinstance(tree, dict) and str(s) in tree:
        return tree[str(s)]
    return tree_map(lambda leaf: leaf[s], tree)


def alone_is_fleet(subject: Any) -> None:
    """Seed 3 in a fleet of one and of three: to the bit in float32 for 10 classes and batches of 32, every setting; to
    1e-12 in float64 for 9 classes and batches of 7, whose products a processor may sum in another order."""
    cases = [(setting, 10, 5, 2, 32, torch.float32, 0.0) for setting in settings_for(subject)]
    cases.append((first_setting(subject), 9, 3, 3, 7, torch.float64, 1e-12))
    # rounding must not be turned into full steps, as Adam turns it where a gradient is all but 0
    smooth = Adam(0.01, epsilon=1e-4)
    for setting, classes, tasks, iterations, batch, dtype, tolerance in cases:
        stream = stream_for(subject, setting, tasks=tasks, classes=classes, batch=batch, iterations=iterations)
        learner = _learner(subject, smooth if tolerance else None)
        alone, fleet = (states(learner, stream, seeds, dtype) for seeds in ([3], [1, 3, 4]))
        words = f"{setting}, {classes} classes, batches of {batch}: what is learned alone and in a fleet"
        equal(_learned_by(_member(alone, 0)), _learned_by(_member(fleet, 1)), words, tolerance)


def _learned_by(state: Any) -> Any:
    """What was learned: parameters and memory, or a looped member's tensors."""
    return (state.params, state.memory) if isinstance(state, State) else state


def companions_of_other_lengths(subject: Any) -> None:
    """With a budget of one pass over tasks of unequal sizes, a seed learns the same alone and with others."""
    stream = stream_for(subject, first_setting(subject), classes=10, tasks=5)
    stream = dataclasses.replace(
        stream, task_generator=_Uneven(stream.task_generator), budget=Budget(epochs=1, batch=32, repeats=2)
    )
    learner = _learner(subject)
    sessions = [Session(learner, stream, seeds) for seeds in ([3], [1, 3, 4])]
    (alone, left), (fleet, right) = (learned(session) for session in sessions)
    equal(alone.accuracy[0], fleet.accuracy[1], "one pass: accuracies alone and with others of other lengths")
    left, right = (session.fleet.tensors(state) for session, state in zip(sessions, (left, right), strict=True))
    equal(
        _learned_by(_member(left, 0)), _learned_by(_member(right, 1)), "one pass: what is learned alone and with others"
    )


@dataclasses.dataclass(frozen=True)
class _Uneven:
    """A task generator whose tasks have fewer rows to train on, another number for each seed."""

    task_generator: Any

    def tasks(self, dataset: Any, seed: int) -> list[Any]:
        tasks = self.task_generator.tasks(dataset, seed)
        return [
            dataclasses.replace(task, train=task.train[: 40 - 3 * ((seed + t) % 7)]) for t, task in enumerate(tasks)
        ]


class PureFleet(MappedFleet):
    """Members one after another by the learner's own pure methods: what a mapped fleet is held against."""

    def _each(self, method: str, state: Any, *arguments: Any) -> Any:
        results = []
        for s, learner in enumerate(self.learners):
            index = {name: value[s] for name, value in self.problem.index.items()}
            problem = dataclasses.replace(self.problem, model=learner.model, index=index)
            parts = (tree_map(lambda leaf, s=s: leaf[s].clone(), part) for part in (state, *arguments))
            results.append(getattr(learner, method)(problem, *parts))
        return tree_map(lambda *leaves: torch.stack(leaves), *results)

    def steps(self, state: Any, block: Block, through: Any = ()) -> tuple[Any, torch.Tensor]:
        """Pure steps of every member."""
        for rows in block.each():
            state = self._each("step", state, self._look_up(self.problem.index, rows))
        return state, torch.zeros(block.row.shape[:2])

    def after_task(self, state: Any, task: FinishedTask) -> Any:
        """Every member by itself."""
        return self._each("after_task", state, task)


def fleet_is_pure(subject: Any) -> None:
    """The fleet, in place, and the pure `step` and `after_task`, seed by seed, in float64."""
    if _learner(subject).looped:
        return
    # a large epsilon and a small rate: Adam would else make full steps of rounding errors, and SGD overshoot a stiff penalty
    for optimiser in (Adam(0.01, epsilon=1e-4), SGD(0.005, momentum=0.9)):
        learner, stream = _learner(subject, optimiser), stream_for(subject, first_setting(subject))
        sessions = [Session(learner, stream, [0, 2], dtype=torch.float64) for _ in range(2)]
        fleet, pure = (learned(session)[1] for session in (sessions[0], sessions[1].by(PureFleet)))
        equal(fleet.params, pure.params, "fleet and pure step", 1e-9)


def memory_keeps_shape(subject: Any) -> None:
    """Memory has the same tree, shapes and dtypes before and after two tasks."""
    learner, stream = _learner(subject), stream_for(subject, first_setting(subject))
    if learner.looped:
        return
    before = Session(learner, stream, [0]).first_state()
    after = states(learner, stream, [0])
    described = [
        {name: (tuple(leaf.shape), leaf.dtype) for name, leaf in named(s.memory).items()} for s in (before, after)
    ]
    for name in sorted(described[0].keys() | described[1].keys()):
        shapes = [each.get(name, "nothing") for each in described]
        if shapes[0] != shapes[1]:
            raise CheckFailed(f"{name} was {shapes[0]} and became {shapes[1]}")


def starts_silent(subject: Any) -> None:
    """Unless it says that it acts at once: during the first task its penalty is 0 and the gradient left alone."""
    learner = _learner(subject)
    parts = [part for part in _parts(subject) if fills(part, "after_task")]
    if not parts or any(part.acts_at_once for part in _parts(subject)) or _together(subject):
        return
    assert isinstance(learner, Learner)
    stream = stream_for(subject, first_setting(subject), tasks=2)[:1]
    session = Session(learner, stream, [0])
    for event in session.events(session.begin()):
        if isinstance(event, Stepped) and not event.last:
            _silent(learner, session, event.state)


def _silent(learner: Learner, session: Session, state: TrainingState) -> None:
    problem, now = _first(session), tree_map(lambda leaf: leaf[0], state.fleet)
    batch = tree_map(lambda leaf: leaf[0], next(session.sampler.batches(0, state.iteration)))
    batch = learner.parts.extend(problem, now.params, now.memory, batch)
    outputs = problem.outputs(now.params, batch.x)
    value = float(learner.parts.penalty(problem, now.params, now.memory, batch, outputs))
    if value != 0.0:
        raise CheckFailed(f"its penalty is {value:.3g} before any task has ended")
    gradients = tree_map(torch.clone, learner.trained(now.params))
    changed, _ = learner.parts.grads(problem, now.params, now.memory, batch, gradients)
    equal(gradients, changed, "before any task has ended, gradients before and after its `grads`")


def _parts(subject: Any) -> tuple[Strategy, ...]:
    learner = _learner(subject)
    return learner.parts.parts if isinstance(learner, Learner) else ()


def nothing_is_fine_tuning(subject: Any) -> None:
    """With the settings that it declares as `off`, it is fine-tuning, to the bit."""
    if not subject.off:
        return
    off = dataclasses.replace(subject, **subject.off)
    for setting in settings_for(subject):
        learner = _learner(off)
        net = states(learner, stream_for(subject, setting), [0, 1]).params["net"]
        plain = _fine_tuned(learner.model, setting, _together(subject))
        equal(net, plain, f"{setting}: {off!r} and fine-tuning")


@functools.lru_cache(maxsize=32)
def _fine_tuned(model: Model, setting: str, together: bool) -> Net:
    """What fine-tuning learns of the tiny stream; the same for every subject that is held against it."""
    stream = tiny(setting, iterations=4)
    learner = Learner(model, FineTuning(), Adam(0.01))
    return states(learner, joint(stream) if together else stream, [0, 1]).params["net"]


def inputs_untouched(subject: Any) -> None:
    """A pure step writes into none of its arguments."""
    session = Session(_learner(subject), stream_for(subject, first_setting(subject)), [0])
    learner: Any = session.fleet.learner
    if learner.looped:
        return
    problem, state = _first(session), tree_map(lambda leaf: leaf[0], session.first_state())
    for batch in session.sampler.batches(0):
        single = tree_map(lambda leaf: leaf[0], batch)
        before = tree_map(torch.clone, (state, single))
        new = learner.step(problem, state, single)
        equal((state, single), before, "arguments before and after")
        state = new
    finished = tree_map(lambda leaf: leaf[0], session.sampler.finished(0))
    before = tree_map(torch.clone, (state, finished))
    for share in learner.schedule:
        learner.at_milestone(problem, state, finished, share)
    learner.after_task(problem, state, finished)
    equal((state, finished), before, "arguments before and after the task's end")


def repr_round_trips(subject: Any) -> None:
    """Its repr is the text that builds it."""
    kind = "strategies" if hasattr(subject, "objective") else "learners"
    if expression.parse(repr(subject), kind) != subject:
        raise CheckFailed(f"{subject!r} does not come back from its own text")


def nothing_beside_it_matters(subject: Any) -> None:
    """X, Replay(size=0) + X, X + Replay(size=0) and FineTuning() + X learn the same, to the bit."""
    if not hasattr(subject, "objective") or any(type(part) is Replay for part in subject.parts):
        return
    none = Replay(size=0, weighting="equal")
    apart = _together(subject) or any(part.alone for part in subject.parts)
    beside = [FineTuning() + subject] + ([] if apart else [none + subject, subject + none])
    stream = stream_for(subject, first_setting(subject))
    alone = states(_learner(subject), stream, [0, 1])
    for total in beside:
        summed = states(dataclasses.replace(_learner(subject), strategy=total), stream, [0, 1])
        equal(summed.params["net"], alone.params["net"], f"{total!r} and {subject!r}")


def varied_is_alone(subject: Any) -> None:
    """Every real number of it may vary within a fleet: a member learns what that setting learns alone, to the bit.

    Three numbers vary at a time, and the fleet's first and last setting are run alone; where they differ each number is
    tried by itself, so that it can be named.
    """
    others = {}
    for field in dataclasses.fields(subject) if dataclasses.is_dataclass(subject) else ():
        if is_real(subject, (field.name,)):
            value = getattr(subject, field.name)
            others[field.name] = (value, _another(subject, field.name, value))
    names = [name for name, (_, other) in others.items() if other is not None]
    for first in range(0, len(names), 3):
        chosen = names[first : first + 3]
        try:
            _varied_together(subject, {name: others[name] for name in chosen})
        except CheckFailed:
            for name in chosen:
                _varied_together(subject, {name: others[name]})
            raise


def _varied_together(subject: Any, pairs: dict[str, tuple[Any, Any]]) -> None:
    """Some numbers of it, two values of each, in one fleet; those settings alone that have all first, or all second values."""
    learner, where = _learner(subject), ("strategy",) if hasattr(subject, "objective") else ()
    stream = stream_for(subject, first_setting(subject), classes=10, tasks=5, batch=32, iterations=3)
    together = _by_member(with_values(learner, {(*where, name): Varied(pair) for name, pair in pairs.items()}), stream)
    for place in (0, 1):
        setting = with_values(learner, {(*where, name): pair[place] for name, pair in pairs.items()})
        words = ", ".join(f"{name}={pair[place]!r}" for name, pair in pairs.items())
        result, state = learned(Session(setting, stream, [3]))
        alone = _member(state, 0).params if isinstance(state, State) else ()
        measured, fleet = together[words, 3]
        equal(measured.losses[0], result.losses[0], f"{words}: losses alone and in a varied fleet")
        equal(measured.accuracy[0], result.accuracy[0], f"{words}: accuracies alone and varied")
        equal(fleet, alone, f"{words}: what is learned alone and in a varied fleet")


def _by_member(learner: AnyLearner, stream: Stream) -> dict[tuple[str, int], tuple[Result, Any]]:
    """What seeds 1 and 3 of every setting measure and learn, by the setting's words and the seed."""
    found = {}
    for members in chunks(learner, [1, 3], 0):
        result, state = learned(Session.of_members(members, stream, Options()))
        for s, member in enumerate(members):
            # parameters alone: what is remembered may be rounded once more, as 1 - decay is where decay is a tensor
            mine = _member(state, s).params if isinstance(state, State) else ()
            found[member.setting.words, member.seed.order] = (result.members([s]), mine)
    return found


def _another(subject: Any, name: str, value: float) -> float | None:
    """Another value of a field that the record accepts."""
    for other in (1.5 * value + 0.125, 0.5 * value, value - 0.25):
        try:
            dataclasses.replace(subject, **{name: other})
        except ConfigurationError:
            continue
        if other != value:
            return other
    return None


def task_is_withheld(subject: Any) -> None:
    """Where the stream withholds the task, answers do not depend on the number that is told."""
    if first_setting(subject) == "task":
        return  # it is meant to be told
    learner, stream = _learner(subject), stream_for(subject, first_setting(subject))
    session = Session(learner, stream, [0])
    state = learned(session)[1]
    row = session.fleet.problem.index["rows_test"][:, 0, :5]
    number = torch.zeros_like(row)
    ready = session.fleet.prepare(state, session.sampler.prepared(0, 0))
    scores = session.fleet.predict(ready, row, number, torch.full_like(row, -1))
    again = session.fleet.predict(ready, row, number, torch.arange(5)[None] % 3)
    equal(scores, again, "answers with other task numbers")


class _Killed(Checkpointer):
    """A checkpointer in memory that stops a run after some chances to save, and goes on from there."""

    def __init__(self, after: int) -> None:
        self.after, self.saved, self.final = after, None, None

    def restore(self, chunk: int, session: Session, state: TrainingState) -> TrainingState | Result:
        if self.saved is None:
            return state
        saved = dataclasses.replace(self.saved, probes={k: list(v) for k, v in self.saved.probes.items()})
        return dataclasses.replace(saved, fleet=session.fleet.restored(state.fleet, self.saved.fleet))

    def __call__(self, chunk: int, session: Session, event: Event) -> None:
        self.final = session.fleet.tensors(event.state.fleet)
        within = isinstance(event, Stepped) and not event.last and session.fleet.resumes_within_tasks
        if within or isinstance(event, TaskEnded):
            self.after -= 1
            if self.after == 0:
                self.saved = _copied(event.state, self.final)
                raise Stopped


def _copied(state: TrainingState, fleet: Any) -> TrainingState:
    """A training state that nobody goes on to change, with the tensors of its fleet."""
    return dataclasses.replace(
        state, fleet=tree_map(torch.clone, fleet), losses=state.losses.clone(), accuracy=list(state.accuracy),
        when=list(state.when), probes={k: list(v) for k, v in state.probes.items()},
    )  # fmt: skip


def recorded_is_eager(subject: Any) -> None:
    """Steps that are recorded and played back, and steps taken operation by operation: to the bit over two tasks, the
    milestones in them, and a stop with another recording after it. What cannot be recorded is refused with its reason."""
    learner, stream = _learner(subject), stream_for(subject, first_setting(subject), tasks=2, iterations=8)
    if learner.looped:
        return
    result, eager = learned(Session(learner, stream, [0, 1], eval_every=3, record=False))
    played = [Session(learner, stream, [0, 1], eval_every=3, record=True) for _ in range(2)]
    kept: TrainingState | None = None
    ends: list[tuple[str, Result, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotRecorded)
        try:
            for event in played[0].events(played[0].begin()):
                if isinstance(event, Stepped) and (event.state.task, event.state.iteration) == (1, 3):
                    kept = _copied(event.state, event.state.fleet)
                if isinstance(event, Done):
                    ends.append(("recorded", event.result, event.state.fleet))
            ends.append(("recorded, stopped and recorded again", *learned(played[1], kept)))
        except NotRecorded as warning:
            raise CheckFailed(str(warning)) from None
    for words, measured, state in ends:
        equal(state, eager, f"{words}, and eager: what is learned")
        equal((measured.losses, measured.accuracy), (result.losses, result.accuracy), f"{words}, and eager: results")


def killed_is_whole(subject: Any) -> None:
    """A run that was stopped and went on ends where the whole one does, and measured the same, to the bit."""
    stream = stream_for(subject, first_setting(subject))
    never = _Killed(0)
    measured = run(_learner(subject), stream, [0, 1], eval_every=2, checkpointer=never)
    # within a task, at its end, and within the next
    for after in (1, 2) if _learner(subject).looped else (2, 4, 7):
        checkpointer = _Killed(after)
        try:
            result = run(_learner(subject), stream, [0, 1], eval_every=2, checkpointer=checkpointer)
        except Stopped:
            result = run(_learner(subject), stream, [0, 1], eval_every=2, checkpointer=checkpointer)
        equal(checkpointer.final, never.final, f"stopped after {after} steps, and whole")
        for name in ("when", "accuracy", "losses"):
            seen, expected = (getattr(each, name) for each in (result, measured))
            equal(seen, expected, f"stopped after {after} steps, and whole: {name}")


def stays_finite(subject: Any) -> None:
    """Parameters are finite after every setting's stream."""
    for setting in settings_for(subject):
        state = states(_learner(subject, Adam(1e-3)), stream_for(subject, setting), [0])
        params = state.params if isinstance(state, State) else state
        if not all(bool(leaf.isfinite().all()) for leaf in tree_leaves(params)):
            raise CheckFailed(f"{setting}: some parameter is not finite")


def runs_on_any_device(subject: Any) -> None:
    """Every verb runs on tensors of the `meta` device, which have no values: none is left on the processor, none read."""
    session = Session(_learner(subject), stream_for(subject, first_setting(subject)), [0])
    learner: Any = session.fleet.learner
    if learner.looped:
        return

    def moved(tree: Any) -> Any:
        return tree_map(lambda leaf: leaf[0].to("meta") if isinstance(leaf, torch.Tensor) else leaf, tree)

    problem = _first(session)
    batch, task = moved(next(session.sampler.batches(0))), moved(session.sampler.finished(0))
    params, draws = moved(session.first_state().params), moved(session.sampler.prepared(0, 0))
    index = {name: value.to("meta") for name, value in problem.index.items()}
    problem = dataclasses.replace(problem, dataset=problem.dataset.to("meta"), index=index)
    plain = {"net": params["net"]}
    state = learner.init(problem, plain, torch.Generator())
    state = learner.step(problem, state, batch)
    for share in learner.schedule:
        state = learner.at_milestone(problem, state, task, share)
    state = learner.step(problem, learner.after_task(problem, state, task), batch)
    ready = learner.prepare(problem, state, draws)
    scores = learner.predict(problem, ready, batch.x, torch.full_like(batch.task, 0))
    left = {leaf.device.type for leaf in tree_leaves((state, ready, scores)) if leaf.numel()} - {"meta"}
    if left:
        raise CheckFailed(f"some tensor was left on {', '.join(left)}: make it with problem.zeros or new_zeros")


def _first(session: Session) -> Problem:
    index = {name: value[0] for name, value in session.fleet.problem.index.items()}
    return dataclasses.replace(session.fleet.problem, index=index)


LEARNER_CHECKS = (
    Check(
        "alone and in a fleet it learns the same",
        alone_is_fleet,
        "Keep all state in memory and draw no random numbers: ask for them in `draws`.",
    ),
    Check(
        "seeds of other lengths beside it do not matter",
        companions_of_other_lengths,
        "Use task.valid and batch.shown: padding is no row.",
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
        "Start importances at 0, or multiply the penalty by a flag; or declare acts_at_once = True.",
    ),
    Check(
        "what it declares as off is fine-tuning",
        nothing_is_fine_tuning,
        "Scale everything you add by strength; return the batch as it came at size 0.",
    ),
    Check("its inputs stay untouched", inputs_untouched, "Use a + b, not a += b, on tensors that you were given."),
    Check(
        "its repr builds it again", repr_round_trips, "Make it a @dataclass(frozen=True) whose fields are plain values."
    ),
    Check(
        "an empty part beside it changes nothing",
        nothing_beside_it_matters,
        "Use batch.stream and batch.mine, and do not look at other parts of a sum.",
    ),
    Check(
        "its numbers may vary within a fleet",
        varied_is_alone,
        "Use a number only in arithmetic on tensors: no `if`, no value= or alpha= of a torch function.",
    ),
    Check("withheld task numbers do not matter", task_is_withheld, "In predict, use the task only where it is not -1."),
    Check(
        "stopped and resumed it is the same",
        killed_is_whole,
        "Keep what changes in memory, not in the object or the module.",
    ),
    Check(
        "recorded and taken step by step it is the same",
        recorded_is_eager,
        "Take no Python decision on a value or on how often a verb was called: use torch.where and memory.",
    ),
    Check("it stays finite", stays_finite, "Look for divisions by 0 and logarithms of 0."),
    Check(
        "it runs on any device",
        runs_on_any_device,
        "Make tensors with problem.zeros or new_zeros, and read no value back with .item() or float().",
    ),
)


def check_strategy(strategy: Strategy) -> Iterator[tuple[str, str, str]]:
    """The contract on one strategy: (check, what was seen or "", how to mend it), one after another."""
    return check_learner(strategy)


def check_learner(subject: Any) -> Iterator[tuple[str, str, str]]:
    """The contract on one strategy or learner."""
    for check in LEARNER_CHECKS:
        yield check.name, outcome(check, subject), check.mend


def outcome(check: Check, subject: Any) -> str:
    """What a check saw that should not be; empty where it holds."""
    try:
        check.holds(subject)
    except (CheckFailed, ConfigurationError) as broken:
        return str(broken)
    except Exception as error:  # a user's method may raise anything; the line says what and where
        path = next(filter(None, map(file_of, classes_of(subject))), "")
        return (user_line(error, path) if path else words_of(error))[:300]
    return ""


def classes_of(subject: Any) -> list[type]:
    """The class of a subject, and those of the parts of a sum."""
    return [type(subject), *(type(part) for part in getattr(subject, "parts", ()))]
