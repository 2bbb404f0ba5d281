"""Speed as ratios, measured in one run, interleaved, median of five: against the floor, and against Avalanche.

The floor of a step is its bare batched matrix products. Prints a dataset, and writes docs/speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lifelong.core.learner import Learner
from lifelong.core.loop import Session, run
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from scenarios.datasets import load_dataset
from scenarios.split import split
from scenarios.stream import Budget, Stream

SEEDS, BATCH, ROUNDS = 10, 128, 5
WHOLE = 5  # seeds of our whole runs against Avalanche


def products(device: torch.device, seeds: int, batch: int) -> Callable[[], None]:
    """Three forward, three weight-gradient and two input-gradient products of 784-400-400-10, for a fleet."""
    sizes = ((784, 400), (400, 400), (400, 10))
    inputs = [torch.randn(seeds, batch, a, device=device) for a, _ in sizes]
    weights = [torch.randn(seeds, a, b, device=device) for a, b in sizes]
    outputs = [torch.randn(seeds, batch, b, device=device) for _, b in sizes]

    def once() -> None:
        for x, w, y in zip(inputs, weights, outputs, strict=True):
            torch.bmm(x, w)
            torch.bmm(x.mT, y)
        for w, y in zip(weights[1:], outputs[1:], strict=True):
            torch.bmm(y, w.mT)

    return once


def stepper(stream: Stream, strategy: str, compiled: bool = False, seeds: int = SEEDS) -> Callable[[], None]:
    """A closure that draws a batch and takes a step, again and again through the first task."""
    learner = Learner(MLP(400, 400), parse(strategy, "strategies"), Adam(1e-3))
    one = Session(learner, stream, list(range(seeds)), compiled=compiled)
    held = {"state": one.first_state(), "batches": one.sampler.batches(0)}

    def once() -> None:
        batch = next(held["batches"], None)
        if batch is None:
            held["batches"] = one.sampler.batches(0)
            batch = next(held["batches"])
        held["state"], _ = one.fleet.step(held["state"], batch, [0.0] * seeds)

    return once


def interleaved(work: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median over rounds of seconds for one call, all kinds of work in turn in each round."""
    for once in work.values():
        for _ in range(3):
            once()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, once in work.items():
            began = time.perf_counter()
            for _ in range(repeats):
                once()
            times[name].append((time.perf_counter() - began) / repeats)
    return {name: statistics.median(own) for name, own in times.items()}


def floor_ratios(stream: Stream, compiled: bool) -> dict[str, float]:
    """Per seed and iteration, as multiples of the floor; replay of its own doubled products."""
    device = stream.dataset.x.device
    work = {"floor": products(device, SEEDS, BATCH), "floor of doubled rows": products(device, SEEDS, 2 * BATCH)}
    strategies = {
        "fine-tuning": "FineTuning()",
        "EWC": "EWC()",
        "SI": "SI()",
        "LwF": "LwF()",
        "replay": "Replay(size=1000)",
    }
    for name, text in strategies.items():
        work[name] = stepper(stream, text)
    if compiled:
        work |= {f"{n}, compiled": stepper(stream, strategies[n], True) for n in ("fine-tuning", "EWC", "replay")}
    seconds = interleaved(work, 8)
    ratios = {"floor, ms per seed": 1e3 * seconds["floor"] / SEEDS}
    for name in work:
        if not name.startswith("floor"):
            ratios[name] = seconds[name] / seconds["floor of doubled rows" if "replay" in name else "floor"]
    return ratios


