"""The loop, in the order in which things happen: draw, step, evaluate, consolidate; for a whole fleet at once.

Every random number is a function of where the run stands (seed, purpose, task, block of steps), not of what was drawn
before it. So a seed has the same luck alone and in a fleet, and a resumed run needs no generator's state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lifelong.fleet import Fleet, random_start
from lifelong.learner import AnyLearner, Draws, Learner, State
from lifelong.problem import Batch, FinishedTask, Problem, Start
from lifelong.result import Result, joined
from lifelong.strategy import parts_of
from scenarios.stream import ScenarioError, Stream, generator, rules

BLOCK = 128  # steps whose uniforms are drawn together
POINTS = 100  # stretches of a task over which the training loss is averaged
CHUNK = 1024  # rows of each seed that are scored together


class Stopped(Exception):
    """The run was asked to stop, and what it had is saved."""


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


def iterations_of(stream: Stream, longest: int) -> int:
    """Iterations of each task: as the budget says, or ceil(epochs x largest number of rows / batch)."""
    budget = stream.budget
    return budget.iterations or math.ceil(budget.epochs * longest / budget.batch)


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


def check_request(learner: AnyLearner, stream: Stream, seeds: list[int], device: str) -> None:
    """Refuse what cannot be run, before anything is written."""
    if not seeds:
        raise ScenarioError("no seeds were asked for: give at least one, as in --seeds 5")
    if len(set(seeds)) < len(seeds):
        raise ScenarioError("a seed is named twice: each can run once")
    if stream.reading != "continual" and isinstance(learner, Learner) and parts_of(learner.strategy):
        raise ScenarioError(
            f"the baseline {stream.reading} goes with FineTuning() alone, not with {learner.strategy!r}"
        )
    if min(stream.budget.batch, len(stream)) < 1 or not (stream.budget.iterations > 0 or stream.budget.epochs > 0):
        raise ScenarioError("a budget needs a batch of at least 1 and at least 1 iteration, or epochs above 0")
    device_of(device)
    if hasattr(learner, "model"):
        learner.model.init(stream.table.shape, stream.classes, generator(0, "model"))


def run(
    learner: AnyLearner,
    stream: Stream,
    seeds: Sequence[int] = range(5),
    init: Start = random_start,
    *,
    eval_every: int = 0,
    eval_rows: int = 1000,
    device: str = "cpu",
    fleet: int = 0,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
    watch: Callable[[Event], None] | None = None,
    keeper: Keeper | None = None,
) -> Result:
    """Learn the stream with every seed and measure it; the seeds run together, or `fleet` of them at a time.

    eval_every: besides before learning and at task ends (full test sets), evaluate after every so many iterations on
    eval_rows test rows in all. init: start(problem, params, generator) -> params. Raises ScenarioError for requests
    that cannot be honoured.
    """
    seeds = list(seeds)
    check_request(learner, stream, seeds, device)
    stream = stream.to(device_of(device))
    size = fleet or len(seeds)
    results = []
    for chunk, first in enumerate(range(0, len(seeds), size)):
        one = _Run(learner, stream, seeds[first : first + size], init, eval_every, eval_rows, compiled, dtype)
        results.append(one.go(chunk, watch, keeper))
    return joined(results)


class _Run:
    """One chunk of seeds on one stream; `go` is the loop."""

    def __init__(
        self,
        learner: AnyLearner,
        stream: Stream,
        seeds: list[int],
        init: Start,
        eval_every: int,
        eval_rows: int,
        compiled: bool,
        dtype: torch.dtype,
    ) -> None:
        self.learner, self.stream, self.seeds, self.start = learner, stream, seeds, init
        self.eval_every, self.eval_rows = eval_every, eval_rows
        self.device = stream.table.x.device
        self.rules = rules(stream, seeds, self.device)
        self.count = self.rules["count_train"].cpu()  # [S, T]
        self.iterations = iterations_of(stream, int(self.count.max()))
        self.tasks = len(stream)
        problem = Problem(
            learner.model, stream.table, self.rules, stream.setting, stream.classes, self.tasks, self.iterations,
            stream.budget.batch, dtype,
        )  # fmt: skip
        self.fleet = Fleet(learner, problem, compiled)
        self.draws = learner.draws()

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
                course.state = self._first_state(self.start)
            began = time.perf_counter()
            for batch in self._batches(course.task, course.iteration):
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
                course.state = self.fleet.end_task(course.state, self._finished(course.task))
            course.seconds["training"] += time.perf_counter() - began
            self._evaluate(course, full=True, task_end=True)
            course.task, course.iteration = course.task + 1, 0
            self._tell(watch, course, course.accuracy[-1])
            if keeper:
                keeper.boundary(chunk, course)
        result = self._result(course)
        if keeper:
            keeper.finish(chunk, course, result)
        return result

    def _first_state(self, start: Start) -> State:
        return self.fleet.init(self.seeds, generator, start)

    def _begin(self) -> Course:
        state = self._first_state(self.start)
        points = min(POINTS, self.iterations)
        losses = torch.zeros(len(self.seeds), self.tasks, points, dtype=torch.float64, device=self.device)
        diverged = torch.full((len(self.seeds), 2), -1, device=self.device)
        course = Course(state, losses.new_zeros(len(self.seeds), self.tasks), losses, diverged)
        random = state if self.start is random_start else self._first_state(random_start)
        course.untrained = self._scores(random, full=True, task=0)[0]
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

    # --- batches --------------------------------------------------------------------------------------------------

    def _pool(self, s: int, task: int) -> tuple[Tensor, Tensor]:
        """The rows that are trained on now, and the task of each: those of the task, or of all tasks when joint."""
        rows = self.rules["rows_train"][s].cpu()
        chosen = range(self.tasks) if self.stream.reading == "joint" else [task]
        row = torch.cat([rows[t, : self.count[s, t]] for t in chosen])
        number = torch.cat([torch.full((int(self.count[s, t]),), t) for t in chosen])
        return row, number

    def _plan(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Row, task and first sight of everything that this task will show, each [S, iterations x batch].

        Random orders of the pool, one after another, cut to length; so batches run over the ends of epochs.
        """
        wanted = self.iterations * self.stream.budget.batch
        rows, numbers, firsts = [], [], []
        for s, seed in enumerate(self.seeds):
            row, number = self._pool(s, task)
            random = generator(seed, "order", task)
            orders = [torch.randperm(len(row), generator=random) for _ in range(-(-wanted // len(row)))]
            order = torch.cat(orders)[:wanted]
            rows.append(row[order])
            numbers.append(number[order])
            firsts.append((torch.arange(wanted) < len(row)) & (task == 0 or self.stream.reading != "joint"))
        return tuple(torch.stack(values).to(self.device) for values in (rows, numbers, firsts))  # type: ignore[return-value]

    def _uniforms(self, what: str, counts: list[tuple[Draws, int]], rows: list[int], *where: int) -> Tensor:
        """Numbers in (0, 1), [S, max rows, U], each part's from its own generator, in the parts' order."""
        result = torch.full((len(self.seeds), max(rows), sum(count for _, count in counts)), 0.5)
        for s, seed in enumerate(self.seeds):
            place = 0
            for part, count in counts:
                if count:
                    drawn = torch.rand(rows[s], count, generator=generator(seed, what, part.name, *where))
                    # torch.rand can give 0; half a step up keeps the interval open
                    result[s, : rows[s], place : place + count] = drawn * (1 - 2**-23) + 2**-24
                    place += count
        return result.to(self.device)

    def _batches(self, task: int, first: int) -> Iterator[Batch]:
        """The batches of a task from iteration `first` on, every field [S, B, ...]."""
        size, seeds = self.stream.budget.batch, len(self.seeds)
        row, number, fresh = self._plan(task)
        counts = [(part, part.per_row) for part in self.draws]
        look_up = torch.func.vmap(self._look_up)
        weight = torch.full((seeds, size), 1 / size, dtype=self.fleet.problem.dtype, device=self.device)
        part = torch.zeros(seeds, size, dtype=torch.int64, device=self.device)
        slot = torch.full_like(part, -1)
        uniforms = torch.empty(0)
        for i in range(first, self.iterations):
            if i == first or i % BLOCK == 0:
                uniforms = self._uniforms("step", counts, [BLOCK * size] * seeds, task, i // BLOCK)
            here = slice(i * size, (i + 1) * size)
            in_block = slice(i % BLOCK * size, (i % BLOCK + 1) * size)
            x, y, allowed = look_up(self.rules, row[:, here], number[:, here])
            progress = torch.full((seeds,), i / self.iterations, dtype=weight.dtype, device=self.device)
            yield Batch(
                row[:, here], number[:, here], x, y, weight, part, slot, allowed, fresh[:, here],
                uniforms[:, in_block], progress,
            )  # fmt: skip

    def _look_up(self, own: dict[str, Tensor], row: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        problem = replace(self.fleet.problem, rules=own)
        return problem.x(row, task), problem.y(row, task), problem.allowed(task)

    def _finished(self, task: int) -> FinishedTask:
        """The task that just ended, every field [S, ...]."""
        rows = self.rules["rows_train"][:, task]
        count = self.count[:, task]
        counts = [(part, part.per_task_row) for part in self.draws]
        uniforms = self._uniforms("task", counts, [rows.shape[1]] * len(self.seeds), task)
        number = torch.full((len(self.seeds),), task, device=self.device)
        valid = torch.arange(rows.shape[1], device=self.device) < count.to(self.device)[:, None]
        return FinishedTask(number, rows, valid, self.rules["classes_of"][:, task], uniforms, number)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def _test_rows(self, full: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Row, task and validity of all that is scored, each [S, N]; a fixed random share of each task unless full."""
        rows, counts = self.rules["rows_test"].cpu(), self.rules["count_test"].cpu()
        share = max(1, self.eval_rows // self.tasks)
        row, number = [], []
        for s, seed in enumerate(self.seeds):
            own = [rows[s, t, : counts[s, t]] for t in range(self.tasks)]
            if not full:
                orders = [torch.randperm(len(o), generator=generator(seed, "test rows", t)) for t, o in enumerate(own)]
                own = [o[order[:share]] for o, order in zip(own, orders, strict=True)]
            row.append(torch.cat(own))
            number.append(torch.cat([torch.full((len(o),), t) for t, o in enumerate(own)]))
        valid = [torch.ones(len(r), dtype=torch.bool) for r in row]
        pad = torch.nn.utils.rnn.pad_sequence
        # padding repeats row 0 of the task 0 of nobody: it is not counted
        first = [r[0] for r in row]
        padded = pad(row, batch_first=True, padding_value=-1)
        padded = torch.where(padded < 0, torch.stack(first)[:, None], padded)
        result = (padded, pad(number, batch_first=True), pad(valid, batch_first=True))
        return tuple(value.to(self.device) for value in result)  # type: ignore[return-value]

    def _scores(self, state: State, full: bool, task: int) -> tuple[Tensor, int]:
        """Accuracy on every task [S, T], and the number of rows scored of each seed."""
        kept = self.__dict__.setdefault("_test", {})
        if full not in kept:
            kept[full] = self._test_rows(full)
        row, number, valid = kept[full]
        ready = self.fleet.prepare(state)
        correct = torch.zeros(len(self.seeds), self.tasks, dtype=torch.float64, device=self.device)
        total = torch.zeros_like(correct)
        told = number if self.stream.setting == "task" else torch.full_like(number, -1)
        with torch.no_grad():
            pieces = zip(*(value.split(CHUNK, 1) for value in (row, number, valid, told)), strict=True)
            for r, t, v, shown in pieces:
                scores = self.fleet.predict(ready, r, t, shown)
                right = self._answers(scores, t, task) == torch.func.vmap(self._labels)(self.rules, r, t)
                correct.scatter_add_(1, t, (right & v).to(torch.float64))
                total.scatter_add_(1, t, v.to(torch.float64))
        return correct / total, int(valid.sum(1).max())

    def _labels(self, own: dict[str, Tensor], row: Tensor, task: Tensor) -> Tensor:
        return own["label"][task, self.stream.table.y[row]]

    def _answers(self, scores: Tensor, number: Tensor, task: int) -> Tensor:
        """The best class among those that the setting leaves open, [S, B]."""
        allowed = self.rules["allowed"]
        if self.stream.setting == "task":
            mask = torch.func.vmap(lambda a, t: a[t])(allowed, number)
        elif self.stream.open == "all":
            return scores.argmax(2)
        else:  # classes seen so far; before learning there are none, and all compete
            seen = self.rules["classes_of"][:, : task + 1].any(1)
            mask = (seen | ~seen.any(1, keepdim=True))[:, None]
        return scores.masked_fill(~mask, -torch.inf).argmax(2)

    def _evaluate(self, course: Course, full: bool, task_end: bool) -> None:
        """Score every task; learning is not touched."""
        began = time.perf_counter()
        leaves = tree_leaves(course.state.params)
        finite = torch.stack([leaf.flatten(1).sum(1).isfinite() for leaf in leaves]).all(0)
        if course.when:
            self._flag(course, ~finite)
        accuracy, rows = self._scores(course.state, full, course.task)
        accuracy = torch.where(course.diverged[:, :1] >= 0, torch.nan, accuracy)
        course.accuracy.append(accuracy)
        course.when.append((course.task, course.iteration, int(task_end), rows))
        course.seconds["evaluation"] += time.perf_counter() - began

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
        )


def prepared_fleet(learner: AnyLearner, stream: Stream, seeds: list[int], start: Start) -> tuple[Fleet, State]:
    """The fleet of a run and its state before learning, on the CPU."""
    one = _Run(learner, stream, seeds, start, 0, 1000, False, torch.float32)
    return one.fleet, one._first_state(start)


def cost(
    learner: AnyLearner, stream: Stream, seeds: list[int], device: str = "cpu", steps: int = 10
) -> tuple[float, int]:
    """Seconds and bytes that a run will take, from a few steps of it: training, and the tensors that live throughout."""
    one = _Run(learner, stream.to(device_of(device)), seeds, random_start, 0, 1000, False, torch.float32)
    state, batches = one._first_state(random_start), one._batches(0, 0)
    times = []
    for batch, _ in zip(batches, range(steps), strict=False):
        began = time.perf_counter()
        state, loss = one.fleet.step(state, batch, 0.0)
        loss.sum().item()  # waits for the device
        times.append(time.perf_counter() - began)
    held = [*tree_leaves(state), *one.rules.values(), stream.table.x, stream.table.y]
    size = sum(leaf.numel() * leaf.element_size() for leaf in held)
    gradients = sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(state.params))
    return min(times) * one.iterations * one.tasks, size + gradients
