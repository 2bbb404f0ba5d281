"""What a step of every method costs, as a multiple of fine-tuning's, beside the passes that its definition asks for; and
whether time and memory stay flat in the number of tasks. Prints both, and puts them into docs/cost.json and docs/cost.md.

Seconds are the processor's, and what is compared is measured in turn, so that others on the machine do not count. Every
method is written when it is done, and one that is there is not measured again: --again does. Under "why" docs/cost.json
has a sentence on each method that costs more than its definition asks for, or grows; who finds the reason writes it there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from methods import Place, learner_of, options_of, own_methods, texts_of
from timing import Steps, in_turn, repeated

from lifelong.core.loop import Session
from lifelong.models.perceptron import MLP
from lifelong.models.shared_layers import SharedLayers
from lifelong.runs.memory_budget import kept
from scenarios.datasets import load_dataset
from scenarios.errors import ConfigurationError
from scenarios.split import split
from scenarios.stream import Budget, Dataset
from scenarios.transformed import permuted

SEEDS, BATCH, TOGETHER = 5, 128, 8
PLACE = Place("cost", "split-mnist", "class", SEEDS, 1000)
TASKS = (5, 20, 100)
WIDE, NARROW = MLP(400, 400), MLP(50, 50)
OF_EACH_TASK = ("SoftSharing",)  # each task has its own network: the scenario's will not do
LARGEST = 1_000_000_000  # what keeps more bytes with 100 tasks, or has as many networks, is measured on the narrow one
LEAST = 1.3  # above so many times what its passes take, or of what it takes with 5 tasks, a method is looked at


def steps_of(learner: Any, stream: Any) -> Steps:
    """The steps of the second task, when penalties, teachers and memories are there; recorded."""
    return Steps(Session(learner, stream, list(range(SEEDS)), record=True), after=1)


def with_few_answers(dataset: Dataset) -> Dataset:
    """A data set with its first 100 test rows: what evaluations cost is not measured, and 100 tasks have 10,000 of them."""
    kept_rows = dataset.train_rows + 100
    return replace(dataset, x=dataset.x[:kept_rows], y=dataset.y[:kept_rows])


def on_its_network(learner: Any, name: str, model: MLP = WIDE) -> Any:
    """A learner on the network that a method needs, where the scenario's will not do."""
    if name in OF_EACH_TASK:
        return replace(learner, model=SharedLayers(model, depth=0))
    return learner if model == WIDE else replace(learner, model=model)


def fitting(name: str, make: Any, settings: Sequence[str] = ("class", "task", "domain")) -> tuple[Any, Any]:
    """A learner and the first setting's stream that it goes with; raises the last refusal where none does."""
    refusal: Exception = ConfigurationError("no setting")
    for setting in settings:
        place = replace(PLACE, setting=setting)
        learner = on_its_network(learner_of(texts_of(name, place)[0], place), name)
        try:
            stream = make(setting, **options_of(learner, place))
            Session(learner, stream, [0])
        except ConfigurationError as error:
            refusal = error
            continue
        return learner, stream
    raise refusal


def step_costs(names: list[str], root: str, rounds: int) -> dict[str, dict[str, float]]:
    """Of each method: steps as multiples of fine-tuning's; nothing of what takes a task's rows in one piece."""
    dataset = with_few_answers(load_dataset("mnist", root or None))
    found: dict[str, dict[str, float]] = {}

    def make(setting: str, **options: Any) -> Any:
        return split(dataset, 5, setting, budget=Budget(iterations=40, batch=BATCH), **options)

    for name in names:
        try:
            learner, stream = fitting(name, make)
            steps = {
                "tuned": steps_of(on_its_network(learner_of("FineTuning()", PLACE), name), make(stream.setting)),
                "step": steps_of(learner, stream),
            }
            seconds = in_turn({key: partial(value.seconds, TOGETHER) for key, value in steps.items()}, rounds)
        except ConfigurationError as reason:
            print(f"  {name}: {reason}", flush=True)
            continue
        except ValueError as reason:  # a task's rows are taken in one piece, and nothing of it is a step
            print(f"  {name}: {reason}", flush=True)
            found[name] = {}
            continue
        found[name] = {"measured": seconds["step"] / seconds["tuned"]}
        print(f"  {name}: {found[name]['measured']:.2f}, by its passes {by_passes(name):.2f}", flush=True)
    return found


