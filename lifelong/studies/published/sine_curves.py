"""Sine regression by every family: the error against the number of points shown, and against how far from home a wave is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from lifelong.adaptation.rate_selection import select_rate
from lifelong.core.loop import device_of
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationLearner, Meta
from lifelong.meta.learned import distribution_of_source
from lifelong.meta.maml import MAML
from lifelong.meta.pretraining import pretrain
from lifelong.meta.testing import scored
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.studies.published.rows import SEEDS, Cell, Row, about_machine, absent, gathered, mean_and_error, own_cells
from scenarios.episodes import Sines, TaskSource

NET = MLP(40, 40)
POINTS, SHOWN, QUERY, WAVES = 10, (1, 2, 5, 10, 20, 40), 100, 600
SHARES = (0.25, 0.5, 1.0)
QUANTITIES = ("amplitude", "phase", "x")
RATES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
STEPS = 10
FIGURE = "sine-curves.svg"  # beside the page
LARGE, DIVERGED = 1000.0, 1e9  # an error above which a table says no more; what counts for one that is not finite
PROTOCOL = (
    "waves a sin(x − p), a in [0.1, 5], p in [0, π], x in [−5, 5]; trunk with two hidden layers of 40; trained on 10 points and "
    f"tested, each in its own way, on {WAVES} new waves of {QUERY} other points, the same for all. Farther away: 10 points of "
    "waves whose amplitude, phase or x comes from a range that lies higher by 0.25, 0.5 or 1 of its width, at 1 beside it; "
    "amplitudes that are larger make all errors larger, as the error of the answer 0 shows"
)


def places() -> dict[str, tuple[int, Sines]]:
    """Where it is tested: the number of points, and the waves."""
    inside = {_points(points): (points, Sines()) for points in SHOWN}
    return inside | {
        f"{quantity} {share:g}": (POINTS, Sines().shifted(quantity, share))
        for quantity in QUANTITIES
        for share in SHARES
    }


def _points(count: int) -> str:
    return f"{count} point{'s' * (count > 1)}"


def with_steps(distribution: TaskDistribution, meta: Meta) -> MAML:
    """Gradient descent of 10 steps at the rate that is best inside, on 10 points of waves that no test has."""

    def score(rates: Sequence[float]) -> Tensor:  # another number of queries than the test's: other waves
        methods = [MAML(steps=STEPS, rate=rate, shot=POINTS) for rate in rates]
        return torch.stack([-_error(method, distribution, meta, Sines(), POINTS, QUERY // 2) for method in methods])

    return MAML(steps=STEPS, rate=float(select_rate(score, RATES).rates), shot=POINTS)


def _error(
    method: InitialisationLearner, distribution: TaskDistribution, meta: Meta, waves: TaskSource, shot: int, query: int
) -> Tensor:
    """The mean square error, 0-d; a number where gradient steps diverged, too."""
    waves = waves.to(distribution.device)
    errors = scored(method, distribution, meta, waves, shot=shot, query=query, episodes=WAVES).scores
    return errors.mean().nan_to_num(nan=DIVERGED, posinf=DIVERGED).clamp(max=DIVERGED)


@dataclass(frozen=True)
class SineCurveRow(Row):
    """A family's row: the stage as text, and what is different in the literature.

    stepwise: whether it is tested after gradient steps at a chosen rate, as a start that says no way of its own.
    """

    method: str
    stage: str
    differences: str
    stepwise: bool = False
    setting = "sine-curves"
    rests_on = ("episodes",)

    @property
    def texts(self) -> dict[str, tuple[str, str]]:
        """The stage."""
        return {"stage": ("initialisations", self.stage)}

    @property
    def protocol(self) -> str:
        """The network and the test."""
        answered = f"after {STEPS} steps at the best rate of {RATES}" if self.stepwise else "in its own way"
        return f"{NET!r}, tested on {WAVES} waves {answered}, points {SHOWN}, shifts {SHARES}"

    def chunks(self, cells: list[Cell]) -> tuple[tuple[int, ...], ...]:
        """One fleet."""
        return (SEEDS,)

    def measure(self, seeds: tuple[int, ...], data_root: str, device: str) -> Cell:
        """Learn with each seed, and test each everywhere."""
        method = parse(self.stage, "initialisations")
        distribution = distribution_of_source(method, NET, Sines()).to(device_of(device))
        learned = pretrain(method, distribution, seeds, episodes=0)
        errors: Cell = {name: [] for name in places()}
        for s in range(len(seeds)):
            answers = with_steps(distribution, learned.of(s)) if self.stepwise else method
            for name, (shot, waves) in places().items():
                error = _error(answers, distribution, learned.of(s), waves, shot, QUERY)
                errors[name].append(round(float(error), 6))
        return {**errors, **about_machine(device)}

    def shown(self, cell: Cell) -> str:
        """A cell in a few words."""
        return f"mean square error {mean(cell[_points(POINTS)]):.3f}"

    def verdict(self, cells: list[Cell]) -> str:
        """The row in a line."""
        return self.at(cells, _points(POINTS))

    def at(self, cells: list[Cell], name: str) -> str:
        """The error at one place."""
        errors = list(gathered(cells, self, name).values())
        if errors and mean(errors) > LARGE:
            return f"> {LARGE:g}"
        return mean_and_error(errors, 3) if errors else absent(cells, self)


def zero_error(waves: Sines) -> float:
    """The error of the answer 0: the mean of a² sin²(x − p) over the ranges, in closed form."""
    low, high = waves.amplitude
    return (low * low + low * high + high * high) / 3 * _mean_square_of_sine(waves)


def _mean_square_of_sine(waves: Sines) -> float:
    """Mean of sin²(x − p) = 1/2 − Re mean of e^{2i(x − p)} / 2 over both ranges."""
    factor = complex(1)
    for (low, high), sign in ((waves.x, 1), (waves.phase, -1)):
        ends = torch.tensor([low, high], dtype=torch.float64) * 2 * sign
        turn = torch.polar(torch.ones_like(ends), ends)
        factor *= complex((turn[1] - turn[0]) / (2j * sign * (high - low)))
    return 0.5 - factor.real / 2


_TRAINING = "tasks=25, iterations=10000, outer=Adam(0.002, schedule='linear')"
_EPISODE = f"shot=10, query=10, {_TRAINING}"
GRADIENT_ROWS = (
    SineCurveRow("pretrained", "Pretrained(batch=500, iterations=10000, outer=Adam(0.002, schedule='linear'))",
                 "fine-tuned at a rate of its own choice, as Finn et al. do", True),
    SineCurveRow("maml", f"MAML(steps=1, rate=0.02, {_EPISODE})",
                 "Finn et al.: inner rate 0.01, 70,000 iterations of 25 waves, tested up to 10 steps"),
    SineCurveRow("first-order-maml", f"MAML(steps=1, rate=0.02, order=1, {_EPISODE})", "no number on sines is known to us"),
    SineCurveRow("reptile", "Reptile(shot=50, batch=10, steps=5, inner=SGD(0.02), iterations=10000,"
                 " outer=SGD(0.5, schedule='linear'))",
                 "the authors' public demo: tanh units of 64, 50 even points, one wave an iteration, step 0.1, 30,000 iterations, tested"
                 " by 32 steps", True),
    SineCurveRow("anil", f"MAML(steps=1, rate=0.02, adapts='head', {_EPISODE})", "no number on sines is known to us"),
    SineCurveRow("boil", f"MAML(steps=1, rate=0.02, adapts='trunk', {_EPISODE})", "no number on sines is known to us"),
    SineCurveRow("meta-sgd", f"MAML(steps=1, rate=0.02, learn_rates=True, {_EPISODE})",
                 "Li et al.: waves differ in frequency, too, rates begin between 0.005 and 0.1, 60,000 iterations, 5 to 20 points"),
    SineCurveRow("maml++", f"MAMLPlusPlus(steps=2, rate=0.02, {_EPISODE})", "no number on sines is known to us"),
)  # fmt: skip
OTHER_ROWS = (
    SineCurveRow("imaml", "IMAML(steps=10, rate=0.005, solver_steps=1, shot=10, query=10, tasks=25, iterations=10000,"
                 " outer=Adam(0.002, schedule='linear', weight_decay=0.001))",
                 "no number on sines is known to us; its gradient does not feel how sharp a start is, and without decay of the start"
                 " steps from it no longer converge, at strengths of 2 to 50, rates of 0.02 to 0.001 and one to five steps of the"
                 " solver: at a rate of 0.001 and a strength of 10 after 4,755 iterations"),
    SineCurveRow("lstm-optimiser", f"LSTMOptimiser(steps=2, rate=0.005, hidden=4, {_EPISODE})",
                 "Ravi and Larochelle have no regression"),
    SineCurveRow("cavia", f"CAVIA(context=5, {_EPISODE})",
                 "Zintgraf et al.: the context joins the input, one inner step at rate 1"),
    SineCurveRow("neural-process", f"NeuralProcess({_EPISODE})",
                 "Garnelo et al. regress draws of a Gaussian process, 3 to 9 points in their notebook, and predict a variance"),
    SineCurveRow("film", f"FiLMNet({_EPISODE})", "Requeima et al. have no regression"),
    SineCurveRow("lstm", f"RecurrentLearner(hidden=64, {_EPISODE})",
                 "Hochreiter et al. regress quadratic functions, one long sequence, each target a step late"),
    SineCurveRow("mann", f"MANN(hidden=64, slots=20, width=20, heads=1, {_EPISODE})",
                 "Santoro et al. regress draws of a Gaussian process, in a stream"),
    SineCurveRow("snail", f"SNAIL(filters=16, keys=(16, 16, 16), values=(16, 16, 16), {_EPISODE})",
                 "no number on sines is known to us"),
)  # fmt: skip
ROWS = (*GRADIENT_ROWS, *OTHER_ROWS)


def page_lines(cells: list[Cell]) -> list[str]:
    """The page's section."""
    names = list(places())
    lines = [
        "## Sine regression by family",
        "",
        f"Protocol: {PROTOCOL}. Mean square errors ± standard error over seeds.",
        "",
    ]
    if found := [row for row in ROWS if own_cells(cells, row)]:
        lines += [f"![errors of {len(found)} families of meta-learning over points and over shifts]({FIGURE})", ""]
    tables = ((names[: len(SHOWN)], "method"), (names[len(SHOWN) :], "10 points, range shifted by"))
    for columns, title in tables:
        lines += [f"| {title} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        zeros = [f"{zero_error(places()[name][1]):.3f}" for name in columns]
        lines.append("| the answer 0 | " + " | ".join(zeros) + " |")
        lines += [f"| {row.method} | {' | '.join(row.at(cells, name) for name in columns)} |" for row in ROWS]
        lines.append("")
    return [*lines, "What differs in the literature:", "", *(f"- {row.method}: {row.differences}." for row in ROWS)]
