"""What transfers, measured: `python benchmarks/transfer.py` writes docs/transfer.json and docs/transfer.md.

A part is measured once and kept: a run that was cut off goes on, and `--only NAME` measures some parts alone. All of them
take about half an hour of one processor. Every difference is paired over seeds, and established where Holm's correction
for the number of differences in its table leaves p < 0.05; the crossover has a rule of its own, and says it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import surgical
import torch

from lifelong import metrics
from lifelong.adaptation.few_shot import FewShot
from lifelong.adaptation.methods import FullFineTuning, LinearProbe, Scratch
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, learned, run
from lifelong.core.strategy import Sum
from lifelong.display.crossover import crossing_of, rates_at_ends
from lifelong.display.similarity import similarity_json
from lifelong.display.transfer import transfer_json
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.maml import MAML
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.supervised import Pretrained
from lifelong.metrics import Estimate
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from lifelong.probes.linear_probe import LinearProbeAccuracy
from lifelong.studies.crossover import RANDOM, CrossoverProtocol, crossover_of, learned_starts
from lifelong.studies.similarity import similarity_study
from lifelong.studies.transfer import shots_of
from lifelong.transfer.distillation import Distillation, distil
from lifelong.transfer.established import verdicts
from lifelong.transfer.feature_distillation import FeatureHints, RelationalDistillation
from lifelong.transfer.matrix import transfer_matrices
from scenarios.catalogue import build
from scenarios.datasets import load_dataset
from scenarios.episodes import class_pool, split_classes
from scenarios.joint import joint
from scenarios.stream import Dataset, generator

SEEDS = list(range(5))
DIGITS = Learner(MLP(100, 100), optimiser=Adam(0.001))
DRIFTING = ("FineTuning()", "LwF()", "EWC(strength=100.0)", "Replay(size=200)")


@dataclass(frozen=True)
class Part:
    """A heading, what is measured for each name, and what a reader sees of it, in markdown."""

    heading: str
    names: tuple[str, ...]
    measure: Callable[[str], Any]
    lines: Callable[[dict[str, Any]], list[str]]


def shown(value: dict[str, Any], digits: int = 1) -> str:
    """An estimate that was kept as plain values, in percent."""
    mean = float("nan") if value["mean"] is None else value["mean"]
    return Estimate(mean, value["half_width"], ()).text(digits)


def correlation(value: dict[str, Any]) -> str:
    """One that is no percentage."""
    return "–" if value["mean"] is None else f"{value['mean']:+.2f} ± {value['half_width'] or 0:.2f}"


# --- the matrix and its curves ---------------------------------------------------------------------------------------


def curves(name: str) -> Any:
    """The matrices of a stream at 1 ... all rows of each class."""
    stream, shots = shots_of("1,2,5,10,20,50,all", build(name, setting="task"))
    stream = replace(stream, budget=replace(stream.budget, iterations=200))
    methods = [Scratch(), FullFineTuning(), LinearProbe()]
    return transfer_json(transfer_matrices(DIGITS, stream, SEEDS, methods, FewShot(shots)))


def curve_lines(record: dict[str, Any]) -> list[str]:
    out = []
    for name, found in record.items():
        shots = [shot for shot in found["Scratch()"] if shot.isdigit()]
        out += [f"`{name}`, {len(SEEDS)} seeds, accuracy after k rows of each class, pairs of different tasks:", ""]
        out += ["| method | " + " | ".join(f"k = {shot}" for shot in shots) + " |", "|---|" + "---:|" * len(shots)]
        for method, value in found.items():
            out.append(f"| `{method}` | " + " | ".join(shown(value[shot]["accuracy"]) for shot in shots) + " |")
        out += ["", "Pairs with transfer over scratch established as positive / negative, of all pairs:", ""]
        out += ["| method | " + " | ".join(f"k = {shot}" for shot in shots) + " |", "|---|" + "---:|" * len(shots)]
        for method, value in found.items():
            if method != "Scratch()":
                signs = [[verdict["sign"] for verdict in value[shot]["verdicts"]] for shot in shots]
                cells = [f"{s.count('positive')} / {s.count('negative')} of {len(s)}" for s in signs]
                out.append(f"| `{method}` | " + " | ".join(cells) + " |")
        out.append("")
    return out


# --- similarity ------------------------------------------------------------------------------------------------------


def similar(name: str) -> Any:
    """Scores and measured transfer between tasks of one stream."""
    scenario, options = parse_stream(name)
    stream = build(scenario, setting="task", **options)
    stream = replace(stream, budget=replace(stream.budget, iterations=200))
    methods = [FullFineTuning(), LinearProbe()]
    return similarity_json(similarity_study(DIGITS, stream, SEEDS, methods, FewShot((5,))))


def parse_stream(name: str) -> tuple[str, dict[str, Any]]:
    """A scenario and its options from their expression."""
    from lifelong.notation.expression import read_call

    return read_call(name)


def similar_lines(record: dict[str, Any]) -> list[str]:
    out = []
    for name, found in record.items():
        methods = list(found["measured"])
        out += [
            f"`{name}`: {len(found['tasks'])} tasks, scores from {found['rows']} rows of each class, k = {found['shot']}",
            "",
        ]
        head = [f"{word} `{method}`" for method in methods for word in ("rank correlation,", "lost,")]
        out += ["| score | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
        for score in found["scores"]:
            cells = []
            for method in methods:
                value = found["measured"][method]["scores"][score]
                cells += [correlation(value["rank correlation"]), shown(value["lost"])]
            out.append(f"| {score} | " + " | ".join(cells) + " |")
        by_chance = [cell for m in methods for cell in ("0", shown(found["measured"][m]["lost by chance"]))]
        out += ["| drawn at random | " + " | ".join(by_chance) + " |", ""]
    return out


# --- head and trunk --------------------------------------------------------------------------------------------------


def drifting(setting: str) -> Any:
    """Head and trunk drift of some methods on split-digits."""
    found = {}
    for text in DRIFTING:
        learner = replace(DIGITS, strategy=parse(text, "strategies"))
        result = run(learner, build("split-digits", setting=setting), SEEDS, probes=[LinearProbeAccuracy()])
        values = {"lost": -metrics.backward_transfer(result)}
        values |= {name: metrics.METRICS[name](result) for name in ("head_drift", "trunk_drift")}
        found[text] = {name: vars(metrics.estimate(value, result.kept)) for name, value in values.items()}
    return found


def drifting_lines(record: dict[str, Any]) -> list[str]:
    out = ["| setting | method | lost, points | head drift | trunk drift |", "|---|---|---:|---:|---:|"]
    for setting, found in record.items():
        for method, value in found.items():
            out.append(f"| {setting} | `{method}` | " + " | ".join(shown(v) for v in value.values()) + " |")
    return out


# --- surgical --------------------------------------------------------------------------------------------------------


def by_shift(shift: str) -> Any:
    """One shift, every way of tuning."""
    torch.set_num_threads(1)
    dataset = load_dataset("mnist")
    return surgical.measured(dataset, surgical.source_nets(dataset, SEEDS), shift, SEEDS)


# --- distillation ----------------------------------------------------------------------------------------------------

TEACHERS = {"joint": "FineTuning()", "Replay(size=200)": "Replay(size=200)"}
WAYS = {
    "scores": Distillation(0.1, 4.0),
    "scores and features": Sum((Distillation(0.1, 4.0), FeatureHints(1.0))),
    "scores and relations": Sum((Distillation(0.1, 4.0), RelationalDistillation())),
    "labels and features": Sum((Distillation(1.0), FeatureHints(1.0))),
    "labels and relations": Sum((Distillation(1.0), RelationalDistillation())),
}


def taught(name: str) -> Any:
    """A small student of one teacher on a share of the rows, alone and taught in every way."""
    teacher, _, words = name.partition(", ")
    share = float(words.removesuffix(" % of the rows")) / 100
    stream = build("split-digits", setting="class")
    shown = joint(stream) if teacher == "joint" else stream
    session = Session(Learner(MLP(200, 200), parse(TEACHERS[teacher], "strategies"), Adam(0.001)), shown, SEEDS)
    result, state = learned(session)
    student, found = Learner(MLP(20), optimiser=Adam(0.003)), {"teacher": metrics.average_accuracy(result).tolist()}
    for way, how in WAYS.items():
        results = distil(session, state, shown, SEEDS, student, how, share)
        found["alone"] = metrics.average_accuracy(results["alone"]).tolist()
        found[way] = metrics.average_accuracy(results["taught"]).tolist()
    return found


def taught_lines(record: dict[str, Any]) -> list[str]:
    names = list(record)
    out = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for row in ("teacher", "alone"):
        out.append(
            f"| {row} | " + " | ".join(metrics.estimate(torch.tensor(record[n][row])).text() for n in names) + " |"
        )
    gaps = {(n, way): torch.tensor(record[n][way]) - torch.tensor(record[n]["alone"]) for way in WAYS for n in names}
    found = dict(zip(gaps, verdicts(list(gaps.values())), strict=True))
    for way in WAYS:
        cells = [
            f"{'+' * (found[n, way].difference.mean >= 0)}{found[n, way].difference.text()} ({found[n, way].sign})"
            for n in names
        ]
        out.append(f"| taught by {way} − alone | " + " | ".join(cells) + " |")
    return out


# --- fine-tuning against meta-learning -------------------------------------------------------------------------------

CROSSED = 3  # seeds
CROSSING = CrossoverProtocol(examples=600_000, episodes=20, choosing=6)
STARTS = (
    Pretrained(batch=64),
    MAML(way=5, shot=5, query=5, tasks=4, steps=2, rate=0.1, test_steps=10),
    ProtoNet(way=20, shot=5, query=5),
)
AGAINST = [
    (arm, other)
    for arm in (RANDOM, "Pretrained, fine-tuned")
    for other in ("MAML, its own way", "ProtoNet, its own way")
]
FEW, MANY = "Omniglot's evaluation classes, 5-way", "MNIST, 5-way"


def halved(dataset: Dataset) -> Dataset:
    """Images of half the height and width, means of four pixels."""
    x = dataset.x.float() / 255
    return replace(dataset, name=f"{dataset.name}-14", x=torch.nn.functional.avg_pool2d(x[:, None], 2)[:, 0])


def crossing(name: str) -> Any:
    """Starts learned from Omniglot's background classes, adapted to classes with few rows or with many, 14 x 14 pixels."""
    background = halved(load_dataset("omniglot-background"))
    train, held = split_classes(background, 100, generator("validation classes"))
    distribution = TaskDistribution(MLP(128, 64), class_pool(background, train), class_pool(background, held))
    protocol, choosing = CROSSING, distribution.validation
    if name == FEW:
        test = class_pool(halved(load_dataset("omniglot")))
    else:  # five digits choose the rates, five are tested on: Omniglot has no class of 200 rows
        digits = halved(load_dataset("mnist"))
        kept, other = split_classes(digits, 5, generator("digits that choose rates"))
        test, choosing = class_pool(digits, kept), class_pool(digits, other)
        protocol = replace(CROSSING, shots=(1, 2, 5, 10, 20, 50, 100, 200), query=15)
    starts = learned_starts(STARTS, distribution, range(CROSSED), protocol)
    study = crossover_of(starts, choosing, test, protocol)
    arms = {arm: [vars(value) for value in study.curve(arm)] for arm in study.accuracy}
    crossed = {f"{a} over {b}": crossing_of(study, a, b) for a, b in AGAINST}
    gaps = {f"{a} − {b}": [vars(value) for value in study.difference(a, b)] for a, b in AGAINST}
    return {
        "shots": study.shots,
        "arms": arms,
        "rates": study.rates,
        "ends": study.ends,
        "crossed": crossed,
        "gaps": gaps,
    }


