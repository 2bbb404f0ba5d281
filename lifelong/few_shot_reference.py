"""Few-shot rows on Omniglot: what a few processor minutes give, beside an independent loop and the published numbers."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from lifelong.expression import parse
from lifelong.files import write
from lifelong.loop import device_of
from lifelong.meta.pretraining import pretrain
from lifelong.meta.stage import Study
from lifelong.meta.start import study_of
from lifelong.meta.testing import scored
from lifelong.metrics import estimate
from scenarios.datasets import load_table
from scenarios.episodes import pool

SEEDS = (0, 1, 2)
EPISODES = 600
NET = "Conv4(32, norm='batch', halving='stride')"
PAPER_NET = "Conv4(64, norm='batch', halving='stride')"
PROTOCOL = (
    "Omniglot, 5-way 1-shot. Classes: 868 background characters and their right angles train, the 659 evaluation "
    "characters test, unturned; 600 episodes of 15 queries a class, the same for every row. Network: "
    f"`{NET}`; batch norm by the statistics of the rows scored together, never running ones: transductive, the queries "
    "of an episode are scored together (inductive beside it: each query alone with the support). One thread"
)


@dataclass(frozen=True)
class FewShotRow:
    """A row: the stage as text, what is aimed at with it, and what is published with which differences."""

    method: str
    stage: str
    aim: float
    published: str
    differences: str
    model: str = NET

    @property
    def name(self) -> str:
        """As the command line names it."""
        return f"omniglot-5-way-1-shot-{self.method}"


ROWS = (
    FewShotRow("protonet", "ProtoNet(way=20, shot=1, query=5, rotations=True, iterations=10000)", 95.0, "98.8",
               "60-way, 64 channels with pooling, other split, until it no longer improves"),
    FewShotRow("maml", "MAML(steps=1, rate=0.4, rotations=True, iterations=4500)", 88.0, "98.7 ± 0.4",
               "64 channels, inner rate 0.4 on the sum over classes (2.0 here), 32 tasks, 60,000 iterations, 3 test steps, turned test classes"),
    FewShotRow("anil", "MAML(steps=5, rate=0.4, adapts='head', rotations=True, iterations=6000)", 89.0, "–",
               "published on 20-way: 96.2 ± 0.5"),
    FewShotRow("first-order-maml", "MAML(steps=1, rate=0.4, order=1, rotations=True, iterations=9000)", 82.0, "98.3 ± 0.5",
               "as MAML's"),
    FewShotRow("reptile", "Reptile(rotations=True, iterations=4500)", 75.0, "97.68 ± 0.04",
               "64 channels, 100,000 iterations"),
)  # fmt: skip
# the published protocols, for a machine with a GPU: `lifelong reproduce omniglot-5-way-1-shot-maml-published --device cuda`
PUBLISHED = (
    FewShotRow("protonet-published", "ProtoNet(way=60, shot=1, query=5, rotations=True, iterations=20000, outer=Adam(0.001, schedule='linear'))",
               98.8, "98.8", "other split; a linear schedule for halving every 2,000", "Conv4(64, norm='batch')"),
    FewShotRow("maml-published", "MAML(steps=1, test_steps=3, rate=2.0, tasks=32, rotations=True, iterations=60000)",
               98.7, "98.7 ± 0.4", "other split", PAPER_NET),
    FewShotRow("first-order-maml-published", "MAML(steps=1, test_steps=3, rate=2.0, order=1, tasks=32, rotations=True, iterations=60000)",
               98.3, "98.3 ± 0.5", "other split", PAPER_NET),
    FewShotRow("reptile-published", "Reptile(tasks=5, rotations=True, iterations=100000)", 97.68, "97.68 ± 0.04",
               "other split", "Conv4(64, norm='batch')"),
)  # fmt: skip


def measure(row: FewShotRow, seed: int, data_root: str, record: Path, device: str) -> str:
    """Learn a row's start with one seed, test it, append the cell to the record."""
    stage, model = parse(row.stage, "initialisations"), parse(row.model, "models")
    background, evaluation = (load_table(name, data_root or None) for name in ("omniglot-background", "omniglot"))
    study = study_of(stage, model, background, evaluation).to(device_of(device))
    began, processor = time.perf_counter(), time.process_time()
    learned = pretrain(stage, study, (seed,), episodes=0)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    meta = tree_map(lambda leaf: leaf[0], learned.meta)
    own = pool(evaluation).to(study.device)
    test = Study(model, own, own, evaluation.shape)
    found = [
        scored(stage, test, meta, own, way=5, shot=1, episodes=EPISODES, inductive=alone) for alone in (False, True)
    ]
    cell = {
        "setting": "omniglot-5-way-1-shot",
        "method": row.method,
        "stage": repr(stage),
        "model": repr(model),
        "class split": study.train.hash,
        "seeds": [seed],
        "accuracy": [round(float(found[0].scores.mean()), 6)],
        "inductive": [round(float(found[1].scores.mean()), 6)],
        "half_width": [round(found[0].half_width, 6)],
        "seconds": round(seconds, 1),
        "processor seconds": round(processor, 1),
        "torch": torch.__version__.split("+")[0],
        "device": str(study.device),
    }
    append(record, cell)
    return f"{row.name} seed {seed}: {100 * cell['accuracy'][0]:.2f} (inductive {100 * cell['inductive'][0]:.2f}) in {seconds:.0f} s"


def append(record: Path, cell: dict[str, Any]) -> None:
    """Add a cell to the record, written whole."""
    cells = json.loads(record.read_text()) if record.exists() else []
    record.parent.mkdir(parents=True, exist_ok=True)
    write(record, (json.dumps([*cells, cell], indent=1) + "\n").encode())


def missing(row: FewShotRow, cells: list[dict[str, Any]]) -> list[int]:
    """Seeds that a row still wants."""
    done = {seed for cell in cells if cell["method"] == row.method for seed in cell["seeds"]}
    return [seed for seed in SEEDS if seed not in done]


def page_lines(cells: list[dict[str, Any]]) -> list[str]:
    """The page's section on few-shot rows."""
    lines = [
        "", "## Few-shot classification", "", f"Protocol: {PROTOCOL}.", "",
        "The loop is an independent plain PyTorch program with the same protocol and its own random numbers"
        " (`tests/reference/plain_few_shot.py`); ± is the standard error over seeds, the interval over episodes is about 0.6.", "",
        "| method | ours | inductive | seeds | aim | loop | minutes (loop) | published | what differs there |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for row in ROWS + PUBLISHED:
        own = [cell for cell in cells if cell["method"] == row.method]
        loop = [cell for cell in cells if cell["method"] == f"loop {row.method}"]
        if not own and row in PUBLISHED:
            continue
        shown = [
            _mean(own, "accuracy"),
            _mean(own, "inductive"),
            str(len(own)),
            f"{row.aim:.1f}",
            _mean(loop, "accuracy"),
        ]
        minutes = " ".join(_minutes(c) if c is own else f"({_minutes(c)})" for c in (own, loop) if c)
        lines.append(f"| {row.method} | " + " | ".join([*shown, minutes, row.published, row.differences]) + " |")
    return lines


def _mean(cells: list[dict[str, Any]], key: str) -> str:
    values = 100 * torch.tensor([cell[key][0] for cell in cells if key in cell], dtype=torch.float64)
    if not len(values):
        return "not run yet"
    error = f" ± {float(values.std()) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{float(values.mean()):.2f}{error}"


def _minutes(cells: list[dict[str, Any]]) -> str:
    return f"{estimate(torch.tensor([c.get('processor seconds', c['seconds']) / 60 for c in cells])).mean:.1f}"
