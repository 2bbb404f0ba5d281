"""The measured transfer matrix: what a network that learned task s is worth on task t, against a random draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lifelong.adaptation.few_shot import AdaptationJobs, FewShot, FewShotEvaluator, FewShotProbe
from lifelong.adaptation.methods import AdaptationMethod, Scratch, TransferError, check_methods
from lifelong.adaptation.rate_selection import SelectedRates
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, check_request, device_of
from lifelong.core.stage import Stage, Tell, told_to_nobody
from lifelong.metrics import Estimate, estimate
from lifelong.models.base import Net
from lifelong.transfer.established import Verdict, verdicts
from lifelong.transfer.pairs import learned
from lifelong.transfer.rate_choice import GRID, choose_rate
from lifelong.transfer.task_names import task_names
from scenarios.brief import in_brief
from scenarios.stream import Seed, Stream


@dataclass(frozen=True)
class TransferMatrix:
    """What one method of adaptation makes of every source on every target.

    accuracy [S, T, T, K]: of a network that learned task s, adapted to task t with k rows of each class; scratch
    [S, T, K]: of a random draw with the same rows, head and steps. rates [T, K]: the learning rate, chosen on the other
    tasks; inside: whether no winner lay at an end of its grid. kept [S]: seeds of which no source diverged. tasks: what
    they are called; all seeds have the same ones.
    """

    method: str
    accuracy: Tensor
    scratch: Tensor
    shots: tuple[int, ...]
    rates: Tensor
    inside: bool
    kept: Tensor
    tasks: tuple[str, ...] = ()
    __repr__ = in_brief

    @property
    def gain(self) -> Tensor:
        """M[s, t] = accuracy[s, t] - scratch[t], of each seed and k: [S, T, T, K]."""
        return self.accuracy - self.scratch[:, None]

    def cell(self, source: int, target: int, shot: int) -> Estimate:
        """The gain of one pair at the number of rows `shot`, with its 95 % interval over seeds."""
        return estimate(self.gain[:, source, target, self.shots.index(shot)], self.kept)

    def verdicts(self, shot: int) -> dict[tuple[int, int], Verdict]:
        """For each pair of different tasks whether its gain is established, corrected for the number of pairs."""
        count, k = self.gain.shape[1], self.shots.index(shot)
        pairs = [(s, t) for s in range(count) for t in range(count) if s != t]
        found = verdicts([self.gain[:, s, t, k] for s, t in pairs], self.kept)
        return dict(zip(pairs, found, strict=True))

    def curve(self) -> list[Estimate]:
        """Accuracy after k rows, mean over the pairs of different tasks, for each k."""
        return [estimate(self._apart(self.accuracy)[:, k], self.kept) for k in range(len(self.shots))]

    def gain_curve(self) -> list[Estimate]:
        """The gain over a random draw, paired over seeds, mean over the pairs of different tasks, for each k."""
        return [estimate(self._apart(self.gain)[:, k], self.kept) for k in range(len(self.shots))]

    def _apart(self, values: Tensor) -> Tensor:
        apart = ~torch.eye(values.shape[1], dtype=torch.bool)
        return values[:, apart].mean(1)  # [S, K]


def one_order(stream: Stream, seeds: Sequence[int | Seed]) -> list[Seed]:
    """The seeds with one order of classes and tasks: a plain number takes the stream's, and so differs in start and data.

    Raises TransferError where orders differ: a cell would be a mean over pairs of other classes.
    """
    members = [seed if isinstance(seed, Seed) else Seed(stream.seed, seed, seed) for seed in seeds]
    orders = sorted({member.order for member in members})
    if len(orders) > 1:
        words = ", ".join(map(str, orders))
        raise TransferError(f"a transfer matrix has the same tasks for all seeds, and these have the orders {words}")
    return members


def sources(learner: Learner, stream: Stream, seeds: Sequence[int | Seed], **options: Any) -> tuple[Net, Tensor]:
    """Networks that learned one task each, by the loop of every run: [T x S, ...], tasks outside; which seeds to keep [S]."""
    nets, kept = [], torch.ones(len(seeds), dtype=torch.bool)
    for s in range(len(stream)):
        source = stream[s : s + 1]
        assert isinstance(source, Stream)
        result, state = learned(learner, source, seeds, **options)
        nets.append(state.params["net"])
        kept &= result.kept
    return {name: torch.cat([net[name] for net in nets]) for name in nets[0]}, kept


def transfer_matrices(
    learner: Learner,
    stream: Stream,
    seeds: Sequence[int | Seed],
    methods: Sequence[AdaptationMethod],
    protocol: FewShot,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tell: Tell = told_to_nobody,
) -> list[TransferMatrix]:
    """One matrix for each method; scratch and every method take their own best learning rate (`choose_rate`).

    seeds: a number is first weights and data; classes and tasks come in the order of `stream.seed` for all of them.
    protocol: shots, steps and the optimiser whose rate the grid is laid around; its method is not used. Raises TransferError
    where there are not two tasks, or where the network is told which task a row belongs to.
    """
    members = one_order(stream, seeds)
    check_request(learner, stream, members, device, [FewShotProbe(protocol)])
    if len(stream) < 2 or stream.paradigm != "continual":
        raise TransferError(f"a transfer matrix needs at least 2 tasks one after another, and this has {len(stream)}")
    if learner.model.task_embedding:
        raise TransferError(f"{learner.model!r} is told the task of each row: a source would not know its target")
    stream = stream.to(device_of(device))
    session = Session(learner, stream, members, dtype=dtype)
    evaluator = evaluator_of(session, protocol)
    check_methods(methods, learner, protocol.steps, evaluator.random)
    tell(Stage(1, 1 + len(methods), f"learning {len(stream)} sources"))
    nets, kept = sources(learner, stream, members, dtype=dtype)
    return matrices_of(evaluator, nets, kept, methods, protocol, tell, first=2)


def evaluator_of(session: Session, protocol: FewShot) -> FewShotEvaluator:
    """The rows, heads and draws of a session's seeds."""
    data, orders, starts = ([seed[i] for seed in session.seeds] for i in (2, 0, 1))
    return FewShotEvaluator(session.stream, data, session.fleet.problem, protocol, orders, starts)


