"""Which earlier task fits? Scores of every source for every target, against the transfer that was measured afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lifelong.adaptation.few_shot import FewShot, FewShotEvaluator, FewShotProbe
from lifelong.adaptation.methods import AdaptationMethod, LinearProbe, TransferError, adapted_net, check_methods
from lifelong.core.batch import Batch
from lifelong.core.inner_loop import loss_of
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, check_request, device_of
from lifelong.core.problem import Problem
from lifelong.core.stage import Stage, Tell, told_to_nobody
from lifelong.metrics import Estimate, estimate
from lifelong.models.base import Net
from lifelong.optimisers.adam import Adam
from lifelong.transfer.matrix import TransferMatrix, evaluator_of, matrices_of, one_order, sources
from lifelong.transfer.similarity import (
    gradient_cosine,
    h_score,
    leep,
    log_me,
    spearman,
    task2vec_similarity,
    task_embedding,
)
from scenarios.brief import in_brief
from scenarios.stream import Seed, Stream

HEAD = Learner(optimiser=Adam(0.01)), 50  # how a head is fitted before a Fisher information or a gradient is taken
SPARE = 10  # one of so many rows of a class is left to choose rates on, where nothing is held out
ROWS = 50  # training rows of each class of a target that scores look at, where it has as many


@dataclass(frozen=True)
class SimilarityStudy:
    """What was foretold, and what came: S seeds, T tasks.

    scores: by name [S, T, T], of source s for target t, more is better; matrices: the measured transfer by each method
    of adaptation, at one number of rows; rows: of each class of the target that the scores saw.
    """

    scores: dict[str, Tensor]
    matrices: list[TransferMatrix]
    rows: int
    __repr__ = in_brief

    def agreement(self, name: str, matrix: TransferMatrix) -> Estimate:
        """Spearman's rank correlation of a score with the accuracy that was measured, over the sources of a target.

        Mean over targets, of each seed by itself; targets on which all sources are worth the same are left out.
        """
        measured = _of_others(matrix.accuracy[..., 0])
        found = spearman(_of_others(self.scores[name]), measured)  # [S, T]
        counts = ~found.isnan()
        mean = found.nan_to_num().sum(1) / counts.sum(1)
        return estimate(mean, matrix.kept & counts.any(1))

    def lost(self, name: str, matrix: TransferMatrix) -> Estimate:
        """What its choice costs: accuracy from the best source of a target minus that from the one it puts first, mean over targets."""
        measured = _of_others(matrix.accuracy[..., 0])
        chosen = measured.gather(2, _of_others(self.scores[name]).argmax(2, keepdim=True))[..., 0]
        return estimate((measured.amax(2) - chosen).mean(1), matrix.kept)

    def lost_by_chance(self, matrix: TransferMatrix) -> Estimate:
        """The same of a source that is drawn at random."""
        measured = _of_others(matrix.accuracy[..., 0])
        return estimate((measured.amax(2) - measured.mean(2)).mean(1), matrix.kept)


def _of_others(values: Tensor) -> Tensor:
    """[S, T, T] of sources and targets as [S, T, T - 1]: of each target what the other tasks are to it, in float64."""
    count = values.shape[1]
    apart = ~torch.eye(count, dtype=torch.bool)
    return values.to(torch.float64).transpose(1, 2)[:, apart].view(len(values), count, count - 1)


def similarity_study(
    learner: Learner,
    stream: Stream,
    seeds: Sequence[int | Seed],
    methods: Sequence[AdaptationMethod],
    protocol: FewShot,
    rows: int = ROWS,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tell: Tell = told_to_nobody,
) -> SimilarityStudy:
    """Scores and measured transfer of every pair of a stream's tasks, on the same sources.

    rows: of each class of a target that scores see; fewer where a class has fewer, for nine tenths of its rows are the most
    where nothing is held out to choose rates on. protocol: of the measurement; it has one
    number of rows. Raises TransferError where there are not three tasks: two sources to choose from.
    """
    members = one_order(stream, seeds)
    check_request(learner, stream, members, device, [FewShotProbe(protocol)])
    if len(stream) < 3 or stream.paradigm != "continual" or len(protocol.shots) != 1:
        raise TransferError(
            f"similarity is measured between at least 3 tasks one after another, at one number of rows: this has"
            f" {len(stream)} tasks and {len(protocol.shots)} numbers"
        )
    if learner.model.task_embedding or not learner.model.shows_layers:
        raise TransferError(f"{learner.model!r}: similarity looks at the layers of a network that is not told the task")
    stream = stream.to(device_of(device))
    y, tasks = stream.dataset.y.cpu(), stream.tasks_of(members[0].order)
    least = min(int((task.label[y[task.train]] == c).sum()) for task in tasks for c in task.classes)
    session = Session(learner, stream, members, dtype=dtype)
    held = int(session.fleet.problem.index["count_validation"].min())
    spare = 0 if held else max(1, least // SPARE)
    rows = max(min(rows, least - spare), protocol.shots[0])
    evaluator = evaluator_of(session, replace(protocol, shots=tuple(sorted({*protocol.shots, rows}))))
    check_methods(methods, learner, protocol.steps, evaluator.random)
    tell(Stage(1, 2 + len(methods), f"learning {len(stream)} sources"))
    nets, kept = sources(learner, stream, members, dtype=dtype)
    pairs = len(stream) * (len(stream) - 1)
    tell(Stage(2, 2 + len(methods), f"scoring {pairs} pairs from {rows} rows of each class"))
    each = [_scores_of_seed(evaluator, nets, s, rows) for s in range(len(members))]
    scores = {name: torch.stack([found[name] for found in each]).cpu() for name in each[0]}
    return SimilarityStudy(scores, matrices_of(evaluator, nets, kept, methods, protocol, tell, first=3), rows)


def _scores_of_seed(evaluator: FewShotEvaluator, nets: Net, s: int, rows: int) -> dict[str, Tensor]:
    """Every score [T, T] of one seed."""
    problem = replace(evaluator.problem, index={name: value[s] for name, value in evaluator.problem.index.items()})
    count, seeds = evaluator.tasks, len(evaluator.seeds)
    batches = [_batch(problem, evaluator.support[s, t][evaluator.filled[s, t]][:, :rows], t) for t in range(count)]
    outputs = [torch.nonzero(problem.index["classes_of"][t])[:, 0] for t in range(count)]
    head = {name: value[s] for name, value in evaluator.heads.items()}
    drawn = {name: value[s] for name, value in evaluator.random.items()} | head
    slopes = [_gradient(problem, _with_head(problem, drawn, batch), batch) for batch in batches]
    names = ("LEEP", "LogME", "H-score", "task2vec", "gradient cosine")
    found = {name: torch.zeros(count, count, dtype=torch.float64, device=evaluator.device) for name in names}
    for a in range(count):
        net = {name: value[a * seeds + s] for name, value in nets.items()}
        fitted = [_with_head(problem, net | head, batch) for batch in batches]
        embeddings = [task_embedding(problem.model, fitted[t], batches[t].x, outputs[t]) for t in range(count)]
        for b in range(count):
            made = problem.outputs({"net": net}, batches[b].x)
            labels, ways = torch.searchsorted(outputs[b], batches[b].y), len(outputs[b])
            features = made.features.to(torch.float64)
            found["LEEP"][a, b] = leep(made.logits[:, outputs[a]].to(torch.float64).softmax(1), labels, ways)
            found["LogME"][a, b] = log_me(features, labels, ways)
            found["H-score"][a, b] = h_score(features, labels, ways)
            found["task2vec"][a, b] = task2vec_similarity(embeddings[a], embeddings[b])
            found["gradient cosine"][a, b] = gradient_cosine(slopes[a], slopes[b])
    return found


def _batch(problem: Problem, rows: Tensor, task: int) -> Batch:
    """Rows [W, R] of one task as a batch in which the task's own classes compete."""
    row = rows.flatten()
    number = torch.full_like(row, task)
    batch = problem.batch_of_rows(row, number, torch.full_like(row, 1, dtype=problem.dtype) / len(row))
    return batch.replace(allowed=problem.index["classes_of"][task].expand(len(row), -1))


def _with_head(problem: Problem, net: Net, batch: Batch) -> Net:
    """The network with a head fitted to a batch, its trunk as it was."""
    learner, steps = HEAD
    return adapted_net(LinearProbe(), replace(learner, model=problem.model), steps, problem, net, batch)


def _gradient(problem: Problem, net: Net, batch: Batch) -> Net:
    return torch.func.grad(lambda moving: loss_of(problem, {"net": moving}, batch))(net)
