"""What a GPU has to show, in one command of at most eight minutes: `make gpu`, or `python benchmarks/gpu.py`.

Runs from the tree, on any device, with torch, numpy, safetensors and scikit-learn alone; nothing is downloaded. Each part
has a share of the time, which passes on what it leaves, and fails alone: its error is a line of the report, and the exit
code is then 1. Writes its section of docs/speed.md, and docs/speed-gpu.json, after every part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
try:
    import torch
    from meta_speed import PROGRESS, RATE, Torch, by_higher
    from page import write_section
    from timing import Steps, interleaved, wait

    from lifelong.contracts.learners import (
        _learner,
        first_setting,
        largest_gap,
        runs_on_any_device,
        stream_for,
    )
    from lifelong.core.learner import AnyLearner, Learner
    from lifelong.core.loop import Session, Stepped, device_of, learned, run
    from lifelong.core.recorded import NotRecorded
    from lifelong.learners.nearest_class_mean import NearestClassMean
    from lifelong.meta.distribution import TaskDistribution
    from lifelong.meta.maml import MAML
    from lifelong.meta.pretraining import recorded
    from lifelong.metrics import average_accuracy, forgetting, forward_transfer
    from lifelong.models.convolutional import Conv4
    from lifelong.models.perceptron import MLP
    from lifelong.notation.expression import parse, vocabulary
    from lifelong.optimisers.adam import Adam
    from lifelong.studies.published.split_mnist import ROWS, SplitMnistRow
    from scenarios.catalogue import build, find
    from scenarios.datasets import dataset_from_arrays, default_root, load_dataset
    from scenarios.episodes import class_pool
    from scenarios.errors import ConfigurationError
    from scenarios.joint import joint
    from scenarios.split import split
    from scenarios.stream import Budget, Dataset, generator
except ModuleNotFoundError as error:
    print(f"{error.name} is missing, and benchmarks/gpu.py needs it: pip install {error.name}", file=sys.stderr)
    raise SystemExit(2) from None

Cell = tuple[str, str, float | str]  # row, column, value
# the contract across devices, as tests/contracts has it: float64, and an Adam that makes no full steps of rounding errors
SMOOTH = Adam(0.01, epsilon=1e-4)
RELATIVE, ABSOLUTE = 1e-7, 1e-9
SAME = 1e-12  # what is learned alone and in a fleet, recorded and eager: on one device, in float64
METHODS = {"fine-tuning": "FineTuning()", "EWC": "EWC()", "replay": "Replay(size=1000)"}


class OutOfTime(Exception):
    """A part that took much longer than its share."""


@dataclass
class Bench:
    """What a part is given: the device, whether all is to be small, where data lie, when it should be through.

    left_out: what there was no time for. broken: what did not hold.
    """

    device: torch.device
    tiny: bool
    data_root: Path
    deadline: float
    left_out: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def late(self, name: str) -> bool:
        """Whether there is no time left for something, which is then noted."""
        if time.monotonic() > self.deadline:
            self.left_out.append(name)
            return True
        return False

    @contextmanager
    def going_on(self, name: str) -> Iterator[None]:
        """What fails in here is noted, and the part goes on."""
        try:
            yield
        except OutOfTime:
            raise
        except Exception as error:  # a device may refuse anything; the report is to say all of it
            self.broken.append(f"{name}: {words_of(error)}")

    def within(self, name: str, gap: float, limit: float) -> float:
        """The gap, which is noted as broken where it is beyond the limit."""
        if not gap <= limit:
            self.broken.append(f"{name}: {gap:.3g} is above {limit:.3g}")
        return gap

    def close(self, name: str, seen: torch.Tensor, expected: torch.Tensor) -> float:
        """The largest gap between two devices, which is noted as broken where the contract does not allow it."""
        gap = (seen - expected).abs()
        self.within(name, float((gap - RELATIVE * expected.abs()).max()), ABSOLUTE)
        return float(gap.max())


@dataclass(frozen=True)
class Part:
    """A part of the report: its share of the time, what it measures, and a note for the page."""

    title: str
    share: float
    measure: Callable[[Bench], Iterator[Cell]]
    note: str


# --- how steps can be taken ---------------------------------------------------------------------------------------


# how a session is asked to take its steps: operation by operation; recorded at once and played back, on a GPU as captured
# graphs; compiled
MODES: dict[str, dict[str, Any]] = {
    "recorded": {"record": True},
    "eager": {"record": False},
    "compiled": {"compiled": True},
}


def images(train: int, test: int, classes: int = 10) -> Dataset:
    """Random rows of MNIST's shape."""
    x = torch.randint(256, (train + test, 28, 28), generator=generator("gpu", "rows"), dtype=torch.uint8)
    y = torch.arange(train + test) % classes
    return dataset_from_arrays("synthetic", x[:train], y[:train], x[train:], y[train:])


