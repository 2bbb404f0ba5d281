"""Sine regression (Finn, Abbeel and Levine, 2017): the error after one gradient step on 10 points of a new wave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

import torch
from torch import Tensor

from lifelong.adaptation.rate_selection import select_rate
from lifelong.core.loop import device_of
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.learned import distribution_of_source
from lifelong.meta.maml import MAML
from lifelong.meta.pretraining import pretrain
from lifelong.meta.testing import Scored, scored
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.studies.published.rows import SEEDS, Cell, Row, about_machine, absent, gathered, mean_and_error
from scenarios.episodes import Sines

NET = MLP(40, 40)
POINTS, WAVES = 10, 600
RATES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
TESTED = MAML(steps=1, rate=0.02, shot=POINTS)
PROTOCOL = (
    "waves a sin(x − p), a in [0.1, 5], p in [0, π], x in [−5, 5]; two hidden layers of 40; 500 points an iteration, "
    "20,000 iterations of Adam from 0.002 linearly to 0. Both starts are tested alike: one step of gradient descent on 10 points of each "
    f"of {WAVES} new waves, the mean square error on 100 others; the step's rate is the best of {RATES} on further waves"
)


def tested_at_best_rate(distribution: TaskDistribution, meta: Meta) -> tuple[float, Scored]:
    """The inner rate of the smallest error, and the errors at it on other waves."""

    def tested(rate: float, query: int) -> Scored:
        method, waves = replace(TESTED, rate=rate), distribution.validation
        return scored(method, distribution, meta, waves, shot=POINTS, query=query, episodes=WAVES)

    def score(rates: Sequence[float]) -> Tensor:  # another number of queries than the test's: other waves
        return torch.stack([-tested(rate, 50).scores.mean() for rate in rates])

    rate = float(select_rate(score, RATES).rates)
    return rate, tested(rate, 100)


@dataclass(frozen=True)
class SineRow(Row):
    """A start's row: the stage as text."""

    method: str
    stage: str
    setting = "sines"
    rests_on = ("episodes",)

    @property
    def texts(self) -> dict[str, tuple[str, str]]:
        """The stage."""
        return {"stage": ("initialisations", self.stage)}

    @property
    def protocol(self) -> str:
        """The network and the test."""
        return f"{NET!r}, tested on {WAVES} waves after one step on {POINTS} points, at the best rate of {RATES}"

    def chunks(self, cells: list[Cell]) -> tuple[tuple[int, ...], ...]:
        """One fleet."""
        return (SEEDS,)

    def measure(self, seeds: tuple[int, ...], data_root: str, device: str) -> Cell:
        """Learn a start with each seed, choose its rate, test it."""
        method = parse(self.stage, "initialisations")
        distribution = distribution_of_source(method, NET, Sines()).to(device_of(device))
        learned = pretrain(method, distribution, seeds, episodes=0)
        rates, errors, widths = [], [], []
        for s in range(len(seeds)):
            rate, tested = tested_at_best_rate(distribution, learned.of(s))
            rates.append(rate)
            errors.append(round(float(tested.scores.mean()), 6))
            widths.append(round(tested.half_width or 0.0, 6))
        return {
            "rates": rates, "error": errors, "half_width": widths, **about_machine(device)
        }  # fmt: skip

    def shown(self, cell: Cell) -> str:
        """A cell in a few words."""
        return f"mean square error {mean(cell['error']):.3f}"

    def verdict(self, cells: list[Cell]) -> str:
        """The row in a line."""
        errors = list(gathered(cells, self, "error").values())
        return mean_and_error(errors, 3) if errors else absent(cells, self)


ROWS = (
    SineRow(
        "maml",
        "MAML(steps=1, rate=0.02, shot=10, query=10, tasks=25, iterations=20000, outer=Adam(0.002, schedule='linear'))",
    ),
    SineRow("pretrained", "Pretrained(batch=500, iterations=20000, outer=Adam(0.002, schedule='linear'))"),
)


def page_lines(cells: list[Cell]) -> list[str]:
    """The page's section."""
    lines = ["## Sine regression", "", f"Protocol: {PROTOCOL}.", ""]
    lines += ["| start | mean square error | seeds | rates |", "|---|---:|---:|---|"]
    for row in ROWS:
        errors, rates = gathered(cells, row, "error"), gathered(cells, row, "rates")
        chosen = ", ".join(f"{rate:g}" for rate in sorted(set(rates.values())))
        lines.append(f"| {row.method} | {row.verdict(cells)} | {len(errors)} | {chosen} |")
    maml, pretrained = (gathered(cells, row, "error").values() for row in ROWS)
    if maml and pretrained:
        share = mean(maml) / mean(pretrained)
        lines += ["", f"MAML's error is {share:.3f} of pre-training's (aim: at most 0.2)."]
    return lines
