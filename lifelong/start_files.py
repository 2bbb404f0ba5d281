"""What the commands `pretrain` and `meta-test` do, and how a run gets its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lifelong.expression import parse
from lifelong.files import RunError
from lifelong.loop import device_of
from lifelong.meta.online import online_accuracy
from lifelong.meta.pretraining import pretrain
from lifelong.meta.stage import Stage, StageError, Study
from lifelong.meta.start import (
    Checkpoints,
    StageStart,
    Start,
    Watch,
    about_start,
    load_start,
    save_start,
    study_of_sines,
    words_of,
)
from lifelong.meta.testing import Scored, scored
from lifelong.metrics import estimate
from lifelong.model import mixes_rows
from lifelong.own_code import refuse_unnamed
from lifelong.request import Request
from scenarios.datasets import load_table
from scenarios.episodes import Pool, Sines, pool

SINES = "sines"  # a scenario for `pretrain` alone: waves to regress


class Work:
    """Learning a start and writing its file; the checkpoint beside it goes on where the same words were stopped."""

    def __init__(self, request: Request, output: Path, validate_every: int, episodes: int, every: float) -> None:
        if output.suffix != ".safetensors":
            raise StageError(f"--output {output}: a start's file ends in .safetensors, so that --init knows it")
        if output.exists():
            raise RunError(f"{output} exists already: choose another --output")
        if not output.parent.is_dir():
            raise RunError(f"{output} cannot be written: there is no folder {output.parent}")
        self.request, self.output, self.episodes = request, output, episodes
        self.stage, self.study, self.tests_on = self._prepared()
        self.validate_every = validate_every or max(1, self.stage.iterations // 10)
        words = words_of(self.stage, self.study.model, request.scenario, request.seeds)
        self.keeper = Checkpoints(output.with_suffix(".checkpoint.safetensors"), words, every)

    def _prepared(self) -> tuple[Stage, Study, str]:
        request = self.request
        if request.scenario == SINES:
            stage = parse(request.init, "initialisations")
            if not isinstance(stage, Stage):
                raise StageError(f"{request.init} is nothing that learns: name a stage, as in 'MAML()'")
            return stage, study_of_sines(stage, parse(request.model or "MLP(40, 40)", "models")), SINES
        _, stream, start = request.build()
        if not isinstance(start, StageStart):
            raise StageError(f"{request.init} is nothing that learns: name a stage, as in 'ProtoNet()'")
        return start.stage, start.study.to(device_of(request.device)), request.data or stream.table.name

    def learn(self, watch: Watch | None) -> dict[str, Any]:
        """Learn, write the file, and say what it says of itself."""
        learned = pretrain(
            self.stage, self.study, self.request.seeds, validate_every=self.validate_every, episodes=self.episodes,
            watch=watch, keeper=self.keeper,
        )  # fmt: skip
        about = about_start(learned, self.study) | {"tests on": self.tests_on, "scenario": self.request.scenario}
        if len(self.request.seeds) > 1:
            about["starts"] = "one for each seed"
        save_start(self.output, learned.meta, about)
        self.keeper.path.unlink(missing_ok=True)
        return about


def learn_for_run(start: Any, folder: Any, watch: Watch | None) -> dict[str, Any]:
    """Learn a run's start, kept in its folder, if it is one that is learned; what it says of itself."""
    if isinstance(start, StageStart):
        words = words_of(start.stage, start.study.model, folder.request.scenario, start.seeds)
        keeper = Checkpoints(folder.path / "start.checkpoint.safetensors", words, folder.every)
        keeper.stop_asked = folder.stop_asked
        start = start.learn(folder.path / "start.safetensors", watch, _asked_by(folder, keeper))
        keeper.path.unlink(missing_ok=True)
    return start.about if isinstance(start, Start) else {}


class _asked_by:
    """A keeper that stops when its folder is asked to."""

    def __init__(self, folder: Any, keeper: Checkpoints) -> None:
        self.folder, self.keeper, self.restore = folder, keeper, keeper.restore

    def boundary(self, course: Any) -> None:
        """Hand on the wish to stop."""
        self.keeper.stop_asked = self.folder.stop_asked
        self.keeper.boundary(course)


