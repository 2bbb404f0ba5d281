"""Few-shot rows on Omniglot: what a few processor minutes give, beside an independent loop and the published numbers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from statistics import mean, median

from lifelong.core.loop import device_of
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.learned import distribution_of
from lifelong.meta.pretraining import Event, Learned, Validated, pretrain
from lifelong.meta.testing import scored
from lifelong.notation.expression import parse
from lifelong.studies.published.rows import Cell, Row, about_machine, absent, mean_and_error, own_cells
from scenarios.datasets import load_dataset
from scenarios.episodes import TaskSource

EPISODES = 600
POINTS, VALIDATED = 8, 100  # of a learning curve: how many, and episodes of validation classes for each
SHOWN = (0.125, 0.25, 0.5, 0.75, 1.0)  # of the iterations, those points that the page has
NET = "Conv4(32, norm='batch', halving='stride')"
PAPER_NET, POOLING_NET = "Conv4(64, norm='batch', halving='stride')", "Conv4(64, norm='batch')"
PROTOCOL = (
    "Omniglot, N-way K-shot. Classes: 868 background characters and their right angles train, the 659 evaluation "
    "characters test, unturned; 600 episodes of 15 queries a class, the same for every row of a table. Network: "
    f"`{NET}`; batch norm by the statistics of the rows scored together, never running ones: transductive, the queries "
    "of an episode are scored together (inductive beside it: each query alone with the support). One thread"
)


@dataclass(frozen=True)
class FewShotRow(Row):
    """A row: the stage as text, what is aimed at with it, and what is published with which differences."""

    method: str
    stage: str
    aim: float
    published: str
    differences: str
    model: str = NET
    on_request: bool = False
    way: int = 5
    shot: int = 1
    rests_on = ("episodes",)

    @property
    def setting(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from fields
        """Of the test."""
        return f"omniglot-{self.way}-way-{self.shot}-shot"

    @property
    def texts(self) -> dict[str, tuple[str, str]]:
        """The stage, and the network."""
        return {"stage": ("initialisations", self.stage), "model": ("models", self.model)}

    @property
    def protocol(self) -> str:
        """The test; what is learned from is in the stage's text."""
        shots = f"{self.shot} shot{'' if self.shot == 1 else 's'}"
        return f"omniglot-background, tested on {EPISODES} episodes of {self.way} ways, {shots}, 15 queries of omniglot"

    def measure(self, seeds: tuple[int, ...], data_root: str, device: str) -> Cell:
        """Learn a start with one seed, and test it on the same episodes as all others."""
        start = _start(self.stage, self.model, seeds, data_root, device)
        method, learned, unseen = start.learned.method, start.learned, start.unseen
        test = TaskDistribution(start.distribution.model, unseen, unseen)
        found = [
            [
                scored(
                    method,
                    test,
                    learned.of(s),
                    unseen,
                    way=self.way,
                    shot=self.shot,
                    episodes=EPISODES,
                    inductive=alone,
                )
                for s in range(len(seeds))
            ]
            for alone in (False, True)
        ]
        return {
            "class split": start.distribution.train.hash,
            "accuracy": [round(float(tested.scores.mean()), 6) for tested in found[0]],
            "inductive": [round(float(tested.scores.mean()), 6) for tested in found[1]],
            "half_width": [round(tested.half_width or 0.0, 6) for tested in found[0]],
            "curve": [[iteration, round(float(scores.mean()), 6)] for iteration, scores in learned.validated],
            "training seconds": round(start.seconds, 1),
            **about_machine(device),
        }

    def shown(self, cell: Cell) -> str:
        """A cell in a few words."""
        return f"{100 * mean(cell['accuracy']):.2f} % (inductive {100 * mean(cell['inductive']):.2f})"

    def verdict(self, cells: list[Cell]) -> str:
        """The row in a line."""
        counted = own_cells(cells, self)
        return f"{_mean(counted, 'accuracy') if counted else absent(cells, self)} (aim {self.aim:.1f})"


@dataclass(frozen=True)
class _Start:
    """What some seeds learned, of what, what it is tested on, and processor seconds of training."""

    learned: Learned
    distribution: TaskDistribution
    unseen: TaskSource
    seconds: float