def matrices_of(
    evaluator: FewShotEvaluator,
    nets: Net,
    kept: Tensor,
    methods: Sequence[AdaptationMethod],
    protocol: FewShot,
    tell: Tell = told_to_nobody,
    first: int = 1,
) -> list[TransferMatrix]:
    """The matrices of sources that are there: nets [T x S, ...], tasks outside; kept [S], as `sources` gives them.

    first: the number of the first method among all stages that are told of.
    """
    names = task_names(evaluator.stream, evaluator.orders[0])
    scratch, scratch_rates = _measured(evaluator, evaluator.random, replace(protocol, method=Scratch()))
    made = []
    for number, method in enumerate(methods, first):
        tell(Stage(number, first + len(methods) - 1, f"adapting by {method!r}"))
        known = isinstance(method, Scratch)  # the same whatever the source
        accuracy, chosen = (
            (scratch, scratch_rates) if known else _measured(evaluator, nets, replace(protocol, method=method))
        )
        accuracy = accuracy.expand(-1, evaluator.tasks, -1, -1)
        apart = (accuracy.cpu(), scratch[:, 0].cpu(), protocol.shots, chosen.rates, chosen.inside, kept)
        made.append(TransferMatrix(repr(method), *apart, names))
    return made


def _measured(evaluator: FewShotEvaluator, nets: Net, protocol: FewShot) -> tuple[Tensor, SelectedRates]:
    """Accuracy [S, G, T, K] of G sources on every task, at rates chosen for each task and number of shots."""
    count, tasks, shots = len(evaluator.seeds), evaluator.tasks, protocol.shots
    starts = len(next(iter(nets.values()))) // count

    def places(first: int) -> list[Tensor]:
        return list(
            torch.cartesian_prod(*(torch.arange(n, device=evaluator.device) for n in (first, count, tasks))).unbind(1)
        )

    def validation(rates: Sequence[float]) -> Tensor:
        """[R, S, T, K], each task from the source after it: one that did not learn it."""
        rate, seed, task = places(len(rates))
        values = torch.tensor(rates, dtype=evaluator.problem.dtype, device=evaluator.device)
        jobs = AdaptationJobs((task + 1) % starts * count + seed, seed, task, values[rate])
        scores = [evaluator.accuracy(nets, jobs, shot, protocol, "validation") for shot in shots]
        return torch.stack(scores, 1).view(len(rates), count, tasks, len(shots))

    chosen = choose_rate(validation, [factor * protocol.optimiser.rate for factor in GRID])
    source, seed, task = places(starts)
    dataset = chosen.rates.to(evaluator.device, evaluator.problem.dtype)
    jobs = [AdaptationJobs(source * count + seed, seed, task, dataset[task, k]) for k in range(len(shots))]
    scores = [
        evaluator.accuracy(nets, jobs_of_shot, shot, protocol) for jobs_of_shot, shot in zip(jobs, shots, strict=True)
    ]
    return torch.stack(scores, 1).view(starts, count, tasks, len(shots)).transpose(0, 1), chosen