def _opened(path: Path, data: str, root: str, device: str) -> tuple[Start, Stage, Study]:
    """A start, the stage that made it, and a study whose training and validation source is what it is tested on."""
    start = load_start(path)
    refuse_unnamed([start.about["made by"], start.about["model"]], path)
    stage = parse(start.about["made by"], "initialisations")
    model = parse(start.about["model"], "models")
    if start.about["data"] == SINES:
        return start, stage, Study(model, Sines(), Sines().outside, (1,))
    name = data or start.about.get("tests on", "")
    if not name:
        raise StageError(f"{path} does not say what it is to be tested on: name it, as in --data omniglot")
    table = load_table(name, root or None)
    if table.shape != tuple(start.about["shape"]):
        raise StageError(f"{path} learned from rows of shape {start.about['shape']}, and {name} has {table.shape}")
    start.check_apart(table, root or None)
    own = pool(table).to(device_of(device))
    return start, stage, Study(model, own, own, table.shape)


def few_shot_rows(
    paths: list[Path], data: str, way: int, shot: int, query: int, episodes: int, root: str, device: str
) -> list[dict[str, Any]]:
    """Accuracy of each start, for each source and mode, over the same episodes; and the paired difference to the first.

    The interval of one start is over episodes (1.96 standard errors), that of several starts over the starts.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, torch.Tensor] = {}
    for path in paths:
        start, stage, study = _opened(path, data, root, device)
        sources = {"inside": study.train, "outside": study.validation} if study.regression else {data: study.train}
        both = mixes_rows(study.model)
        for name, source in sources.items():
            for inductive in (False, True) if both else (True,):
                found = [
                    scored(stage, study, start.of(seed).one, source, way=way, shot=shot, query=query,
                           episodes=episodes, inductive=inductive)
                    for seed in start.seeds
                ]  # fmt: skip
                rows.append(_row(path, start, study, name or source_name(source), found))
                one = found[0]
                rows_hash = source.table.content_hash() if isinstance(source, Pool) else source.hash
                key = f"{name} {rows_hash} {one.mode} {one.way} {one.shot} {one.query}"
                scores = torch.stack([one.scores for one in found]).mean(0)
                if key in first:
                    difference = scores - first[key]
                    width = 1.96 * float(difference.std()) / len(difference) ** 0.5
                    rows[-1] |= {"difference": float(difference.mean()), "difference half width": width}
                first.setdefault(key, scores)
    return rows


def source_name(source: Any) -> str:
    """The data set, in a word."""
    return source.table.name if isinstance(source, Pool) else SINES


def _row(path: Path, start: Start, study: Study, source: str, found: list[Scored]) -> dict[str, Any]:
    one = found[0]
    means = torch.stack([t.scores.mean() for t in found])
    several = len(found) > 1
    return {
        "start": path.name,
        "overlap allowed": start.about["overlap allowed"],
        "data": source,
        "measure": "mean square error" if study.regression else "accuracy",
        "way": 0 if study.regression else one.way,
        "shot": one.shot,
        "query": one.query,
        "episodes": len(one.scores),
        "mode": one.mode,
        "norm": getattr(study.model, "norm", "none"),
        "answered by": one.answered_by,
        "mean": float(means.mean()),
        "half width": estimate(means).half_width if several else one.half_width,
        "interval over": f"{len(found)} starts" if several else "episodes",
        "per start": means.tolist(),
    }


def online_rows(
    paths: list[Path],
    data: str,
    classes: int,
    strategies: list[str],
    runs: int,
    optimiser: str,
    root: str,
    device: str,
) -> list[dict[str, Any]]:
    """The online test of each start with each strategy, nearest class means beside it."""
    rows = []
    for path in paths:
        start, _, study = _opened(path, data, root, device)
        if study.regression:
            raise StageError(f"{path} was learned for regression, and --online tells classes apart")
        for found in online_accuracy(study, start, classes, strategies, runs, optimiser):
            shared = start.about["overlap allowed"]
            rows.append({"start": path.name, "overlap allowed": shared, "data": source_name(study.train), **found})
    return rows