def crossing_lines(record: dict[str, Any]) -> list[str]:
    out = []
    for name, found in record.items():
        head = " | ".join(f"k = {k}" for k in found["shots"])
        out += [f"{name}, {CROSSED} seeds:", "", f"| arm | {head} |", "|---|" + "---:|" * len(found["shots"])]
        out += [f"| {arm} | " + " | ".join(map(shown, curve)) + " |" for arm, curve in found["arms"].items()]
        out += ["", f"| difference, points, paired | {head} |", "|---|" + "---:|" * len(found["shots"])]
        out += [f"| {pair} | " + " | ".join(map(shown, gaps)) + " |" for pair, gaps in found["gaps"].items()]
        out += ["", *(f"- {pair}: {text}" for pair, text in found["crossed"].items()), ""]
        ends = rates_at_ends(found["ends"])
        out += [f"Rates at an end of the grid: {ends}.", ""] if ends else []
        out += [found["note"], ""] if found.get("note") else []
    return out


PARTS: dict[str, Part] = {
    "surgical": Part("Which block to tune under which shift", tuple(surgical.SHIFTS), by_shift, surgical.lines),
    "similarity": Part("Which earlier task fits", ("rotated-digits(tasks=6, largest=90.0)",), similar, similar_lines),
    "curves": Part("From one row of each class to all", ("split-digits",), curves, curve_lines),
    "drift": Part("Where forgetting went: head or trunk", ("task", "class", "domain"), drifting, drifting_lines),
    "distillation": Part(
        "Does a taught student beat the plain one",
        ("joint, 10 % of the rows", "joint, 100 % of the rows", "Replay(size=200), 10 % of the rows"),
        taught,
        taught_lines,
    ),
    "crossover": Part("Fine-tuning against meta-learning as examples grow", (FEW, MANY), crossing, crossing_lines),
}
NOTES: dict[str, str] = {
    "surgical": surgical.__doc__ or "",
    "similarity": "Rank correlation (Spearman) of a score with the accuracy measured afterwards, over the sources of a target, mean over targets, for each seed; lost: points of accuracy between the best source and the one that the score puts first.",
    "curves": "`lifelong transfer`: all seeds have the same tasks, rates are chosen on the other tasks.",
    "drift": "`lifelong run split-digits --linear-probe`: what was lost of a task since it was learned = head drift + trunk drift, mean over all tasks but the last, after the last.",
    "distillation": "split-digits, ten classes. Teacher: `MLP(200, 200)`, all tasks at once or one after another. Student: `MLP(20)`, always all tasks at once, alone or taught (temperature 4, a tenth of the weight on the labels; or labels alone and features or relations): the same draw, rows and batches.",
    "crossover": (
        f"`lifelong crossover`, from starts of equal cost: `MLP(128, 64)`, 14 x 14 pixels; every learned start has seen"
        f" {CROSSING.examples:,} examples of 864 background classes of Omniglot, forward and backward; {CROSSING.episodes}"
        f" episodes of each seed; fine-tuning takes {CROSSING.steps} steps of Adam on all weights from a fresh head, its rate"
        f" chosen on {CROSSING.choosing} episodes of each seed, from a grid that grows until the best lies inside it, of other classes (Omniglot's, or five"
        f" of the ten digits). Random networks, fine-tuned, are what a start has to beat. MAML takes"
        f" {CROSSING.examples // 500:,} outer steps within that budget. Established is said of one pair alone, not of all in the"
        f" table: its differences are asked from the first k upwards and from the last downwards until one holds 0 in its 95 %"
        f" interval, a sequence that needs no correction."
    ),
}


