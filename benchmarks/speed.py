"""Speed as ratios, measured in one run, interleaved, median of five: against the floor, and against Avalanche.

The floor of a step is its bare batched matrix products. Prints its sections, and puts them into docs/speed.json and docs/speed.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from by_avalanche import OURS, whole_run
from page import record
from timing import ROUNDS, WIDE, Steps, in_turn, products, repeated

from lifelong.core.learner import Learner
from lifelong.core.loop import Session, run
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from scenarios.datasets import load_dataset
from scenarios.split import split
from scenarios.stream import Budget, Stream

SEEDS, BATCH = 10, 128
TOGETHER = 8  # steps that are timed in a row
WHOLE = 5  # seeds of our whole runs against Avalanche


def steps_of(stream: Stream, strategy: str, compiled: bool = False) -> Steps:
    """The steps of a fleet through the first task, recorded."""
    learner = Learner(MLP(400, 400), parse(strategy, "strategies"), Adam(1e-3))
    return Steps(Session(learner, stream, list(range(SEEDS)), compiled=compiled, record=True))


def floor_ratios(stream: Stream, compiled: bool) -> dict[str, float]:
    """Per seed and iteration, as multiples of the floor; replay of its own doubled products."""
    device = stream.dataset.x.device
    strategies = {
        "fine-tuning": "FineTuning()",
        "EWC": "EWC()",
        "SI": "SI()",
        "LwF": "LwF()",
        "replay": "Replay(size=1000)",
    }
    measures: dict[str, Callable[[], float]] = {}
    for name, rows in {"floor": BATCH, "floor of doubled rows": 2 * BATCH}.items():
        measures[name] = partial(repeated, products(device, SEEDS, rows), TOGETHER, device)
    for name, text in strategies.items():
        measures[name] = partial(steps_of(stream, text).seconds, TOGETHER)
    for name in ("fine-tuning", "EWC", "replay") if compiled else ():
        measures[f"{name}, compiled"] = partial(steps_of(stream, strategies[name], True).seconds, TOGETHER)
    seconds = in_turn(measures)
    ratios = {"floor, ms per seed": 1e3 * seconds["floor"] / SEEDS}
    for name in measures:
        if not name.startswith("floor"):
            ratios[name] = seconds[name] / seconds["floor of doubled rows" if "replay" in name else "floor"]
    return ratios


def against_avalanche(stream: Stream, iterations: int, rounds: int) -> dict[str, float]:
    """Processor seconds per seed of a whole run, theirs over ours, for each method; median over rounds, in turn."""
    ratios: dict[str, float] = {}
    for method, text in OURS.items():
        found = []
        for _ in range(rounds):
            theirs, _ = whole_run(stream, method, WIDE, partial(torch.optim.Adam, lr=1e-3), iterations * BATCH)
            learner = Learner(MLP(400, 400), parse(text, "strategies"), Adam(1e-3))
            began = time.process_time()
            run(learner, stream, range(WHOLE))
            ours = (time.process_time() - began) / WHOLE
            found.append(theirs / ours)
            print(f"  {method}: Avalanche {theirs:.1f} s, ours {ours:.1f} s a seed", flush=True)
        ratios[method] = statistics.median(found)
    learner = Learner(MLP(400, 400), parse("EWC(strength=2.0)", "strategies"), Adam(1e-3))
    began = time.process_time()
    run(learner, stream, range(WHOLE))
    ratios["EWC with the exact Fisher, seconds a seed"] = (time.process_time() - began) / WHOLE
    return ratios


def evaluation_share(stream: Stream) -> dict[str, float]:
    """Share of a run that evaluating 1,000 rows of each seed every 50 iterations takes: one evaluation against 50 steps."""
    session = Session(Learner(MLP(400, 400)), stream, list(range(SEEDS)))
    state = session.first_state()
    evaluate = partial(session.evaluator.scores, session.prepared_at_end(state), False, 0)
    seconds = in_turn(
        {"step": partial(steps_of(stream, "FineTuning()").seconds, 6), "evaluation": partial(repeated, evaluate, 6)}
    )
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
    "times the floor": "Per seed and iteration of a fleet of 10, batches drawn and gathered, losses noted; the floor is the step's bare batched matrix products, for replay those of its doubled rows. Median of five rounds, in turn.",
    "evaluation": "One evaluation of 1,000 rows of each seed against 50 steps of fine-tuning.",
    "processes": "Whole processes: Split-MNIST, 20 seeds, and the help.",
    "times faster than Avalanche 0.6.0": "A whole run of 5 tasks x 500 iterations with metrics: one seed of theirs against one of a fleet of 5 of ours, in processor seconds; both take the square of the batch-mean gradient as EWC's Fisher.",
}


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
