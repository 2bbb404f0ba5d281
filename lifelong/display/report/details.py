"""What folds away: values seed by seed, what was typed and what it stood for, versions, and the commands that repeat it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from lifelong import metrics
from lifelong.core.files import RunError, read_json
from lifelong.display.report.measured import Measured, Method
from lifelong.display.report.tables import escaped, flow, metric_tables, named, seed_table, table, task_table
from lifelong.display.tables import in_own_unit
from lifelong.runs.folder import Loaded
from lifelong.runs.labels import calls
from lifelong.runs.request import seeds_text
from lifelong.studies.differences import Difference

MOST_PAIRS = 500


def folded(title: str, content: str, note: str = "") -> str:
    """Content under a line that opens it."""
    more = f" <small>{escaped(note)}</small>" if note else ""
    return f"<details><summary>{escaped(title)}{more}</summary>{content}</details>"


def details(measured: Measured, found: list[Difference]) -> str:
    """Everything that folds away, in the order in which it is asked for."""
    parts = [folded("All differences", *_differences(measured, found))] if found else []
    if measured.comparable:
        parts.append(folded("All metrics", metric_tables(measured), measured.units))
        parts.append(folded("Every seed", seed_table(measured), f"{measured.measure} after the last task"))
    parts.append(folded("Every task at the end", task_table(measured), f"{measured.unit}, %"))
    if probes := probe_table(measured):
        parts.append(
            folded("Probes", probes, "each in its own unit, mean ± half-width of the 95 % interval over seeds")
        )
    parts.append(folded("Settings", settings(measured), "typed, and what it stood for"))
    parts.append(folded("Versions, dates and folders", _made(measured)))
    parts.append(folded("Repeat it", commands([(named(m), m.run.request.command) for m in measured.methods])))
    return "".join(parts)


def _differences(measured: Measured, found: list[Difference]) -> tuple[str, str]:
    """Every two methods; of very many those with the best alone."""
    methods = {method.name: method for method in measured.methods}
    shown, note = found, f"{measured.measure}, points of percent, paired over seeds; p after Holm's correction"
    if len(found) > MOST_PAIRS:
        best = measured.rivals[0].name
        shown = [d for d in found if best in (d.better, d.worse)]
        note += f"; of {len(found):,} those of the best"
    rows = [
        [
            named(methods[d.better]),
            named(methods[d.worse]),
            d.points,
            f"{d.seeds}",
            _p(d),
            "yes" if d.established else "no",
        ]
        for d in sorted(shown, key=lambda d: -d.value.mean)
    ]
    return table(["better", "than", "by, points", "seeds", "p", "established"], rows, (0, 1)), note


def probe_table(measured: Measured) -> str:
    """What probes found, a line for each number and method; nothing where none was asked for."""
    found = [
        (probe, method, numbers)
        for method in measured.methods
        for probe, numbers in metrics.probed(method.result).items()
    ]
    rows = [
        [
            escaped(probe),
            named(method),
            f"{numbers.moments}",
            *map(in_own_unit, (numbers.first, numbers.last, numbers.mean)),
        ]
        for probe, method, numbers in sorted(found, key=lambda each: each[0])
    ]
    return table(["probe", "method", "moments", "first", "last", "mean"], rows, (0, 1)) if rows else ""


def _p(difference: Difference) -> str:
    p = difference.p
    return "–" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def settings(measured: Measured) -> str:
    """What all share, as it was resolved and typed; then each method in full, with what else it differs in."""
    resolved = [method.run.resolved for method in measured.methods]
    flat = [
        _flat({name: value for name, value in each.items() if name not in ("method", "paradigm")})
        | {f"typed --{name.replace('_', '-')}": text for name, text in given_words(method.run).items()}
        for each, method in zip(resolved, measured.methods, strict=True)
    ]
    names = list(dict.fromkeys(name for each in flat for name in each))
    values = {name: {each[name] for each in flat if each.get(name)} for name in names}
    typed_by_all = {name for name in names if all(name in each for each in flat)}
    same = [name for name in names if len(values[name]) == 1 and (name in typed_by_all or "typed" not in name)]
    rows = [
        [named(method), method.run.request.method, flow([("", each["method"]), *_rest(names, same, words)])]
        for method, each, words in zip(measured.methods, resolved, flat, strict=True)
    ]
    shared = table(["the same for all", "value"], [[name, *values[name]] for name in same], (0, 1), "words")
    return f"{shared}{table(['method', 'typed', 'in full'], rows, (0, 1, 2), 'words')}"


def _rest(names: list[str], same: list[str], values: dict[str, str]) -> list[tuple[str, str]]:
    """What a method does not share with all others."""
    return [(name, values[name]) for name in names if name not in same and values.get(name)]


def given_words(run: Loaded) -> dict[str, str]:
    """What was typed beside scenario, method and baseline."""
    fields = type(run.request).__dataclass_fields__
    named_elsewhere = ("scenario", "strategy", "learner", "baseline", "files")
    given = {name: getattr(run.request, name) for name in fields if name not in named_elsewhere}
    changed = {name: value for name, value in given.items() if value != fields[name].default}
    return {name: seeds_text(value) if name == "seeds" else f"{value}" for name, value in changed.items()}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested words as one level, as in "data: classes"."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}: ")
        else:
            flat[f"{before}{name}"] = (
                f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"
            )
    return flat


def _made(measured: Measured) -> str:
    """When each run ended, on what, and where it lies."""
    rows: list[list[str]] = []
    for method in measured.methods:
        try:
            about = read_json(method.run.path / "run.json")
        except RunError:
            about = {}
        made = _flat({**about.get("versions", {}), **about.get("machine", {})})
        rows.append([named(method), ended(method), flow(made.items()), str(method.run.path)])
    return table(["method", "ended", "on", "folder"], rows, (0, 1, 2, 3), "words")


def ended(method: Method) -> str:
    """The day and hour at which its results were written."""
    try:
        seconds = os.stat(method.run.path / "results.safetensors").st_mtime
    except OSError:
        return "–"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def commands(given: list[tuple[str, str]]) -> str:
    """Commands that can be copied, each under what it repeats."""
    return "".join(
        f"<p class=note>{escaped(name)}</p><div class=command><code>{escaped(command)}</code><button class=copy>copy</button></div>"
        for name, command in given
    )


def brief_call(text: str) -> str:
    """A call with its first field alone, as in "Adam(rate=0.001)"; as it is where it cannot be read."""
    parts = calls(text)
    if not parts or len(parts) != 1 or len(parts[0].fields) < 3:
        return text
    name, value = parts[0].fields[0]
    return f"{parts[0].name}({name}={value})" if name else f"{parts[0].name}({value})"


def as_text(about: Any) -> str:
    """JSON as a person reads it."""
    return f"<pre>{escaped(json.dumps(about, indent=2))}</pre>"
