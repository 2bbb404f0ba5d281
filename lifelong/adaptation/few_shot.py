"""How well a network takes to a task from k rows of each class: many adaptations at once, on the same rows and heads.

Every random number is a function of place (seed, task, class), so that two starts that are compared see the same k
rows (nested: the first k of one order), the same fresh head and the same test rows, now or after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lifelong.adaptation.methods import AdaptationMethod, FullFineTuning, Scratch, TransferError, adapted_net
from lifelong.core.batch import Batch
from lifelong.core.initialisation import Random
from lifelong.core.inner_loop import batch_of, nearest_means
from lifelong.core.learner import Learner, State
from lifelong.core.loop import Session, TrainingState
from lifelong.core.probes import BEFORE_TASK, Measure
from lifelong.core.problem import Problem
from lifelong.core.result import FEW_SHOT
from lifelong.core.strategy import FineTuning
from lifelong.models.base import Net
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.base import Optimiser
from scenarios.brief import in_brief
from scenarios.stream import Seed, Stream, Task, generator, seed_of

# rows of a task that validate at most; training rows that no shot shows stand in where nothing is held out
SPARE = 500
FLOATS = 2**26  # numbers that the adaptations of one piece may hold together
COPIES = 8  # of a network while it is adapted: itself, gradient, moments, and what lies between


@dataclass(frozen=True)
class FewShot:
    """What is measured: rows of each class (shots), the method that adapts, its optimiser, its number of full-batch steps."""

    shots: tuple[int, ...] = (1, 5, 10)
    method: AdaptationMethod = field(default_factory=FullFineTuning)
    optimiser: Optimiser = field(default_factory=lambda: Adam(0.003))
    steps: int = 50

    def __post_init__(self) -> None:
        if not self.shots or any(not isinstance(k, int) or k < 1 for k in self.shots):
            raise TransferError(f"shots are whole numbers of at least 1, as in 1,5,10, not {self.shots}")
        if list(self.shots) != sorted(set(self.shots)):
            raise TransferError(f"shots are named once each, the smallest first, as in 1,5,10, not {self.shots}")
        if self.steps < 1:
            raise TransferError(f"an adaptation takes at least 1 step, not {self.steps}")


@dataclass(frozen=True)
class FewShotProbe:
    """Before each task of a continual run: accuracy on it with K numbers of rows of each class.

    Its tensor is [S, T, 2, K]: adapted from the state before the task, and from a random draw, on the same rows.
    """

    protocol: FewShot = field(default_factory=FewShot)
    every_step = False

    @property
    def name(self) -> str:
        """It says the numbers of rows."""
        return FEW_SHOT + ",".join(map(str, self.protocol.shots))

    def check(self, stream: Stream, seeds: Sequence[Seed]) -> None:
        """Raise TransferError where a class has too few rows, or a task asks for numbers."""
        if stream.asks_numbers:
            raise TransferError("few-shot accuracy is of classes, and a task of this stream asks for numbers")
        if stream.paradigm == "continual":
            support(stream, seeds, self.protocol.shots[-1])

    def begin(self, session: Session) -> Measure:
        """Measures before each task; nothing of other paradigms, which learn no task after another."""
        if session.stream.paradigm != "continual":
            return lambda state, moment: None
        seeds = [seed.data for seed in session.seeds]
        orders, starts = [seed.order for seed in session.seeds], [seed.start for seed in session.seeds]
        evaluator = FewShotEvaluator(session.stream, seeds, session.fleet.problem, self.protocol, orders, starts)

        def measure(state: TrainingState, moment: str) -> Tensor | None:
            return evaluator.before_task(session, state.fleet, state.task) if moment == BEFORE_TASK else None

        return measure


def few_shot_probes(shots: Sequence[int]) -> tuple[FewShotProbe, ...]:
    """The probe of some shots; none where there are none."""
    return (FewShotProbe(FewShot(tuple(shots))),) if shots else ()


def read_shots(text: str) -> tuple[int, ...]:
    """`1,5,10` as numbers; empty text is none. Raises TransferError for anything else."""
    try:
        shots = tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise TransferError(f"shots {text!r} cannot be read: write rows of each class, as in 1,5,10") from None
    return FewShot(shots).shots if text.strip() else ()


def support(stream: Stream, seeds: Sequence[int | Seed], most: int) -> tuple[Tensor, Tensor]:
    """The first rows of an order of each class's training rows, [S, T, W, most], and which places hold a class [S, T, W].

    W: the most classes of any task. A seed's `order` says which tasks there are, its `data` which of their rows come
    first. Raises TransferError where a class has fewer rows.
    """
    if most > stream.dataset.train_rows:  # before room is made for them
        raise TransferError(
            f"{most} shots were asked for, and there are {stream.dataset.train_rows} training rows: ask for fewer"
        )
    drawn = [stream.tasks_of(seed_of(seed).order) for seed in seeds]
    width = max(len(task.classes) for tasks in drawn for task in tasks)
    rows = torch.zeros(len(seeds), len(stream), width, most, dtype=torch.int64)
    filled = torch.zeros(rows.shape[:3], dtype=torch.bool)
    y = stream.dataset.y.cpu()
    for s, (seed, tasks) in enumerate(zip(seeds, drawn, strict=True)):
        for t, task in enumerate(tasks):
            rows[s, t] = task.train[0]
            labels = task.label[y[task.train]]
            for w, c in enumerate(task.classes):
                candidates = task.train[labels == c]
                if len(candidates) < most:
                    where = f"class {c} of task {t + 1} has {len(candidates)} training rows (seed {seed})"
                    raise TransferError(f"{most} shots were asked for, and {where}: ask for fewer")
                words = (seed_of(seed).data, "few-shot rows", task.number, c)
                order = torch.randperm(len(candidates), generator=generator(*words))
                rows[s, t, w], filled[s, t, w] = candidates[order[:most]], True
    return rows, filled


def _evenly(rows: Tensor, count: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """At most so many of the first `count` rows [S, T, N], evenly spaced: rows may come class after class."""
    place = torch.arange(most, device=rows.device)
    spaced = torch.where(count[:, :, None] > most, place * count[:, :, None] // most, place)
    return rows.gather(2, spaced), count.clamp(max=most)


class AdaptationJobs(NamedTuple):
    """N adaptations: which network, whose rows and head, which task, at which rate; each [N]."""

    start: Tensor
    seed: Tensor
    task: Tensor
    rate: Tensor
    __repr__ = in_brief


class FewShotEvaluator:
    """Rows, heads and random draws of one chunk of S seeds, by which networks are adapted and compared.

    problem: with the index of all seeds, [S, ...]. Raises TransferError where a class has too few rows.
    """

    def __init__(
        self,
        stream: Stream,
        seeds: list[int],
        problem: Problem,
        protocol: FewShot,
        orders: Sequence[int] = (),
        starts: Sequence[int] = (),
    ) -> None:
        self.stream, self.seeds, self.problem, self.protocol = stream, seeds, problem, protocol
        self.orders = orders = list(orders or seeds)
        self.drawn = [stream.tasks_of(order) for order in orders]
        self.tasks, self.device = len(self.drawn[0]), stream.dataset.x.device
        members = [Seed(order, order, seed) for order, seed in zip(orders, seeds, strict=True)]
        self.support, self.filled = (value.to(self.device) for value in support(stream, members, protocol.shots[-1]))
        heads = self._draws("few-shot head", seeds)
        self.heads = {name: value for name, value in heads.items() if name.startswith("head.")}
        self.random = self._draws("model", starts or seeds)  # the very draw that a run of this seed starts from
        self._answers: dict[str, tuple[Tensor, Tensor]] = {}

    def _draws(self, purpose: str, seeds: Sequence[int]) -> Net:
        """A fresh network for each seed, [S, ...]."""
        model, shape, classes = self.problem.model, self.problem.shape, self.problem.classes
        nets = [model.init(shape, classes, generator(seed, purpose)) for seed in seeds]
        return {name: torch.stack([n[name] for n in nets]).to(self.device, self.problem.dtype) for name in nets[0]}

    def _answer_rows(self, part: str) -> tuple[Tensor, Tensor]:
        """Rows that are answered, [S, T, N], and which of them count; part is "test" or "validation"."""
        if part not in self._answers:
            index = self.problem.index
            rows, count = index[f"rows_{part}"], index[f"count_{part}"]
            if part == "validation" and int(count.min()) == 0:
                rows, count = self._with_spare(rows, count)
            if part == "validation" and rows.shape[2] > SPARE:
                rows, count = _evenly(rows, count, SPARE)  # rates need no more, and every rate answers them
            if int(count.min()) == 0:
                raise TransferError(f"some task has no {part} rows left to answer: ask for fewer shots")
            self._answers[part] = rows, torch.arange(rows.shape[2], device=self.device) < count[:, :, None]
        return self._answers[part]

    def _with_spare(self, held: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Validation rows [S, T, N] and their numbers [S, T]; where a task has none, training rows that no shot shows."""
        rows = torch.zeros(len(self.seeds), self.tasks, max(SPARE, held.shape[2]), dtype=torch.int64)
        count = counted.cpu().clone()
        for s, (seed, tasks) in enumerate(zip(self.seeds, self.drawn, strict=True)):
            for t, task in enumerate(tasks):
                rows[s, t] = task.train[0]
                held_rows = held[s, t, : int(count[s, t])].cpu()
                if not len(held_rows):
                    held_rows = self._unshown(seed, task, self.support[s, t].cpu())
                rows[s, t, : len(held_rows)], count[s, t] = held_rows, len(held_rows)
        return rows[:, :, : max(int(count.max()), 1)].to(self.device), count.to(self.device)

    def _unshown(self, seed: int, task: Task, shown: Tensor) -> Tensor:
        spare = task.train[~torch.isin(task.train, shown)]
        order = torch.randperm(len(spare), generator=generator(seed, "few-shot validation", task.number))
        return spare[order[:SPARE]]

    def accuracy(
        self, nets: Net, jobs: AdaptationJobs, shot: int, protocol: FewShot | None = None, part: str = "test"
    ) -> Tensor:
        """Share of right answers after adapting with `shot` rows of each class, float64 [N].

        nets: stacked [G, ...], from which `jobs.start` chooses; their heads are replaced by each seed's fresh one.
        Only the task's own classes compete, in training and in answers. Scratch() starts from the seed's random draw.
        """
        protocol, (rows, _) = protocol or self.protocol, self._answer_rows(part)
        if isinstance(protocol.method, Scratch):
            nets, jobs = self.random, jobs._replace(start=jobs.seed)
        held = COPIES * sum(value[0].numel() for value in self.random.values())
        held += (rows.shape[2] + shot * self.support.shape[2]) * self.stream.dataset.x[0].numel()
        size = max(1, FLOATS // held)
        pieces = zip(*(value.split(size) for value in jobs), strict=True)
        return torch.cat([self._piece(nets, AdaptationJobs(*piece), shot, protocol, part) for piece in pieces])

    def _piece(self, nets: Net, jobs: AdaptationJobs, shot: int, protocol: FewShot, part: str) -> Tensor:
        rows, valid = (value[jobs.seed, jobs.task] for value in self._answer_rows(part))
        shown = self.support[jobs.seed, jobs.task, :, :shot].flatten(1)
        weight = self._weight(self.filled[jobs.seed, jobs.task], shot)
        allowed = self.problem.index["classes_of"][jobs.seed, jobs.task]
        net = {name: value[jobs.start] for name, value in nets.items()}
        net |= {name: value[jobs.seed] for name, value in self.heads.items()}
        index_of_job = {n: v[jobs.seed] for n, v in self.problem.index.items() if not n.startswith(("rows_", "count_"))}

        def right_of_job(
            index: dict[str, Tensor], net: Net, rate: Tensor, task: Tensor, weight: Tensor, allowed: Tensor,
            shown: Tensor, rows: Tensor, valid: Tensor,
        ) -> Tensor:  # fmt: skip
            problem = replace(self.problem, index=index)
            batch = self._batch(problem, shown, task, weight, allowed)
            learner = Learner(problem.model, FineTuning(), replace(protocol.optimiser, rate=rate))
            net = adapted_net(protocol.method, learner, protocol.steps, problem, net, batch)
            asked = task.expand(rows.shape[0])
            scores = problem.logits({"net": net}, problem.x(rows, asked)).masked_fill(~allowed, -torch.inf)
            right = (scores.argmax(1) == problem.y(rows, asked)) & valid
            return right.sum() / valid.sum().to(torch.float64)

        return torch.func.vmap(right_of_job)(
            index_of_job, net, jobs.rate, jobs.task, weight, allowed, shown, rows, valid
        )

    def accuracy_by_means(self, nets: Net, jobs: AdaptationJobs, shot: int, part: str = "test") -> Tensor:
        """Share of right answers of the nearest class mean of the features, with nothing trained, float64 [N].

        The means are of `shot` rows of each class, the same that `accuracy` adapts on; rates are not looked at.
        """
        size = max(1, FLOATS // (COPIES * sum(value[0].numel() for value in self.random.values())))
        pieces = zip(*(value.split(size) for value in jobs), strict=True)
        return torch.cat([self._piece_by_means(nets, AdaptationJobs(*piece), shot, part) for piece in pieces])

    def _piece_by_means(self, nets: Net, jobs: AdaptationJobs, shot: int, part: str) -> Tensor:
        rows, valid = (value[jobs.seed, jobs.task] for value in self._answer_rows(part))
        shown = self.support[jobs.seed, jobs.task, :, :shot].flatten(1)
        filled = self.filled[jobs.seed, jobs.task]
        allowed = self.problem.index["classes_of"][jobs.seed, jobs.task]
        net = {name: value[jobs.start] for name, value in nets.items()}
        index_of_job = {n: v[jobs.seed] for n, v in self.problem.index.items() if not n.startswith(("rows_", "count_"))}

        def right_of_job(
            index: dict[str, Tensor], net: Net, task: Tensor, weight: Tensor, allowed: Tensor, filled: Tensor,
            shown: Tensor, rows: Tensor, valid: Tensor,
        ) -> Tensor:  # fmt: skip
            problem, place = replace(self.problem, index=index), allowed.cumsum(0) - 1  # [C], a class among the task's
            told = [task.expand(part.shape[0]) for part in (shown, rows)]
            x = torch.cat([problem.x(shown, told[0]), problem.x(rows, told[1])])
            features, y = problem.features({"net": net}, x), place[problem.y(shown, told[0])]
            scores = nearest_means(features[: len(shown)], y, features[len(shown) :], len(filled), weight)
            answers = scores.masked_fill(~filled, -torch.inf).argmax(1)
            return ((answers == place[problem.y(rows, told[1])]) & valid).sum() / valid.sum().to(torch.float64)

        weight = self._weight(filled, shot)
        return torch.func.vmap(right_of_job)(index_of_job, net, jobs.task, weight, allowed, filled, shown, rows, valid)

    def _batch(self, problem: Problem, row: Tensor, task: Tensor, weight: Tensor, allowed: Tensor) -> Batch:
        """Some rows of one task as a batch in which the task's own classes compete."""
        asked = task.expand(row.shape[0])
        batch = batch_of(problem.x(row, asked), problem.y(row, asked), problem.classes, problem.dtype)
        mask = allowed.expand(row.shape[0], -1)
        return batch.replace(row=row, task=asked, weight=weight, allowed=mask, first_seen=weight > 0)

    def grid(self, nets: Net, rates: Sequence[float]) -> AdaptationJobs:
        """Every start of every seed on every task at every rate: N = R x G x T jobs, in this order.

        nets [G, ...] with G = starts x S: the seeds of the first start, those of the second, and so on.
        """
        count = len(next(iter(nets.values())))
        values = torch.tensor(rates, dtype=self.problem.dtype, device=self.device)
        places = (torch.arange(n, device=self.device) for n in (len(values), count, self.tasks))
        rate, start, task = torch.cartesian_prod(*places).unbind(1)
        return AdaptationJobs(start, start % len(self.seeds), task, values[rate])

    def before_task(self, session: Session, state: Any, task: int) -> Tensor:
        """Accuracy on a task after adapting from a fleet's state and from its random draws, on the same rows: [S, 2, K].

        A learner that descends no gradient takes its own `step`, once, instead of the method.
        """
        if not session.fleet.learner.adapts_by_rule:
            states = (state, session.first_state(Random()))
            each = [torch.stack([self._own_step(session, s, task, k) for k in self.protocol.shots], 1) for s in states]
            return torch.stack(each, 1)
        count = len(self.seeds)
        both = {name: torch.cat([value, self.random[name]]) for name, value in state.params["net"].items()}
        start = torch.arange(2 * count, device=self.device)
        rate = torch.full((2 * count,), self.protocol.optimiser.rate, dtype=self.problem.dtype, device=self.device)
        jobs = AdaptationJobs(start, start % count, torch.full_like(start, task), rate)
        scores = torch.stack([self.accuracy(both, jobs, shot) for shot in self.protocol.shots], 1)  # [2 S, K]
        return scores.view(2, count, -1).transpose(0, 1)

    def _own_step(self, session: Session, state: Any, task: int, shot: int) -> Tensor:
        """Accuracy [S] after a learner's own step on the k rows of each class."""
        learner, index = session.fleet.learner, self.problem.index
        rows, valid = (value[:, task] for value in self._answer_rows("test"))
        shown = self.support[:, task, :, :shot].flatten(1)
        weight = self._weight(self.filled[:, task], shot)
        draws = session.sampler.prepared(task, shot)

        def right_of_member(
            index: dict[str, Tensor], state: State, shown: Tensor, weight: Tensor, rows: Tensor, draws: Any
        ) -> Tensor:
            problem, number = replace(self.problem, index=index), torch.full_like(rows[0], task)
            allowed = index["classes_of"][task]
            batch = self._batch(problem, shown, number, weight, allowed)
            ready = learner.prepare(problem, learner.step(problem, state, batch), draws)
            told = number.expand(rows.shape[0])
            scores = learner.predict(problem, ready, problem.x(rows, told), told)
            return scores.masked_fill(~allowed, -torch.inf).argmax(1) == problem.y(rows, told)

        right = torch.func.vmap(right_of_member)(index, state, shown, weight, rows, draws) & valid
        return right.sum(1) / valid.sum(1).to(torch.float64)

    def _weight(self, filled: Tensor, shot: int) -> Tensor:
        """Equal weights for the rows of the places that hold a class [N, W]: [N, W x shot]."""
        held = filled.repeat_interleave(shot, 1).to(self.problem.dtype)
        return held / held.sum(1, keepdim=True)


def few_shot_accuracy(
    evaluator: FewShotEvaluator, nets: Net, protocol: FewShot | None = None, part: str = "test"
) -> Tensor:
    """Accuracy on every task after adapting networks [G, ...] with each number of rows of each class: [G, T, K].

    nets: G = starts x S, the seeds of the first start, then those of the second, and so on.
    """
    protocol = protocol or evaluator.protocol
    jobs = evaluator.grid(nets, [protocol.optimiser.rate])
    scores = [evaluator.accuracy(nets, jobs, shot, protocol, part) for shot in protocol.shots]
    return torch.stack(scores, 1).view(-1, evaluator.tasks, len(protocol.shots))
