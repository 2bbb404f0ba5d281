"""Times the steps of the commit that it is started in, on request: a line of JSON in, a line of JSON out.

`old_and_new.py` keeps one alive for each of two commits, so that neither imports nor first steps count.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch
from timing import Steps

import lifelong

TREE = Path(lifelong.__file__).parent.parent

# where a name lies, the newest commits first: this is all that has to know how the rooms were called
PLACES = {
    "Learner": ("lifelong.core.learner", "lifelong.learner"),
    "Session": ("lifelong.core.loop", "lifelong.loop"),
    "parse": ("lifelong.notation.expression", "lifelong.expression"),
    "split": ("scenarios.split",),
    "Budget": ("scenarios.stream",),
    "dataset_from_arrays": ("scenarios.datasets:dataset_from_arrays", "scenarios.datasets:table_from_arrays"),
}
TRAIN, TEST = 2000, 100  # rows in all; few to test, so that evaluations are short


def found(name: str) -> Any:
    """What has a name in this commit: only files of its own tree count, since another may be installed beside it."""
    for place in PLACES[name]:
        module, _, attribute = place.partition(":")
        path = TREE / module.replace(".", "/")
        if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
            value = getattr(importlib.import_module(module), attribute or name, None)
            if value is not None:
                return value
    raise LookupError(f"{name} lies in none of {', '.join(PLACES[name])}")


def prepared(case: dict[str, Any]) -> Steps:
    """The steps of a case after one finished task: rows of MNIST's shape, 5 tasks of 2 classes."""
    random = torch.Generator().manual_seed(0)
    x = torch.randint(256, (TRAIN + TEST, 28, 28), generator=random, dtype=torch.uint8)
    y = torch.arange(TRAIN + TEST) % 10
    dataset = found("dataset_from_arrays")("rows", x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:])
    budget = found("Budget")(iterations=case["iterations"], batch=case["batch"])
    kinds = {"models": case["model"], "strategies": case["strategy"], "optimisers": case["optimiser"]}
    learner = found("Learner")(*(found("parse")(text, kind) for kind, text in kinds.items()))
    stream, session = found("split")(dataset, 5, "class", budget=budget), found("Session")
    # where steps are recorded, those that are played back are timed
    options = {"record": True} if "record" in inspect.signature(session).parameters else {}
    return Steps(session(learner, stream, list(range(case["seeds"])), **options), after=1)


def main() -> None:
    """Answer until there are no more requests."""
    torch.set_num_threads(1)
    # where a loss is all but zero, moments decay to numbers below the smallest normal one, and a step takes ten times as
    # long: here for both commits alike, since how soon it happens is chance
    torch.set_flush_denormal(True)
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever is printed on the way is no reply
    print(json.dumps({"tree": str(TREE)}), file=replies, flush=True)
    cases: dict[str, Steps] = {}
    for line in sys.stdin:
        case = json.loads(line)
        try:
            if case["name"] not in cases:
                cases[case["name"]] = prepared(case)
            reply = {"seconds": cases[case["name"]].seconds(case["steps"])}
        except Exception as error:  # an older commit may lack a method: that case has no figure, the others do
            reply = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