def avalanche_seconds(stream: Stream, method: str, iterations: int) -> float:
    """A whole run of one seed by Avalanche on the same tensors: 5 tasks, with its accuracy and forgetting metrics."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
    from avalanche.training import EWC, Naive, Replay
    from avalanche.training.plugins import EvaluationPlugin
    from torch import nn
    from torch.utils.data import TensorDataset

    x = stream.dataset.x.float() / 255
    parts = {"train": [], "test": []}
    for task in stream.tasks_of(0):
        for part, rows in (("train", task.train[: iterations * BATCH]), ("test", task.test)):
            repeats = -(-iterations * BATCH // len(rows)) if part == "train" else 1
            rows = rows.repeat(repeats)[: iterations * BATCH] if part == "train" else rows
            y = task.label[stream.dataset.y[rows]]
            data = TensorDataset(x[rows], y)
            data.targets = y.tolist()
            parts[part].append(as_classification_dataset(data))
    benchmark = benchmark_from_datasets(**parts)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)
    )
    metrics = EvaluationPlugin(
        accuracy_metrics(epoch=True, experience=True, stream=True), forgetting_metrics(experience=True), loggers=[]
    )
    common = {
        "model": net,
        "optimizer": torch.optim.Adam(net.parameters(), 1e-3),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": BATCH,
        "train_epochs": 1,
        "eval_mb_size": 1024,
        "evaluator": metrics,
    }
    maker = {
        "fine-tuning": lambda: Naive(**common),
        "EWC": lambda: EWC(ewc_lambda=100.0, **common),
        "replay": lambda: Replay(mem_size=1000, **common),
    }
    strategy = maker[method]()
    began = time.process_time()
    for experience in benchmark.train_stream:
        strategy.train(experience, num_workers=0)
        strategy.eval(benchmark.test_stream, num_workers=0)
    return time.process_time() - began


OURS = {"fine-tuning": "FineTuning()", "EWC": "EWC(strength=100.0, fisher='batch')", "replay": "Replay(size=1000)"}


def against_avalanche(stream: Stream, iterations: int, rounds: int) -> dict[str, float]:
    """Processor seconds per seed of a whole run, theirs over ours, for each method; median over rounds, in turn."""
    ratios: dict[str, float] = {}
    for method, text in OURS.items():
        own = []
        for _ in range(rounds):
            theirs = avalanche_seconds(stream, method, iterations)
            learner = Learner(MLP(400, 400), parse(text, "strategies"), Adam(1e-3))
            began = time.process_time()
            run(learner, stream, range(WHOLE))
            ours = (time.process_time() - began) / WHOLE
            own.append(theirs / ours)
            print(f"  {method}: Avalanche {theirs:.1f} s, ours {ours:.1f} s a seed", flush=True)
        ratios[method] = statistics.median(own)
    learner = Learner(MLP(400, 400), parse("EWC(strength=100.0)", "strategies"), Adam(1e-3))
    began = time.process_time()
    run(learner, stream, range(WHOLE))
    ratios["EWC with the exact Fisher, seconds a seed"] = (time.process_time() - began) / WHOLE
    return ratios


def evaluation_share(stream: Stream) -> dict[str, float]:
    """Share of a run that evaluating 1,000 rows of each seed every 50 iterations takes: one evaluation against 50 steps."""
    one = Session(Learner(MLP(400, 400)), stream, list(range(SEEDS)))
    state = one.first_state()
    work = {
        "step": stepper(stream, "FineTuning()"),
        "evaluation": lambda: one.evaluator.scores(one.prepared_at_end(state), False, 0),
    }
    seconds = interleaved(work, 6)
    return {
        "evaluation every 50 iterations, share": seconds["evaluation"] / (50 * seconds["step"] + seconds["evaluation"])
    }


MEMORY = """
import resource, torch
from lifelong.notation.expression import parse
from lifelong.core.learner import Learner
from lifelong.core.loop import run
from scenarios.datasets import load_dataset
from scenarios.split import split
from scenarios.stream import Budget
torch.set_num_threads(1)
run(Learner(strategy=parse("EWC() + Replay(size=1000)", "strategies")), split(load_dataset("mnist", {root!r}), 5, budget=Budget(iterations=20, batch=128)), range(20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def whole_processes(root: str) -> dict[str, float]:
    """Peak memory of a fleet of 20, and how long the help takes."""
    peak = subprocess.run([sys.executable, "-c", MEMORY.format(root=root)], capture_output=True, text=True, check=True)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return {
        "peak of 20 seeds (EWC + replay), GB": float(peak.stdout),
        "lifelong --help, seconds": statistics.median(times),
    }


NOTES = {
    "times the floor": "Per seed and iteration of a fleet of 10, batches drawn and gathered; the floor is the step's bare batched matrix products, for replay those of its doubled rows. Median of five rounds, in turn.",
    "evaluation": "One evaluation of 1,000 rows of each seed against 50 steps of fine-tuning.",
    "processes": "Whole processes: Split-MNIST, 20 seeds, and the help.",
    "times faster than Avalanche 0.6.0": "A whole run of 5 tasks x 500 iterations with metrics: one seed of theirs against one of a fleet of 5 of ours, in processor seconds; both take the square of the batch-mean gradient as EWC's Fisher.",
}


def record(title: str, note: str, figures: dict[str, float], output: Path) -> None:
    """Print a section, and put it with its machine into the record and its page; sections of other runs stay."""
    print(title, flush=True)
    figures = {name: round(value, 3) for name, value in figures.items()}
    for name, value in figures.items():
        print(f"  {name}: {value}", flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": 1,
        "torch": torch.__version__.split("+")[0],
        "load": round(os.getloadavg()[0], 2),
    }
    found = json.loads(output.read_text()) if output.exists() else {}
    found[title] = {"machine": machine, "note": note, "figures": figures}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    lines = ["# Speed", "", "Written by `make bench`.", ""]
    for name, section in found.items():
        on = ", ".join(f"{k} {v}" for k, v in section["machine"].items())
        lines += [f"## {name[0].upper()}{name[1:]}", "", section["note"], f"On: {on}.", ""]
        lines += ["| what | figure |", "|---|---:|"]
        lines += [f"| {name} | {value} |" for name, value in section["figures"].items()] + [""]
    output.with_suffix(".md").write_text("\n".join(lines))


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA"))
    words.add_argument("--output", type=Path, default=Path("docs/speed.json"))
    words.add_argument("--no-compile", action="store_true")
    words.add_argument("--no-avalanche", action="store_true")
    words.add_argument("--iterations", type=int, default=500)
    words.add_argument("--rounds", type=int, default=1, help="rounds of whole runs against Avalanche")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset("mnist", chosen.data_root)
    stream = split(dataset, 5, "class", budget=Budget(iterations=500, batch=BATCH))
    sections: dict[str, Callable[[], dict[str, float]]] = {
        "times the floor": lambda: floor_ratios(stream, not chosen.no_compile),
        "evaluation": lambda: evaluation_share(stream),
        "processes": lambda: whole_processes(chosen.data_root or ""),
    }
    if not chosen.no_avalanche:
        whole = split(dataset, 5, "class", budget=Budget(iterations=chosen.iterations, batch=BATCH))
        sections["times faster than Avalanche 0.6.0"] = lambda: against_avalanche(
            whole, chosen.iterations, chosen.rounds
        )
    for title, measure in sections.items():
        record(title, NOTES[title], measure(), chosen.output)


if __name__ == "__main__":
    main()
