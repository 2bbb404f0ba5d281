"""What `compare --paradigms` does: words become a comparison, its table is shown, kept as JSON and put on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lifelong.adaptation.few_shot import FewShot
from lifelong.core.files import (
    RunError,
    check_writable,
    goes_on,
    held_alone,
    make_folder,
    read_json,
    remove_partials,
    write_json,
)
from lifelong.core.footprint import use_threads
from lifelong.core.learner import Learner
from lifelong.core.loop import device_of
from lifelong.core.stage import Tell, told_to_nobody
from lifelong.core.stopped import Stopped
from lifelong.core.storage import in_bytes
from lifelong.meta.initialisation_learner import InitialisationLearner
from lifelong.metrics import estimate
from lifelong.runs import user_files
from lifelong.runs.configuration import write_configuration
from lifelong.runs.folder import refuse_unlisted, saved_request
from lifelong.runs.labels import method_labels
from lifelong.runs.request import Request, RequestError, default_folder
from lifelong.studies.findings import Finding, findings
from lifelong.studies.paradigms import PARADIGMS, STAGES, Comparison, Line
from scenarios.disk import reason
from scenarios.typed import TypedError, check, damaged


def read_paradigms(text: str) -> tuple[str, ...]:
    """`multi-task,transfer,meta,continual`, or some of them, or `all`. Raises RequestError for other words."""
    from lifelong.notation.expression import suggest

    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if words == ("all",):
        return PARADIGMS
    if not words:
        raise RequestError(f"--paradigms {text!r} names none: write all, or some of {','.join(PARADIGMS)}")
    for word in words:
        if word not in PARADIGMS:
            raise RequestError(f"unknown paradigm {word!r}: {suggest(word, PARADIGMS)}")
    return words


@dataclass(frozen=True)
class Asked:
    """The words of `compare --paradigms`: they survive in JSON and ask for the same comparison again.

    stages: the meta-learners; held, choosing: tasks that are held out, and that rates are chosen on, 0 for the usual.
    """

    request: Request
    strategies: tuple[str, ...] = ()
    paradigms: str = "all"
    stages: tuple[str, ...] = ()
    held: int = 0
    choosing: int = 0

    def comparison(self, tell: Tell) -> Comparison:
        """The comparison that the words ask for. Raises a ConfigurationError for words that ask for none."""
        from lifelong.adaptation.few_shot import read_shots
        from lifelong.notation.expression import parse

        if self.request.setting not in ("", "task"):
            raise RequestError("the four paradigms are compared where the task is told: --setting task")
        request = replace(self.request, setting="task")
        learner, stream, _ = request.build()
        with user_files.in_place(request.files):
            stages = tuple(self._stage(text) for text in dict.fromkeys(self.stages)) or STAGES
            strategies = tuple(parse(text, "strategies") for text in self._strategies)
        assert isinstance(learner, Learner)
        protocol = FewShot(read_shots(request.few_shot) or (1, 5, 10))
        names = method_labels(self._strategies, list(map(repr, strategies)))
        return Comparison(
            stream.to(device_of(request.device)), learner, list(request.seeds), strategies, tuple(names), stages,
            read_paradigms(self.paradigms), protocol, tell, held=self.held, choosing=self.choosing,
        )  # fmt: skip

    @staticmethod
    def _stage(text: str) -> InitialisationLearner:
        from lifelong.notation.expression import parse

        stage = parse(text, "initialisations")
        if not isinstance(stage, InitialisationLearner):
            raise RequestError(f"--meta {text!r} is nothing that learns: name a meta-learner, as in 'MAML(shot=5)'")
        return stage

    @property
    def _strategies(self) -> list[str]:
        """Those beside fine-tuning, which is always there."""
        return [text for text in dict.fromkeys(self.strategies) if text != "FineTuning()"]

    @property
    def texts(self) -> tuple[str, ...]:
        """What may name files."""
        return (*self.request.texts, *self.strategies, *self.stages)

    @property
    def configuration(self) -> dict[str, Any]:
        """For run.toml."""
        more = {"strategy": self.strategies, "meta": self.stages, "held-out": self.held}
        return {**self.request.configuration, "paradigms": self.paradigms} | {
            name: value for name, value in more.items() if value
        }

    def as_json(self) -> dict[str, Any]:
        """For paradigms.json."""
        words: dict[str, Any] = {
            "strategies": list(self.strategies),
            "paradigms": self.paradigms,
            "meta": list(self.stages),
        }
        words |= {"held-out tasks": self.held, "tasks to choose by": self.choosing}
        return {"request": self.request.as_json(), "asked": words, "files": user_files.as_json(self.request.files)}


ASKED = {
    "strategies": list[str], "paradigms": str, "meta": list[str], "held-out tasks": int, "tasks to choose by": int,
}  # fmt: skip
NUMBERS = list[list[float | None] | float | None] | None  # seed by seed, null where one diverged
LINES = {
    "paradigm": str, "method": str, "final": NUMBERS, "forgetting": NUMBERS, "few_shot": NUMBERS, "by_means": NUMBERS,
    "own_answers": NUMBERS, "seconds": float, "stored": float, "in_memory": float, "examples": float, "passes": float,
    "rates": list[float], "inside": bool, "sees": str, "note": str,
}  # fmt: skip


def asked_of(path: Path) -> Asked:
    """What the folder of a comparison was asked for. Raises RunError where it cannot be read."""
    file = path / "paradigms.json"
    about = read_json(file, {"asked": ASKED})
    request, words = saved_request(about, file), about["asked"]
    divided = (words["held-out tasks"], words["tasks to choose by"])
    asked = Asked(request, tuple(words["strategies"]), words["paradigms"], tuple(words["meta"]), *divided)
    refuse_unlisted(asked.texts, request, file)
    return asked


def compare_paradigms(
    asked: Asked | Path, out: Path = Path("runs"), tell: Tell = told_to_nobody
) -> tuple[dict[str, Any], list[Line], Path]:
    """Learn a comparison in a new folder, or go on with that of a folder, whose finished lines are not learned again.

    The folder is made, and known to be writable, before anything is learned; each line is saved as it is finished.
    Gives what was kept, the lines, and the folder. Ctrl-C ends at once: what was learned of a line that is not finished
    is learned again.
    """
    if isinstance(asked, Path):
        folder, asked = asked, asked_of(asked)
        for file in asked.request.files:  # before any of them is read or executed
            file.check()
        kept = load_lines(folder)[1]
    else:
        words = asked.texts
        asked, folder, kept = replace(asked, request=with_files(asked.request, words)), None, []
    use_threads(asked.request.threads)
    comparison = asked.comparison(tell)
    folder = folder or default_folder(out, replace(asked.request, strategy="paradigms"))
    check_writable(folder)
    comparison.lines = kept
    comparison.save = lambda: save(as_json(comparison, asked), folder)
    with held_alone(folder), goes_on(folder, f"`lifelong resume {folder}`"):
        remove_partials(folder)
        try:
            comparison.save()
            write_configuration(folder, "compare", asked.configuration)
            comparison.learn()
        except KeyboardInterrupt:
            raise Stopped(f"`lifelong resume {folder}` goes on") from None
        comparison.save()
    return as_json(comparison, asked), comparison.lines, folder


def with_files(request: Request, texts: Sequence[str]) -> Request:
    """The request with all files that some texts name, its own among them."""
    return replace(request, files=user_files.recorded(texts, [request.data_root] if request.data_root else []))


class Columns(NamedTuple):
    """A table of the comparison: what stands over it, its columns, and a line's cells."""

    title: str
    head: list[str]
    rows: list[list[str]]