def missing(record: dict[str, Any], chosen: list[str]) -> Iterator[tuple[str, str]]:
    """Parts and names that are not measured yet."""
    for part in chosen:
        yield from ((part, name) for name in PARTS[part].names if name not in record.get(part, {}))


def page(record: dict[str, Any]) -> str:
    """The record in markdown."""
    out = ["# What transfers, measured", "", (__doc__ or "").partition("\n\n")[2].strip().replace("\n", " "), ""]
    out += [f"{len(SEEDS)} seeds; ± is the half-width of the 95 % interval over seeds (Student's t).", ""]
    for name, part in PARTS.items():
        if record.get(name):
            found = {key: record[name][key] for key in part.names if key in record[name]}
            out += [
                f"## {part.heading}",
                "",
                NOTES[name].strip().replace("\n\n", "\n").replace("\n", " "),
                "",
                *part.lines(found),
                "",
            ]
    return "\n".join(out).rstrip() + "\n"


def main(words: list[str] | None = None) -> None:
    """Measure what is missing and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs/transfer.json")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    asked = parser.parse_args(words)
    record = json.loads(asked.output.read_text()) if asked.output.is_file() else {}
    for part, name in missing(record, asked.only):
        print(f"{part}: {name}", flush=True)
        record.setdefault(part, {})[name] = PARTS[part].measure(name)
        asked.output.write_text(json.dumps(record, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(page(record))


if __name__ == "__main__":
    main()