# --- the parts ----------------------------------------------------------------------------------------------------


def contracts(bench: Bench) -> Iterator[Cell]:
    """Every method on the device: as on the processor, alone as in a fleet, recorded as eager, its verbs anywhere."""
    made = [make() for kind in ("strategies", "learners") for make in vocabulary(kind).values()]
    made += [parse("EWC(strength=10.0) + Replay(size=20)", "strategies")]
    for subject in made[-1:] if bench.tiny else made:
        name, learner = repr(subject), _learner(subject, SMOOTH)
        if learner.looped or bench.late(name):
            continue
        with bench.going_on(name):
            yield from contract(bench, name, subject, learner)


def contract(bench: Bench, name: str, subject: Any, learner: AnyLearner) -> Iterator[Cell]:
    """Those of one method."""
    stream = stream_for(subject, first_setting(subject))
    there, double = stream.to(bench.device), {"dtype": torch.float64, **MODES["eager"]}
    expected, _ = learned(Session(learner, stream, [1, 3, 4], **double))
    result, state = learned(Session(learner, there, [1, 3, 4], **double))
    yield name, "losses and the processor's", bench.close(f"{name}, losses", result.losses, expected.losses)
    gap = largest_gap(result.accuracy, expected.accuracy)
    yield name, "accuracies and the processor's", bench.within(f"{name}, accuracies", gap, 0.0)
    _, alone = learned(Session(learner, there, [3], **double))
    gap = largest_gap(leaves(alone), [leaf[1:2] for leaf in leaves(state)])
    yield name, "alone and in a fleet", bench.within(f"{name}, alone", gap, SAME)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotRecorded)
        _, played = learned(Session(learner, there, [1, 3, 4], **double | MODES["recorded"]))
    gap = largest_gap(leaves(played), leaves(state))
    yield name, "recorded and eager", bench.within(f"{name}, recorded", gap, SAME)
    runs_on_any_device(subject)
    yield name, "verbs on any device", "yes"


def leaves(state: Any) -> list[torch.Tensor]:
    """What was learned: parameters and memory."""
    return torch.utils._pytree.tree_leaves((state.params, state.memory))


TEN = (
    "NearestClassMean()", "FineTuning()", "EWC()", "SI()", "MAS()", "LwF()", "Replay(size=200)",
    "ClassReplay(per_class=20)", "DERPlusPlus()", "AGEM()",
)  # fmt: skip
MEASURES = {"accuracy": average_accuracy, "forgetting": forgetting, "forward transfer": forward_transfer}


def agreement(bench: Bench) -> Iterator[Cell]:
    """Accuracy, forgetting and forward transfer of ten methods, on the processor and on the device."""
    budget, model = Budget(iterations=3 if bench.tiny else 100, batch=32), MLP(100, 100)
    stream = build(find("split-digits"), setting="domain", budget=budget)
    for name in TEN[:2] if bench.tiny else TEN:
        if bench.late(name):
            continue
        closed = name == TEN[0]
        learner = NearestClassMean(model=model) if closed else Learner(model, parse(name, "strategies"), SMOOTH)
        devices = ("cpu", str(bench.device))
        with bench.going_on(name):
            here, there = (run(learner, stream, range(3), dtype=torch.float64, device=place) for place in devices)
            for word, measure in MEASURES.items():
                expected, seen = 100 * measure(here), 100 * measure(there)
                yield name, f"{word}: processor", float(expected.mean())
                yield name, f"{word}: device", float(seen.mean())
                yield name, f"{word}: gap", bench.close(f"{name}, {word}", seen, expected)


