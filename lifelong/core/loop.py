"""The loop, in the order in which things happen: draw, step, evaluate, consolidate; for a whole fleet at once.

It is a generator of events. Saving, showing and stopping consume them; nothing in here knows who does.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lifelong.core.evaluator import Evaluator
from lifelong.core.fleet import fleet_of
from lifelong.core.footprint import estimate_memory
from lifelong.core.initialisation import Initialisation, Random
from lifelong.core.learner import AnyLearner
from lifelong.core.probes import BEFORE_STEP, BEFORE_TASK, EVALUATED, TASK_ENDED, Probe
from lifelong.core.problem import Problem, flush_denormals
from lifelong.core.result import Result, concatenate
from lifelong.core.sampler import Sampler, padded
from lifelong.core.settings import Setting, fleets_of_settings
from lifelong.core.stopped import Stopped as Stopped
from lifelong.notation.varied import varied_paths
from scenarios.brief import in_brief
from scenarios.stream import ScenarioError, Seed, Stream, seed_of, stream_index

POINTS = 100  # stretches of a task over which the training loss is averaged
AT_END = -1  # the place of a task's end among its iterations, for what is drawn there
MANY_TASKS = 50  # beyond so many, the ends of tasks but the last are scored on a share of the rows, as the curves are


@dataclass
class TrainingState:
    """Where a chunk of members stands, and what it measured so far: all that a checkpoint holds."""

    fleet: Any
    untrained: Tensor
    losses: Tensor
    diverged: Tensor
    task: int = 0
    iteration: int = 0
    accuracy: list[Tensor] = field(default_factory=list)
    when: list[tuple[int, int, int, int]] = field(default_factory=list)
    probes: dict[str, list[Tensor]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "evaluation": 0.0})
    __repr__ = in_brief


class Begun(NamedTuple):
    """Nothing is learned yet, and all was evaluated."""

    state: TrainingState
    __repr__ = in_brief


class Stepped(NamedTuple):
    """Steps were taken, mostly one, or as many as pass in a moment; loss [S, K]; last: whether the task has no more.

    The next steps write into the state's tensors: whoever keeps them keeps copies.
    """

    state: TrainingState
    loss: Tensor
    last: bool
    __repr__ = in_brief


class Evaluated(NamedTuple):
    """Every task was scored: accuracy [S, T]."""

    state: TrainingState
    accuracy: Tensor
    __repr__ = in_brief


class TaskEnded(NamedTuple):
    """A task was consolidated and evaluated; the state stands before the next one."""

    state: TrainingState
    accuracy: Tensor
    __repr__ = in_brief


class Done(NamedTuple):
    """The stream is over."""

    state: TrainingState
    result: Result
    __repr__ = in_brief


Event = Begun | Stepped | Evaluated | TaskEnded | Done


class Checkpointer(Protocol):
    """Who saves a run; `lifelong.runs.folder` has the one that writes to disk."""

    def restore(self, chunk: int, session: Session, state: TrainingState) -> TrainingState | Result:
        """The saved state of this chunk, its result if it is finished, or the state as given."""
        ...

    def __call__(self, chunk: int, session: Session, event: Event) -> None:
        """Called at every event; saves when it is time, and raises Stopped after saving when asked to stop."""
        ...


@dataclass
class Progress:
    """What a watcher is told, a few times a second and at each evaluation.

    done, total: iterations over all tasks, which may differ in length. fleet, fleets: which chunk of members this is, from 0,
    and how many there are, one after another. settings: of each member, in words, where numbers of the learner varied.
    """

    task: int
    iteration: int
    tasks: int
    iterations: int
    seeds: tuple[int | Seed, ...]
    accuracy: Tensor | None = None
    loss: Tensor | None = None
    done: int = 0
    total: int = 0
    fleet: int = 0
    fleets: int = 1
    settings: tuple[str, ...] = ()
    __repr__ = in_brief


def device_of(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise ScenarioError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): try auto or cpu"
        ) from None
    return device


def check_request(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int | Seed],
    device: str,
    probes: Sequence[Probe] = (),
    fleet: int = 0,
    eval_every: int = 0,
) -> None:
    """Refuse what cannot be run, before anything is written. fleet: how many members learn together, 0 for all."""
    if not seeds:
        raise ScenarioError("no seeds were asked for: give at least one, as in --seeds 5")
    if len({seed_of(seed) for seed in seeds}) < len(seeds):
        raise ScenarioError("a seed is named twice: each can run once")
    budget = stream.budget
    if min(budget.batch, budget.repeats, len(stream)) < 1 or not (budget.iterations > 0 or budget.epochs > 0):
        raise ScenarioError("a budget needs a batch of at least 1 and at least 1 iteration, or epochs above 0")
    estimate_memory(learner, stream, seeds, device_of(device), fleet, eval_every)
    for settings in fleets_of_settings(learner):
        check_learner(settings[0].learner, stream)
    device_of(device)
    for place, probe in enumerate(probes):
        if probe.name in [earlier.name for earlier in probes[:place]]:
            raise ScenarioError(f"two probes measure {probe.name!r}: name it once")
        probe.check(stream, [seed_of(seed) for seed in seeds])
    for settings in fleets_of_settings(learner):  # a network, a part or a probe that does not fit says so here
        Session(settings[0].learner, stream, seeds[:1], probes=probes).first_state()


def refuse_varied(learner: AnyLearner) -> None:
    """Raise ScenarioError where numbers vary: for whoever learns one setting."""
    if varied_paths(learner):
        raise ScenarioError(f"{learner!r} varies, and this learns one setting: only `run` and `compare` learn several")


def check_learner(learner: AnyLearner, stream: Stream) -> None:
    """Raise ScenarioError where a stream lacks what a part of the learner needs."""
    requirements = learner.requirements
    if stream.paradigm == "isolate" and any(needs.paradigm for _, needs in requirements):
        raise ScenarioError(f"the baseline isolate goes with FineTuning() alone, not with {requirements[0][0]}")
    for who, needs in requirements:
        if missing := needs.missing(stream):
            raise ScenarioError(f"{who} {missing}")
    still = next((who for who, needs in requirements if needs.all_move), "")
    if still and learner.held_still:
        raise ScenarioError(f"{still} sets weights itself, those too that {learner.held_still} holds still")
    if learner.model.task_embedding and stream.setting != "task":
        raise ScenarioError(f"{learner.model!r} is told the task of each row: it goes with --setting task alone")
    if learner.model.mixes_rows:
        raise ScenarioError(
            f"{learner.model!r} scores rows by those beside them, which is for episodes: take norm='group' for a stream"
        )
    if not stream.task_ends and learner.schedule:
        raise ScenarioError(f"{learner!r} has phases within a task, and this stream does not say when a task ends")
    if any(needs.hooks for _, needs in requirements) and not learner.model.shows_layers:
        who = next(who for who, needs in requirements if needs.hooks)
        raise ScenarioError(f"{who} looks at the layers of the network, and {learner.model!r} does not show them")
    if any(needs.validation for _, needs in requirements):
        who = next(who for who, needs in requirements if needs.validation)
        if any(not len(task.validation) for task in stream.tasks_of(stream.seed)):
            raise ScenarioError(
                f"{who} learns from validation rows: hold some out, as in {stream.name}(validation=0.1)"
            )


def run(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int | Seed] = range(5),
    init: Initialisation | None = None,
    *,
    eval_every: int = 0,
    eval_rows: int = 1000,
    probes: Sequence[Probe] = (),
    device: str = "cpu",
    fleet: int = 0,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
    record: bool | None = None,
    watch: Callable[[Progress], None] | None = None,
    checkpointer: Checkpointer | None = None,
) -> Result:
    """Learn the stream with every seed and measure it; the members run together, or `fleet` of them at a time.

    learner: where a number of it varies, as in EWC(strength=vary(1, 10)), every seed is learned in every setting.
    eval_every: besides before learning and at task ends (full test sets), evaluate after every so many iterations on
    eval_rows test rows in all. probes: what else is measured. init: where the networks start, by default at random.
    record: see `Options`. From here on the process takes numbers below 1e-38 for 0, see `flush_denormals`.
    Raises ScenarioError for requests that cannot be honoured.
    """
    seeds = list(seeds)
    check_request(learner, stream, seeds, device, probes, fleet, eval_every)
    stream = stream.to(device_of(device))
    lengths = longest_tasks(stream, seeds)
    options = Options(init or Random(), eval_every, eval_rows, tuple(probes), compiled, dtype, lengths, record)
    results = []
    divided = chunks(learner, seeds, fleet)
    for chunk, members in enumerate(divided):
        session = Session.of_members(members, stream, options)
        tell = functools.partial(_tell, watch, chunk, len(divided)) if watch else None
        results.append(_followed(session, chunk, tell, checkpointer))
    return concatenate(results)


def _tell(watch: Callable[[Progress], None], fleet: int, fleets: int, event: Progress) -> None:
    """Tell a watcher, who hears of one chunk after another, which of them this is."""
    watch(dataclasses.replace(event, fleet=fleet, fleets=fleets))


def chunks(learner: AnyLearner, seeds: Sequence[int | Seed], fleet: int) -> list[list[Member]]:
    """The members of a run, setting by setting, at most `fleet` of them together; each chunk differs in numbers alone."""
    result = []
    for settings in fleets_of_settings(learner):
        members = [Member(setting, seed_of(seed)) for setting in settings for seed in seeds]
        size = fleet or len(members)
        result += [members[first : first + size] for first in range(0, len(members), size)]
    return result


def longest_tasks(stream: Stream, seeds: Sequence[int | Seed]) -> tuple[int, ...]:
    """The steps of each task until the last of all seeds is through it."""
    steps = [stream.steps(stream.tasks_of(seed_of(seed).order)) for seed in seeds]
    return tuple(map(max, zip(*steps, strict=True)))


def _followed(
    session: Session, chunk: int, watch: Callable[[Progress], None] | None, checkpointer: Checkpointer | None
) -> Result:
    """The result of a session whose events are watched and saved."""
    state = session.begin()
    if checkpointer:
        restored = checkpointer.restore(chunk, session, state)
        if isinstance(restored, Result):
            return restored
        state = restored
    told = time.perf_counter()
    for event in session.events(state):
        accuracy = event.accuracy if isinstance(event, Evaluated | TaskEnded) else None
        loss = event.loss[:, -1] if isinstance(event, Stepped) else None
        if watch and (accuracy is not None or time.perf_counter() - told > 0.25):
            told = time.perf_counter()
            watch(session.progress(event.state, accuracy, loss))
        if checkpointer:
            checkpointer(chunk, session, event)
        if isinstance(event, Done):
            return event.result
    raise AssertionError("a session ends with its result")


def learned(session: Session, state: TrainingState | None = None) -> tuple[Result, Any]:
    """A session's result and the fleet's final state, unwatched and unsaved; state: where to begin, else afresh."""
    last = None
    for event in session.events(state or session.begin()):
        last = event
    assert isinstance(last, Done)
    return last.result, last.state.fleet


class Member(NamedTuple):
    """One member of a fleet: a setting of the learner and a seed."""

    setting: Setting
    seed: Seed


@dataclass(frozen=True)
class Options:
    """How a session runs, for all members alike; see `run`.

    lengths: the steps of each task until all members of the run are through, so that every chunk of them is evaluated
    at the same iterations; empty: those of the chunk. record: whether a step is recorded once and then played back, or
    taken operation by operation, with the same numbers; None: recorded where enough steps lie ahead to pay for it.
    """

    init: Initialisation = dataclasses.field(default_factory=Random)
    eval_every: int = 0
    eval_rows: int = 1000
    probes: tuple[Probe, ...] = ()
    compiled: bool = False
    dtype: torch.dtype = torch.float32
    lengths: tuple[int, ...] = ()
    record: bool | None = None


class Session:
    """One chunk of members on one stream; `events` is the loop."""

    def __init__(
        self,
        learner: AnyLearner,
        stream: Stream,
        seeds: Sequence[int | Seed],
        init: Initialisation | None = None,
        eval_every: int = 0,
        eval_rows: int = 1000,
        compiled: bool = False,
        dtype: torch.dtype = torch.float32,
        probes: Sequence[Probe] = (),
        record: bool | None = None,
    ) -> None:
        refuse_varied(learner)
        members = [Member(Setting("", learner), seed_of(seed)) for seed in seeds]
        options = Options(init or Random(), eval_every, eval_rows, tuple(probes), compiled, dtype)
        self._prepare(members, stream, dataclasses.replace(options, record=record))

    @classmethod
    def of_members(cls, members: Sequence[Member], stream: Stream, options: Options) -> Session:
        """The session of some members."""
        session = cls.__new__(cls)
        session._prepare(members, stream, options)
        return session

    def _prepare(self, members: Sequence[Member], stream: Stream, options: Options) -> None:
        flush_denormals()
        self.members, self.stream, self.options = list(members), stream, options
        self.seeds = [member.seed for member in members]
        self.device, self.tasks = stream.dataset.x.device, len(stream)
        learner = members[0].setting.learner
        drawn = stream_index(stream, [seed.order for seed in self.seeds], self.device)
        if learner.model.task_embedding:
            drawn["task_embedding"] = torch.eye(self.tasks, device=self.device).expand(len(members), -1, -1)
        problem = Problem(
            model=learner.model,
            dataset=stream.dataset,
            index=drawn,
            setting=stream.setting,
            classes=stream.classes,
            tasks=self.tasks if stream.task_ends else 1,
            batch=stream.budget.batch,
            dtype=options.dtype,
            task_rows=padded(int(drawn["count_train"].max())),
            validation_rows=padded(int(drawn["count_validation"].max())),
            task_ends=stream.task_ends,
        )
        self.sampler = Sampler(stream, self.seeds, problem, learner.draws(problem))
        learners = [member.setting.learner for member in members]
        self.fleet = fleet_of(learners, problem, options.compiled, self.sampler.paces, options.record)
        self.evaluator = Evaluator(stream, self.seeds, self.fleet, options.eval_rows)
        self.milestones = learner.schedule
        self.measures = {probe.name: probe.begin(self) for probe in options.probes}
        self.probed_each_step = any(probe.every_step for probe in options.probes)

    def by(self, form: Callable[..., Any]) -> Session:
        """The session with its members in another form of fleet; see `lifelong.contracts.learners`."""
        self.fleet = self.evaluator.fleet = form(
            [member.setting.learner for member in self.members], self.fleet.problem
        )
        return self

    def events(self, state: TrainingState) -> Iterator[Event]:
        """Draw, step, evaluate, consolidate, until the stream is over."""
        if not state.when:
            accuracy = self._evaluate(state, full=True, task_end=False)
            if self.options.init == Random():
                state.untrained = accuracy.clone()
            yield Begun(state)
        while state.task < self.tasks:
            if state.iteration == 0:
                if self.stream.paradigm == "isolate":
                    state.fleet = self.first_state()
                self._probe(state, BEFORE_TASK)
            length = self.sampler.length(state.task)
            began = time.perf_counter()
            while state.iteration < length and self.steps_in(state.task):
                self._turn(state)
                if self.probed_each_step:
                    self._probe(state, BEFORE_STEP)
                    began = time.perf_counter()
                through, most = self._through(state), min(self.fleet.at_once(), self._until_something(state))
                block = self.sampler.block(state.task, state.iteration, most)
                state.fleet, loss = self.fleet.steps(state.fleet, block, through)
                self._note(state, loss, through)
                state.iteration += block.steps
                state.seconds["training"] += time.perf_counter() - began
                every = self.options.eval_every
                due = every and state.iteration % every == 0 and state.iteration < length
                # before anybody is told of the step: who saves then saves what was measured after it, too
                accuracy = self._evaluate(state, full=False, task_end=False) if due else None
                yield Stepped(state, loss, state.iteration == length)
                if accuracy is not None:
                    yield Evaluated(state, accuracy)
                began = time.perf_counter()
            yield from self._while_others_go_on(state)
            began = time.perf_counter()
            self._consolidate(state)
            state.seconds["training"] += time.perf_counter() - began
            last = state.task == self.tasks - 1
            accuracy = self._evaluate(state, full=last or self.tasks <= MANY_TASKS, task_end=True)
            state.task, state.iteration = state.task + 1, 0
            yield TaskEnded(state, accuracy)
        yield Done(state, self._result(state))

    def steps_in(self, task: int) -> bool:
        """Whether any member's steps in a task change it."""
        return any(member.setting.learner.takes_steps(task) for member in self.members)

    def _until_something(self, state: TrainingState) -> int:
        """Steps until a task or a member's part of it ends, a milestone is reached, or an evaluation is due."""
        steps, every = self.sampler.steps[:, state.task].tolist(), self.options.eval_every
        ends = [*steps, *(round(share * count) for share in self.milestones for count in steps)]
        ends += [(state.iteration // every + 1) * every] if every else []
        ends += [state.iteration + 1] if self.probed_each_step else []
        return min(end for end in ends if end > state.iteration) - state.iteration

    def _while_others_go_on(self, state: TrainingState) -> Iterator[Event]:
        """To where the longest task of all chunks ends, with the evaluations on the way there."""
        lengths, every = self.options.lengths or (0,) * self.tasks, self.options.eval_every
        last = max(state.iteration, lengths[state.task], self.sampler.length(state.task))
        first = max(-(-state.iteration // every), 1) * every if every else 0
        for iteration in range(first, last, every) if every else ():
            state.iteration = iteration
            yield Evaluated(state, self._evaluate(state, full=False, task_end=False))
        state.iteration = last

    def first_state(self, init: Initialisation | None = None) -> Any:
        """The fleet's state before learning, from the run's initialisation or from another one."""
        return self.fleet.init(self.seeds, init or self.options.init)

    def begin(self) -> TrainingState:
        """Where training begins."""
        fleet, members = self.first_state(), len(self.members)
        losses = torch.zeros(members, self.tasks, POINTS, dtype=torch.float64, device=self.device)
        diverged = torch.full((members, 2), -1, device=self.device)
        state = TrainingState(fleet, losses.new_zeros(members, self.tasks), losses, diverged)
        if self.options.init != Random():  # else what is measured before the first task is of an untrained network
            random = self._prepared(state, self.first_state(Random()), 0)
            state.untrained = self.evaluator.scores(random, full=True, task=0)[0]
        return state

    def progress(self, state: TrainingState, accuracy: Tensor | None, loss: Tensor | None = None) -> Progress:
        """What a watcher is told."""
        lengths = self.options.lengths or [self.sampler.length(task) for task in range(self.tasks)]
        seeds, settings = tuple(map(_plain, self.seeds)), tuple(member.setting.words for member in self.members)
        return Progress(
            state.task, state.iteration, self.tasks, lengths[min(state.task, self.tasks - 1)], seeds, accuracy, loss,
            sum(lengths[: state.task]) + state.iteration, sum(lengths), settings=settings,
        )  # fmt: skip

    def prepared_at_end(self, fleet: Any) -> Any:
        """What the last evaluation of a stream predicts with, from the fleet's final state."""
        return self.fleet.prepare(fleet, self.sampler.prepared(self.tasks - 1, AT_END))

    def _prepared(self, state: TrainingState, fleet: Any, place: int) -> Any:
        return self.fleet.prepare(fleet, self.sampler.prepared(state.task, place))

    def _through(self, state: TrainingState) -> list[int]:
        """Members that have taken all their steps of this task while others go on."""
        return [s for s, steps in enumerate(self.sampler.steps[:, state.task].tolist()) if state.iteration >= steps]

    def _turn(self, state: TrainingState) -> None:
        """The milestones that members have reached before this step, or with the last one of their fleet."""
        # others may go on in another chunk: the place of the evaluations is then beyond this chunk's last step
        here = min(state.iteration, self.sampler.length(state.task))
        for share in self.milestones:
            steps = self.sampler.steps[:, state.task].tolist()
            members = [s for s, count in enumerate(steps) if round(share * count) == here]
            if members:
                task = self.sampler.finished(state.task, share)
                state.fleet = self.fleet.at_milestone(state.fleet, task, share, members)

    def _consolidate(self, state: TrainingState) -> None:
        """The milestones at the very end, and the end of the task, where there is one."""
        self._turn(state)
        joint = self.stream.paradigm == "joint"
        if self.stream.task_ends and (not joint or state.task == self.tasks - 1):
            state.fleet = self.fleet.after_task(state.fleet, self.sampler.finished(state.task))

    def _note(self, state: TrainingState, loss: Tensor, through: list[int]) -> None:
        """Add losses [S, K] to their curves; remember where a member's loss stopped being finite."""
        loss, steps = loss.to(torch.float64), self.sampler.steps[:, state.task].tolist()
        if len(set(steps)) == 1:
            _add_points(state.losses[:, state.task], loss, state.iteration, steps[0])
        else:
            for s, count in enumerate(steps):
                if s not in through:
                    _add_points(state.losses[s, state.task], loss[s], state.iteration, count)
        bad = ~torch.isfinite(loss)
        if through:
            bad[through] = False
        self._flag(state, bad)

    def _flag(self, state: TrainingState, bad: Tensor) -> None:
        """Remember the first of some steps, bool [S, K], at which a member was found to have diverged."""
        at = bad.to(torch.uint8).argmax(1) + state.iteration
        now = torch.stack([torch.full_like(at, state.task), at], 1)
        new = bad.any(1) & (state.diverged[:, 0] < 0)
        state.diverged = torch.where(new[:, None], now, state.diverged)

    def _evaluate(self, state: TrainingState, full: bool, task_end: bool) -> Tensor:
        """Score every task; learning is not touched."""
        began = time.perf_counter()
        if state.when:
            self._flag(state, ~self.fleet.finite(state.fleet)[:, None])
        # when a fleet's task ends depends on its longest member, and a member's draws may not
        place = AT_END if task_end else state.iteration
        accuracy, rows = self.evaluator.scores(self._prepared(state, state.fleet, place), full, state.task)
        accuracy = torch.where(state.diverged[:, :1] >= 0, torch.nan, accuracy)
        state.accuracy.append(accuracy)
        state.when.append((state.task, state.iteration, int(task_end), rows))
        state.seconds["evaluation"] += time.perf_counter() - began
        self._probe(state, EVALUATED)
        if task_end:
            self._probe(state, TASK_ENDED)
        return accuracy

    def _probe(self, state: TrainingState, moment: str) -> None:
        """What else is measured now; learning is not touched."""
        began = time.perf_counter()
        for name, measure in self.measures.items():
            values = measure(state, moment)
            if values is not None:
                lost = (state.diverged[:, 0] >= 0).view(-1, *[1] * (values.ndim - 1))
                values = values.to(torch.float64).masked_fill(lost, torch.nan)
                state.probes.setdefault(name, []).append(values)
        state.seconds["evaluation"] += time.perf_counter() - began

    def _result(self, state: TrainingState) -> Result:
        numeric = self.sampler.index.get("numeric", torch.zeros(1, self.tasks))
        return Result(
            accuracy=torch.stack(state.accuracy, 1).cpu(),
            when=torch.tensor(state.when),
            untrained=state.untrained.cpu(),
            losses=state.losses.cpu(),
            diverged=state.diverged.cpu(),
            seeds=tuple(_plain(seed) for seed in self.seeds),
            settings=tuple(member.setting.words for member in self.members),
            paradigm=self.stream.paradigm,
            setting=self.stream.setting,
            open=self.stream.open,
            numbers=tuple(torch.nonzero(numeric[0])[:, 0].tolist()),
            seconds=dict(state.seconds),
            probes={name: torch.stack(values, 1).cpu() for name, values in state.probes.items()},
        )


def _plain(seed: Seed) -> int | Seed:
    """A seed that means the same throughout, as its number."""
    return seed.data if seed == seed_of(seed.data) else seed


def _add_points(losses: Tensor, loss: Tensor, first: int, steps: int) -> None:
    """Add losses [..., K], from step `first` on, to a curve [..., P] of means over P equal stretches of `steps` steps.

    Of fewer steps than stretches, each covers several.
    """
    points, places = losses.shape[-1], range(first, first + loss.shape[-1])
    if steps < points:
        for k, i in enumerate(places):
            losses[..., -(-i * points // steps) : -(-(i + 1) * points // steps)] = loss[..., k, None]
        return
    stretch = [i * points // steps for i in places]
    lengths = [-(-(p + 1) * steps // points) - -(-p * steps // points) for p in stretch]
    share = loss / torch.tensor(lengths, dtype=loss.dtype).to(loss.device)
    losses.index_add_(-1, torch.tensor(stretch).to(loss.device), share)


def prepared_fleet(learner: AnyLearner, stream: Stream, seeds: Sequence[int | Seed], init: Initialisation) -> Any:
    """The fleet of a run and its state before learning, on the CPU."""
    session = Session(learner, stream, seeds, init)
    return session.fleet, session.first_state()


def cost(
    learner: AnyLearner, stream: Stream, seeds: Sequence[int | Seed], device: str = "cpu", fleet: int = 0
) -> tuple[float, int]:
    """Seconds and bytes that a run will take: training, and the tensors that live throughout.

    From a few steps of one chunk of each kind, which stands for the others of as many members.
    """
    stream, seconds, most = stream.to(device_of(device)), 0.0, 0
    measured: dict[Any, tuple[float, int]] = {}
    for members in chunks(learner, seeds, fleet):
        kind = (members[0].setting.learner.model, len(members), len({member.setting for member in members}))
        if kind not in measured:
            measured[kind] = _chunk_cost(Session.of_members(members, stream, Options()))
        taken, size = measured[kind]
        seconds, most = seconds + taken, max(most, size)
    return seconds, most


def _chunk_cost(session: Session, steps: int = 10) -> tuple[float, int]:
    """Seconds of training of a session, from its first steps, and the bytes of its tensors."""
    state, times = session.first_state(), []
    stepping = [task for task in range(session.tasks) if session.steps_in(task)]
    for i in range(min(steps, session.sampler.length(0)) if stepping else 0):
        began = time.perf_counter()
        state, loss = session.fleet.steps(state, session.sampler.block(0, i))
        loss.sum().item()  # waits for the device
        times.append(time.perf_counter() - began)
    dataset = session.stream.dataset
    held = [*tree_leaves(session.fleet.tensors(state)), *session.sampler.index.values(), dataset.x, dataset.y]
    size = sum(leaf.numel() * leaf.element_size() for leaf in held)
    return min(times, default=0.0) * sum(map(session.sampler.length, stepping)), size
