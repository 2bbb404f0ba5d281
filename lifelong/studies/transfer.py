"""What the commands `transfer` and `distil` do, from words to measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lifelong.adaptation.few_shot import FewShot, read_shots
from lifelong.adaptation.methods import TransferError
from lifelong.core.footprint import use_threads
from lifelong.core.learner import Learner
from lifelong.core.result import Result
from lifelong.notation.expression import parse
from lifelong.runs.folder import load
from lifelong.runs.request import Request, RequestError
from lifelong.transfer.distillation import Distillation, distil_run
from lifelong.transfer.matrix import TransferMatrix, transfer_matrices

METHODS = ("Scratch()", "FullFineTuning()", "LinearProbe()")


def transfer(
    request: Request, methods: list[str], optimiser: str, steps: int, tell: Callable[[str], None]
) -> list[TransferMatrix]:
    """The matrices of a request's scenario, one for each method. optimiser: that of the adaptation, as text."""
    shots = read_shots(request.few_shot)
    if not shots:
        raise TransferError("--shots names no number of rows: write them like 1,5,10")
    made = [parse(text, "adaptations") for text in methods or METHODS]
    protocol = FewShot(shots, optimiser=parse(optimiser, "optimisers"), steps=steps)
    learner, stream, _ = request.build()
    if not isinstance(learner, Learner):
        raise TransferError(f"{learner!r} descends no gradient, and a source is a network that did: name a strategy")
    use_threads(request.threads)
    return transfer_matrices(learner, stream, request.seeds, made, protocol, request.device, tell=tell)


def distil(
    run: Path, model: str, share: float, how: Distillation, optimiser: str, iterations: int
) -> tuple[dict[str, Result], dict[str, str]]:
    """Teacher and students of a finished run, and a word on each."""
    if iterations < 0:
        raise RequestError("iterations cannot be negative")
    loaded = load(run)
    use_threads(loaded.request.threads)
    learner, _, _ = loaded.request.build()
    usual = replace(loaded.request, strategy="", learner="", baseline="")._learner()
    student = Learner(
        parse(model, "models"), optimiser=parse(optimiser, "optimisers") if optimiser else usual.optimiser
    )
    results = distil_run(loaded, student, how, share, iterations)
    rows = f"on {100 * share:g} % of the rows"
    words = {
        "teacher": f"{learner.model!r} by {loaded.request.method}",
        "alone": f"{student.model!r} {rows}",
        "taught": f"the same by {how!r}",
    }
    return results, words
