"""What the commands `transfer`, `similarity` and `distil` do, from words to measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lifelong.adaptation.few_shot import FewShot, read_shots
from lifelong.adaptation.methods import TransferError
from lifelong.core.footprint import use_threads
from lifelong.core.learner import AnyLearner, Learner
from lifelong.core.result import Result
from lifelong.core.stage import Tell
from lifelong.core.strategy import Strategy, Sum
from lifelong.notation.expression import parse
from lifelong.runs.folder import load
from lifelong.runs.request import Request, RequestError
from lifelong.studies.similarity import SimilarityStudy, similarity_study
from lifelong.transfer.distillation import Distillation, distil_run
from lifelong.transfer.feature_distillation import FeatureHints, RelationalDistillation
from lifelong.transfer.matrix import TransferMatrix, transfer_matrices
from scenarios.split import with_validation
from scenarios.stream import Stream

METHODS = ("Scratch()", "FullFineTuning()", "LinearProbe()")
ALL, VALIDATION = "all", 0.1  # where all rows are shown, a share of them is held out to choose rates on


def transfer(
    request: Request, methods: list[str], shots: str, optimiser: str, steps: int, tell: Tell
) -> list[TransferMatrix]:
    """The matrices of a request's scenario, one for each method. shots, optimiser: of the adaptation, as text."""
    made = [parse(text, "adaptations") for text in methods or METHODS]
    rule = parse(optimiser, "optimisers")
    learner, stream, _ = request.build()
    if not isinstance(learner, Learner):
        raise TransferError(f"{learner!r} descends no gradient, and a source is a network that did: name a strategy")
    stream, numbers = shots_of(shots, _one_order(request, stream))
    use_threads(request.threads)
    protocol = FewShot(numbers, optimiser=rule, steps=steps)
    return transfer_matrices(learner, stream, request.members, made, protocol, request.device, tell=tell)


def similarity(
    request: Request,
    methods: list[str],
    shot: int,
    optimiser: str,
    steps: int,
    rows: int,
    target: int,
    tell: Tell,
) -> tuple[SimilarityStudy, int]:
    """Scores and measured transfer of a request's scenario, and the place of the task that is asked about, from 0."""
    made = [parse(text, "adaptations") for text in methods or METHODS[1:]]
    if rows < 2:
        raise TransferError(f"scores need at least 2 rows of each class, not {rows}")
    protocol = FewShot((shot,), optimiser=parse(optimiser, "optimisers"), steps=steps)
    learner, stream, _ = request.build()
    if not isinstance(learner, Learner):
        raise TransferError(f"{learner!r} descends no gradient, and a source is a network that did: name a strategy")
    if target and not 3 <= target <= len(stream):
        raise TransferError(f"--target {target}: it is a task from 3, which has two earlier ones, to {len(stream)}")
    use_threads(request.threads)
    stream = _one_order(request, stream)
    study = similarity_study(learner, stream, request.members, made, protocol, rows, request.device, tell=tell)
    return study, (target or len(stream)) - 1


def _one_order(request: Request, stream: Stream) -> Stream:
    """The stream with the order of classes and tasks that all seeds have. Raises TransferError where each has its own."""
    if request.order_seed == -1:
        raise TransferError(
            "--order-seed -1 gives each seed other tasks, and a pair of tasks is the same for all: name one order, as in"
            " --order-seed 0"
        )
    return replace(stream, seed=max(request.order_seed, 0))  # what lies below is refused with the other seeds


def shots_of(text: str, stream: Stream) -> tuple[Stream, tuple[int, ...]]:
    """`1,5,all` as numbers of rows of each class, and the stream that they are taken from.

    all: as many as the smallest class of any task has, once a tenth of the training rows is held out to choose learning
    rates on. Raises TransferError for anything else, and where all are fewer than was asked for besides.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    numbers = read_shots(",".join(word for word in words if word != ALL))
    if ALL in words:
        stream = with_validation(stream, VALIDATION)
        y = stream.dataset.y.cpu()
        held = [(task.label[y[task.train]] == c).sum() for task in stream for c in task.classes]
        numbers = tuple(dict.fromkeys((*numbers, int(min(held)))))
    if not numbers:
        raise TransferError("--shots names no number of rows: write them like 1,5,10, or 1,5,all")
    return stream, FewShot(numbers).shots


def way_of_teaching(alpha: float, temperature: float, features: float, relations: float) -> Strategy:
    """By scores, and where their weights are above 0 by features and by relations between rows."""
    parts: list[Strategy] = [Distillation(alpha, temperature)]
    if features:
        parts.append(FeatureHints(features))
    if relations:  # angles count twice as much as distances, as in the paper
        parts.append(RelationalDistillation(relations, 2 * relations))
    return parts[0] if len(parts) == 1 else Sum(tuple(parts))


def paradigm_of(learner: AnyLearner, stream: Stream) -> str:
    """How something learned, in words: "one task after another by EWC(...)", "all tasks at once by FineTuning()"."""
    paradigms = {"continual": "one task after another", "joint": "all tasks at once", "isolate": "each task alone"}
    method = learner.strategy if isinstance(learner, Learner) else learner
    return f"{paradigms.get(stream.paradigm, stream.paradigm)} by {method!r}"


def distil(
    run: Path, model: str, share: float, how: Strategy, optimiser: str, iterations: int
) -> tuple[dict[str, Result], dict[str, str]]:
    """Teacher and students of a finished run, and a word on each."""
    if iterations < 0:
        raise RequestError("iterations cannot be negative")
    loaded = load(run)
    use_threads(loaded.request.threads)
    learner, stream, _ = loaded.request.build()
    usual = replace(loaded.request, strategy="", learner="", baseline="")._learner()
    student = Learner(
        parse(model, "models"), optimiser=parse(optimiser, "optimisers") if optimiser else usual.optimiser
    )
    results = distil_run(loaded, student, how, share, iterations)
    rows = f"on {100 * share:g} % of the rows"
    words = {
        "teacher": f"{learner.model!r}, {paradigm_of(learner, stream)}",
        "alone": f"{student.model!r}, all tasks at once {rows}",
        "taught": f"the same, by {how!r}",
    }
    return results, words
