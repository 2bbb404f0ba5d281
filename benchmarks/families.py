"""Every episodic meta-learner on the same few questions, resumable: `python benchmarks/families.py` writes docs/families.md.

Methods are discovered: whatever meta-learner lies in `lifelong/meta` and learns from episodes is asked, at its class's
defaults. A cell is one start: a method, a seed, all classes or a tenth of them; or the cost of a method's step. Cells are
appended to docs/families.json as they are done, and what is there is not run again. Every start passes the same number of
images forward and backward, so that a method of large episodes takes fewer steps.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from lifelong.contracts.peak_memory import peak_bytes
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationLearner
from lifelong.meta.pretraining import Diverged, pretrain
from lifelong.meta.testing import scored
from lifelong.metrics import estimate
from lifelong.notation.expression import parse, vocabulary
from scenarios.datasets import load_dataset
from scenarios.episodes import ClassPool, class_pool, split_classes
from scenarios.errors import ConfigurationError
from scenarios.few_classes import in_blocks
from scenarios.stream import Dataset, generator

SIDE = 14  # pixels of an image
NOTHING, JOINT, YARDSTICK = "nothing learned", "Pretrained", "ProtoNet"
TESTS = {  # what a start is asked: ways, shots
    "5-way 1-shot": (5, 1),
    "5-way 5-shot": (5, 5),
    "5-way 10-shot": (5, 10),
    "10-way 1-shot": (10, 1),
    "20-way 1-shot": (20, 1),
}
FIRST, MANY, OTHER = "5-way 1-shot", "5-way 10-shot", "digits, 5-way 1-shot"
EPISODE = {"way": 5, "shot": 1, "query": 5, "tasks": 4}  # of a step whose cost is measured
REPEATS = 15


@dataclass(frozen=True)
class Protocol:
    """How much is run: images passed by a start, its seeds, episodes of a test; model: of all methods."""

    images: int = 60_000
    seeds: int = 3
    episodes: int = 100
    model: str = "Conv4(16, 3, halving='stride')"


def halved(dataset: Dataset) -> Dataset:
    """The dataset, by its own name, with 14 x 14 pixels, each the mean of those it covers, or between those it lies among."""
    if dataset.shape[-1] % SIDE == 0:
        return replace(in_blocks(dataset, SIDE), name=dataset.name)  # episodes are drawn by name
    x = F.interpolate(dataset.x.to(torch.float32)[:, None], (SIDE, SIDE), mode="bilinear")
    return replace(dataset, x=x[:, 0].round().to(torch.uint8))


@cache
def pools(root: str) -> dict[str, ClassPool]:
    """What is learned from, a tenth of it, the unseen classes that are tested, and other data."""
    names = ("omniglot-background", "omniglot", "digits")
    background, unseen, digits = (load_dataset(name, root or None) for name in names)
    small = [halved(dataset) for dataset in (background, unseen, digits)]
    rest = small[0].classes - small[0].classes // 10
    tenth = split_classes(small[0], rest, generator("a tenth of the classes"))[0]
    found = {"all": class_pool(small[0]), "tenth": class_pool(small[0], tenth)}
    return {**found, "unseen": class_pool(small[1]), OTHER: class_pool(small[2])}


# methods of the literature that are a setting of a class
SETTINGS = {
    "MAML, first order": "MAML(order=1)",
    "ANIL": "MAML(adapts='head')",
    "BOIL": "MAML(adapts='trunk')",
    "Meta-SGD": "MAML(learn_rates=True)",
    "MatchingNet, squared distances": "MatchingNet(distance='euclidean')",
    "MatchingNet, full context": "MatchingNet(full_context=True)",
}


def methods() -> dict[str, InitialisationLearner]:
    """Every meta-learner that is found and learns from episodes, at its defaults, and known settings; two to compare with."""
    found = vocabulary("initialisations").items()
    known = {name: make() for name, make in found if name != "Random" and make.__module__.startswith("lifelong.")}
    episodic = {name: method for name, method in known.items() if method.episodic and "classes" in method.kinds}
    settings = {name: parse(text, "initialisations") for name, text in SETTINGS.items()}
    return {NOTHING: replace(known[YARDSTICK], iterations=0), JOINT: known[JOINT], **episodic, **settings}


def learned(method: InitialisationLearner, seed: int, part: str, root: str, protocol: Protocol) -> dict[str, Any]:
    """Accuracy of one start on every test that it can be asked, and what it cost. Raises ConfigurationError where it cannot."""
    found = pools(root)
    tasks = TaskDistribution(parse(protocol.model, "models"), found[part], found["unseen"])
    method.check(tasks)
    if method.iterations:
        method = replace(method, iterations=max(1, protocol.images // method.images(tasks)))
    began = time.process_time()
    start = pretrain(method, tasks, (seed,), episodes=0).of(0)
    cell: dict[str, Any] = {"text": repr(method), "iterations": method.iterations, "answered by": method.answered_by}
    cell["seconds"] = round(time.process_time() - began, 1)
    asked = {FIRST: TESTS[FIRST]} if part == "tenth" else TESTS
    for words, (way, shot) in asked.items():
        if not method.any_way and way != method.tests_way:
            continue
        cell[words] = accuracy(method, tasks, start, found["unseen"], way, shot, protocol)
    if part == "all":
        cell[OTHER] = accuracy(method, tasks, start, found[OTHER], *TESTS[FIRST], protocol)
    return cell


def accuracy(
    method: InitialisationLearner,
    tasks: TaskDistribution,
    start: Any,
    pool: ClassPool,
    way: int,
    shot: int,
    protocol: Protocol,
) -> float:
    """Mean over episodes, the same for every start."""
    with torch.no_grad():
        found = scored(method, tasks, start, pool, way=way, shot=shot, query=5, episodes=protocol.episodes)
    return round(float(found.scores.mean()), 5)


def with_episode(method: InitialisationLearner) -> InitialisationLearner:
    """The same with episodes of one size, as far as it has such fields."""
    known = {field.name for field in fields(method)}
    return replace(method, **{name: value for name, value in EPISODE.items() if name in known})


def cost(method: InitialisationLearner, root: str, protocol: Protocol) -> dict[str, Any]:
    """Processor time and peak memory of a meta-gradient, over those of ProtoNet's on an episode of the same size."""
    tasks = TaskDistribution(parse(protocol.model, "models"), pools(root)["all"], pools(root)["unseen"])
    sized = [with_episode(m) for m in (method, methods()[YARDSTICK])]
    steps = [step_of(m, tasks) for m in sized]
    for step in steps:
        step()
    times: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for step, taken in zip(steps, times, strict=True):
            began = time.process_time()
            step()
            taken.append(time.process_time() - began)
    peaks = [peak_bytes(step_of(m, tasks, "meta")) for m in sized]
    return {"time": round(min(times[0]) / min(times[1]), 2), "memory": round(peaks[0] / peaks[1], 2)}