def by_passes(name: str, tasks: int = 5) -> float:
    """What a method's passes would take on batches as they are timed here, as a multiple of fine-tuning's; of the tasks
    that are learned together, all."""
    method = own_methods()[name]()
    forward, backward = (
        first + (tasks - 1) * each for first, each in zip(method.passes_at(BATCH), method.task_passes, strict=True)
    )
    return (forward + 2 * backward) / 3


def with_tasks(dataset: Dataset, tasks: int, setting: str, **options: Any) -> Any:
    """A stream of so many tasks, ten steps each."""
    return permuted(dataset, tasks, setting, budget=Budget(iterations=10, batch=32), **options)


class Pieces:
    """A session's task as it is taken in where no step is: all of its rows in one piece, at its end."""

    def __init__(self, session: Session, after: int) -> None:
        self.session = session
        self.state = next(event.state for event in session.events(session.begin()) if event.state.task == after)

    def seconds(self, pieces: int) -> float:
        """Seconds of one piece, mean over so many; it is the same piece, and nothing of it is kept."""
        finished = self.session.sampler.finished(self.state.task)
        return repeated(lambda: self.session.fleet.after_task(self.state.fleet, finished), pieces, self.session.device)


def growth(names: list[str]) -> dict[str, dict[str, float]]:
    """A step of the last task, or its rows where they are taken in one piece, and what is kept: at 5, 20 and 100 tasks of
    permuted digits, as multiples of those at 5."""
    found: dict[str, dict[str, float]] = {}
    dataset = with_few_answers(load_dataset("digits", None))
    for name in names:
        steps: dict[str, Steps | Pieces] = {}
        figures: dict[str, list[float]] = {"step": [], "bytes": []}
        # domain-incremental first: in the others the head grows with the tasks, whatever the method
        put = partial(fitting, name, settings=("domain", "class", "task"))
        try:
            learner, stream = put(partial(with_tasks, dataset, TASKS[-1]))
            large = not learner.looped and kept(learner, stream).total > LARGEST
            model = NARROW if large or name in OF_EACH_TASK else WIDE
            for tasks in TASKS:
                learner, stream = put(partial(with_tasks, dataset, tasks))
                learner = on_its_network(learner, name, model)
                session = Session(learner, stream, [0, 1], record=False)
                steps[str(tasks)] = (Steps if session.steps_in(tasks - 1) else Pieces)(session, after=tasks - 1)
                figures["bytes"].append(0.0 if learner.looped else kept(learner, stream).total)
            seconds = in_turn(
                {key: partial(value.seconds, 3) for key, value in steps.items()}, 2
            )  # 10 steps hold no more
            figures["step"] = [seconds[str(tasks)] for tasks in TASKS]
        except (ConfigurationError, ValueError, StopIteration) as reason:
            print(f"  {name}: {reason}", flush=True)
            continue
        found[name] = {
            f"{kind}, {tasks} tasks": value / max(values[0], 1e-12) if values[0] else float(value > 0)
            for kind, values in figures.items()
            for tasks, value in zip(TASKS[1:], values[1:], strict=True)
        }
        print(f"  {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in found[name].items()), flush=True)
    return found


def page(found: dict[str, Any]) -> str:
    """docs/cost.md."""
    steps, growing, reasons = (found.get(part, {}) for part in ("steps", "growth", "why"))
    whole = [f"`{name}`" for name, cost in steps.items() if not cost]
    steps = {name: cost for name, cost in steps.items() if cost}
    lines = [
        "# What a step costs", "",
        f"Written by `make bench`. Split-MNIST, second task, batches of {BATCH}, MLP(400, 400), Adam, a fleet of {SEEDS} on one thread:"
        " processor time of a step as a multiple of fine-tuning's, median of rounds in turn; beside it what the definition's passes"
        f" over rows take, a backward one counting two forward ones. What is above {LEAST} times that is explained below.", "",
        "| method | step | by its passes | ratio |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    for name, cost in sorted(steps.items(), key=lambda item: item[1]["measured"]):
        passes = by_passes(name)
        ratio = f"{cost['measured'] / passes:.2f}" if passes else "–"
        lines.append(f"| `{name}` | {cost['measured']:.2f} | {passes:.2f} | {ratio} |")
    lines += explained([name for name, cost in steps.items() if dear(name, cost["measured"])], reasons)
    if whole:
        lines += ["", f"Without a step to be timed, for they take a task's rows in one piece: {', '.join(whole)}."]
    lines += [
        "", "## As tasks grow", "",
        "Permuted digits, domain-incremental where the method goes with it, for elsewhere the head grows: a step of the last task, and the bytes kept, as multiples of those with 5 tasks; of `MLP(400, 400)`, and of `MLP(50, 50)` where more than a gigabyte would be kept, or each task has a network. Of what takes a task's rows in one piece, that piece counts for a step. Time and memory stay flat in"
        f" the number of tasks unless the definition says otherwise; what grows by more than {LEAST} times is explained below.", "",
    ]  # fmt: skip
    columns = [f"{kind}, {tasks} tasks" for kind in ("step", "bytes") for tasks in TASKS[1:]]
    lines += [f"| method | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for name, cost in sorted(growing.items()):
        lines.append(f"| `{name}` | " + " | ".join(f"{cost[column]:.2f}" for column in columns) + " |")
    grown = {name: why_it_grows(name, cost) for name, cost in growing.items() if max(cost.values()) > LEAST}
    lines += explained(list(grown), {**{name: words for name, words in grown.items() if words}, **reasons})
    return "\n".join([*lines, ""])


def dear(name: str, measured: float) -> bool:
    """Whether a step takes more than its passes do; of what has no passes to count nothing is expected."""
    return 0 < LEAST * by_passes(name) < measured


def why_it_grows(name: str, cost: dict[str, float]) -> str:
    """What a method's own words say of what grows; "" where they do not."""
    if any(key.startswith("step") and value > LEAST for key, value in cost.items()):
        return "a backward pass for each task" if by_passes(name, 6) > by_passes(name) else ""
    return f"it keeps {own_methods()[name].keeps}"


def explained(names: list[str], reasons: dict[str, str]) -> list[str]:
    """A line for each of some methods: why, or that nobody has said so yet."""
    return ["", *(f"- `{name}`: {reasons.get(name, 'not explained yet')}" for name in sorted(names))] if names else []


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA", ""))
    words.add_argument("--output", type=Path, default=Path("docs/cost.json"))
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--only", default="", help="methods, separated by commas")
    words.add_argument("--part", default="steps,growth")
    words.add_argument("--again", action="store_true", help="measure what is there, too")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    names = chosen.only.split(",") if chosen.only else [name for name in own_methods() if name != "FineTuning"]
    found = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
    measures = {
        "steps": lambda name: step_costs([name], chosen.data_root, chosen.rounds),
        "growth": lambda name: growth([name]),
    }
    for name in names:
        for part, measure in measures.items():
            if part in chosen.part and (chosen.again or name not in found.get(part, {})):
                found[part] = {**found.get(part, {}), **measure(name)}
        chosen.output.write_text(json.dumps(found, indent=1) + "\n")  # as they are done
        chosen.output.with_suffix(".md").write_text(page(found))


if __name__ == "__main__":
    main()
