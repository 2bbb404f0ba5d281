"""The online regime beside Avalanche: one pass in batches of 10 over Split-MNIST, whole runs with metrics.

Both learn the same rows with 784-100-100 and SGD, and are scored on all test rows after each task (ours before the first,
too). Both memories are chosen at the ends of tasks. In turn, median of the rounds, processor seconds on one thread; theirs
over ours, for one seed and for each of twenty.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from by_avalanche import OURS, whole_run
from page import record
from timing import NARROW

from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.metrics import average_accuracy
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.sgd import SGD
from scenarios.datasets import dataset_from_arrays, load_dataset
from scenarios.online import online
from scenarios.stream import Dataset, Stream

FLEET, RATE = 20, 0.05
TITLE = "online, times faster than Avalanche 0.6.0"
NOTE = (
    "One pass over {rows:,} rows of Split-MNIST in batches of 10, 5 tasks, whole runs with metrics: 784-100-100, SGD; EWC by"
    " the square of the batch-mean gradient, and a memory of 1,000 rows, chosen at the ends of tasks and replayed 10 a batch"
    " (ours gathers 10 rows in the first task, too). Processor seconds of one seed of theirs over one of ours; median of"
    " {rounds}, in turn."
)


def short(dataset: Dataset, train: int, test: int) -> Stream:
    """A stream of the first rows of both parts."""
    x, y, first = dataset.x, dataset.y, dataset.train_rows
    parts = x[:train], y[:train], x[first : first + test], y[first : first + test]
    return online(dataset_from_arrays("short", *parts))


def ours(stream: Stream, method: str, seeds: int) -> tuple[float, float]:
    """Processor seconds of a seed, and the mean accuracy after the last task."""
    learner = Learner(MLP(*NARROW[1:-1]), parse(OURS[method], "strategies"), SGD(RATE))
    began = time.process_time()
    result = run(learner, stream, range(seeds))
    return (time.process_time() - began) / seeds, float(average_accuracy(result).mean())


def beside(stream: Stream, method: str, rounds: int, fleet: int = FLEET) -> dict[str, float]:
    """Their seconds over ours, for one seed and for each of a fleet."""
    ratios: dict[str, list[float]] = {}
    kinds = {f"{method}, 1 seed": 1, f"{method}, per seed of {fleet}": fleet}
    for _ in range(rounds):
        theirs, accuracy = whole_run(stream, method, NARROW, partial(torch.optim.SGD, lr=RATE))
        words = [f"  {method}: Avalanche {theirs:.2f} s ({100 * accuracy:.0f} %)"]
        for name, seeds in kinds.items():
            seconds, accuracy = ours(stream, method, seeds)
            ratios.setdefault(name, []).append(theirs / seconds)
            words.append(f"{seeds} of ours {seconds:.2f} s a seed ({100 * accuracy:.0f} %)")
        print(", ".join(words), flush=True)
    return {name: statistics.median(found) for name, found in ratios.items()}


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA"))
    words.add_argument("--output", type=Path, default=Path("docs/speed.json"))
    words.add_argument("--rows", type=int, default=60_000)
    words.add_argument("--test-rows", type=int, default=10_000)
    words.add_argument("--rounds", type=int, default=3)
    chosen = words.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset("mnist", chosen.data_root)
    print("200 rows, which do not count: what is imported and prepared at first use", flush=True)
    for method in OURS:
        beside(short(dataset, 200, 100), method, 1, 2)
    stream, figures = short(dataset, chosen.rows, chosen.test_rows), {}
    print(f"{chosen.rows:,} rows", flush=True)
    for method in OURS:
        figures |= beside(stream, method, chosen.rounds)
    record(TITLE, NOTE.format(rows=chosen.rows, rounds=chosen.rounds), figures, chosen.output)


if __name__ == "__main__":
    main()