FLEETS = (1, 20, 200, 1000)
REGIMES = {"784-400-400": (MLP(400, 400), 128), "784-100-100": (MLP(100, 100), 10), "Conv4(32)": (Conv4(32), 10)}
TINY = {"784-8": (MLP(8), 10), "Conv4(8)": (Conv4(8), 2)}


def speed(bench: Bench) -> Iterator[Cell]:
    """Steps of a whole fleet a second."""
    dataset, regimes = images(1000, 100).to(bench.device), TINY if bench.tiny else REGIMES
    fleets = (2,) if bench.tiny else FLEETS
    modes = ("recorded", "eager")
    cases = [(seeds, *words) for seeds in fleets for words in itertools.product(regimes, METHODS, modes)]
    cases += [] if bench.tiny else [(20, name, "fine-tuning", "compiled") for name in list(regimes)[:2]]
    for seeds, name, method, mode in cases:
        model, batch = regimes[name]
        row, column = f"{name}, batch {batch}, {method}, {mode}", f"{seeds} seed{'s' * (seeds > 1)}"
        if bench.late(f"{row}, {column}"):
            continue
        stream = split(dataset, 5, "class", budget=Budget(iterations=256, batch=batch))
        learner = Learner(model, parse(METHODS[method], "strategies"))
        with bench.going_on(f"{row}, {column}"):
            try:
                steps = Steps(Session(learner, stream, range(seeds), **MODES[mode]))
                first = steps.seconds(1)
                yield row, column, 1 / steps.seconds(2 if bench.tiny else max(1, min(128, int(0.7 / first))))
            except torch.OutOfMemoryError:
                yield row, column, "out of memory"
        steps = None
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


TENTH = 10