def step_of(method: InitialisationLearner, tasks: TaskDistribution, device: str = "cpu") -> Callable[[], Any]:
    """A meta-gradient on a fixed draw, on a device."""
    drawn, meta = method.draw(tasks, generator("cost")), method.init(tasks, generator("start"))
    drawn, meta = tree_map(lambda leaf: leaf.to(device), (drawn, meta))
    there, progress = tasks.to(device), torch.zeros((), device=device)
    return lambda: method.gradient(there, meta, drawn, progress)


def measure(names: list[str], root: str, output: Path, protocol: Protocol) -> dict[str, Any]:
    """Run the cells that are missing, and write each as soon as it is there. Gives all."""
    cells = json.loads(output.read_text()) if output.exists() else {}
    if cells.setdefault("protocol", vars(protocol)) != vars(protocol):
        raise SystemExit(f"{output} holds cells of another protocol, {cells['protocol']}: name another --output")
    known = methods()
    for name in names or known:
        here = cells.setdefault(name, {})
        wanted = [f"{part} {seed}" for part in ("all", "tenth") for seed in range(protocol.seeds)]
        for key in [*wanted, *(["cost"] if known[name].iterations and known[name].episodic else [])]:
            if key in here or "refused" in here:
                continue
            began = time.process_time()
            try:
                if key == "cost":
                    here[key] = cost(known[name], root, protocol)
                else:
                    part, _, seed = key.partition(" ")
                    here[key] = learned(known[name], int(seed), part, root, protocol)
            except Diverged as reason:
                here[key] = {"diverged": str(reason)}
            except ConfigurationError as reason:
                here["refused"] = str(reason)
            except Exception as error:  # one cell must not end the others; it is tried again the next time
                print(f"{name}: {key}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                continue
            print(f"{name}: {key}: {time.process_time() - began:.1f} s", flush=True)
            output.write_text(json.dumps(cells, indent=1) + "\n")
    return cells


# --- the page ---------------------------------------------------------------------------------------------------------

INTRODUCTION = """# The families of meta-learning, asked the same questions

Written by `python benchmarks/families.py` from docs/families.json: the meta-learners in `lifelong/meta` that learn from
episodes, at their classes' defaults, and beside them features of a random network (`nothing learned`) and ordinary training on
all classes (`Pretrained`), both answered by the nearest class mean.

Protocol: {model} on Omniglot of 14 x 14 pixels. A start learns from the 964 background classes, and
passes about {images:,} images forward and backward, counted twice where a step is differentiated; a method of larger
episodes takes fewer steps. That is seconds of one processor: what converges slowly stands lower here than in its paper, so this
is a table of beginnings; [the reference](reference.md) has most of them after some five minutes of training a seed. Rates are those of each class, and were not searched. Accuracy in % on episodes of classes that no start saw, 5 queries of each class, {episodes} episodes, the same for all; mean ± half-width of
the 95 % interval over {seeds} seeds, each with a start of its own. "–": its head has as many outputs as it was trained with.
"""

TABLES = """## Accuracy as shots and ways change

Trained as each says, tested as the column says, with no further training."""

QUESTIONS = """## What it takes, and what it gives

other data: handwritten digits, 5-way 1-shot, after learning from characters. a tenth of the classes: 5-way 1-shot after as many
steps on 96 classes. more support: accuracy at 10 shots less that at 1, paired over seeds; what does not grow with its support
is not consistent. time, memory: processor time and peak memory of one meta-gradient over those of ProtoNet's on episodes of the
same size, 4 tasks of 5 ways, 1 shot and 5 queries, both called as they are: the least of 15 in turn; ProtoNet's own row shows how far that wavers. steps: of the outer loop."""

STREAMS = """## Streams

These learn from episodes. Two starts learn for streams instead: `OML` and `ANML` let a network learn image by image, class after
class, and differentiate through it; `lifelong meta-test --online` tests them. La-MAML and MER look ahead in the same way within
the stream that they are tested on, with no background classes: they are strategies, `LaMAML` and `MER`, and go with any start."""


def over_seeds(here: dict[str, Any], part: str, column: str) -> list[float]:
    """A column's value for each seed that has one, in %."""
    cells = [cell for key, cell in here.items() if key.startswith(f"{part} ")]
    return [100 * cell[column] for cell in cells if column in cell]


def shown(values: list[float]) -> str:
    """Mean and half-width; "–" of nothing."""
    if not values:
        return "–"
    summary = estimate(torch.tensor(values, dtype=torch.float64))
    width = f" ± {summary.half_width:.1f}" if summary.half_width is not None else ""
    return f"{summary.mean:.1f}{width}"


def page(cells: dict[str, Any]) -> str:
    """docs/families.md."""
    ran = {name: here for name, here in cells.items() if name != "protocol" and over_seeds(here, "all", FIRST)}
    order = sorted(ran, key=lambda name: -statistics.mean(over_seeds(ran[name], "all", FIRST)))
    settings = ", ".join(f"{name}: `{text}`" for name, text in SETTINGS.items())
    lines = [
        INTRODUCTION.format(**cells["protocol"]),
        f"Settings of a class that have a name: {settings}.",
        "",
        TABLES,
        "",
    ]
    lines += [f"| method | {' | '.join(TESTS)} | how it answers |", f"|---|{'---:|' * len(TESTS)}---|"]
    for name in order:
        row = " | ".join(shown(over_seeds(ran[name], "all", column)) for column in TESTS)
        lines.append(f"| {called(name)} | {row} | {answered_by(ran[name])} |")
    lines += [
        "",
        QUESTIONS,
        "",
        "| method | other data | a tenth of the classes | more support | time | memory | steps |",
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for name in order:
        here = ran[name]
        single, many = (over_seeds(here, "all", column) for column in (FIRST, MANY))
        more = shown([b - a for a, b in zip(single, many, strict=True)]) if many else "–"
        more = more if more.startswith(("-", "–")) else f"+{more}"
        price = here.get("cost", {})
        figures = [str(price.get(key, "–")) for key in ("time", "memory")]
        row = [shown(over_seeds(here, "all", OTHER)), shown(over_seeds(here, "tenth", FIRST)), more, *figures]
        lines.append(f"| {called(name)} | {' | '.join(row)} | {said(here, 'iterations'):,} |")
    failed = {name: here for name, here in cells.items() if name != "protocol" and name not in ran}
    if failed:
        lines += ["", "Without a row:", ""]
        lines += [f"- `{name}`: {here.get('refused') or 'diverged, or broke off'}" for name, here in failed.items()]
    if waiting := [name for name in methods() if name not in cells]:
        lines += ["", f"Found, and not run yet: {', '.join(map(called, waiting))}."]
    return "\n".join([*lines, "", STREAMS, ""])


def answered_by(here: dict[str, Any]) -> str:
    """How a method answers, in its own words, without an optimiser's numbers."""
    return re.sub(r"\(.*\)", "", said(here, "answered by"))


def said(here: dict[str, Any], key: str) -> Any:
    """What the first start that was learned to its end says."""
    return next(cell[key] for cell in here.values() if key in cell)


def called(name: str) -> str:
    """A method's name as it is written, or words."""
    return name if name in (NOTHING, *SETTINGS) else f"`{name}`"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, and write the page."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA", ""))
    words.add_argument("--output", type=Path, default=Path("docs/families.json"))
    words.add_argument("--page", type=Path, default=Path("docs/families.md"))
    words.add_argument("--only", nargs="*", default=[], help="methods, by name; all that are found if none are named")
    words.add_argument("--images", type=int, default=Protocol.images, help="images that a start passes")
    words.add_argument("--seeds", type=int, default=Protocol.seeds)
    words.add_argument("--episodes", type=int, default=Protocol.episodes)
    words.add_argument("--model", default=Protocol.model)
    words.add_argument("--page-only", action="store_true", help="measure nothing")
    given = words.parse_args(arguments)
    torch.set_num_threads(1)
    protocol = Protocol(given.images, given.seeds, given.episodes, given.model)
    if given.page_only:
        cells = json.loads(given.output.read_text())
    else:
        cells = measure(given.only, given.data_root, given.output, protocol)
    given.page.write_text(page(cells))


if __name__ == "__main__":
    main()
