"""Finished runs as tables for other programs: CSV, JSON, Parquet, LaTeX, NumPy's arrays, and a pandas frame.

A table is tidy: a line for each run, seed and number, with what the run was of in columns of its own, so that unlike runs can be
told apart. Values are fractions of 1 as everywhere, and in LaTeX percent.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifelong import metrics
from lifelong.core.files import RunError, write
from lifelong.core.result import Result
from lifelong.notation.user_code import suggest
from lifelong.runs.folder import Loaded
from lifelong.runs.groups import RunGroup, groups_of
from lifelong.runs.request import seed_text
from scenarios.errors import ConfigurationError

Line = dict[str, Any]
SHOWN = ("average_accuracy", "forgetting", "learning_accuracy")  # in LaTeX, where nothing else is asked for


class ExportError(ConfigurationError):
    """Words that nothing can be exported by, or a library that is not there."""


def _metrics(result: Result) -> Iterator[Line]:
    for name, value in metrics.summary(result).items():
        for seed, number in zip(result.seeds, value.per_seed, strict=True):
            yield {"seed": seed_text(seed), "metric": name, "value": None if number is None else _number(number)}


def _accuracy(result: Result) -> Iterator[Line]:
    for s, seed in enumerate(result.seeds):
        for e, (learned, iteration, end, _) in enumerate(result.when.tolist()):
            for t, value in enumerate(result.accuracy[s, e].tolist()):
                place = {"evaluation": e, "task_learned": learned, "iteration": iteration, "task_end": end, "task": t}
                yield {"seed": seed_text(seed), **place, "accuracy": _number(value)}


def _losses(result: Result) -> Iterator[Line]:
    for s, seed in enumerate(result.seeds):
        for t, stretches in enumerate(result.losses[s].tolist()):
            for stretch, value in enumerate(stretches):
                yield {"seed": seed_text(seed), "task": t, "stretch": stretch, "loss": _number(value)}


def _probes(result: Result) -> Iterator[Line]:
    for name, values in result.probes.items():
        for s, seed in enumerate(result.seeds):
            for moment in range(values.shape[1]):
                for place, value in enumerate(values[s, moment].flatten().tolist()):
                    yield {
                        "seed": seed_text(seed),
                        "probe": name,
                        "moment": moment,
                        "place": place,
                        "value": _number(value),
                    }


TABLES: dict[str, Callable[[Result], Iterator[Line]]] = {
    "metrics": _metrics, "accuracy": _accuracy, "losses": _losses, "probes": _probes,
}  # fmt: skip


def _number(value: float) -> float | None:
    """None where it was not measured: no format has one word for NaN."""
    return value if math.isfinite(value) else None


def lines(runs: Sequence[Loaded], table: str = "metrics") -> list[Line]:
    """A table of finished runs, a dictionary a line; where numbers varied, each setting is a method of its own.

    table: "metrics" (a line for each metric), "accuracy" (each evaluation and task), "losses" (each task and stretch of it) or
    "probes" (each moment). Raises ExportError for another, and where there is nothing to tell of.
    """
    if table not in TABLES:
        raise ExportError(f"--table {table!r}: {suggest(table, list(TABLES))}")
    found = [
        {**_about(name, run), **line}
        for group in groups_of(runs)
        for name, run in group.runs.items()
        for line in TABLES[table](run.result)
    ]
    if len({type(line["seed"]) for line in found}) > 1:  # a column has one type
        found = [{**line, "seed": str(line["seed"])} for line in found]
    if not found:
        raise ExportError(f"these runs have no {table}: run with --probe" if table == "probes" else f"no {table} here")
    return found


def _about(method: str, run: Loaded) -> Line:
    """What stands in every line of a run."""
    resolved = run.resolved
    words = {"run": str(run.path), "method": method, "data": resolved["data"]["name"], "scenario": resolved["scenario"]}
    budget = {name: resolved["budget"][name] for name in ("iterations", "epochs", "batch")}
    budget["repeats"] = resolved["budget"].get("repeats", 1)
    return {**words, "setting": resolved["setting"], "model": resolved["model"], **budget}


def frame(runs: Sequence[Loaded], table: str = "metrics") -> Any:
    """`lines` as a pandas DataFrame. Raises ExportError where pandas is not installed."""
    return _library("pandas", "a data frame").DataFrame(lines(runs, table))


def _library(name: str, purpose: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ExportError(f"{purpose} takes {name}, which is not installed: pip install 'lifelong[export]'") from None


def as_csv(runs: Sequence[Loaded], table: str) -> bytes:
    """Comma-separated, with a head; what was not measured is empty."""
    found, text = lines(runs, table), io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue().encode()


def as_json(runs: Sequence[Loaded], table: str) -> bytes:
    """A list of objects; what was not measured is null."""
    return (json.dumps(lines(runs, table), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def as_parquet(runs: Sequence[Loaded], table: str) -> bytes:
    """Apache Parquet, by pyarrow."""
    arrow, content = _library("pyarrow", "Parquet"), io.BytesIO()
    _library("pyarrow.parquet", "Parquet").write_table(arrow.Table.from_pylist(lines(runs, table)), content)
    return content.getvalue()


def as_npz(runs: Sequence[Loaded], table: str) -> bytes:
    """What each run measured as it is in a Result, by name: accuracy [S, E, T], when [E, 4], losses [S, T, P], seeds [S] ...

    Of several runs under "METHOD/accuracy"; `table` says nothing here.
    """
    named = {name: run.result for group in groups_of(runs) for name, run in group.runs.items()}
    several = sum(len(group.runs) for group in groups_of(runs)) > 1
    if several and len(named) < sum(len(group.runs) for group in groups_of(runs)):
        named = {f"{group.title}/{name}": run.result for group in groups_of(runs) for name, run in group.runs.items()}
    arrays: dict[str, Any] = {}
    for name, result in named.items():
        held = {key: value.numpy() for key, value in result.tensors().items()}
        held["seeds"] = np.array([seed_text(seed) for seed in result.seeds])
        arrays |= {(f"{name}/{key}" if several else key): value for key, value in held.items()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def as_latex(runs: Sequence[Loaded], shown: Sequence[str] = ()) -> bytes:
    """A table for each group of runs that can be compared, methods as rows, mean ± half-width of the 95 % interval in percent.

    It takes the package booktabs. The last column is the difference in average accuracy to the first method, paired over seeds.
    shown: metrics; by default those of SHOWN that a group has. Raises ExportError for a metric that no run of a group has.
    """
    return "\n".join(_latex_table(group, shown) for group in groups_of(runs)).encode()


def _latex_table(group: RunGroup, shown: Sequence[str]) -> str:
    summaries = {name: metrics.summary(result) for name, result in group.results.items()}
    for metric in shown:  # that were asked for
        if not any(metric in summary for summary in summaries.values()):
            known = sorted({name for summary in summaries.values() for name in summary})
            raise ExportError(f"--metrics {metric!r} was not measured by these runs: {suggest(metric, known)}")
    shown = shown or [metric for metric in SHOWN if any(metric in summary for summary in summaries.values())]
    first, several = next(iter(summaries)), len(summaries) > 1
    head = ["method", *(metric.replace("_", " ") for metric in shown), *(["difference"] if several else [])]
    rows = [head]
    for name, summary in summaries.items():
        cells = [_in_latex(summary[metric]) if metric in summary else "--" for metric in shown]
        rows.append([_escaped(name), *cells, *([_difference(group, name, first)] if several else [])])
    seeds = sorted({int(result.kept.sum()) for result in group.results.values()})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lost = sum(len(result.seeds) - int(result.kept.sum()) for result in group.results.values())
    counted += " seeds" + (f" ({lost} diverged, left out)" if lost else "")
    body = [" & ".join(cells) + r" \\" for cells in rows]
    return "\n".join([
        f"% {' '.join(group.title.split())}",
        f"% percent; mean and half-width of the 95 % interval (Student's t) over {counted}; difference: paired, to {' '.join(first.split())}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule",
        r"\end{tabular}", "",
    ])  # fmt: skip


def _difference(group: RunGroup, name: str, first: str) -> str:
    if name == first:
        return ""
    try:
        value = metrics.paired(metrics.average_accuracy, group.results[name], group.results[first])
    except metrics.NotMeasured:
        return "--"
    return _in_latex(value, "+" if value.mean >= 0 else "")


def _in_latex(estimate: metrics.Estimate, sign: str = "") -> str:
    text = estimate.text()
    return "--" if text == "–" else f"${sign}{text}$".replace("±", r"\pm")


def _escaped(text: str) -> str:
    """A text as LaTeX shows it."""
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text)


FORMATS: dict[str, Callable[[Sequence[Loaded], str], bytes]] = {
    "csv": as_csv, "json": as_json, "parquet": as_parquet, "npz": as_npz, "latex": lambda runs, table: as_latex(runs),
}  # fmt: skip
BINARY = ("parquet", "npz")


def export(runs: Sequence[Loaded], form: str, table: str = "metrics", shown: Sequence[str] = ()) -> bytes:
    """Finished runs in a format of FORMATS. Raises ExportError for another, and for metrics or a table that a format does not take."""
    if form not in FORMATS:
        raise ExportError(f"--to {form!r}: {suggest(form, list(FORMATS))}")
    if form in ("latex", "npz") and table != "metrics":
        held = "means of metrics" if form == "latex" else "all that was measured"
        raise ExportError(f"--table goes with csv, json and parquet: {form} has {held}")
    if form == "latex":
        return as_latex(runs, shown)
    if shown:
        raise ExportError(f"--metrics goes with --to latex: {form} has all of them")
    return FORMATS[form](runs, table)


def write_export(path: Path, content: bytes) -> None:
    """Write it whole or not at all. Raises RunError where that cannot be done."""
    if path.is_dir():
        raise RunError(f"--output {path} is a folder: name a file")
    write(path, content)