GROUPS = {
    "few_shot": "the held-out tasks, adapted by the same rule",
    "by_means": "the held-out tasks, by the nearest class mean of the features",
    "own_answers": "the held-out tasks, by a meta-learner's own way of answering",
}


def tables(about: dict[str, Any], lines: Sequence[Line]) -> list[Columns]:
    """All tables of a comparison: what was learned; the held-out tasks in three ways; what it took."""
    shots = tuple(about["shots"])
    learned = [[line.paradigm, _name(line), _shown(line.final), _shown(line.forgetting)] for line in lines]
    cost = [
        [line.paradigm, line.method, f"{line.seconds:.1f}" if line.seconds else "–",
         in_bytes(line.stored), in_bytes(line.in_memory), f"{line.examples:,.0f}" if line.examples else "–",
         f"{line.passes:.1f}" if line.passes else "–", line.sees]
        for line in lines
    ]  # fmt: skip
    joint = next((line for line in lines if line.paradigm == "multi-task"), None)
    groups = [
        Columns(title, _head(shots), [_row(line, group, joint, len(shots)) for line in lines if _has(line, group)])
        for group, title in GROUPS.items()
    ]
    return [
        Columns("the trained tasks", ["paradigm", "method", "accuracy", "forgetting"], learned),
        *(group for group in groups if group.rows),
        Columns(
            "what it took, and was allowed to see",
            ["paradigm", "method", "seconds", "stored", "in memory", "examples", "passes", "sees"],
            cost,
        ),
    ]


def _head(shots: tuple[int, ...]) -> list[str]:
    return ["paradigm", "method", *(word for k in shots for word in (f"{k}-shot", "− joint"))]


def _has(line: Line, group: str) -> bool:
    return getattr(line, group) is not None


