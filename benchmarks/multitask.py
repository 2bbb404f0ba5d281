"""Tasks learned together, resumable: `python benchmarks/multitask.py` writes docs/multitask.json and docs/multitask.md.

Every way to weigh tasks and every surgery on their gradients beside equal weights on the same seeds; how much is shared; a
shared bottom beside a mixture of experts as tasks grow unlike; and what a step costs as there are more of them. A cell is
written as soon as it is there and not run again. All methods have their defaults, and one learning rate serves all.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.metrics import estimate, holm, multi_task_gain
from lifelong.notation.expression import parse, vocabulary
from lifelong.probes.conflict import GradientConflict, layers_of
from scenarios.catalogue import build
from scenarios.joint import isolate, joint
from scenarios.stream import Budget, Stream

EQUAL, ALONE = "FineTuning()", "each task alone"
LEFT_OUT = ("TaskWeights", "SoftSharing")  # equal weights by default; goes with one network
Cells = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """A stream that methods are put on; iterations and batch: for each task; besides: methods that only fit here."""

    name: str
    scenario: str
    model: str
    optimiser: str
    iterations: int
    batch: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    besides: tuple[str, ...] = ()
    sharing: tuple[str, ...] = ()

    def stream(self, root: str, **options: Any) -> Stream:
        """The tasks, one after another."""
        budget = Budget(iterations=self.iterations, batch=self.batch)
        return build(self.scenario, {**self.options, **options}, root=root or None, budget=budget)


PLACES = (
    Place(
        "MultiMNIST", "multi-mnist", "MLP(100, 100)", "Adam(0.002)", 150,
        sharing=(
            "SharedLayers(MLP(100, 100), 1)", "SharedLayers(MLP(100, 100), 0)",
            "SoftSharing(0.01) on SharedLayers(MLP(100, 100), 0)", "SoftSharing(0.1, decoupled=True) on SharedLayers(MLP(100, 100), 0)",
            "CrossStitch(MLP(100, 100))", "MMoE(MLP(50, 50), 4)", "Conditioned(MLP(100, 100), 'film')",
        ),
        besides=("TaskWeights((2.0, 1.0))", "TaskWeights((1.0, 2.0))"),
    ),
    Place(
        "Unbalanced: one kind of task on scales 1, 10 and 100", "unbalanced", "MLP(50, 50)", "Adam(0.002)", 200,
        besides=("TaskWeights((1.0, 0.01, 0.0001))",),
    ),
)  # fmt: skip
CORRELATIONS = (1.0, 0.75, 0.5, 0.25, 0.0)
SHARING = {"shared bottom": "MLP(32)", "MMoE": "MMoE(MLP(8), 4)", "separate networks": "SharedLayers(MLP(16), 0)"}
MOMENTS = 10  # of training, at which conflicts are looked at
COSTS = (EQUAL, "UncertaintyWeights()", "FAMO()", "GradNorm()", "PCGrad()", "CAGrad()", "NashMTL()", "AlignedMTL()")


def methods() -> list[str]:
    """All strategies that weigh tasks learned together, or combine their gradients, but those that go with one network."""
    known = vocabulary("strategies")
    together = [n for n, m in known.items() if getattr(getattr(m, "requires", None), "paradigm", "") == "joint"]
    # runs of less than an epoch have no other windows than those that they are told
    return ["DWA(window=50)" if name == "DWA" else f"{name}()" for name in together if name not in LEFT_OUT]


def learner_of(text: str, place: Place) -> Learner:
    """From the text of a strategy, of a network, or of the one on the other."""
    strategy, _, model = text.rpartition(" on ")
    if model.partition("(")[0] not in vocabulary("models"):
        strategy, model = text, place.model
    optimiser = parse(place.optimiser, "optimisers")
    return Learner(parse(model, "models"), parse(strategy or EQUAL, "strategies"), optimiser)


def measured(text: str, place: Place, root: str, seeds: list[int], alone: Any = None) -> tuple[dict[str, Any], Any]:
    """Scores of each seed and task after all phases, the gain over each task alone, and processor seconds of a seed."""
    stream = place.stream(root)
    began = time.process_time()
    learner = learner_of(EQUAL if text == ALONE else text, place)
    result = run(learner, isolate(stream) if text == ALONE else joint(stream), seeds)
    seconds = (time.process_time() - began) / len(seeds)
    ends = result.at_task_ends
    scores = ends.diagonal(dim1=1, dim2=2) if text == ALONE else ends[:, -1]
    gain = multi_task_gain(result, alone).tolist() if alone is not None else []
    return {"by_task": scores.tolist(), "gain": gain, "seconds": round(seconds, 2)}, result


def tables(places: tuple[Place, ...], root: str, seeds: int, note: Callable[[str, str, Any], None], there: Any) -> None:
    """Every method and every way to share on every place."""
    for place in places:
        wanted = [EQUAL, *methods(), *place.besides, *place.sharing]
        if all(there(place.name, text) for text in (ALONE, *wanted)):
            continue
        cell, alone = measured(ALONE, place, root, list(range(seeds)))
        note(place.name, ALONE, cell)
        for text in wanted:
            if not there(place.name, text):
                note(place.name, text, measured(text, place, root, list(range(seeds)), alone)[0])


def correlations(draws: int, iterations: int, note: Callable[[str, str, Any], None], there: Any) -> None:
    """A shared bottom, a mixture of experts and separate networks, of as many units, on tasks drawn anew for each seed."""
    for correlation in CORRELATIONS:
        place = Place("", "correlated", "MLP(32)", "Adam(0.003)", iterations, options={"correlation": correlation})
        for name, model in SHARING.items():
            key = f"{name} at {correlation:g}"
            if there("correlation", key):
                continue
            scores = []
            for draw in range(draws):
                stream = joint(place.stream("", draw=draw))
                scores.append(run(learner_of(model, place), stream, [draw]).at_task_ends[0, -1].mean().item())
            note("correlation", key, {"scores": scores})


def conflicts(
    places: tuple[Place, ...], root: str, seeds: int, note: Callable[[str, str, Any], None], there: Any
) -> None:
    """How often two tasks pull a layer of the shared network in opposite directions, along training with equal weights."""
    probe = GradientConflict()
    for place in places:
        if there("conflict", place.name):
            continue
        stream, learner = joint(place.stream(root)), learner_of(EQUAL, place)
        every = max(1, stream.budget.iterations // MOMENTS)
        result = run(learner, stream, list(range(seeds)), eval_every=every, probes=(probe,))
        shares = result.probes[probe.name]  # [S, moments, layers]
        net = learner.model.init(stream.dataset.shape, 2, torch.Generator())
        note("conflict", place.name, {"layers": layers_of(net), "shares": shares.tolist()})


def costs(counts: tuple[int, ...], iterations: int, note: Callable[[str, str, Any], None], there: Any) -> None:
    """Processor milliseconds of a step on 64 rows, one seed, as the rows belong to more tasks."""
    for tasks in counts:
        for text in COSTS:
            key = f"{text} with {tasks}"
            if there("cost", key):
                continue
            spent = []
            for times in (1, 3):  # what is not a step, such as recording and evaluations, is in both
                options = {"tasks": tasks, "ratio": 1.0, "outputs": 2}
                each = max(1, iterations // tasks) * times
                place = Place("", "unbalanced", "MLP(100, 100)", "Adam(0.001)", each, options=options)
                began = time.process_time()
                run(learner_of(text, place), joint(place.stream("")), [0])
                spent.append(time.process_time() - began)
            steps = 2 * tasks * max(1, iterations // tasks)
            note("cost", key, {"milliseconds": round(1e3 * (spent[1] - spent[0]) / steps, 3)})


# --- the page ---------------------------------------------------------------------------------------------------------


def paired(values: torch.Tensor) -> float:
    """The p-value of no difference (Student's t, paired)."""
    from scipy import stats

    return float(stats.ttest_1samp(values.numpy(), 0).pvalue) if values.std() > 1e-9 else float(not values.abs().any())


def means(cell: dict[str, Any]) -> torch.Tensor:
    """The mean over tasks [S]."""
    return torch.tensor(cell["by_task"], dtype=torch.float64).mean(1)


def signed(text: str) -> str:
    """With its sign."""
    return text if text.startswith(("-", "–")) else f"+{text}"


def section(title: str, here: Cells, texts: list[str], base: str = "equal weights") -> list[str]:
    """A table of cells, best first, and whether any of them is more than the plain joint run, called `base`."""
    texts = [text for text in texts if text in here]
    gaps = {text: means(here[text]) - means(here[EQUAL]) for text in texts}
    sure = dict(zip(texts, holm([paired(gaps[text]) for text in texts]), strict=True))
    tasks = len(here[EQUAL]["by_task"][0])
    lines = [f"### {title}", "", f"| | mean | − {base} | p (Holm) | {' | '.join(f'task {t + 1}' for t in range(tasks))} | delta-m | seconds |"]  # fmt: skip
    lines += [f"|---|---:|---:|---:|{'---:|' * tasks}---:|---:|"]
    for text in sorted([ALONE, EQUAL, *texts], key=lambda name: -means(here[name]).mean().item()):
        if text not in here:
            continue
        cell, each = here[text], torch.tensor(here[text]["by_task"]).mean(0)
        name = {EQUAL: base, ALONE: ALONE}.get(text, f"`{text}`")
        gap = signed(estimate(gaps[text]).text(2)) if text in gaps else ""
        p = f"{sure[text]:.3f}" if text in sure else ""
        gain = signed(estimate(torch.tensor(cell["gain"])).text(1)) if cell["gain"] else ""
        alone = torch.tensor(here[ALONE]["by_task"]).mean(0)  # what each task gives alone
        gains = ["" if text == ALONE else f" ({100 * gap:+.1f})" for gap in (each - alone).tolist()]
        by_task = " | ".join(f"{100 * value:.1f}{gain}" for value, gain in zip(each.tolist(), gains, strict=True))
        gap = f"**{gap}**" if text in sure and sure[text] < 0.05 else gap
        lines.append(f"| {name} | {estimate(means(cell)).text(2)} | {gap} | {p} | {by_task} | {gain} | {cell['seconds']:.1f} |")  # fmt: skip
    better = [text for text in texts if sure[text] < 0.05 and gaps[text].mean() > 0]
    worse = [text for text in texts if sure[text] < 0.05 and gaps[text].mean() < 0]
    lines += ["", f"Measurably better than {base}: {_listed(better)}; measurably worse: {_listed(worse)}. All others: no measurable gain.", ""]  # fmt: skip
    return lines


def _listed(texts: list[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts) or "none"


def experts(cells: Cells) -> list[str]:
    """The question about experts, and its answer."""
    lines = ["## Does a mixture of experts degrade less as tasks grow unlike?", ""]
    lines += [
        f"| correlation | {' | '.join(SHARING)} | MMoE − shared bottom |",
        f"|---:|{'---:|' * (len(SHARING) + 1)}",
    ]
    scores = {key: torch.tensor(cell["scores"], dtype=torch.float64) for key, cell in cells.items()}
    for c in CORRELATIONS:
        row = [scores[f"{name} at {c:g}"] for name in SHARING]
        gap = signed(estimate(row[1] - row[0]).text(2))
        lines.append(f"| {c:g} | {' | '.join(estimate(values).text(2) for values in row)} | {gap} |")
    high, low = CORRELATIONS[0], CORRELATIONS[-1]
    lost = {name: scores[f"{name} at {high:g}"] - scores[f"{name} at {low:g}"] for name in list(SHARING)[:2]}
    less = lost["shared bottom"] - lost["MMoE"]
    p = paired(less)
    answer = "no measurable difference" if p >= 0.05 else ("yes" if less.mean() > 0 else "no, it degrades more")
    lines += ["", f"From correlation {high:g} to {low:g} the shared bottom loses {estimate(lost['shared bottom']).text(2)} and the mixture {estimate(lost['MMoE']).text(2)}; the mixture loses {signed(estimate(less).text(2))} less (paired over {len(less)} draws of the tasks, p = {p:.3f}): {answer}.", ""]  # fmt: skip
    return lines


def conflict_tables(cells: Cells) -> list[str]:
    """Shares before learning and along it, layer by layer."""
    lines = ["## Where gradients are in conflict", ""]
    for name, cell in cells.items():
        shares = torch.tensor(cell["shares"], dtype=torch.float64)
        along = f"mean of {shares.shape[1] - 1} moments of learning"
        moments = {"before learning": shares[:, 0], along: shares[:, 1:].mean(1)}
        lines += [f"{name}: pairs of tasks whose gradients have a negative cosine, %", ""]
        lines += [f"| | {' | '.join(cell['layers'])} |", f"|---|{'---:|' * len(cell['layers'])}"]
        for words, found in moments.items():
            lines.append(f"| {words} | {' | '.join(estimate(layer).text(0) for layer in found.T)} |")
        lines.append("")
    return [*lines, "Equal weights, on 200 training rows of each task. A symptom and no proof: what it costs stands in the tables above.", ""]  # fmt: skip


def cost_table(cells: Cells) -> list[str]:
    """Milliseconds of a step by method and number of tasks."""
    counts = list(dict.fromkeys(int(key.rpartition(" ")[2]) for key in cells))
    lines = ["## What a step costs as there are more tasks", "", f"| | {' | '.join(f'{t} tasks' for t in counts)} |"]
    lines += [f"|---|{'---:|' * len(counts)}"]
    for text in COSTS:
        row = [f"{cells[f'{text} with {t}']['milliseconds']:.2f}" for t in counts]
        lines.append(f"| {'equal weights' if text == EQUAL else f'`{text}`'} | {' | '.join(row)} |")
    return [*lines, "", "Milliseconds of a step of one seed on 64 rows in all, MLP(100, 100), on one thread: processor time of three times as many steps less that of so many. Weights cost a pass or two whatever the number of tasks; surgery takes a gradient for each task, over its share of the rows.", ""]  # fmt: skip


INTRODUCTION = """# Tasks learned together

Written by `python benchmarks/multitask.py`. In a table all rows have the same budget, learning rate and seeds; methods have their
defaults (DWA windows of 50 steps, for no run has an epoch), and no number was tuned for any of them: another rate or budget may
order them otherwise. Scores in %, mean ± half-width of the 95 % interval over seeds: accuracy, or for tasks of numbers
100 (1 − mean square error / variance). In brackets, a task's gain over its
own network. Differences are paired over seeds; p by Student's t, corrected by Holm within a table;
bold where p < 0.05. delta-m: mean relative gain over each task's own network of the same size, trained on as many rows of the task.
Seconds: processor seconds of a seed in a fleet."""


def page(cells: dict[str, Cells], places: tuple[Place, ...]) -> str:
    """docs/multitask.md."""
    lines = [INTRODUCTION, ""]
    for place in places:
        here = cells.get(place.name, {})
        if EQUAL not in here:
            continue
        seeds = len(here[EQUAL]["by_task"])
        lines += [f"## {place.name}", "", f"`{place.model}`, `{place.optimiser}`, {place.iterations} steps of {place.batch} rows for each task, {seeds} seeds.", ""]  # fmt: skip
        lines += section("Weights and surgery", here, [*methods(), *place.besides])
        if place.sharing:
            lines += section("How much is shared", here, list(place.sharing), "a shared trunk")
            lines += [
                "Networks that share less are larger: separate ones have as many weights as there are tasks times those of the trunk.",
                "",
            ]
    if len(cells.get("correlation", {})) == len(CORRELATIONS) * len(SHARING):
        lines += experts(cells["correlation"])
    if cells.get("conflict"):
        lines += conflict_tables(cells["conflict"])
    if cells.get("cost"):
        lines += cost_table(cells["cost"])
    return "\n".join(lines)


def main(words: list[str] | None = None, places: tuple[Place, ...] = PLACES) -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA", ""))
    parser.add_argument("--output", type=Path, default=Path("docs/multitask.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=24, help="of correlated tasks")
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--table-only", action="store_true")
    chosen = parser.parse_args(words)
    torch.set_num_threads(1)

    def cells() -> dict[str, Cells]:
        return json.loads(chosen.output.read_text()) if chosen.output.exists() else {}

    def note(group: str, key: str, cell: dict[str, Any]) -> None:
        found = cells()
        found.setdefault(group, {})[key] = cell
        chosen.output.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{group}: {key}", flush=True)

    def there(group: str, key: str) -> bool:
        return key in cells().get(group, {})

    if not chosen.table_only:
        short = [replace(place, iterations=2, batch=8) for place in places] if chosen.tiny else places
        tables(tuple(short), chosen.data_root, chosen.seeds, note, there)
        conflicts(tuple(short), chosen.data_root, chosen.seeds, note, there)
        correlations(chosen.draws, 3 if chosen.tiny else 300, note, there)
        costs((2, 3) if chosen.tiny else (2, 4, 8), 6 if chosen.tiny else 160, note, there)
    chosen.output.with_suffix(".md").write_text(page(cells(), places))


if __name__ == "__main__":
    main()
