"""Whole runs by Avalanche on the rows of one of our streams; its import takes seconds, and counts nowhere."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from scenarios.stream import Stream

# its penalty is ewc_lambda x F (p - c)^2, ours strength / 2 x F (p - c)^2: the same for strength = 2 ewc_lambda
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "fine-tuning": ("Naive", {}),
    "EWC": ("EWC", {"ewc_lambda": 1.0}),
    "replay": ("Replay", {"mem_size": 1000}),
}
# its Fisher is the square of the mean gradient of a batch, mean over batches
OURS = {
    "fine-tuning": "FineTuning()",
    "EWC": "EWC(strength=2.0, fisher='batch')",
    "replay": "ClassReplay(per_class=100)",
}


def benchmark_of(stream: Stream, rows: int = 0) -> Any:
    """The tasks of seed 0 as its benchmark; `rows` of training each, repeated or cut, 0 for all of them once."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    x = stream.dataset.x.float() / 255
    parts: dict[str, list[Any]] = {"train": [], "test": []}
    for task in stream.tasks_of(0):
        count = rows or len(task.train)
        train = task.train.repeat(-(-count // len(task.train)))[:count]
        for part, places in (("train", train), ("test", task.test)):
            y = task.label[stream.dataset.y[places]]
            data = TensorDataset(x[places], y)
            data.targets = y.tolist()
            parts[part].append(as_classification_dataset(data))
    return benchmark_from_datasets(**parts)


def whole_run(
    stream: Stream, method: str, widths: Sequence[int], optimiser: Callable[[Any], Any], rows: int = 0
) -> tuple[float, float]:
    """Processor seconds of one seed with its accuracy and forgetting metrics, and the mean accuracy after the last task.

    Scored on all test rows after each task, 1,024 at a time, as ours; built before the clock starts.
    """
    from avalanche import training
    from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
    from avalanche.training.plugins import EvaluationPlugin

    torch.set_flush_denormal(False)  # as it comes; ours lets the processor take them for 0
    name, options = METHODS[method]
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    with warnings.catch_warnings(record=True):  # what it will rename, at every task
        metrics = EvaluationPlugin(
            accuracy_metrics(epoch=True, experience=True, stream=True), forgetting_metrics(experience=True), loggers=[]
        )
        strategy = getattr(training, name)(
            model=net,
            optimizer=optimiser(net.parameters()),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=stream.budget.batch,
            train_epochs=1,
            eval_mb_size=1024,
            evaluator=metrics,
            **options,
        )
        benchmark, scored = benchmark_of(stream, rows), {}
        began = time.process_time()
        for experience in benchmark.train_stream:
            strategy.train(experience, num_workers=0)
            scored = strategy.eval(benchmark.test_stream, num_workers=0)
        seconds = time.process_time() - began
    accuracies = [value for key, value in scored.items() if key.startswith("Top1_Acc_Exp/eval")]
    return seconds, float(torch.tensor(accuracies).mean())
