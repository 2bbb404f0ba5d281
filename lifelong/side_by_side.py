"""What `compare --readings` does: words become a comparison, its table is shown, kept as JSON and put on a page."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.adaptation.few_shot import FewShot
from lifelong.files import write
from lifelong.learner import Learner
from lifelong.loop import device_of
from lifelong.meta.initialisation_learner import InitialisationLearner
from lifelong.metrics import estimate
from lifelong.readings import HELD, READINGS, Comparison, Line, Say
from lifelong.request import Request, RequestError


def read_readings(text: str) -> tuple[str, ...]:
    """`multi-task,transfer,meta,continual`, or some of them, or `all`. Raises RequestError for other words."""
    from lifelong.expression import suggest

    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if words == ("all",):
        return READINGS
    for word in words:
        if word not in READINGS:
            raise RequestError(f"unknown reading {word!r}: {suggest(word, READINGS)}")
    return words


def comparison_of(
    request: Request, strategies: list[str], readings: str, stage: str, shots: str, say: Say
) -> Comparison:
    """The comparison that the words ask for."""
    from lifelong.adaptation.few_shot import read_shots
    from lifelong.expression import parse

    if request.setting not in ("", "task"):
        raise RequestError("the four readings are compared where the task is told: --setting task")
    learner, stream, _ = replace(request, setting="task").build()
    meta = parse(stage, "initialisations") if stage else None
    if meta is not None and not isinstance(meta, InitialisationLearner):
        raise RequestError(f"--meta {stage!r} is nothing that learns: name a meta-learner, as in 'MAML(shot=5)'")
    assert isinstance(learner, Learner)
    parsed = tuple(parse(text, "strategies") for text in strategies if text != "FineTuning()")
    what = FewShot(read_shots(shots) or (1, 5, 10))
    stream = stream.to(device_of(request.device))
    return Comparison(stream, learner, list(request.seeds), parsed, meta, read_readings(readings), what, say)


def head(shots: tuple[int, ...]) -> list[str]:
    """The table's columns."""
    return [
        "reading",
        "method",
        "final",
        "forgetting",
        *(f"{k}-shot" for k in shots),
        "seconds",
        "stored",
        "passes",
        "sees",
    ]


def row(line: Line, shots: tuple[int, ...], digits: int = 1) -> list[str]:
    """One line as text: percent, seconds, bytes beyond the network."""

    def shown(values: Tensor | None) -> str:
        if values is None or not values.isfinite().any():
            return "–" if values is None else "diverged"
        value, same = estimate(values, values.isfinite()), float(values[values.isfinite()].std(correction=0)) == 0
        return f"{100 * value.mean:.{digits}f}" if same else value.text(digits)

    few = [shown(None if line.few_shot is None else line.few_shot[:, i]) for i in range(len(shots))]
    size = f"{line.stored / 1e3:,.0f} kB" if line.stored else "–"
    passes = f"{line.passes:.1f}" if line.passes else "–"
    seconds = f"{line.seconds:.1f}" if line.seconds else "–"
    method = line.method + (f", {line.note}" if line.note else "")
    return [line.reading, method, shown(line.final), shown(line.forgetting), *few, seconds, size, passes, line.sees]


def as_json(comparison: Comparison, request: Request) -> dict[str, Any]:
    """Everything that the table says, seed by seed, and the request."""

    def plain(line: Line) -> dict[str, Any]:
        values = {name: getattr(line, name) for name in Line.__dataclass_fields__}
        return {name: _listed(v) if isinstance(v, Tensor) else v for name, v in values.items()}

    return {
        "request": asdict(request),
        "examples": comparison.budget,
        "trained tasks": comparison.count,
        "held-out tasks": HELD,
        "shots": list(comparison.what.shots),
        "adaptation": repr(comparison.what),
        "meta": repr(comparison.stage) if comparison.stage else "",
        "seeds": comparison.seeds,
        "lines": [plain(line) for line in comparison.lines],
    }


def _listed(values: Tensor) -> Any:
    """Numbers seed by seed, null where a seed diverged: JSON has no NaN."""
    return [_listed(one) for one in values] if values.ndim else (float(values) if values.isfinite() else None)


def caption(about: dict[str, Any]) -> str:
    """What stands over the table."""
    return (
        f"%, mean ± half-width of the 95 % interval over {len(about['seeds'])} seeds; {about['trained tasks']} tasks trained on,"
        f" {about['examples']:,} examples a seed; k-shot: the {about['held-out tasks']} held-out tasks from k rows of each class"
    )


def save(about: dict[str, Any], folder: Path) -> Path:
    """Keep the comparison as readings.json in a folder of its own."""
    folder.mkdir(parents=True)
    write(folder / "readings.json", json.dumps(about, indent=1).encode())
    return folder / "readings.json"


def load_lines(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """What `save` kept."""
    about = json.loads((path / "readings.json").read_bytes())

    def seen(name: str, value: Any) -> Any:
        if name not in ("final", "forgetting", "few_shot") or value is None:
            return value
        return torch.tensor(np.array(value, dtype=np.float64))  # null becomes NaN again

    return about, [Line(**{name: seen(name, value) for name, value in one.items()}) for one in about["lines"]]
