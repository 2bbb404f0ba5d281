"""Every method on several streams, resumable: `python benchmarks/methods.py` writes docs/methods.json and docs/methods.md.

A cell is a method on a stream with all its seeds. Cells are appended as they are done; what is there is not run again, so
that a run which was cut off goes on. Numbers of a method are those of its paper, or chosen from a small grid by the
accuracy on a fifth of the training rows, held out, on other seeds. Each method stands beside fine-tuning, and beside a
replay of as many rows as its memory would hold.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.metrics import average_accuracy, estimate, holm
from lifelong.notation.expression import parse, vocabulary
from lifelong.runs.memory_budget import BudgetError, fitted, kept
from scenarios.catalogue import find
from scenarios.datasets import load_dataset
from scenarios.errors import ConfigurationError
from scenarios.stream import Dataset, Stream, generator

CHOOSING = (100, 101, 102)  # seeds on which numbers are chosen; none of them is in a table
FINE_TUNING = "FineTuning()"


@dataclass(frozen=True)
class Place:
    """A stream that methods are put on: scenario, setting, iterations of a task (0: the scenario's), seeds, rows kept."""

    name: str
    scenario: str
    setting: str
    seeds: int
    rows: int
    iterations: int = 0
    replay: str = "Replay(size={size})"


QUICK = (
    Place("split-digits, class-incremental", "split-digits", "class", 10, 200),
    Place("split-digits, task-incremental", "split-digits", "task", 10, 200),
    Place("permuted-digits, domain-incremental", "permuted-digits", "domain", 10, 200),
    Place("gradual-digits, no task ends", "gradual-digits", "class", 10, 200, replay="Replay(size={size}, weighting='equal')"),
    Place("longtail-digits, class-incremental", "longtail-digits", "class", 10, 200),
)  # fmt: skip
LONG = (
    Place("split-mnist, class-incremental, 500 iterations a task", "split-mnist", "class", 5, 1000, 500),
    Place("online-mnist, class-incremental, one pass, batches of 10", "online-mnist", "class", 5, 1000),
)

# twenty times a step of fine-tuning: on the long streams their grid is tried on one seed
LOOK_AHEAD = ("CMAML", "SyncLaMAML", "LaMAML")
# Strengths have no scale of their own: the best depends on rows, network and number of tasks. All else is at its default.
GRIDS: dict[str, list[str]] = {
    "EWC": [f"EWC({s:g})" for s in (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)],
    "SI": [f"SI({s:g})" for s in (0.1, 1.0, 10.0, 100.0, 1e3)],
    "MAS": [f"MAS({s:g})" for s in (0.01, 0.1, 1.0, 10.0, 100.0)],
    "LwF": [f"LwF({s:g})" for s in (0.5, 1.0, 2.0, 5.0)],
    "RWalk": [f"RWalk({s:g})" for s in (0.1, 1.0, 10.0, 100.0)],
    "LFL": [f"LFL({s:g})" for s in (1e-3, 1e-2, 0.1, 1.0)],
    "L2Last": [f"L2Last({s:g})" for s in (1e-3, 1e-2, 0.1, 1.0)],
    "L2SP": [f"L2SP({s:g})" for s in (1e-3, 1e-2, 0.1, 1.0)],
    "L2Init": [f"L2Init({s:g})" for s in (1e-4, 1e-3, 1e-2, 0.1)],
    "ShrinkAndPerturb": [f"ShrinkAndPerturb({s:g}, {n:g})" for s, n in ((0.6, 0.01), (0.9, 0.03), (0.99, 0.01))],
    "FDR": [f"FDR(alpha={a:g}, per_class={{each}})" for a in (1.0, 10.0, 100.0)],
    # steps ahead at the papers' rates lead astray where pieces of a batch have a class or two of ten
    **{name: [f"{name}(inner={rate:g}, size={{size}})" for rate in (0.003, 0.01, 0.03, 0.1)] for name in LOOK_AHEAD},
}
COSTS = Path("docs/cost.json")
SKIPPED = ("FineTuning", "WarmUp")  # the second is half of a method: LwF(scaled=False) + WarmUp()


@cache
def dataset_of(name: str, root: str, held_out: bool) -> Dataset:
    """A data set; held_out: with a fifth of its training rows for test rows, and without its test rows."""
    dataset = load_dataset(name, root or None)
    if not held_out:
        return dataset
    order = torch.randperm(dataset.train_rows, generator=generator("rows to choose by", name))
    count = dataset.train_rows * 4 // 5
    return replace(dataset, x=dataset.x[order], y=dataset.y[order], train_rows=count, targets=None)


def stream_of(place: Place, root: str, held_out: bool = False, **options: Any) -> Stream:
    """The stream of a place."""
    entry = find(place.scenario)
    budget = replace(entry.budget, iterations=place.iterations) if place.iterations else entry.budget
    chosen = {**entry.options, **options}
    stream = entry.make(dataset_of(entry.data, root, held_out), setting=place.setting, budget=budget, **chosen)
    return replace(stream, name=entry.name)


def own_methods() -> dict[str, Any]:
    """The classes of our own strategies and learners, by name."""
    known = {**vocabulary("strategies"), **vocabulary("learners")}
    return {name: method for name, method in known.items() if method.__module__.startswith("lifelong.")}


def one_after_another() -> list[str]:
    """The names of methods that the tables hold: those that learn one task after another."""
    return [name for name, method in own_methods().items() if name not in SKIPPED and not _together(method)]


def learner_of(text: str, place: Place) -> Any:
    """A learner from the text of a strategy or of a learner."""
    entry = find(place.scenario)
    model, name = parse(entry.model, "models"), text.partition("(")[0]
    if name in vocabulary("learners"):
        learner = parse(text, "learners")
        takes = any(field.name == "model" for field in fields(learner))
        return replace(learner, model=model) if takes else learner
    return Learner(model, parse(text, "strategies"), parse(entry.optimiser, "optimisers"))


def texts_of(name: str, place: Place) -> list[str]:
    """What is tried of a method on a place: one text, or a grid."""
    if name in GRIDS:
        return [text.format(size=place.rows, each=place.rows // 10) for text in GRIDS[name]]
    kind = "learners" if name in vocabulary("learners") else "strategies"
    sized = vocabulary(kind)[name].sized_by
    if not sized:
        return [f"{name}()"]
    parts = {"per_class": 10, "per_task": 5}.get(sized, 1)
    return [f"{name}({sized}={place.rows // parts})"]


def options_of(learner: Any, place: Place) -> dict[str, Any]:
    """What a method needs of the stream that its scenario's defaults lack."""
    needs = [need for _, need in learner.requirements]
    return {"validation": 0.1} if any(need.validation for need in needs) else {}


def measured(text: str, place: Place, root: str, seeds: list[int], held_out: bool = False) -> dict[str, Any]:
    """Accuracy of each seed, bytes and processor seconds of one of them. Raises ConfigurationError where it does not fit."""
    learner = learner_of(text, place)
    stream = stream_of(place, root, held_out, **options_of(learner, place))
    began = time.process_time()
    result = run(learner, stream, seeds)
    seconds = (time.process_time() - began) / len(seeds)
    accuracy = torch.where(result.kept, average_accuracy(result), torch.nan)
    size = 0 if learner.looped else kept(learner, stream).total
    return {"text": text, "accuracy": accuracy.tolist(), "bytes": round(size), "seconds": round(seconds, 2)}


def cell_of(name: str, place: Place, root: str) -> dict[str, Any]:
    """A method on a place: its numbers chosen, then measured on the table's seeds."""
    texts, by = texts_of(name, place), "its defaults"
    if len(texts) > 1:
        seeds = CHOOSING[:1] if name in LOOK_AHEAD and place in LONG else CHOOSING
        tried = [measured(text, place, root, list(seeds), held_out=True) for text in texts]
        best = max(tried, key=lambda cell: torch.tensor(cell["accuracy"]).nan_to_num(0).mean().item())
        texts, by = [best["text"]], f"best of {len(tried)} on held-out rows{' of one seed' if len(seeds) == 1 else ''}"
    return {**measured(texts[0], place, root, list(range(place.seeds))), "chosen": by}


def replay_of(size: int, place: Place, root: str) -> str:
    """The replay that keeps as many bytes; "" where there is none."""
    text, stream = place.replay.format(size=1), stream_of(place, root)
    try:
        learner = fitted(learner_of(text, place), stream, size)
    except BudgetError:
        return ""
    return place.replay.format(size=min(learner.strategy.size, stream.dataset.train_rows))


def measure(places: tuple[Place, ...], names: list[str], root: str, output: Path) -> None:
    """Run the cells that are missing, and write each as soon as it is there."""
    for place in places:
        for name in [FINE_TUNING, *names]:
            cells = json.loads(output.read_text()) if output.exists() else {}
            here = cells.setdefault(place.name, {})
            key = name.removesuffix("()")
            if key not in here:
                try:
                    here[key] = _tried(key, place, root)
                except Exception as error:  # one cell must not end a night of others; it is tried again the next time
                    print(f"{place.name}: {key}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                    continue
                _write(output, cells)
            same = here[key].get("replay")
            if same and same not in here:
                here[same] = {**measured(same, place, root, list(range(place.seeds))), "chosen": "of the same bytes"}
                _write(output, cells)


def _tried(name: str, place: Place, root: str) -> dict[str, Any]:
    began = time.process_time()
    try:
        cell = (
            cell_of(name, place, root)
            if name != "FineTuning"
            else measured(FINE_TUNING, place, root, list(range(place.seeds)))
        )
        if cell["bytes"]:
            cell["replay"] = replay_of(cell["bytes"], place, root)
    except ConfigurationError as reason:
        cell = {"refused": str(reason)}
    print(f"{place.name}: {name}: {time.process_time() - began:.1f} s {cell.get('refused', '')[:80]}", flush=True)
    return cell


def _write(output: Path, cells: dict[str, Any]) -> None:
    output.write_text(json.dumps(cells, indent=1) + "\n")


# --- the page ---------------------------------------------------------------------------------------------------------


def paired(cell: dict[str, Any], other: dict[str, Any]) -> tuple[torch.Tensor, float]:
    """Differences of accuracy by seed, and the p-value of none (Student's t, paired)."""
    from scipy import stats

    gap = torch.tensor(cell["accuracy"]) - torch.tensor(other["accuracy"])
    gap = gap[~gap.isnan()]
    if len(gap) < 2 or not gap.std() > 0:
        return gap, float(not gap.abs().any()) if len(gap) else float("nan")
    return gap, float(stats.ttest_1samp(gap.numpy(), 0).pvalue)


def section(name: str, here: dict[str, Any]) -> list[str]:
    """A stream's table, best first; what does not fit it in a line below."""
    ran = {key: cell for key, cell in here.items() if "accuracy" in cell and not key.startswith("Replay(")}
    gaps: dict[str, dict[str, tuple[torch.Tensor, float]]] = {"fine-tuning": {}, "replay": {}}
    for key, cell in ran.items():
        if key != "FineTuning":
            gaps["fine-tuning"][key] = paired(cell, here["FineTuning"])
        if cell.get("replay") and cell["replay"] in here and here[cell["replay"]]["text"] != cell["text"]:
            gaps["replay"][key] = paired(cell, here[cell["replay"]])
    established: set[tuple[str, str]] = set()
    for comparator, found in gaps.items():
        sure = {key: p for key, (_, p) in found.items() if p == p}
        for key, p in zip(sure, holm(list(sure.values())), strict=True):
            if p < 0.05:
                established.add((comparator, key))

    def gap_text(comparator: str, key: str) -> str:
        if key not in gaps[comparator]:
            return ""
        text = estimate(gaps[comparator][key][0]).text(1)
        text = text if text.startswith("-") else f"+{text}"
        return f"**{text}**" if (comparator, key) in established else text

    lines = [f"### {name[0].upper()}{name[1:]}", "", f"{len(next(iter(ran.values()))['accuracy'])} seeds.", ""]
    lines += ["| method | accuracy | − fine-tuning | − replay of the same bytes | kB | seconds a seed | numbers |"]
    lines += ["|---|---:|---:|---:|---:|---:|---|"]
    order = sorted(ran, key=lambda key: -torch.tensor(ran[key]["accuracy"]).nanmean().item())
    for key in order:
        cell = ran[key]
        accuracy = torch.tensor(cell["accuracy"])
        lines.append(
            f"| `{cell['text']}` | {estimate(accuracy, ~accuracy.isnan()).text(1)} | {gap_text('fine-tuning', key)} |"
            f" {gap_text('replay', key)} | {cell['bytes'] / 1e3:.1f} | {cell['seconds']:.1f} | {whose(key, cell)} |"
        )
    refused = {key: cell["refused"] for key, cell in here.items() if "refused" in cell}
    if refused:
        lines += ["", f"Not for this stream: {', '.join(f'`{key}`' for key in sorted(refused))}."]
    waiting = [f"`{key}`" for key in sorted(one_after_another()) if key not in here]
    if waiting:
        lines += ["", f"Not measured here yet: {', '.join(waiting)}."]
    return [*lines, ""]


def whose(name: str, cell: dict[str, Any]) -> str:
    """Where a cell's numbers come from, but for rows kept, which are the place's."""
    chosen, method = cell.get("chosen", ""), own_methods()[name]
    if chosen.startswith(("best of", "as chosen")):
        return chosen
    return method.defaults if numbers_of(method) else "has none"


def numbers_of(method: Any) -> list[str]:
    """The fields of a method that are numbers, but for how many rows it keeps or replays."""
    sizes = (method.sized_by, "rows")
    return [f.name for f in fields(method) if type(f.default) in (int, float) and f.name not in sizes]


def sharing(known: dict[str, Any]) -> str:
    """The methods that share a file, in words."""
    files: dict[str, list[str]] = {}
    for name, method in sorted(known.items()):
        files.setdefault(method.__module__, []).append(f"`{name}`")
    return "; ".join(", ".join(names) for _, names in sorted(files.items()) if len(names) > 1)


INTRODUCTION = """# Methods, and what each was held against

Written by `make methods`. A strategy is a file in `lifelong/strategies`, another learner one in `lifelong/learners`, and
variants that share a formula share a file ({sharing}); nothing else knows their names. All pass the contract
(`tests/contracts`): a seed alone and with others, in a varied fleet, beside an empty part, stopped and resumed, on a device
without values. A witness is something outside the method: a closed form, a float64 loop of its own written from the paper,
or a peer's code; it is fed the same batches and random numbers and ends at the same weights, and a planted error of 0.1 %
in a coefficient shows. T: the number of tasks learned together. Passes: for as many rows as the stream brings; of {by_batch} with batches of 10, their authors'."""

TABLES = """## What they give

Average accuracy after the last task in %, mean ± half-width of the 95 % interval over seeds. Differences are paired over
seeds; bold where p < 0.05 after Holm's correction within one stream and column. Replay of the same bytes: as many rows,
as images, as fill what the method keeps beside its network (its own network's weights where it keeps such). Numbers: the
best of a grid by the accuracy on a fifth of the training rows on three other seeds, of dear methods on one; as such a grid
chose them on split-digits;
or a class's defaults, nothing chosen: its paper's, its authors' for some data, or ours; or none, but for how many rows are
kept. Seconds: of one thread, for one seed of a fleet."""


def page(cells: dict[str, Any]) -> str:
    """docs/methods.md."""
    from lifelong.display.tables import family_of, passes_of, settings_of

    everything = {n: m for n, m in own_methods().items() if n != "FineTuning"}
    by_batch = [f"`{n}`" for n, m in sorted(everything.items()) if m().passes_at(128) != m.passes]
    title, _, words = INTRODUCTION.partition("\n\n")
    words = words.format(sharing=sharing(everything), by_batch=" and ".join(by_batch))
    introduction = f"{title}\n\n{fill(' '.join(words.split()), 120, break_long_words=False, break_on_hyphens=False)}"
    lines = [introduction, "", "| method | family | settings | keeps | passes, forward + backward | held against |", "|---|---|---|---|---:|---|"]  # fmt: skip
    for kind in ("strategies", "learners"):
        known = {n: m for n, m in everything.items() if n in vocabulary(kind)}
        for name, method in sorted(known.items(), key=lambda item: (family_of(item[1]), item[0])):
            words, _, file = method.witness.partition(": ")
            held = f"[{words}](../{file})" if file else words
            lines.append(
                f"| `{name}` | {family_of(method)} | {settings_of(method)} | {method.keeps} | {passes_of(method)} | {held} |"
            )
    lines += ["", TABLES, ""]
    for name, here in cells.items():
        if "FineTuning" in here:
            lines += section(name, here)
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, and write the page."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA", ""))
    words.add_argument("--output", type=Path, default=Path("docs/methods.json"))
    words.add_argument("--long", action="store_true", help="Split-MNIST and online MNIST, too: hours")
    words.add_argument("--only", default="", help="of streams, those with this in their names")
    words.add_argument("--table-only", action="store_true")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    places = tuple(p for p in (*QUICK, *(LONG if chosen.long else ())) if chosen.only in p.name)
    names = one_after_another()
    costs = json.loads(COSTS.read_text())["steps"] if COSTS.exists() else {}
    names.sort(
        key=lambda name: costs.get(name, {}).get("measured", 1.0) * len(GRIDS.get(name, [""]))
    )  # cheap ones first
    if not chosen.table_only:
        measure(places, names, chosen.data_root, chosen.output)
    cells = json.loads(chosen.output.read_text())
    chosen.output.with_suffix(".md").write_text(page(cells))


def _together(method: Any) -> bool:
    """Whether it weighs tasks that are learned together."""
    return getattr(getattr(method, "requires", None), "paradigm", "") == "joint"


if __name__ == "__main__":
    main()
