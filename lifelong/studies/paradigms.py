"""One stream read four ways, on the same data, network and budget, in one table.

Multi-task: all tasks at once. Continual: one after another. Transfer: each task alone, then carried over. Meta: a
distribution of episodes. The last two tasks are held out of all of them, and each then takes to these from k rows of
each class, by the same rule. N = trained tasks x iterations x batch examples pass forward and backward, for each seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from lifelong.adaptation.few_shot import AdaptationJobs, FewShot, FewShotEvaluator
from lifelong.adaptation.rate_selection import select_rate
from lifelong.core.inner_loop import nearest_means
from lifelong.core.learner import AnyLearner, Learner, State
from lifelong.core.loop import Session, check_request, learned, refuse_varied
from lifelong.core.problem import Problem
from lifelong.core.result import Result
from lifelong.core.storage import row_bytes, stored
from lifelong.core.strategy import FineTuning, Strategy
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner
from lifelong.meta.maml import MAML
from lifelong.meta.pretraining import Diverged, pretrain, with_trunk
from lifelong.metrics import average_accuracy, forgetting
from lifelong.models.base import Net
from scenarios.brief import in_brief
from scenarios.episodes import Episode, Support, TaskSource, shuffled
from scenarios.joint import isolate, joint
from scenarios.split import with_validation
from scenarios.stream import ScenarioError, Stream

PARADIGMS = ("multi-task", "transfer", "meta", "continual")
HELD = 2  # tasks at the stream's end that nobody trains on
VALIDATION = 0.1  # of each task's training rows, where the scenario holds out none
STAGE = MAML(shot=5, query=5, tasks=4, steps=1, rate=0.1)
# fields of a stage that the stream and the budget say
SET_HERE = ("way", "iterations", "data", "rotations", "per_seed", "allow_overlap")
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
WIDENINGS = 2
Say = Callable[[str], None]


@dataclass(frozen=True)
class Line:
    """One row of the table. final, forgetting [S] or None; few_shot [S, K]: held-out tasks after k rows of each class.

    stored: bytes kept beyond the network, for a seed, a row number counted as the row that it stands for; in_memory: of
    these, what the tensors themselves take; passes: over the training rows of the trained tasks, for a seed;
    rate: of the adaptation, chosen on the trained tasks' validation rows; sees: what it was allowed to see.
    """

    paradigm: str
    method: str
    final: Tensor | None = None
    forgetting: Tensor | None = None
    few_shot: Tensor | None = None
    seconds: float = 0.0
    stored: float = 0.0
    in_memory: float = 0.0
    passes: float = 0.0
    rate: float = 0.0
    sees: str = ""
    note: str = ""
    __repr__ = in_brief


Learning = Callable[[Line], tuple[Line, Net | None]]


@dataclass
class Comparison:
    """The four paradigms of a stream, learned one after another; `lines` is the table.

    names: what the strategies' lines are called, as they were typed; their repr where nothing is given. lines: those that
    are there already are not learned again. save: called after each line that is learned.
    """

    stream: Stream
    learner: Learner
    seeds: list[int]
    strategies: tuple[Strategy, ...] = ()
    names: tuple[str, ...] = ()
    stage: InitialisationLearner | None = None
    paradigms: tuple[str, ...] = PARADIGMS
    protocol: FewShot = field(default_factory=FewShot)
    say: Say = lambda line: None
    lines: list[Line] = field(default_factory=list)
    save: Callable[[], object] = lambda: None

    @property
    def diverged(self) -> bool:
        """Whether some seed of some line was lost."""
        return any(not bool(line.final.isfinite().all()) for line in self.lines if line.final is not None)

    def __post_init__(self) -> None:
        self._check_words()
        self.stream = with_validation(self.stream, VALIDATION)
        self.count = len(self.stream) - HELD
        self.trained = self.stream[: self.count]
        for strategy in (FineTuning(), *self.strategies):
            refuse_varied(replace(self.learner, strategy=strategy))
            check_request(replace(self.learner, strategy=strategy), self.trained, self.seeds, "cpu")
        self.problem = Session(self.learner, self.stream, self.seeds).fleet.problem
        self.index = self.problem.index
        self.way = self._equal_ways()
        self.evaluator = FewShotEvaluator(self.stream, self.seeds, self.problem, self.protocol)
        self.budget = self.count * self.stream.budget.iterations * self.stream.budget.batch
        dataset = self.stream.dataset
        self.row_bytes = row_bytes(dataset)
        self.rows = float(self.index["count_train"][:, : self.count].sum(1).to(torch.float64).mean())
        if "meta" in self.paradigms:
            self.studies = [self._study(s) for s in range(len(self.seeds))]
            self.stage = self._within_budget(self.stage or STAGE)

    def _check_words(self) -> None:
        """Raise ScenarioError for what no data would make right."""
        unknown = [word for word in self.paradigms if word not in PARADIGMS]
        if unknown:
            raise ScenarioError(f"unknown paradigm {unknown[0]!r}: there are {', '.join(PARADIGMS)}")
        if self.stream.setting != "task":
            raise ScenarioError("the four paradigms are compared where the task is told: --setting task")
        if len(self.stream) < HELD + 2:
            raise ScenarioError(
                f"the paradigms train on all tasks but the last {HELD}: the stream needs {HELD + 2} or more, and has {len(self.stream)}"
            )
        if self.learner.model.task_embedding:
            raise ScenarioError(
                "the paradigms compare networks that are told the task by their head alone: leave Conditioned(...) out"
            )

    def _equal_ways(self) -> int:
        """Classes of every task. Raises ScenarioError where tasks differ in them, or have no rows to validate on."""
        ways, name = sorted(set(self.index["classes_of"].sum(2).flatten().tolist())), self.stream.name
        if len(ways) > 1:
            raise ScenarioError(
                f"the paradigms compare tasks of equally many classes, and those of {name} have {ways[0]} to {ways[-1]}"
            )
        if not int(self.index["count_validation"][:, : self.count].min()):
            raise ScenarioError(f"a task of {name} has too few training rows to hold some out for validation")
        return ways[0]

    def _within_budget(self, stage: InitialisationLearner) -> InitialisationLearner:
        """The stage with the stream's way, for as long as the budget lasts. Raises InitialisationError where it cannot be read so."""
        name = type(stage).__name__
        if not stage.episodic:
            raise InitialisationError(
                f"{name} does not learn from episodes alone: name a stage that does, as in 'MAML(shot=5)'"
            )
        for field_name in SET_HERE:
            usual = type(stage).__dataclass_fields__[field_name].default
            if getattr(stage, field_name) not in (usual, self.way if field_name == "way" else usual):
                raise InitialisationError(
                    f"{name}({field_name}=...): the meta paradigm's episodes and their number are the stream's: leave it out"
                )
        stage = replace(stage, way=self.way)
        stage.check(self.studies[0])
        images = stage.images(self.studies[0])
        if images > self.budget:
            raise InitialisationError(
                f"an iteration of {stage!r} passes {images:,} examples, more than the {self.budget:,} of a paradigm: make it smaller"
            )
        return replace(stage, iterations=self.budget // images)

    def learn(self) -> list[Line]:
        """Every paradigm that was asked for, between its floors and ceilings; lines that are there are kept."""
        finished = {(line.paradigm, line.method): line for line in self.lines}
        self.lines = []
        for paradigm, method, learn in self._plan():
            if (paradigm, method) in finished:
                self.lines.append(finished[paradigm, method])
                continue
            self.say(f"{paradigm}: {method}")
            self._add(*learn(Line(paradigm, method)))
            self.save()
        return self.lines

    @property
    def planned(self) -> int:
        """How many lines the table will have."""
        return len(self._plan())

    def _plan(self) -> list[tuple[str, str, Learning]]:
        """The table's lines in their order: the paradigm, the method, and what learns it."""
        strategies = list(zip(("FineTuning()", *self._names()), (FineTuning(), *self.strategies), strict=True))
        paradigms: dict[str, list[tuple[str, Learning]]] = {
            "multi-task": [("joint", self._multi_task)],
            "transfer": [(f"fine-tuning from each of {self.count} tasks", self._transfer)],
            "meta": [(type(self.stage).__name__, self._meta)],
            "continual": [(name, partial(self._continual, strategy)) for name, strategy in strategies],
        }
        return [
            ("floor", "chance", self._chance),
            ("floor", "nearest class mean (pixels)", self._nearest_means),
            ("floor", "random start", self._random),
            *((paradigm, *line) for paradigm in self.paradigms for line in paradigms[paradigm]),
            ("ceiling", "single task, all its rows", self._single),
            ("ceiling", "joint, held-out tasks too", self._joint_with_held),
        ]

    def _names(self) -> tuple[str, ...]:
        return self.names or tuple(map(repr, self.strategies))

    def _learned(self, learner: AnyLearner, stream: Stream) -> tuple[Result, State, float]:
        """A fleet that learned a stream: what it measured, its final state, its seconds."""
        session, began = Session(learner, stream, self.seeds), time.perf_counter()
        result, state = learned(session)
        return result, state, time.perf_counter() - began

    def _add(self, line: Line, nets: Net | None = None) -> None:
        """Measure how networks [G, ...] take to the held-out tasks, G a multiple of S whose mean counts; add the line."""
        line = replace(line, final=None if line.final is None else line.final.cpu())
        kept = torch.ones(len(self.seeds), dtype=torch.bool) if line.final is None else line.final.isfinite()
        if nets is not None:
            rate = self._rate(nets, kept) if kept.any() else 0.0
            few = self._held(nets, rate).cpu().masked_fill(~kept[:, None], torch.nan)
            line = replace(line, rate=rate, few_shot=few)
        if not kept.all():
            lost = f"{int((~kept).sum())} of {len(kept)} seeds diverged"
            line = replace(line, note=f"{line.note}; {lost}" if line.note else lost)
        self.lines.append(line)

    def _rate(self, nets: Net, kept: Tensor) -> float:
        """The adaptation's rate with the best mean over the trained tasks' validation rows and all k.

        Each seed tries so many of these tasks that the seeds together try all: an adaptation costs more than a paradigm.
        Seeds that are not kept try none.
        """

        def score(rates: Sequence[float]) -> Tensor:
            jobs = self.evaluator.grid(nets, rates)
            each = -(-self.count // len(self.seeds))
            wanted = (jobs.task < self.count) & ((jobs.task - jobs.seed * each) % self.count < each)
            wanted &= kept.to(wanted.device)[jobs.seed]
            jobs = AdaptationJobs(*(value[wanted] for value in jobs))
            scores = [self.evaluator.accuracy(nets, jobs, k, part="validation") for k in self.protocol.shots]
            return torch.stack(scores).view(len(scores), len(rates), -1).mean((0, 2))

        return float(select_rate(score, RATES, WIDENINGS).rates)

    def _held(self, nets: Net, rate: float) -> Tensor:
        """Accuracy [S, K] on the held-out tasks, mean over them and over the networks of a seed."""
        jobs = self.evaluator.grid(nets, [rate])
        jobs = AdaptationJobs(*(value[jobs.task >= self.count] for value in jobs))
        scores = [self.evaluator.accuracy(nets, jobs, k).view(-1, HELD).mean(1) for k in self.protocol.shots]
        return torch.stack(scores, 1).view(-1, len(self.seeds), len(self.protocol.shots)).mean(0)

    # --- floors and ceilings: each takes an empty line and gives it with what was learned, and networks to adapt ------

    def _chance(self, line: Line) -> tuple[Line, Net | None]:
        few = torch.full((len(self.seeds), len(self.protocol.shots)), 1 / self.way, dtype=torch.float64)
        return replace(line, final=few[:, 0], few_shot=few, sees="nothing"), None

    def _nearest_means(self, line: Line) -> tuple[Line, Net | None]:
        result, state, seconds = self._learned(NearestClassMean(model=self.learner.model), self.trained)
        few = torch.stack([self._pixel_means(k) for k in self.protocol.shots], 1)
        line = replace(line, final=result.at_task_ends[:, -1].mean(1), few_shot=few, seconds=seconds, passes=1.0)
        return replace(self._storing(line, state), sees="each task once, in order"), None

    def _random(self, line: Line) -> tuple[Line, Net | None]:
        return replace(line, sees="nothing"), self.evaluator.random

    def _storing(self, line: Line, state: State) -> Line:
        """The line with the bytes of a final state's memory."""
        size = stored(state.memory, self.stream.dataset, len(self.seeds))
        return replace(line, stored=size.total, in_memory=size.tensors)

    def _storing_rows(self, line: Line) -> Line:
        """The line of what needs all training rows of the trained tasks at once."""
        return replace(line, stored=self.rows * self.row_bytes, in_memory=self.rows * self.row_bytes)

    def _pixel_means(self, shot: int) -> Tensor:
        """Accuracy [S] of nearest class means of pixels on the held-out tasks."""
        scores = [
            self._answered(s, t, shot, None)
            for s in range(len(self.seeds))
            for t in range(self.count, len(self.stream))
        ]
        return torch.stack(scores).view(len(self.seeds), -1).mean(1)

    def _answered(self, s: int, t: int, shot: int, answers: Any) -> Tensor:
        """Accuracy of one seed on one task's test rows, answered from k rows of each class; by pixel means if not said."""
        problem = replace(self.problem, index={name: value[s] for name, value in self.index.items()})
        shown = self.evaluator.support[s, t, :, :shot].flatten()
        rows = self.index["rows_test"][s, t, : int(self.index["count_test"][s, t])]
        number = torch.nonzero(self.index["classes_of"][s, t])[:, 0]
        x, asked = problem.x(shown, torch.full_like(shown, t)), problem.x(rows, torch.full_like(rows, t))
        labels, truth = (
            (problem.y(r, torch.full_like(r, t))[:, None] == number).to(torch.int64).argmax(1) for r in (shown, rows)
        )
        scores = (
            nearest_means(x.flatten(1), labels, asked.flatten(1), self.way)
            if answers is None
            else answers(x, labels, asked)
        )
        return (scores.argmax(1) == truth).to(torch.float64).mean()

    @cached_property
    def _alone(self) -> tuple[list[State], Tensor, float]:
        """Each trained task alone: N / T' examples each; final states, own accuracy [S, T'], seconds."""
        states, scores, seconds = [], [], 0.0
        for t in range(self.count):
            self.say(f"alone: task {t + 1} of {self.count}")
            single_task = self.trained[t : t + 1]
            result, state, taken = self._learned(self.learner, single_task)
            states, seconds = [*states, state], seconds + taken
            scores.append(result.at_task_ends[:, -1, 0])
        return states, torch.stack(scores, 1), seconds

    def _single(self, line: Line) -> tuple[Line, Net | None]:
        """All the data of the task at hand."""
        held = self.stream[self.count :]
        learned, _, seconds = self._learned(self.learner, isolate(held))
        single = learned.at_task_ends.diagonal(dim1=1, dim2=2).mean(1)
        few = single[:, None].expand(-1, len(self.protocol.shots))
        line = replace(line, final=self._alone[1].mean(1), few_shot=few, seconds=self._alone[2] + seconds)
        return replace(line, sees="one task, and its data at the end", passes=self.budget / self.rows), None

    def _joint_with_held(self, line: Line) -> tuple[Line, Net | None]:
        """All tasks at once, the held-out ones among them."""
        both, _, seconds = self._learned(self.learner, joint(self.stream))
        last = both.at_task_ends[:, -1]
        few = last[:, self.count :].mean(1)[:, None].expand(-1, len(self.protocol.shots))
        line = replace(line, final=last[:, : self.count].mean(1), few_shot=few, seconds=seconds)
        return replace(line, sees="all tasks at once, the held-out ones too", passes=self.budget / self.rows), None

    # --- the four paradigms ----------------------------------------------------------------------------------------

    def _multi_task(self, line: Line) -> tuple[Line, Net | None]:
        result, state, seconds = self._learned(self.learner, joint(self.trained))
        line = replace(self._storing_rows(line), final=average_accuracy(result), seconds=seconds)
        line = replace(line, passes=self.budget / self.rows, sees="all trained tasks at once, task numbers")
        return line, state.params["net"]

    def _continual(self, strategy: Strategy, line: Line) -> tuple[Line, Net | None]:
        result, state, seconds = self._learned(replace(self.learner, strategy=strategy), self.trained)
        line = replace(line, final=average_accuracy(result), forgetting=forgetting(result), seconds=seconds)
        line = replace(line, passes=self.budget / self.rows, sees="one task after another, task numbers")
        return self._storing(line, state), state.params["net"]

    def _transfer(self, line: Line) -> tuple[Line, Net | None]:
        """One network for each trained task; the held-out score is the mean over them."""
        states, scores, seconds = self._alone
        nets = {name: torch.cat([s.params["net"][name] for s in states]) for name in states[0].params["net"]}
        size = float(sum(v[0].numel() * v.element_size() for v in states[0].params["net"].values()) * (self.count - 1))
        line = replace(line, final=scores.mean(1), seconds=seconds, stored=size, in_memory=size)
        return replace(line, passes=self.budget / self.rows, sees="one task each, task numbers"), nets

    def _meta(self, line: Line) -> tuple[Line, Net | None]:
        """Episodes from the training rows of the trained tasks, until N examples have passed."""
        stage, began = self.stage, time.perf_counter()
        assert stage is not None
        line = replace(self._storing_rows(line), sees="all trained tasks at once, as episodes")
        line = replace(line, passes=stage.images(self.studies[0]) * stage.iterations / self.rows)
        try:
            learned = pretrain(stage, self.studies, self.seeds, episodes=0, initial=self.evaluator.random)
        except Diverged:
            lost = torch.full((len(self.seeds),), torch.nan, dtype=torch.float64)
            return replace(line, final=lost, few_shot=lost[:, None].expand(-1, len(self.protocol.shots))), None
        seconds, scores = time.perf_counter() - began, []
        for s, study in enumerate(self.studies):
            meta = learned.of(s)

            def answers(
                x: Tensor, labels: Tensor, asked: Tensor, study: TaskDistribution = study, meta: Any = meta
            ) -> Tensor:
                with torch.no_grad():
                    return stage.predict(study, meta, Support(x, labels), asked, self.way)

            shot = min(stage.tests_shot, self.protocol.shots[-1])
            scores.append(torch.stack([self._answered(s, t, shot, answers) for t in range(self.count)]).mean())
        nets = [
            with_trunk(
                {k: v[s] for k, v in self.evaluator.random.items()}, {k: v[s] for k, v in learned.meta["net"].items()}
            )
            for s in range(len(self.seeds))
        ]
        note = f"final after {shot} rows of each class"
        line = replace(line, final=torch.stack(scores), seconds=seconds, note=note)
        return line, {name: torch.stack([n[name] for n in nets]) for name in nets[0]}

    def _study(self, s: int) -> TaskDistribution:
        """One seed's episodes."""
        problem = replace(self.problem, index={name: value[s] for name, value in self.index.items()})
        source = TaskEpisodes(problem, self.count)
        return TaskDistribution(self.learner.model, source, source)


class TaskEpisodes(TaskSource):
    """A stream's own tasks as episodes: one task each, its classes in random order, rows from its training part."""

    def __init__(self, problem: Problem, tasks: int) -> None:
        self.problem, self.tasks = problem, tasks
        index = problem.index
        first = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._shape = tuple(problem.x(first, first).shape[1:])
        self.rows = []  # of each task and class
        for t in range(tasks):
            trained = index["rows_train"][t, : int(index["count_train"][t])]
            y = problem.y(trained, torch.full_like(trained, t))
            classes = torch.nonzero(index["classes_of"][t])[:, 0].tolist()
            self.rows.append([trained[y == c] for c in classes])
        self.way = len(self.rows[0])

    def __len__(self) -> int:
        return self.tasks * self.way

    @property
    def name(self) -> str:
        """The table's."""
        return self.problem.dataset.name

    @property
    def shape(self) -> tuple[int, ...]:
        """As the network sees a row in its task."""
        return self._shape

    @property
    def device(self) -> torch.device:
        """Where the table lies."""
        return self.problem.dataset.x.device

    @property
    def hash(self) -> str:
        """Named by what it is: these episodes belong to a stream and a seed."""
        return f"tasks of {self.name}"

    def queries(self, shot: int, wanted: int) -> int:
        """Those of the smallest class."""
        return min(wanted, self._least - shot)

    @property
    def _least(self) -> int:
        return min(len(rows) for task in self.rows for rows in task)

    def check(self, way: int, shot: int, query: int) -> None:
        """Raise ScenarioError where no such episode can be drawn."""
        if shot + query > self._least:
            raise ScenarioError(
                f"shot={shot} and query={query} need {shot + query} rows of each class; one has {self._least}"
            )

    def draw(self, tasks: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episode:
        """T episodes, x already as the network sees it in its task; classes and rows in random order."""
        numbers = torch.randint(self.tasks, (tasks,), generator=generator)
        classes = torch.stack([torch.randperm(self.way, generator=generator) for _ in range(tasks)])
        rows = torch.stack([
            torch.stack([self._some(self.rows[t][c], shot + query, generator) for c in order])
            for t, order in zip(numbers.tolist(), classes.tolist(), strict=True)
        ])  # [T, W, K + Q]  # fmt: skip

        def part(first: int, last: int) -> tuple[Tensor, Tensor]:
            order = shuffled(tasks, self.way * (last - first), generator).to(self.device)
            row = rows[:, :, first:last].flatten(1).gather(1, order)
            task = numbers.to(self.device)[:, None].expand_as(row)
            x = self.problem.x(row.flatten(), task.flatten()).view(*row.shape, *self.shape)
            return x, order // max(last - first, 1)

        places = (numbers[:, None] * self.way + classes).to(self.device)
        return Episode(*part(0, shot), *part(shot, shot + query), places)

    @staticmethod
    def _some(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Different rows, at random."""
        return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