def _row(line: Line, group: str, joint: Line | None, shots: int) -> list[str]:
    """A line's accuracy for each k, and its difference to the joint reading, paired over seeds."""
    values, cells = getattr(line, group), [line.paradigm, line.method]
    against = (
        None if joint is None or line is joint else getattr(joint, "few_shot" if group == "own_answers" else group)
    )
    for k in range(shots):
        cells.append(_shown(values[:, k]))
        cells.append("" if against is None else _signed(values[:, k] - against[:, k]))
    return cells


def _signed(values: Tensor) -> str:
    kept = values.isfinite()
    text = estimate(values, kept).text(1) if kept.any() else "–"
    return text if text.startswith(("-", "–")) else f"+{text}"


def _shown(values: Tensor | None) -> str:
    if values is None or not values.isfinite().any():
        return "–" if values is None else "diverged"
    value, same = estimate(values, values.isfinite()), float(values[values.isfinite()].std(correction=0)) == 0
    return f"{100 * value.mean:.1f}" if same else value.text(1)


def _name(line: Line) -> str:
    """The method with what is to be known of it; a rate at the end of its grid is said."""
    notes = [line.note] if line.note else []
    notes += [] if line.inside else ["a rate at its grid's end"]
    return ", ".join([line.method, *notes])


def said(found: Sequence[Finding]) -> list[str]:
    """Findings as sentences: what is established, then what is not; that nothing was tested, where that is so."""
    if not found:
        return [
            "nothing was tested: that takes two seeds, the joint reading, and a meta-learner or plain continual learning"
        ]
    sure = [finding for finding in found if finding.established]
    lines = [finding.text for finding in sure] or [f"no difference at k = {found[0].shot} is established"]
    rest = [finding.text for finding in found if not finding.established]
    return [*lines, *([f"not established: {'; '.join(rest)}"] if rest and sure else rest)]


def as_json(comparison: Comparison, asked: Asked) -> dict[str, Any]:
    """Everything that the table says, seed by seed, and the request."""

    def plain(line: Line) -> dict[str, Any]:
        values = {name: getattr(line, name) for name in Line.__dataclass_fields__}
        return {name: listed(v) if isinstance(v, Tensor) else v for name, v in values.items()}

    return {
        **asked.as_json(),
        "status": "done" if len(comparison.lines) == comparison.planned else "running",
        "examples": comparison.budget,
        "trained tasks": comparison.count,
        "tasks to choose by": comparison.division.choosing,
        "held-out tasks": comparison.division.held,
        "shots": list(comparison.protocol.shots),
        "adaptation": repr(comparison.protocol),
        "meta": [repr(stage) for stage in comparison.stages],
        "seeds": comparison.seeds,
        "findings": said(findings(comparison.lines, comparison.protocol.shots)),
        "lines": [plain(line) for line in comparison.lines],
    }


def listed(values: Tensor) -> Any:
    """Numbers seed by seed, null where a seed diverged: JSON has no NaN."""
    return [listed(row) for row in values] if values.ndim else (float(values) if values.isfinite() else None)


def caption(about: dict[str, Any]) -> str:
    """What stands over the tables."""
    trained, rates = (f"{n} task{'s' * (n != 1)}" for n in (about["trained tasks"], about["tasks to choose by"]))
    return (
        f"%, mean ± half-width of the 95 % interval over {len(about['seeds'])} seeds; {trained} trained on,"
        f" {about['examples']:,} examples a seed; rates chosen on {rates} that nobody trains on;"
        f" {about['held-out tasks']} held out, k rows of each class; − joint: paired over seeds"
    )


def save(about: dict[str, Any], folder: Path) -> Path:
    """Keep the comparison as paradigms.json in a folder of its own."""
    make_folder(folder)
    write_json(folder / "paradigms.json", about)
    return folder / "paradigms.json"


def load_lines(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """What `save` kept. Raises RunError where it cannot be read."""
    file = path / "paradigms.json"
    about = read_json(file, {"lines": list[dict[str, Any]], "shots": list[int], "seeds": list[Any]})

    def seen(name: str, value: Any) -> Any:
        if value is None or name not in ("final", "forgetting", *GROUPS):
            return tuple(value) if isinstance(value, list) else value
        values = torch.tensor(np.array(value, dtype=np.float64))  # null becomes NaN again
        shape = (
            (len(about["seeds"]),) if name in ("final", "forgetting") else (len(about["seeds"]), len(about["shots"]))
        )
        if values.shape != shape:
            raise TypedError(f"lines: {name} is not of as many numbers as there are seeds and shots")
        return values

    try:
        for number, held in enumerate(about["lines"]):
            check(held, LINES, f"lines[{number}]")
        return about, [Line(**{name: seen(name, value) for name, value in held.items()}) for held in about["lines"]]
    except (TypeError, ValueError) as error:
        raise RunError(damaged(file, reason(error))) from None
