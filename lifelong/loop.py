"""The loop, in the order in which things happen: draw, step, evaluate, consolidate; for a whole fleet at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lifelong.adaptation.few_shot import Bench, FewShot, asked, support
from lifelong.evaluation import Examiner
from lifelong.feed import Feed, in_iterations
from lifelong.files import Stopped as Stopped
from lifelong.fleet import Fleet, random_start
from lifelong.learner import AnyLearner, Learner, State
from lifelong.model import mixes_rows
from lifelong.problem import Problem, Start
from lifelong.result import Result, joined
from lifelong.strategy import parts_of
from scenarios.stream import ScenarioError, Stream, generator, rules

POINTS = 100  # stretches of a task over which the training loss is averaged


@dataclass
class Event:
    """What a watcher is told, a few times a second and at each evaluation."""

    task: int
    iteration: int
    tasks: int
    iterations: int
    seeds: tuple[int, ...]
    accuracy: Tensor | None = None
    loss: Tensor | None = None


@dataclass
class Course:
    """Where a chunk of seeds stands, and what it measured so far: all that a checkpoint holds."""

    state: State
    untrained: Tensor
    losses: Tensor
    diverged: Tensor
    few_shot: Tensor
    task: int = 0
    iteration: int = 0
    accuracy: list[Tensor] = field(default_factory=list)
    when: list[tuple[int, int, int, int]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "evaluation": 0.0})


class Keeper(Protocol):
    """Who saves a run; `lifelong.run_folder` has the one that writes to disk."""

    def restore(self, chunk: int, course: Course) -> Course | Result:
        """The saved course of this chunk, its result if it is finished, or the course as given."""
        ...

    def boundary(self, chunk: int, course: Course) -> None:
        """Called after every step; saves when it is time, and raises Stopped after saving when asked to stop."""
        ...

    def finish(self, chunk: int, course: Course, result: Result) -> None:
        """Called when the chunk is done."""
        ...


def device_of(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ScenarioError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): try auto or cpu"
        ) from None
    return device


def wants_descriptor(learner: AnyLearner) -> bool:
    """Whether its network is told which task a row belongs to."""
    return getattr(getattr(learner, "model", None), "descriptor", False)


def check_request(
    learner: AnyLearner, stream: Stream, seeds: list[int], device: str, few_shot: FewShot | Sequence[int] = ()
) -> None:
    """Refuse what cannot be run, before anything is written."""
    if not seeds:
        raise ScenarioError("no seeds were asked for: give at least one, as in --seeds 5")
    if len(set(seeds)) < len(seeds):
        raise ScenarioError("a seed is named twice: each can run once")
    for part in parts_of(learner.strategy) if isinstance(learner, Learner) else ():
        if stream.reading != "continual" and not (stream.reading == "joint" and part.multi_task):
            raise ScenarioError(f"the baseline {stream.reading} goes with FineTuning() alone, not with {part!r}")
        if stream.reading != "joint" and part.multi_task:
            raise ScenarioError(f"{part!r} weighs tasks that are learned together: it goes with the baseline joint")
    if wants_descriptor(learner) and stream.setting != "task":
        raise ScenarioError(f"{learner.model!r} is told the task of each row: it goes with --setting task alone")
    if min(stream.budget.batch, len(stream)) < 1 or not (stream.budget.iterations > 0 or stream.budget.epochs > 0):
        raise ScenarioError("a budget needs a batch of at least 1 and at least 1 iteration, or epochs above 0")
    if mixes_rows(learner.model):
        raise ScenarioError(
            f"{learner.model!r} scores rows by those beside them, which is for episodes: take norm='group' for a stream"
        )
    device_of(device)
    if what := asked(few_shot):
        support(stream, seeds, what.shots[-1])
    Session(learner, stream, seeds[:1]).first_state()  # a network or a part that does not fit says so here


def run(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int] = range(5),
    init: Start = random_start,
    *,
    eval_every: int = 0,
    eval_rows: int = 1000,
    few_shot: FewShot | Sequence[int] = (),
    device: str = "cpu",
    fleet: int = 0,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
    watch: Callable[[Event], None] | None = None,
    keeper: Keeper | None = None,
) -> Result:
    """Learn the stream with every seed and measure it; the seeds run together, or `fleet` of them at a time.

    eval_every: besides before learning and at task ends (full test sets), evaluate after every so many iterations on
    eval_rows test rows in all. few_shot: before each task of a continual run, measure what a few rows of each of its
    classes give, as in (1, 5, 10); learning is not touched. init: start(problem, params, generator) -> params. Raises ScenarioError for requests
    that cannot be honoured.
    """
    seeds = list(seeds)
    check_request(learner, stream, seeds, device, few_shot)
    stream = in_iterations(stream.to(device_of(device)), seeds)
    size = fleet or len(seeds)
    results = []
    for chunk, first in enumerate(range(0, len(seeds), size)):
        one = Session(
            learner, stream, seeds[first : first + size], init, eval_every, eval_rows, compiled, dtype, few_shot
        )
        results.append(one.go(chunk, watch, keeper))
    return joined(results)


class Session:
    """One chunk of seeds on one stream; `go` is the loop."""

    def __init__(
        self,
        learner: AnyLearner,
        stream: Stream,
        seeds: list[int],
        init: Start = random_start,
        eval_every: int = 0,
        eval_rows: int = 1000,
        compiled: bool = False,
        dtype: torch.dtype = torch.float32,
        few_shot: FewShot | Sequence[int] = (),
    ) -> None:
        stream = in_iterations(stream, seeds)
        self.learner, self.stream, self.seeds, self.start = learner, stream, seeds, init
        self.eval_every, self.device, self.tasks = eval_every, stream.table.x.device, len(stream)
        own, self.iterations = rules(stream, seeds, self.device), stream.budget.iterations
        if wants_descriptor(learner):
            own["descriptor"] = torch.eye(self.tasks, device=self.device).expand(len(seeds), -1, -1)
        problem = Problem(
            learner.model, stream.table, own, stream.setting, stream.classes, self.tasks, self.iterations,
            stream.budget.batch, dtype,
        )  # fmt: skip
        self.fleet = Fleet(learner, problem, compiled)
        self.feed = Feed(stream, seeds, problem, learner.draws())
        self.examiner = Examiner(stream, seeds, self.fleet, eval_rows)
        self.course: Course | None = None
        what = asked(few_shot) if stream.reading == "continual" else None
        self.bench = Bench(stream, seeds, problem, what) if what else None

    def go(self, chunk: int, watch: Callable[[Event], None] | None, keeper: Keeper | None) -> Result:
        """Draw, step, evaluate, consolidate, until the stream is over."""
        course = self._begin()
        if keeper:
            restored = keeper.restore(chunk, course)
            if isinstance(restored, Result):
                return restored
            course = restored
        told = time.perf_counter()
        if not course.when:
            self._evaluate(course, full=True, task_end=False)
        while course.task < self.tasks:
            if self.stream.reading == "isolate" and course.iteration == 0:
                course.state = self.first_state(self.start)
            if self.bench and course.iteration == 0:
                self._few_shot(course, self.bench)
            began = time.perf_counter()
            for batch in self.feed.batches(course.task, course.iteration):
                course.state, loss = self.fleet.step(course.state, batch, course.iteration / self.iterations)
                self._note(course, loss)
                course.iteration += 1
                if self.eval_every and course.iteration % self.eval_every == 0 and course.iteration < self.iterations:
                    course.seconds["training"] += time.perf_counter() - began
                    self._evaluate(course, full=False, task_end=False)
                    self._tell(watch, course, course.accuracy[-1])
                    began = time.perf_counter()
                elif watch and time.perf_counter() - told > 0.25:
                    told = time.perf_counter()
                    self._tell(watch, course, None, loss)
                if keeper and course.iteration < self.iterations:
                    keeper.boundary(chunk, course)
            if self.stream.reading != "joint" or course.task == self.tasks - 1:
                course.state = self.fleet.end_task(course.state, self.feed.finished(course.task))
            course.seconds["training"] += time.perf_counter() - began
            self._evaluate(course, full=True, task_end=True)
            course.task, course.iteration = course.task + 1, 0
            self._tell(watch, course, course.accuracy[-1])
            if keeper:
                keeper.boundary(chunk, course)
        self.course = course
        result = self._result(course)
        if keeper:
            keeper.finish(chunk, course, result)
        return result

    def first_state(self, start: Start = random_start) -> State:
        """The fleet's state before learning, from a start."""
        return self.fleet.init(self.seeds, generator, start)

    def _begin(self) -> Course:
        state = self.first_state(self.start)
        points = min(POINTS, self.iterations)
        losses = torch.zeros(len(self.seeds), self.tasks, points, dtype=torch.float64, device=self.device)
        diverged = torch.full((len(self.seeds), 2), -1, device=self.device)
        shape = (len(self.seeds), 2, self.tasks, len(self.bench.what.shots)) if self.bench else (0,)
        few_shot = torch.full(shape, torch.nan, dtype=torch.float64, device=self.device)
        course = Course(state, losses.new_zeros(len(self.seeds), self.tasks), losses, diverged, few_shot)
        random = state if self.start is random_start else self.first_state(random_start)
        course.untrained = self.examiner.scores(random, full=True, task=0)[0]
        return course

    def _tell(
        self, watch: Callable[[Event], None] | None, course: Course, accuracy: Tensor | None, loss: Tensor | None = None
    ) -> None:
        if watch:
            seeds = tuple(self.seeds)
            watch(Event(course.task, course.iteration, self.tasks, self.iterations, seeds, accuracy, loss))

    def _note(self, course: Course, loss: Tensor) -> None:
        """Add to the curve of losses; remember where a seed's loss stopped being finite."""
        points = course.losses.shape[2]
        point = course.iteration * points // self.iterations
        length = -(-(point + 1) * self.iterations // points) + (-point * self.iterations // points)
        course.losses[:, course.task, point] += loss.to(torch.float64) / max(length, 1)
        self._flag(course, ~torch.isfinite(loss))

    def _flag(self, course: Course, bad: Tensor) -> None:
        one = torch.ones_like(course.diverged[:, 0])  # filled on the device: a copy from the host would wait for it
        now = torch.stack([one * course.task, one * course.iteration], 1)
        new = bad & (course.diverged[:, 0] < 0)
        course.diverged = torch.where(new[:, None], now, course.diverged)

    def _evaluate(self, course: Course, full: bool, task_end: bool) -> None:
        """Score every task; learning is not touched."""
        began = time.perf_counter()
        leaves = tree_leaves(course.state.params)
        finite = torch.stack([leaf.flatten(1).sum(1).isfinite() for leaf in leaves]).all(0)
        if course.when:
            self._flag(course, ~finite)
        accuracy, rows = self.examiner.scores(course.state, full, course.task)
        accuracy = torch.where(course.diverged[:, :1] >= 0, torch.nan, accuracy)
        course.accuracy.append(accuracy)
        course.when.append((course.task, course.iteration, int(task_end), rows))
        course.seconds["evaluation"] += time.perf_counter() - began

    def _few_shot(self, course: Course, bench: Bench) -> None:
        """Measure what a few rows of the coming task give, from here and from a random draw; learning is not touched."""
        began = time.perf_counter()
        scores = bench.before_task(self.fleet, course.state, course.task)
        course.few_shot[:, :, course.task] = torch.where(course.diverged[:, :1, None] >= 0, torch.nan, scores)
        course.seconds["evaluation"] += time.perf_counter() - began

    @property
    def final(self) -> State:
        """The fleet's state when the loop was left."""
        assert self.course is not None
        return self.course.state

    def _result(self, course: Course) -> Result:
        return Result(
            accuracy=torch.stack(course.accuracy, 1).cpu(),
            when=torch.tensor(course.when),
            untrained=course.untrained.cpu(),
            losses=course.losses.cpu(),
            diverged=course.diverged.cpu(),
            seeds=tuple(self.seeds),
            reading=self.stream.reading,
            setting=self.stream.setting,
            open=self.stream.open,
            seconds=dict(course.seconds),
            few_shot=course.few_shot.cpu(),
            shots=self.bench.what.shots if self.bench else (),
        )


def prepared_fleet(learner: AnyLearner, stream: Stream, seeds: list[int], start: Start) -> tuple[Fleet, State]:
    """The fleet of a run and its state before learning, on the CPU."""
    one = Session(learner, stream, seeds, start, 0, 1000, False, torch.float32)
    return one.fleet, one.first_state(start)


def cost(
    learner: AnyLearner, stream: Stream, seeds: list[int], device: str = "cpu", steps: int = 10
) -> tuple[float, int]:
    """Seconds and bytes that a run will take, from a few steps of it: training, and the tensors that live throughout."""
    one = Session(learner, stream.to(device_of(device)), seeds, random_start, 0, 1000, False, torch.float32)
    state, batches = one.first_state(random_start), one.feed.batches(0)
    times = []
    for batch, _ in zip(batches, range(steps), strict=False):
        began = time.perf_counter()
        state, loss = one.fleet.step(state, batch, 0.0)
        loss.sum().item()  # waits for the device
        times.append(time.perf_counter() - began)
    held = [*tree_leaves(state), *one.feed.rules.values(), stream.table.x, stream.table.y]
    size = sum(leaf.numel() * leaf.element_size() for leaf in held)
    gradients = sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(state.params))
    return min(times) * one.iterations * one.tasks, size + gradients
