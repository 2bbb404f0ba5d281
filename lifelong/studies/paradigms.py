"""One stream read four ways, on the same data, network and budget, in one table.

Multi-task: all tasks at once. Continual: one after another. Transfer: each task alone, then carried over. Meta: a
distribution of episodes. The last tasks are held out of all of them, and so are some that rates are chosen on; each
paradigm then takes to the held-out ones from k rows of each class: by the same rule, by the nearest class mean of its
features, and, where it has one, by its own way of answering. N = trained tasks x iterations x steps on each batch x batch
examples pass forward and backward, for each seed; what passes more than that says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lifelong.adaptation.few_shot import FewShot, FewShotEvaluator
from lifelong.core.batch import Batch, Memory, Outputs, Params
from lifelong.core.learner import AnyLearner, Learner, State
from lifelong.core.loop import Session, check_request, learned, refuse_varied
from lifelong.core.problem import Problem
from lifelong.core.result import Result
from lifelong.core.stage import Stage, Tell, told_to_nobody
from lifelong.core.storage import row_bytes, stored
from lifelong.core.strategy import FineTuning, Requirements, Strategy
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta
from lifelong.meta.maml import MAML
from lifelong.meta.pretraining import Diverged, pretrain, with_trunk
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.task_episodes import TaskEpisodes
from lifelong.metrics import average_accuracy, forgetting
from lifelong.models.base import Net
from lifelong.studies.held_out import Answers, HeldOutTasks
from scenarios.brief import in_brief
from scenarios.episodes import Support
from scenarios.joint import isolate, joint
from scenarios.split import with_validation
from scenarios.stream import ScenarioError, Stream

PARADIGMS = ("multi-task", "transfer", "meta", "continual")
TRAINED = 2  # tasks at least, to train on
VALIDATION = 0.1  # of each task's training rows, where the scenario holds out none
SOURCES = 8  # tasks at most whose networks are carried over to the held-out ones
# of small tasks with a tenth held out, no class keeps too few rows for these, whatever the seed
STAGES = (MAML(shot=5, query=3, tasks=4, steps=1, rate=0.1), ProtoNet(shot=1, query=5, tasks=4))
# fields of a stage that the stream and the budget say
SET_HERE = ("way", "iterations", "data", "rotations", "per_seed", "allow_overlap")


@dataclass(frozen=True)
class Line:
    """One row of the table. final, forgetting [S] or None: accuracy on the trained tasks, and what was lost of it.

    On the held-out tasks after k rows of each class, each [S, K] or None: few_shot by the rule of adaptation, by_means by
    the nearest class mean of the features, own_answers by the paradigm's own way of answering. rates: of the adaptation, one for
    each k, chosen on tasks that nobody trains on; inside: whether each was better than both its neighbours.
    stored: bytes kept beyond the network, for a seed, a row number counted as the row that it stands for; in_memory: of
    these, what the tensors themselves take; examples: that passed forward and backward, for a seed, replayed ones too;
    passes: the same over the training rows of the trained tasks; sees: what it was allowed to see.
    """

    paradigm: str
    method: str
    final: Tensor | None = None
    forgetting: Tensor | None = None
    few_shot: Tensor | None = None
    by_means: Tensor | None = None
    own_answers: Tensor | None = None
    seconds: float = 0.0
    stored: float = 0.0
    in_memory: float = 0.0
    examples: float = 0.0
    passes: float = 0.0
    rates: tuple[float, ...] = ()
    inside: bool = True
    sees: str = ""
    note: str = ""
    __repr__ = in_brief


class Outcome(NamedTuple):
    """What was learned of a line: the line, networks [G, ...] that take to the held-out tasks, answers of their own."""

    line: Line
    nets: Net | None = None
    answers: Sequence[Answers] = ()


Learning = Callable[[Line], Outcome]


@dataclass(frozen=True)
class Division:
    """The tasks of a stream in three: the first are trained on, the next choose rates, the last are held out."""

    trained: int
    choosing: int
    held: int

    @property
    def to_choose(self) -> range:
        """Numbers of the tasks that rates are chosen on."""
        return range(self.trained, self.trained + self.choosing)

    @property
    def held_out(self) -> range:
        """Numbers of the held-out tasks."""
        return range(self.trained + self.choosing, self.trained + self.choosing + self.held)


def divided(tasks: int, held: int = 0, choosing: int = 0) -> Division:
    """How a stream's tasks are divided; where nothing is said, a ninth is held out, and as many choose, two and one at least.

    Raises ScenarioError where fewer than two are left to train on.
    """
    held = held or max(2, tasks // 9)
    choosing = choosing or (held if tasks >= 4 * held else 1)
    if min(held, choosing) < 1 or tasks - held - choosing < TRAINED:
        raise ScenarioError(
            f"{held} held-out tasks and {choosing} to choose rates on leave {tasks - held - choosing} of {tasks} to train on,"
            f" and it takes {TRAINED}: hold out fewer, or take a longer stream"
        )
    return Division(tasks - held - choosing, choosing, held)


@dataclass
class Comparison:
    """The four paradigms of a stream, learned one after another; `lines` is the table.

    names: what the strategies' lines are called, as they were typed; their repr where nothing is given. stages: the
    meta-learners. held, choosing: tasks that are held out, and that rates are chosen on; 0: as `divided` has it. lines:
    those that are there already are not learned again. save: called after each line that is learned.
    """

    stream: Stream
    learner: Learner
    seeds: list[int]
    strategies: tuple[Strategy, ...] = ()
    names: tuple[str, ...] = ()
    stages: tuple[InitialisationLearner, ...] = STAGES
    paradigms: tuple[str, ...] = PARADIGMS
    protocol: FewShot = field(default_factory=FewShot)
    tell: Tell = told_to_nobody
    lines: list[Line] = field(default_factory=list)
    save: Callable[[], object] = lambda: None
    held: int = 0
    choosing: int = 0

    @property
    def diverged(self) -> bool:
        """Whether some seed of some line was lost."""
        return any(not bool(line.final.isfinite().all()) for line in self.lines if line.final is not None)

    def __post_init__(self) -> None:
        self._check_words()
        self.division = divided(len(self.stream), self.held, self.choosing)
        self.stream = with_validation(self.stream, VALIDATION)
        self.count = self.division.trained
        self.trained = self.stream[: self.count]
        for strategy in (FineTuning(), *self.strategies):
            refuse_varied(replace(self.learner, strategy=strategy))
            check_request(replace(self.learner, strategy=strategy), self.trained, self.seeds, "cpu")
        self.problem = Session(self.learner, self.stream, self.seeds).fleet.problem
        self.index = self.problem.index
        self.way = self._equal_ways()
        evaluator = FewShotEvaluator(self.stream, self.seeds, self.problem, self.protocol)
        self.unseen = HeldOutTasks(evaluator, self.division.to_choose, self.division.held_out, self.way)
        self.random = evaluator.random
        budget = self.stream.budget
        self.budget = self.count * budget.iterations * budget.repeats * budget.batch
        self.row_bytes = row_bytes(self.stream.dataset)
        self.rows = float(self.index["count_train"][:, : self.count].sum(1).to(torch.float64).mean())
        if "meta" in self.paradigms:
            self.studies = [self._study(s) for s in range(len(self.seeds))]
            self.stages = tuple(self._within_budget(stage) for stage in self.stages)

    def _check_words(self) -> None:
        """Raise ScenarioError for what no data would make right."""
        unknown = [word for word in self.paradigms if word not in PARADIGMS]
        if unknown:
            raise ScenarioError(f"unknown paradigm {unknown[0]!r}: there are {', '.join(PARADIGMS)}")
        if self.stream.setting != "task":
            raise ScenarioError("the four paradigms are compared where the task is told: --setting task")
        if self.learner.model.task_embedding:
            raise ScenarioError(
                "the paradigms compare networks that are told the task by their head alone: leave Conditioned(...) out"
            )
        if not self.stream.budget.iterations:
            raise ScenarioError("the paradigms share a number of examples: give tasks iterations, not epochs")

    def _equal_ways(self) -> int:
        """Classes of every task. Raises ScenarioError where tasks differ in their number, share them, or cannot validate."""
        ways, name = sorted(set(self.index["classes_of"].sum(2).flatten().tolist())), self.stream.name
        if len(ways) > 1:
            raise ScenarioError(
                f"the paradigms compare tasks of equally many classes, and those of {name} have {ways[0]} to {ways[-1]}"
            )
        trained, others = (part.any(1) for part in self.index["classes_of"].tensor_split([self.count], 1))
        if bool((trained & others).any()):
            raise ScenarioError(
                f"tasks of {name} share classes, so none of them can be held out: take one whose tasks are apart"
            )
        if not int(self.index["count_validation"][:, self.division.to_choose].min()):
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
        for number, (paradigm, method, learn) in enumerate(self._plan(), 1):
            if (paradigm, method) in finished:
                self.lines.append(finished[paradigm, method])
                continue
            self.tell(Stage(number, self.planned, f"{paradigm}: {method}"))
            self.lines.append(self._measured(learn(Line(paradigm, method))))
            self.save()
        return self.lines

    @property
    def planned(self) -> int:
        """How many lines the table will have."""
        return len(self._plan())

    def _plan(self) -> list[tuple[str, str, Learning]]:
        """The table's lines in their order: the paradigm, the method, and what learns it."""
        strategies = list(zip(("FineTuning()", *self._names()), (FineTuning(), *self.strategies), strict=True))
        count = min(self.count, SOURCES)
        paradigms: dict[str, list[tuple[str, Learning]]] = {
            "multi-task": [("joint", self._multi_task)],
            "transfer": [(f"fine-tuning from each of {count} tasks", self._transfer)],
            "meta": [(name, partial(self._meta, stage)) for name, stage in self._stages()],
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

    def _stages(self) -> list[tuple[str, InitialisationLearner]]:
        """The meta-learners by their names, in full where two share one."""
        count = Counter(type(stage).__name__ for stage in self.stages)
        return [(type(s).__name__ if count[type(s).__name__] == 1 else repr(s), s) for s in self.stages]

    def _learned(self, learner: AnyLearner, stream: Stream) -> tuple[Result, State, float]:
        """A fleet that learned a stream: what it measured, its final state, its seconds."""
        session, began = Session(learner, stream, self.seeds), time.perf_counter()
        result, state = learned(session)
        return result, state, time.perf_counter() - began

    def _measured(self, outcome: Outcome) -> Line:
        """The line with how its networks take to the held-out tasks."""
        line, nets, answers = outcome
        line = replace(line, final=None if line.final is None else line.final.cpu())
        kept = torch.ones(len(self.seeds), dtype=torch.bool) if line.final is None else line.final.isfinite()
        if nets is not None and kept.any():
            adapted = self.unseen.adapted(nets, kept)
            line = replace(line, few_shot=adapted.accuracy, rates=tuple(adapted.rates), inside=adapted.inside)
            line = replace(line, by_means=self.unseen.by_means(nets))
        if answers:
            line = replace(line, own_answers=self.unseen.answered(answers).cpu())
        if not kept.all():
            shown = {name: getattr(line, name) for name in ("few_shot", "by_means", "own_answers")}
            lost = {name: v.masked_fill(~kept[:, None], torch.nan) for name, v in shown.items() if v is not None}
            said = f"{int((~kept).sum())} of {len(kept)} seeds diverged"
            line = replace(line, **lost, note=f"{line.note}; {said}" if line.note else said)
        return line

    def _within(self, line: Line, examples: float) -> Line:
        """The line with the examples that passed."""
        return replace(line, examples=examples, passes=examples / self.rows)

    # --- floors and ceilings: each takes an empty line and gives it with what was learned ----------------------------

    def _chance(self, line: Line) -> Outcome:
        few = torch.full((len(self.seeds), len(self.protocol.shots)), 1 / self.way, dtype=torch.float64)
        return Outcome(replace(line, final=few[:, 0], few_shot=few, by_means=few, sees="nothing"))

    def _nearest_means(self, line: Line) -> Outcome:
        result, state, seconds = self._learned(NearestClassMean(model=self.learner.model), self.trained)
        few = self.unseen.answered([self.unseen.pixel_means] * len(self.seeds)).cpu()
        line = replace(line, final=result.at_task_ends[:, -1].mean(1), by_means=few, seconds=seconds)
        line = self._within(self._storing(line, state), self.rows)
        return Outcome(replace(line, sees="each task once, in order"))

    def _random(self, line: Line) -> Outcome:
        return Outcome(replace(line, sees="nothing"), self.random)

    def _storing(self, line: Line, state: State) -> Line:
        """The line with the bytes of a final state's memory."""
        size = stored(state.memory, self.stream.dataset, len(self.seeds))
        return replace(line, stored=size.total, in_memory=size.tensors)

    def _storing_rows(self, line: Line) -> Line:
        """The line of what needs all training rows of the trained tasks at once."""
        return replace(line, stored=self.rows * self.row_bytes, in_memory=self.rows * self.row_bytes)

    @cached_property
    def _alone(self) -> tuple[list[Net], Tensor, float]:
        """Each trained task alone: N / T' examples each; networks, own accuracy [S, T'], seconds."""
        nets, scores, seconds = [], [], 0.0
        for t in range(self.count):
            self.tell(f"alone: task {t + 1} of {self.count}")
            result, state, taken = self._learned(self.learner, self.trained[t : t + 1])
            nets, seconds = [*nets, state.params["net"]], seconds + taken
            scores.append(result.at_task_ends[:, -1, 0])
        return nets, torch.stack(scores, 1), seconds

    def _single(self, line: Line) -> Outcome:
        """All the data of the task at hand."""
        result, _, seconds = self._learned(self.learner, isolate(self._held_out))
        single = result.at_task_ends.diagonal(dim1=1, dim2=2).mean(1)
        few = single[:, None].expand(-1, len(self.protocol.shots))
        line = replace(line, final=self._alone[1].mean(1), few_shot=few, seconds=self._alone[2] + seconds)
        return Outcome(replace(self._within(line, self.budget), sees="one task, and its data at the end"))

    @property
    def _held_out(self) -> Stream:
        return self.stream[self.division.held_out.start :]

    def _joint_with_held(self, line: Line) -> Outcome:
        """All tasks at once, the held-out ones among them."""
        both, _, seconds = self._learned(self.learner, joint(self.stream))
        last = both.at_task_ends[:, -1]
        few = last[:, self.division.held_out].mean(1)[:, None].expand(-1, len(self.protocol.shots))
        line = replace(line, final=last[:, : self.count].mean(1), few_shot=few, seconds=seconds)
        line = self._within(line, self.budget * len(self.stream) / self.count)
        return Outcome(replace(line, sees="all tasks at once, the held-out ones too"))

    # --- the four paradigms ----------------------------------------------------------------------------------------

    def _multi_task(self, line: Line) -> Outcome:
        result, state, seconds = self._learned(self.learner, joint(self.trained))
        line = replace(self._storing_rows(line), final=average_accuracy(result), seconds=seconds)
        line = replace(self._within(line, self.budget), sees="all trained tasks at once, task numbers")
        return Outcome(line, state.params["net"])

    def _continual(self, strategy: Strategy, line: Line) -> Outcome:
        learner = replace(self.learner, strategy=strategy)
        result, state, seconds = self._learned(learner, self.trained)
        line = replace(line, final=average_accuracy(result), forgetting=forgetting(result), seconds=seconds)
        examples = self.budget // self.stream.budget.batch * rows_of_step(learner, self.trained)
        line = replace(self._within(line, examples), sees="one task after another, task numbers")
        return Outcome(self._storing(line, state), state.params["net"])

    def _transfer(self, line: Line) -> Outcome:
        """One network for each trained task; the held-out score is the mean over some of them, evenly spaced."""
        each, scores, seconds = self._alone
        count = min(self.count, SOURCES)
        sources = [each[i * self.count // count] for i in range(count)]
        nets = {name: torch.cat([net[name] for net in sources]) for name in sources[0]}
        size = float(sum(v[0].numel() * v.element_size() for v in sources[0].values()) * (self.count - 1))
        line = replace(line, final=scores.mean(1), seconds=seconds, stored=size, in_memory=size)
        return Outcome(replace(self._within(line, self.budget), sees="one task each, task numbers"), nets)

    def _meta(self, stage: InitialisationLearner, line: Line) -> Outcome:
        """Episodes from the training rows of the trained tasks, until N examples have passed."""
        began = time.perf_counter()
        line = replace(self._storing_rows(line), sees="all trained tasks at once, as episodes")
        line = self._within(line, stage.images(self.studies[0]) * stage.iterations)
        metas = self._metas(stage, list(range(len(self.seeds))))
        line = replace(line, seconds=time.perf_counter() - began)
        shot = min(stage.tests_shot, self.protocol.shots[-1])
        final = torch.full((len(self.seeds),), torch.nan, dtype=torch.float64)
        nets, answers = [{k: v[s] for k, v in self.random.items()} for s in range(len(self.seeds))], []
        for s, (study, meta) in enumerate(zip(self.studies, metas, strict=True)):
            answers.append(_none if meta is None else partial(_of_stage, stage, study, meta, self.way))
            if meta is not None:
                final[s] = torch.stack([self.unseen.of_task(s, t, shot, answers[s]) for t in range(self.count)]).mean()
                nets[s] = with_trunk(nets[s], meta["net"])
        note = f"final after {shot} {'row' if shot == 1 else 'rows'} of each class"
        stacked = {name: torch.stack([net[name] for net in nets]) for name in nets[0]}
        return Outcome(replace(line, final=final, note=note), stacked, answers)

    def _metas(self, stage: InitialisationLearner, places: list[int]) -> list[Meta | None]:
        """What a stage learns for the seeds at some places; None for one that diverges, then each is learned by itself."""
        studies, seeds = [self.studies[s] for s in places], [self.seeds[s] for s in places]
        initial = {name: value[places] for name, value in self.random.items()}
        try:
            learned = pretrain(stage, studies, seeds, episodes=0, initial=initial)
        except Diverged:
            return [None] if len(places) == 1 else [meta for s in places for meta in self._metas(stage, [s])]
        return [learned.of(place) for place in range(len(places))]

    def _study(self, s: int) -> TaskDistribution:
        """One seed's episodes."""
        problem = replace(self.problem, index={name: value[s] for name, value in self.index.items()})
        source = TaskEpisodes(problem, self.count)
        return TaskDistribution(self.learner.model, source, source)


def _none(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """In place of the answers of a seed that diverged, of which none counts."""
    return query.new_zeros(len(query), 1)


def _of_stage(
    stage: InitialisationLearner, study: TaskDistribution, meta: Any, way: int, x: Tensor, y: Tensor, query: Tensor
) -> Tensor:
    """A meta-learner's own answers to a task of its ways."""
    with torch.no_grad():
        return stage.predict(study, meta, Support(x, y), query, way)


@dataclass(frozen=True)
class _RowsOfStep(Strategy):
    """Counts the rows of a step after every part's `extend`, as their shape says; changes nothing."""

    counted: list[int] = field(default_factory=list, compare=False)
    requires = Requirements(paradigm="")

    def penalty(self, problem: Problem, params: Params, memory: Memory, batch: Batch, outputs: Outputs) -> Tensor:
        """Zero."""
        self.counted.append(batch.x.shape[0])
        return problem.zeros()


def rows_of_step(learner: Learner, stream: Stream) -> int:
    """Rows that pass forward and backward in a step of a learner, those that its parts add among them.

    Where no part adds rows but one passes some once more, as a projection on a memory's gradient does, what it says of its
    passes is taken.
    """
    counter, batch = _RowsOfStep(), stream.budget.batch
    if not any(part.alone for part in learner.parts.parts):
        short = replace(stream[:1], budget=replace(stream.budget, iterations=1))
        learned(Session(replace(learner, strategy=learner.strategy + counter), short, [0]))
    rows = max(counter.counted, default=batch)
    said = max((part.passes[1] for part in learner.parts.parts), default=1.0)
    return rows if rows > batch else round(batch * max(1.0, said))