def published_table(bench: Bench) -> Iterator[Cell]:
    """Each row of the Split-MNIST table: seconds at a tenth of its iterations, and what the whole row will take."""
    entry, dataset = find("split-mnist"), mnist(bench)
    budget = replace(entry.budget, iterations=2 if bench.tiny else entry.budget.iterations // TENTH)
    rows, minutes = ROWS[::9] if bench.tiny else ROWS, {}
    for row in rows:
        if bench.late(row.name):
            continue
        stream = split(dataset, setting=row.setting, budget=budget, **entry.options).to(bench.device)
        stream = joint(stream) if row.baseline == "joint" else stream
        strategy = parse(row.strategy, "strategies")
        learner = Learner(parse(entry.model, "models"), strategy, parse(entry.optimiser, "optimisers"))
        with bench.going_on(row.name):
            steps, rest = seconds_of(Session(learner, stream, range(2 if bench.tiny else 5)))
            times = entry.budget.iterations / budget.iterations
            minutes[row.name] = chunks(row) * (times * steps + rest) / 60
            yield row.name, f"seconds, {budget.iterations} iterations a task", steps + rest
            yield row.name, "minutes, the whole row", minutes[row.name]
    if minutes:
        whole = sum(minutes.values()) * len(rows) / len(minutes)
        yield f"the table, from {len(minutes)} of {len(rows)} rows", "minutes, the whole row", whole


def chunks(row: SplitMnistRow) -> int:
    """Fleets that a row of the table is measured by, before anything is known of it."""
    return len(row.chunks([]))


def mnist(bench: Bench) -> Dataset:
    """MNIST, where its files lie in the data folder and can be read; else random rows of its shape."""
    cached, raw = bench.data_root / "datasets" / "mnist.safetensors", bench.data_root / "MNIST" / "raw"
    if not bench.tiny and (cached.exists() or (raw.is_dir() and find_spec("torchvision"))):
        return load_dataset("mnist", bench.data_root)
    return images(1000, 100) if bench.tiny else images(60_000, 10_000)


def seconds_of(session: Session) -> tuple[float, float]:
    """Seconds of a run's steps, and of all else: the first step, which a GPU records, evaluations, task ends."""
    wait(session.device)
    began = mark = time.perf_counter()
    steps, taken = 0.0, 0
    for event in session.events(session.begin()):
        taken += isinstance(event, Stepped)
        if isinstance(event, Stepped) and taken > 1 and not event.last:
            continue
        wait(session.device)
        if isinstance(event, Stepped) and taken > 1:
            steps += time.perf_counter() - mark
        mark = time.perf_counter()
    return steps, time.perf_counter() - began - steps


def meta_iteration(bench: Bench) -> Iterator[Cell]:
    """One second-order meta-gradient of MAML, recorded and played back, beside higher's by a loop over tasks."""
    pool = class_pool(images(400, 40, 20))
    model, count = (Conv4(8, norm="batch"), 2) if bench.tiny else (Conv4(32, norm="batch"), 16)
    study = TaskDistribution(model, pool, pool).to(bench.device)
    for steps in (1,) if bench.tiny else (1, 5):
        name = f"{steps} inner step{'s' * (steps > 1)}"
        if bench.late(name):
            continue
        method = MAML(steps=steps, rate=RATE, tasks=count, query=1)
        meta, drawn = method.init(study, generator(0)), method.draw(study, generator(1))
        meta = {"net": {key: leaf.to(bench.device) for key, leaf in meta["net"].items()}}
        gradient, progress = partial(method.gradient, study), PROGRESS.to(bench.device)
        play = gradient if bench.tiny else recorded(gradient)  # which takes seconds
        work: dict[str, Callable[[], Any]] = {"ours": lambda: float(play(meta, drawn, progress)[0])}  # noqa: B023
        if find_spec("higher"):
            tasks = [
                (sx.float()[:, None] / 255, sy, qx.float()[:, None] / 255, qy)
                for sx, sy, qx, qy in zip(drawn.support_x, drawn.support_y, drawn.query_x, drawn.query_y, strict=True)
            ]
            work["higher"] = by_higher(Torch(meta["net"]).to(bench.device), tasks, steps)
        losses = {key: call() for key, call in work.items()}
        seconds = interleaved(work, 1 if bench.tiny else 3, bench.device)
        yield name, "ours, ms", 1e3 * seconds["ours"]
        if "higher" not in work:
            yield name, "higher / ours", "higher is not installed"
            continue
        yield name, "higher / ours", seconds["higher"] / seconds["ours"]
        yield name, "gap of the losses", abs(losses["higher"] - losses["ours"])


PARTS = (
    Part(
        "Contracts on the device",
        0.25,
        contracts,
        "The largest gaps of every method on a stream of milliseconds, in float64. Losses may differ from the processor's by"
        " 1e-7 of them and 1e-9, accuracies not at all; what is learned alone and in a fleet, recorded and eagerly, by 1e-12.",
    ),
    Part(
        "The same accuracies as the processor's",
        0.15,
        agreement,
        "Split digits, domain-incremental, 5 tasks, 3 seeds, float64; per cent, and the largest gap of a seed, which the"
        " contract bounds by 1e-7 of the number. Adam(0.01, epsilon=0.0001), as in the contract.",
    ),
    Part(
        "Steps a second",
        0.35,
        speed,
        "Of a whole fleet: times its seeds for steps of single learners. Adam, float32 with torch's own settings, batches"
        " drawn and gathered, losses noted; random rows of MNIST's shape. Recorded steps are captured as graphs on a GPU.",
    ),
    Part(
        "The Split-MNIST table",
        0.2,
        published_table,
        "Every row of docs/reference.md's table by a fleet of 5 seeds at a tenth of its iterations, on MNIST where it is at"
        " hand; projected: the steps ten times, all else once, for as many fleets as the row asks for.",
    ),
    Part(
        "A meta-iteration of MAML",
        0.05,
        meta_iteration,
        "Second order: Conv4 of 32 channels with batch statistics, 16 tasks of 5 ways, 1 shot and 1 query a class; ours"
        " recorded and played back.",
    ),
)


# --- the report ---------------------------------------------------------------------------------------------------


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime where the block takes longer."""

    def stop(*_: Any) -> None:
        raise OutOfTime(f"stopped after {seconds:.0f} s, well beyond its share of the time")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def words_of(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def run_part(part: Part, bench: Bench, limit: float) -> dict[str, Any]:
    """A part's figures, its seconds and peak memory, and what went wrong; what was measured before that stays."""
    began, rows, error = time.monotonic(), {}, ""
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    try:
        with limited(limit):
            for row, column, value in part.measure(bench):
                rows.setdefault(row, {})[column] = value
    except Exception as failure:  # whatever happens to one part, the others are run
        error = words_of(failure)
    return {
        "note": part.note,
        "rows": rows,
        "seconds": round(time.monotonic() - began, 1),
        "peak": peak(bench.device),
        "left out": bench.left_out,
        "error": "; ".join([*([error] if error else []), *bench.broken]),
    }


def peak(device: torch.device) -> str:
    """The most memory that a part held on a GPU; of a processor, the process's so far."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9:.2f} GB of the process so far"


def machine(device: torch.device) -> dict[str, str]:
    """Where and when it ran."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else f"{device}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def shown(value: Any) -> str:
    """A value as a table shows it."""
    return f"{value:.4g}" if isinstance(value, float | int) else str(value)


def section(title: str, part: dict[str, Any]) -> list[str]:
    """A part as the page shows it."""
    columns = list(dict.fromkeys(column for values in part["rows"].values() for column in values))
    lines = [f"### {title}", "", part["note"], f"{part['seconds']:.0f} s; peak memory {part['peak']}.", ""]
    if part["error"]:
        lines += [f"**Failed**: {part['error']}", ""]
    if columns:
        lines += ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
        for row, values in part["rows"].items():
            lines.append(f"| {row} | " + " | ".join(shown(values.get(column, "")) for column in columns) + " |")
        lines.append("")
    if part["left out"]:
        lines += [f"Left out for want of time: {'; '.join(part['left out'])}.", ""]
    return lines


def write_report(found: dict[str, Any], output: Path, page: Path) -> None:
    """The record, and the section of the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    about = ", ".join(f"{word} {value}" for word, value in found["machine"].items())
    lines = ["## On a GPU", "", f"By `make gpu`: {about}.", ""]
    for title, part in found["parts"].items():
        lines += section(title, part)
    write_section(page, "gpu", lines[:-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where a part failed, 2 where the device cannot be used."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda")
    words.add_argument("--tiny", action="store_true", help="seconds instead of minutes: whether it works at all")
    words.add_argument("--budget-seconds", type=float, default=480.0)
    words.add_argument("--data-root", type=Path, default=os.environ.get("LIFELONG_DATA"))
    words.add_argument("--output", type=Path, default=ROOT / "docs" / "speed-gpu.json")
    words.add_argument("--page", type=Path, default=ROOT / "docs" / "speed.md")
    chosen = words.parse_args(arguments)
    began = time.monotonic()
    try:
        device = device_of(chosen.device)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    found: dict[str, Any] = {"machine": machine(device), "parts": {}}
    print(", ".join(f"{word} {value}" for word, value in found["machine"].items()), flush=True)
    for place, part in enumerate(PARTS):
        left = 0.97 * chosen.budget_seconds - (time.monotonic() - began)
        share = left * part.share / sum(other.share for other in PARTS[place:])
        bench = Bench(device, chosen.tiny, Path(chosen.data_root or default_root()), time.monotonic() + share)
        found["parts"][part.title] = measured = run_part(part, bench, min(1.25 * share + 2, left))
        print("\n".join(section(part.title, measured)), flush=True)
        write_report(found, chosen.output, chosen.page)
    failed = [title for title, part in found["parts"].items() if part["error"]]
    print(f"failed: {', '.join(failed)}" if failed else f"all {len(PARTS)} parts are through", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
