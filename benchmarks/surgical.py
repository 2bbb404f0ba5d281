"""Surgical fine-tuning put to the test: which block to tune under which shift, on MNIST with a four-block perceptron.

A network learns 10,000 images; then a block of it, or all, is tuned on 100 images of the shifted task, ten of each class,
with the head that it has. The rate of each way of tuning is chosen by 500 further images of the shifted task, as in the
paper; 2,000 test images are answered. Lee et al. (2023) expect the first block to be best under a shift of the input and
the last one under a shift of the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.adaptation.layerwise import AutoRGN, GradualUnfreezing, LayerwiseRates
from lifelong.adaptation.methods import AdaptationMethod, BiasTuning, FullFineTuning, Phases, adapted_net
from lifelong.adaptation.rate_selection import select_rate
from lifelong.core.inner_loop import batch_of, episode_problem
from lifelong.core.learner import Learner
from lifelong.models.base import Net
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from lifelong.transfer.established import verdicts
from lifelong.transfer.pairs import learned
from scenarios.split import split
from scenarios.stream import Budget, Dataset, generator

MODEL = MLP(100, 100, 100)
BLOCKS = ("layer0", "layer1", "layer2", "head")
RATES, WIDENINGS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), 3  # the grid to begin with, and how often it may grow
SOURCE, ITERATIONS, SHOT, STEPS, VALIDATION, TEST = 10_000, 1_500, 10, 100, 500, 2_000


@dataclass(frozen=True)
class OneBlock:
    """Tune a block and nothing else, the head as it is (Lee et al., 2023)."""

    block: str

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """One learner that trains the block."""
        return ((replace(learner, trainable=self.block), steps),)


WAYS: dict[str, AdaptationMethod] = {
    **{block: OneBlock(block) for block in BLOCKS},
    "all": FullFineTuning(),
    "Auto-RGN": AutoRGN(),
    "biases": BiasTuning(),
    "gradual unfreezing": GradualUnfreezing(),
    "layer-wise rates": LayerwiseRates(),
}


def noisy(x: Tensor, random: torch.Generator) -> Tensor:
    """Gaussian noise of spread 0.5, cut to 0 ... 1."""
    return (x + 0.5 * torch.randn(x.shape, generator=random)).clamp(0, 1)


def blurred(x: Tensor, random: torch.Generator) -> Tensor:
    """The mean of 5 x 5 pixels."""
    return F.avg_pool2d(x[:, None], 5, 1, 2)[:, 0]


def inverted(x: Tensor, random: torch.Generator) -> Tensor:
    """Black for white."""
    return 1 - x


SHIFTS: dict[str, tuple[Callable[[Tensor, torch.Generator], Tensor] | None, bool]] = {
    "input: noise": (noisy, False),
    "input: blur": (blurred, False),
    "input: inverted": (inverted, False),
    "labels: y becomes 9 - y": (None, True),
}


def source_nets(dataset: Dataset, seeds: list[int]) -> Net:
    """Networks [S, ...] that learned the first 10,000 images, 1,500 batches of 64."""
    part = replace(dataset, x=torch.cat([dataset.x[:SOURCE], dataset.x[dataset.train_rows :]]))
    part = replace(part, y=torch.cat([dataset.y[:SOURCE], dataset.y[dataset.train_rows :]]), train_rows=SOURCE)
    stream = split(part, 1, "class", tuple(range(10)), budget=Budget(iterations=ITERATIONS, batch=64))
    return learned(Learner(MODEL, optimiser=Adam(0.001)), stream, seeds)[1].params["net"]


@dataclass(frozen=True)
class Shifted:
    """Rows of a shifted task for each seed: shown, validation and test, x [S, N, 28, 28] and y [S, N]."""

    shown: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def shifted(dataset: Dataset, shift: str, seeds: list[int]) -> Shifted:
    """Images that no source saw, through the shift."""
    change, permuted = SHIFTS[shift]
    held = torch.arange(SOURCE, dataset.train_rows)
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {"shown": [], "validation": [], "test": []}
    for seed in seeds:
        random = generator("surgical", shift, seed)
        order = held[torch.randperm(len(held), generator=random)]
        y = dataset.y[order]
        shown = torch.cat([order[y == c][:SHOT] for c in range(10)])
        rest = order[~torch.isin(order, shown)][:VALIDATION]
        test = dataset.train_rows + torch.randperm(len(dataset.y) - dataset.train_rows, generator=random)[:TEST]
        for name, rows in (("shown", shown), ("validation", rest), ("test", test)):
            x = dataset.x[rows].float() / 255
            labels = 9 - dataset.y[rows] if permuted else dataset.y[rows]
            parts[name].append((change(x, random) if change else x, labels))
    x, y = ({name: torch.stack([pair[i] for pair in pairs]) for name, pairs in parts.items()} for i in (0, 1))
    return Shifted((x["shown"], y["shown"]), (x["validation"], y["validation"]), (x["test"], y["test"]))


def accuracies(nets: Net, rows: Shifted, way: AdaptationMethod, rates: Sequence[float]) -> tuple[Tensor, Tensor]:
    """After tuning at every rate, by validation and by test: [S, R] each."""
    problem = episode_problem(MODEL, 10)

    def right(net: Net, rate: Tensor, shown: Any, validation: Any, test: Any) -> tuple[Tensor, Tensor]:
        learner = Learner(MODEL, optimiser=replace(Adam(), rate=rate))
        net = adapted_net(way, learner, STEPS, problem, net, batch_of(shown[0], shown[1], 10))
        found = [(problem.logits({"net": net}, x).argmax(1) == y).double().mean() for x, y in (validation, test)]
        return found[0], found[1]

    by_rate = torch.func.vmap(right, (None, 0, None, None, None))
    by_seed = torch.func.vmap(by_rate, (0, None, 0, 0, 0))
    return by_seed(nets, torch.tensor(rates), rows.shown, rows.validation, rows.test)


def measured(dataset: Dataset, nets: Net, shift: str, seeds: list[int]) -> dict[str, Any]:
    """Test accuracy of every way of tuning by seed, at its rate of best mean validation accuracy; and untuned."""
    rows, problem = shifted(dataset, shift, seeds), episode_problem(MODEL, 10)
    x, y = rows.test
    plain = torch.func.vmap(lambda net, x: problem.logits({"net": net}, x))(nets, x).argmax(2) == y
    found: dict[str, Any] = {"untuned": {"accuracy": plain.double().mean(1).tolist(), "rate": 0.0}}
    for name, way in WAYS.items():

        def score(rates: Sequence[float], way=way) -> Tensor:
            return accuracies(nets, rows, way, rates)[0].mean(0)  # [R]

        selected = select_rate(score, RATES, WIDENINGS)
        rate = float(selected.rates)
        test = accuracies(nets, rows, way, [rate])[1][:, 0]
        found[name] = {"accuracy": test.tolist(), "rate": rate, "inside": selected.inside}
    return found


COMPARED = (("layer0", "head"), ("layer0", "all"), ("head", "all"), ("Auto-RGN", "all"))


def lines(record: dict[str, dict[str, Any]]) -> list[str]:
    """Tables in markdown of what `measured` gave for each shift, with paired differences."""
    from lifelong.metrics import estimate

    shifts = list(record)
    out = ["| tuned | " + " | ".join(shifts) + " |", "|---|" + "---:|" * len(shifts)]
    for name in ("untuned", *WAYS):
        cells = [estimate(torch.tensor(record[shift][name]["accuracy"])).text(1) for shift in shifts]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    gaps = {
        (shift, a, b): torch.tensor(record[shift][a]["accuracy"]) - torch.tensor(record[shift][b]["accuracy"])
        for shift in shifts
        for a, b in COMPARED
    }
    found = dict(zip(gaps, verdicts(list(gaps.values())), strict=True))
    out += ["", "| difference, points, paired | " + " | ".join(shifts) + " |", "|---|" + "---:|" * len(shifts)]
    for a, b in COMPARED:
        cells = []
        for shift in shifts:
            verdict = found[shift, a, b]
            cells.append(f"{'+' * (verdict.difference.mean >= 0)}{verdict.difference.text(1)} ({verdict.sign})")
        out.append(f"| {a} − {b} | " + " | ".join(cells) + " |")
    ends = [f"{name} under {shift}" for shift in shifts for name in WAYS if not record[shift][name]["inside"]]
    return [*out, *(["", f"Rates at an end of the grid: {', '.join(ends)}."] if ends else [])]
