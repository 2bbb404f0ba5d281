"""Finished runs, found in folders and put with their like: only runs of one group may be compared."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.core.result import Result
from lifelong.runs.folder import Loaded, load
from lifelong.runs.labels import Described, row_labels
from scenarios.errors import ConfigurationError


@dataclass(frozen=True)
class ComparisonKey:
    """What two runs must have in common before one is subtracted from the other."""

    data: str
    content: str
    scenario: str
    setting: str
    tasks: int
    model: str
    iterations: int
    epochs: float
    batch: int
    repeats: int = 1

    @classmethod
    def of(cls, resolved: dict[str, Any]) -> ComparisonKey:
        """From what a run recorded."""
        data, budget = resolved["data"], resolved["budget"]
        return cls(
            data["name"], data["content"], resolved["scenario"], resolved["setting"], resolved["tasks"],
            resolved["model"], budget["iterations"], budget["epochs"], budget["batch"],
            budget.get("repeats", 1),
        )  # fmt: skip

    @property
    def budget(self) -> str:
        """In words."""
        length = f"{self.epochs:g} epochs" if self.epochs else f"{self.iterations:,} iterations"
        steps = f", {self.repeats} steps on each batch" if self.repeats > 1 else ""
        return f"{length} of {self.batch} rows a task{steps}"

    def title(self, with_content: bool = False, optimiser: str = "") -> str:
        """In one line; with the content's hash where data of one name differ."""
        data = f"{self.data} ({self.content})" if with_content else self.data
        words = [self.scenario, f"data {data}", f"{self.setting}-incremental", self.model, self.budget, optimiser]
        return " · ".join(word for word in words if word)


@dataclass(frozen=True)
class RunGroup:
    """Runs that may be compared: what they share in words, and each run under a name that no other has."""

    title: str
    runs: dict[str, Loaded]

    @property
    def origin(self) -> str:
        """Where the rows of its data came from, where they are made of others: they share their content."""
        return next((f"data: {run.data_origin}" for run in self.runs.values() if run.data_origin), "")

    @property
    def results(self) -> dict[str, Result]:
        """What each measured."""
        return {name: run.result for name, run in self.runs.items()}


def groups_of(runs: Sequence[Loaded]) -> list[RunGroup]:
    """Runs with their like, in the order in which they were given; where numbers varied, each setting by itself."""
    runs = [view for run in runs for view in run.by_setting()]
    alike: dict[ComparisonKey, list[Loaded]] = {}
    for run in runs:
        alike.setdefault(ComparisonKey.of(run.resolved), []).append(run)
    contents: dict[str, set[str]] = {}
    for likeness in alike:
        contents.setdefault(likeness.data, set()).add(likeness.content)
    differ = len({run.resolved["optimiser"] for run in runs if run.resolved["optimiser"]}) > 1
    groups = []
    for likeness, members in alike.items():
        optimisers = {run.resolved["optimiser"] for run in members if run.resolved["optimiser"]}
        shared = optimisers.pop() if differ and len(optimisers) == 1 else ""
        title = likeness.title(len(contents[likeness.data]) > 1, shared)
        groups.append(RunGroup(title, dict(zip(names_of(members), members, strict=True))))
    return groups


def names_of(runs: Sequence[Loaded]) -> list[str]:
    """A name for each run of a group that no other has: see `lifelong.runs.labels.row_labels`."""
    folders = [run.path.name for run in runs]
    rows = [
        Described(
            run.request,
            run.resolved["method"],
            run.resolved["optimiser"],
            run.origin,
            run.path.name if folders.count(run.path.name) == 1 else str(run.path),
        )
        for run in runs
    ]
    return row_labels(rows)


def found(paths: Sequence[Path]) -> tuple[list[Loaded], list[str]]:
    """The finished runs in some folders, and a sentence for each folder that was passed over.

    A folder that is no run is looked into. Raises a ConfigurationError where nothing was found.
    """
    runs: list[Loaded] = []
    passed: list[str] = []
    seen: set[str] = set()
    for path in paths:
        for place in _places(path):
            resolved = os.path.realpath(place)
            if resolved in seen:
                continue
            seen.add(resolved)
            try:
                run = load(place)
                ComparisonKey.of(run.resolved)
                runs.append(run)
            except ConfigurationError as error:
                passed.append(_why(place, error))
    if not runs:
        if len(passed) == 1:
            raise ConfigurationError(passed[0])
        raise ConfigurationError(f"none of the {len(passed)} folders is a finished run: {passed[0]}")
    return runs, passed


def _why(place: Path, error: ConfigurationError) -> str:
    """Why a folder was passed over."""
    if os.path.lexists(place / "paradigms.json"):
        return f"{place} holds a comparison of paradigms, which is no run: `lifelong report {place}` has a page of it"
    return str(error)


def _places(path: Path) -> list[Path]:
    """The folder itself, or, where it is no run and holds some, those that it holds."""
    if os.path.lexists(path / "run.json"):
        return [path]
    try:
        return sorted(file.parent for file in path.glob("**/run.json")) or [path]
    except (OSError, ValueError):  # a folder that cannot be looked into, or a name that is none: reading it says why
        return [path]


def csv_of(runs: Sequence[Loaded]) -> str:
    """The accuracies of several runs under one head, the folder of each in a first column, `run`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, run in enumerate(runs):
        head, *lines = csv.reader(io.StringIO(run.to_csv()))
        if not number:
            writer.writerow(["run", *head])
        writer.writerows([str(run.path), *line] for line in lines)
    return text.getvalue()