@cache
def _start(stage: str, model: str, seeds: tuple[int, ...], data_root: str, device: str) -> _Start:
    """Learned once: rows of several tests share a start that was learned in the same way."""
    method, net = parse(stage, "initialisations"), parse(model, "models")
    background, evaluation = (load_dataset(name, data_root or None) for name in ("omniglot-background", "omniglot"))
    distribution = distribution_of(method, net, background, evaluation).to(device_of(device))
    clock, every = _Clock(), max(1, method.iterations // POINTS)
    learned = pretrain(method, distribution, seeds, validate_every=every, episodes=VALIDATED, watch=clock)
    return _Start(learned, distribution, method.pool(evaluation).to(distribution.device), clock.seconds)


class _Clock:
    """Processor seconds of training, without those of validation."""

    def __init__(self) -> None:
        self.seconds, self._last = 0.0, time.process_time()

    def __call__(self, event: Event) -> None:
        now = time.process_time()
        if not isinstance(event, Validated):
            self.seconds += now - self._last
        self._last = now


OURS = (
    FewShotRow("protonet", "ProtoNet(way=20, shot=1, query=5, rotations=True, iterations=10000)", 95.0, "98.8",
               "60-way, 64 channels with pooling, other split, turned test classes, until it no longer improves"),
    FewShotRow("maml", "MAML(steps=1, rate=0.4, rotations=True, iterations=4500)", 88.0, "98.7 ± 0.4",
               "64 channels, inner rate 0.4 on the sum over classes (2.0 here), 32 tasks, 60,000 iterations, 3 test steps, turned test classes"),
    FewShotRow("anil", "MAML(steps=5, rate=0.4, adapts='head', rotations=True, iterations=6000)", 89.0, "–",
               "published on 20-way: 96.2 ± 0.5"),
    FewShotRow("first-order-maml", "MAML(steps=1, rate=0.4, order=1, rotations=True, iterations=9000)", 82.0, "98.3 ± 0.5",
               "the number is of Nichol et al., 2018; else as MAML's, recalled"),
    FewShotRow("reptile", "Reptile(rotations=True, iterations=4500, inner=Adam(0.003, beta1=0.0))", 75.0, "97.68 ± 0.04",
               "64 channels, inner rate 0.001, 100,000 iterations; inductive 95.39 ± 0.09"),
)  # fmt: skip
OPTIMISATION = (
    FewShotRow("meta-sgd", "MAML(steps=1, rate=0.4, learn_rates=True, rotations=True, iterations=4500)", 88.0, "99.53 ± 0.26",
               "64 channels with pooling and a layer of 32 units, rates of either sign"),
    FewShotRow("boil", "MAML(steps=1, rate=0.4, adapts='trunk', rotations=True, iterations=4500)", 85.0, "–",
               "no number for Omniglot is known to us"),
    FewShotRow("maml++", "MAMLPlusPlus(steps=2, rate=0.4, tasks=8, rotations=True, iterations=5000)", 89.0, "99.47",
               "64 channels with pooling, 5 steps, norms of their own for each step, 50,000 iterations, an ensemble of five"),
    FewShotRow("cavia", "CAVIA(context=50, rotations=True, iterations=5000)", 65.0, "–", "no number for Omniglot is known to us"),
    FewShotRow("imaml", "IMAML(steps=5, rate=0.4, solver_steps=1, strength=0.5, tasks=8, rotations=True, iterations=3500)", 60.0, "99.16 ± 0.35",
               "64 channels, strength 2, rate 0.1, 16 inner steps, 5 of a damped solver; by gradient descent"),
    FewShotRow("lstm-optimiser", "LSTMOptimiser(steps=2, rate=0.3, hidden=4, rotations=True, iterations=4500)", 40.0, "–",
               "no number for Omniglot is known to us"),
    FewShotRow("metaoptnet-ridge", "MetaOptNetRidge(rotations=True, iterations=5000)", 90.0, "–", "no number for Omniglot is known to us"),
)  # fmt: skip
# the published protocols, for a machine with a GPU: `lifelong reproduce omniglot-5-way-1-shot-maml-published --device cuda`
PUBLISHED = (
    FewShotRow("protonet-published", "ProtoNet(way=60, shot=1, query=5, rotations=True, iterations=20000, outer=Adam(0.001, schedule='linear'))",
               98.8, "98.8", "other split, turned test classes; a linear schedule for halving every 2,000", POOLING_NET, True),
    FewShotRow("maml-published", "MAML(steps=1, test_steps=3, rate=2.0, tasks=32, rotations=True, iterations=60000)",
               98.7, "98.7 ± 0.4", "other split, turned test classes", PAPER_NET, True),
    FewShotRow("first-order-maml-published", "MAML(steps=1, test_steps=3, rate=2.0, order=1, tasks=32, rotations=True, iterations=60000)",
               98.3, "98.3 ± 0.5", "other split; of Nichol et al., 2018", PAPER_NET, True),
    FewShotRow("reptile-published", "Reptile(tasks=5, rotations=True, iterations=100000)", 97.68, "97.68 ± 0.04",
               "other split", PAPER_NET, True),
    FewShotRow("meta-sgd-published", "MAML(steps=1, rate=0.1, learn_rates=True, tasks=32, rotations=True, iterations=60000)",
               99.5, "99.53 ± 0.26", "other split; no further layer of 32 units; tasks, iterations and first rate recalled", POOLING_NET, True),
    FewShotRow("maml++-published", "MAMLPlusPlus(steps=5, rate=0.1, tasks=8, query=1, rotations=True, iterations=50000)",
               99.5, "99.47", "other split; no statistics of norms for each step, no ensemble of five", POOLING_NET, True),
    FewShotRow("imaml-published", "IMAML(steps=16, rate=0.1, strength=2.0, solver_steps=5, damping=10.0, tasks=32, rotations=True, iterations=20000)",
               99.2, "99.16 ± 0.35", "other split, turned test classes; their code pulls back once, after the 16 steps, halves the gradient, and does not pull in tests", PAPER_NET, True),
    FewShotRow("matching-published", "MatchingNet(sharpness=1.0, tasks=32, rotations=True, iterations=60000)",
               98.1, "98.1", "other split; numbers of tasks and iterations ours", POOLING_NET, True),
    FewShotRow("relation-published", "RelationNet(query=19, tasks=1, rotations=True, iterations=1000000,"
               " outer=Adam(0.001, schedule='linear', clip=0.5))",
               99.6, "99.6 ± 0.2", "other split, turned test classes; vectors are compared, not maps; a linear schedule for halving every 100,000", POOLING_NET, True),
    FewShotRow("protonet-published", "ProtoNet(way=60, shot=5, query=5, rotations=True, iterations=20000, outer=Adam(0.001, schedule='linear'))",
               99.7, "99.7", "other split, turned test classes; a linear schedule for halving every 2,000", POOLING_NET, True, shot=5),
    FewShotRow("protonet-published", "ProtoNet(way=60, shot=1, query=5, rotations=True, iterations=20000, outer=Adam(0.001, schedule='linear'))",
               96.0, "96.0", "other split, turned test classes; a linear schedule for halving every 2,000", POOLING_NET, True, way=20),
    FewShotRow("maml-published", "MAML(way=20, steps=5, test_steps=5, rate=2.0, tasks=16, rotations=True, iterations=60000)",
               95.8, "95.8 ± 0.3", "other split, turned test classes", PAPER_NET, True, way=20),
)  # fmt: skip
METRIC = (
    FewShotRow("matching", "MatchingNet(way=20, tasks=1, rotations=True, iterations=10000)", 92.0, "98.1",
               "64 channels with pooling, other split, cosines as they are (10 times as large here); learned on 5 ways, recalled"),
    FewShotRow("matching-full-context", "MatchingNet(full_context=True, rotations=True, iterations=2800)", 92.0, "–",
               "no number for Omniglot is known to us"),
    FewShotRow("relation", "RelationNet(rotations=True, iterations=5000)", 85.0, "99.6 ± 0.2",
               "convolutions on maps of 64 channels, 19 queries a class, up to a million episodes"),
    FewShotRow("siamese", "Siamese(rotations=True, iterations=10000, outer=Adam(0.003))", 85.0, "97.3",
               "the number is of the re-run by Vinyals et al., 2016, fine-tuned (96.7 without); Koch et al., recalled: images of 105 pixels, a larger network, distortions"),
    FewShotRow("infinite-mixture", "InfiniteMixturePrototypes(rotations=True, iterations=8000)", 92.0, "98.4 ± 0.3",
               "64 channels with pooling, other split; the number is recalled"),
    FewShotRow("gnn", "GraphNet(rotations=True, iterations=1400)", 80.0, "99.2",
               "64 channels with pooling and a layer of 64 units, adjacency of five layers, normalised over graphs"),
    FewShotRow("r2d2", "R2D2(rotations=True, iterations=5000, outer=Adam(0.003))", 92.0, "98.6",
               "96 to 512 channels with pooling, features of two blocks; the number is recalled"),
)  # fmt: skip
# what supervised training on all background classes gives: the least that learning from episodes must add to
FLOOR = (
    FewShotRow("pretrained", "Pretrained(batch=128, rotations=True, iterations=8000)", 80.0, "–",
               "supervised features, nearest class mean"),
)  # fmt: skip
FIVE_SHOT = (
    FewShotRow("protonet", "ProtoNet(way=20, shot=5, query=5, rotations=True, iterations=7000)", 98.0, "99.7", "as on one shot", shot=5),
    FewShotRow("maml", "MAML(steps=1, rate=0.4, shot=5, tasks=4, rotations=True, iterations=6000)", 94.0, "99.9 ± 0.1",
               "as on one shot", shot=5),
    FewShotRow("matching", "MatchingNet(shot=5, tasks=8, rotations=True, iterations=5000)", 97.0, "98.9", "as on one shot", shot=5),
    FewShotRow("r2d2", "R2D2(shot=5, tasks=8, rotations=True, iterations=5000, outer=Adam(0.003))", 98.0, "99.7", "as on one shot; recalled", shot=5),
)  # fmt: skip
TWENTY_WAY = (
    FewShotRow("protonet", "ProtoNet(way=20, shot=1, query=5, rotations=True, iterations=10000)", 86.0, "96.0", "as of 5 ways", way=20),
    FewShotRow("maml", "MAML(way=20, steps=1, rate=0.4, tasks=4, rotations=True, iterations=4500)", 60.0, "95.8 ± 0.3",
               "5 inner steps, 16 tasks, else as of 5 ways", way=20),
    FewShotRow("matching", "MatchingNet(way=20, tasks=1, rotations=True, iterations=10000)", 84.0, "93.8", "as of 5 ways", way=20),
    FewShotRow("r2d2", "R2D2(way=20, tasks=1, rotations=True, iterations=10000, outer=Adam(0.003))", 84.0, "94.7", "as of 5 ways; recalled", way=20),
)  # fmt: skip


HEAD = (
    "| method | ours, % | inductive | seeds | aim | loop | seeds | minutes of training (loop) | published | what differs there |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
)
BLACK_BOX = (
    FewShotRow("lstm", "RecurrentLearner(query=2, rotations=True, iterations=8000)", 40.0, "–",
               "published on other data; labels a row late there"),
    FewShotRow("mann", "MANN(query=2, rotations=True, iterations=5500)", 40.0, "82.8",
               "by 2nd presentation in a stream of 50 images of 5 classes, 20 x 20 pixels; recalled: labels a row late, 100,000 episodes"),
    FewShotRow("snail", "SNAIL(query=2, rotations=True, iterations=2700)", 40.0, "99.07 ± 0.16",
               "64 channels with pooling, another split, dilations from 2 on, 1 to 5 shots mixed"),
    FewShotRow("neural-process", "NeuralProcess(query=5, rotations=True, iterations=4500)", 40.0, "95.3",
               "recalled: r of the classes one behind the other, 20-way 89.9"),
    FewShotRow("film", "FiLMNet(query=5, rotations=True, iterations=2800)", 40.0, "–",
               "published on Meta-Dataset alone"),
)  # fmt: skip
ZERO_SHOT = (
    FewShotRow("descriptor-net", "DescriptorNet(hidden=256, rotations=True, iterations=10000)", 90.0, "–",
               "published on birds by their attributes; here a class is described by the mean of five of its images", shot=0),
)  # fmt: skip
ROWS = (*OURS, *METRIC, *OPTIMISATION, *BLACK_BOX, *FLOOR, *PUBLISHED, *FIVE_SHOT, *TWENTY_WAY, *ZERO_SHOT)


def page_lines(cells: list[Cell]) -> list[str]:
    """The page's section."""
    lines = [
        "## Few-shot classification", "", f"Protocol: {PROTOCOL}.", "",
        "The loop is an independent plain PyTorch program with the same protocol and its own random numbers"
        f" (`tests/reference/plain_few_shot.py`, `plain_optimisation.py`); ± is the standard error over seeds{_width(cells)}."
        " Plain loops of the metric methods and of those that read their support (`plain_metric.py`, `plain_black_box.py`)"
        " take single meta-gradients in the tests, and are not trained.",
    ]  # fmt: skip
    for setting in dict.fromkeys(row.setting for row in ROWS):
        way, shot = setting.split("-")[1::2]
        lines += ["", f"### {way}-way {shot}-shot", "", *HEAD]
        rows = [row for row in ROWS if row.setting == setting]
        lines += [_line(row, cells) for row in rows if own_cells(cells, row) or not row.on_request]
    lines += _curves(cells)
    waiting = ", ".join(f"`{row.name}`" for row in PUBLISHED if not own_cells(cells, row))
    if waiting:
        lines += ["", f"The published protocols, by name and with a GPU, not run yet: {waiting}."]
    return lines


def _line(row: FewShotRow, cells: list[Cell]) -> str:
    """A row of a table, with the cells of its plain loop beside its own."""
    counted = own_cells(cells, row)
    loop = [cell for cell in cells if (cell["setting"], cell["method"]) == (row.setting, f"loop {row.method}")]
    seen = [_mean(counted, key) if counted else absent(cells, row) for key in ("accuracy", "inductive")]
    learned = (
        _mean(loop, "accuracy") if loop or row in (*OURS, *OPTIMISATION) else "–"
    )  # others have no program that trains
    theirs = [learned, str(len(loop)), f"{_minutes(counted)} ({_minutes(loop)})"]
    ours = [*seen, str(len(counted)), f"{row.aim:.1f}"]
    return "| " + " | ".join([row.method, *ours, *theirs, row.published, row.differences]) + " |"


def _curves(cells: list[Cell]) -> list[str]:
    """How accuracy rose with training: whether a row that falls short was still learning."""
    lines = []
    for row in ROWS:
        curves = [_at_shares(cell["curve"]) for cell in own_cells(cells, row) if cell.get("curve")]
        if curves:
            points = [f"{100 * mean(values):.1f}" for values in zip(*curves, strict=True)]
            lines.append("| " + " | ".join([row.name.removeprefix("omniglot-"), *points]) + " |")
    if not lines:
        return []
    return [
        "", "### Learning curves", "",
        f"Accuracy in % after a share of the training, mean over seeds: {VALIDATED} episodes of background characters that it"
        " is not trained on, of the ways and shots that it is trained for, queries scored together.", "",
        "| row | " + " | ".join(f"{share:.1%}" for share in SHOWN) + " |",
        "|---|" + "---:|" * len(SHOWN),
        *lines,
    ]  # fmt: skip


def _at_shares(curve: list[list[float]]) -> list[float]:
    """A curve's scores at the points that lie next to the shares of the page."""
    last = curve[-1][0]
    return [min(curve, key=lambda point, share=share: abs(point[0] - share * last))[1] for share in SHOWN]


def _width(cells: list[Cell]) -> str:
    """The interval over episodes, as the cells of the table have it."""
    settings = {row.setting for row in ROWS}
    loops = [cell for cell in cells if cell["setting"] in settings and cell["method"].startswith("loop ")]
    shown = [*loops, *(cell for row in ROWS for cell in own_cells(cells, row))]
    widths = [100 * width for cell in shown for width in cell["half_width"]]
    if not widths:
        return ""
    middle = f"± {median(widths):.2f} in the middle"
    return f", the 95 % interval over episodes lies between ± {min(widths):.2f} and ± {max(widths):.2f}, {middle}"


def _mean(cells: list[Cell], key: str) -> str:
    return mean_and_error([100 * value for cell in cells for value in cell[key]])


def _minutes(cells: list[Cell]) -> str:
    """Processor minutes of training one start, where they were taken apart from its tests."""
    known = [cell["training seconds"] / 60 for cell in cells if "training seconds" in cell]
    return f"{mean(known):.1f}" if known else "–"
