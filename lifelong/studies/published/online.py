"""Fifty unseen characters online, class after class (Javed and White, 2019): what a start's features are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils._pytree import tree_map

from lifelong.core.loop import device_of
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import Meta
from lifelong.meta.learned import LearnedInitialisation, distribution_of
from lifelong.meta.online import online_accuracy
from lifelong.meta.pretraining import begin, events
from lifelong.notation.expression import parse
from lifelong.studies.published.rows import Cell, Row, about_machine, absent, gathered, mean_and_error, own_cells
from scenarios.datasets import load_dataset
from scenarios.episodes import class_pool

CLASSES, RUNS = 50, 10
NET = "Conv4(32, halving='stride')"
GATED = f"Gated({NET}, Conv4(16, halving='stride'))"
SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)  # of meta-training, at which the online accuracy is taken
STRATEGIES = ("FineTuning()", "Replay(size=150)", "EWC(strength=100.0, online=True)")
PROTOCOL = (
    f"the trunk of `{NET}` learns from Omniglot's 868 background characters and is frozen; a new head, by Adam, sees {CLASSES} "
    "unseen characters, 15 images each, one image at a time and class after class, once; accuracy on the 5 other images "
    f"of every character after the last. {RUNS} draws of the characters, the same for all starts; the learning rate of "
    "each start and strategy is the best of a grid on 5 other draws, scored on 3 training images of each character, "
    "which these leave out; the grid is widened until the best lies inside. All that "
    f"learn pass the same number of images forward and backward. ANML has its gate, `{GATED}`"
)
PUBLISHED = (
    "Javed and White (2019), table 2, 50 characters of 84 x 84 pixels, six convolutions of 256 channels, before the authors mended the meta-gradient in July 2020: "
    "OML online 64.72, with replay 68.16, with EWC 64.44; pre-trained online 21.16, with replay 36.72, with EWC 18.72"
)


@dataclass(frozen=True)
class OnlineRow(Row):
    """A start's row: the stage as text; "random" learns nothing."""

    method: str
    stage: str
    model: str = NET
    setting = "omniglot-online"
    rests_on = ("streams", "episodes")

    @property
    def texts(self) -> dict[str, tuple[str, str]]:
        """The stage."""
        return {"stage": ("initialisations", self.stage)}

    @property
    def protocol(self) -> str:
        """The network, and the online test with its strategies."""
        return f"omniglot-background, {self.model}, tested on {RUNS} draws of {CLASSES} classes of omniglot by {', '.join(STRATEGIES)}"

    def measure(self, seeds: tuple[int, ...], data_root: str, device: str) -> Cell:
        """Learn a start with one seed; its online accuracy along meta-training, and at the end with every strategy."""
        method, model = parse(self.stage, "initialisations"), parse(self.model, "models")
        background, evaluation = (load_dataset(name, data_root or None) for name in ("omniglot-background", "omniglot"))
        distribution = distribution_of(method, model, background, evaluation).to(device_of(device))
        wanted = {round(share * method.iterations) for share in SHARES}
        learned: dict[int, Meta] = {}
        state = begin(method, distribution, seeds)
        for event in events(method, [distribution] * len(seeds), seeds, state, episodes=0):
            if event.state.iteration in wanted:
                learned[event.state.iteration] = tree_map(lambda leaf: leaf.clone(), event.state.meta)
        unseen = class_pool(evaluation).to(distribution.device)
        test = TaskDistribution(model, unseen, unseen)

        def online(meta: Meta, strategies: tuple[str, ...]) -> list[dict[str, Any]]:
            return online_accuracy(test, LearnedInitialisation(meta, {}, seeds), CLASSES, list(strategies), RUNS)

        last = online(learned[method.iterations], STRATEGIES)
        curve = [
            [i * method.images(distribution), _only(online(meta, STRATEGIES[:1]))]
            for i, meta in sorted(learned.items())
        ]
        return {
            "images": method.images(distribution) * method.iterations if self.method != "random" else 0,
            "accuracy": [round(last[0]["mean"], 6)],
            "by strategy": [{row["method"]: round(row["mean"], 6) for row in last}],
            "rates": [{row["method"]: row["rates"][0] for row in last}],
            "per draw": last[0]["per draw"],
            "curve": curve,
            **about_machine(device),
        }


def _only(rows: list[dict[str, Any]]) -> float:
    return round(rows[0]["mean"], 6)


ROWS = (
    OnlineRow("random", "Pretrained(batch=64, iterations=0)"),
    OnlineRow("supervised", "Pretrained(batch=64, iterations=5625, outer=Adam(0.001))"),
    OnlineRow("oml", "OML(iterations=8000, outer=Adam(0.001))"),
    OnlineRow("anml", "ANML(iterations=2900, outer=Adam(0.001))", GATED),
)
COMPARED = (("oml", "random"), ("oml", "supervised"), ("anml", "supervised"), ("anml", "oml"))


def page_lines(cells: list[Cell]) -> list[str]:
    """The page's section: the table, differences paired over starts, the curve."""
    lines = ["## Fifty characters online", "", f"Protocol: {PROTOCOL}.", ""]
    found = dict.fromkeys(name for row in ROWS for c in own_cells(cells, row) for name in c["by strategy"][0])
    names = list(found or STRATEGIES)
    lines += [
        "| start | images | " + " | ".join(f"`{name}`" for name in names) + " | starts |",
        "|---|---:|" + "---:|" * (len(names) + 1),
    ]
    for row in ROWS:
        counted = own_cells(cells, row)
        by = [
            mean_and_error([100 * c["by strategy"][0][name] for c in counted if name in c["by strategy"][0]])
            for name in names
        ]
        by = by if counted else [absent(cells, row)] * len(names)
        images = str(counted[0]["images"]) if counted else "–"
        lines.append("| " + " | ".join([row.method, images, *by, str(len(counted))]) + " |")
    lines += ["", f"Published: {PUBLISHED}."]
    found_by = {row.method: gathered(cells, row) for row in ROWS}
    for name, other in COMPARED:
        shared = sorted(set(found_by[name]) & set(found_by[other]))
        if shared:
            gap = mean_and_error([100 * (found_by[name][s] - found_by[other][s]) for s in shared])
            lines += ["", f"{name} − {other}, online (the empty strategy), paired over starts: {gap} points."]
    curves = [[dict(cell["curve"]) for cell in own_cells(cells, row)] for row in ROWS[1:]]
    if any(curves):
        lines += ["", f"Along meta-training, `{STRATEGIES[0]}`:", ""]
        lines += [f"| images | {' | '.join(row.method for row in ROWS[1:])} |", f"|---:|{'---:|' * len(curves)}"]
    for images in sorted({i for curves_of_row in curves for curve in curves_of_row for i in curve}):
        points = [[100 * curve[images] for curve in curves_of_row if images in curve] for curves_of_row in curves]
        lines.append(
            f"| {images} | " + " | ".join(mean_and_error(values) if values else "" for values in points) + " |"
        )
    return lines
