"""What the commands `pretrain` and `meta-test` do, and how a run gets its start."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from lifelong.core.files import RunError, goes_on, held_alone, named
from lifelong.core.loop import device_of
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.files import Checkpoints
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner
from lifelong.meta.learned import (
    LearnedInitialisation,
    PendingInitialisation,
    about_learned,
    distribution_of_source,
    load_learned,
    save_learned,
    words_of,
)
from lifelong.meta.online import online_accuracy
from lifelong.meta.pretraining import Consumer, pretrain
from lifelong.meta.testing import MOST_EPISODES, Scored, scored
from lifelong.meta.weighing import weigh
from lifelong.metrics import estimate
from lifelong.notation.expression import parse
from lifelong.notation.user_code import refuse_unnamed
from lifelong.runs.request import Request
from scenarios.datasets import load_dataset
from scenarios.episodes import NAMED_SOURCES

Tell = Callable[[str, int, int], None]  # what is tested, episodes that were answered, how many there will be


def _silent(words: str, done: int, wanted: int) -> None:
    """Nobody watches."""


class Work:
    """Learning a start and writing its file; the checkpoint beside it goes on where the same words were stopped."""

    def __init__(self, request: Request, output: Path, validate_every: int, episodes: int, every: float) -> None:
        if output.suffix != ".safetensors":
            raise InitialisationError(
                f"--output {output}: a start's file ends in .safetensors, so that --init knows it"
            )
        checkpoint = output.with_suffix(".checkpoint.safetensors")
        if os.path.lexists(output):
            with suppress(OSError):  # of a process that was killed when it had written the start
                checkpoint.unlink(missing_ok=True)
            raise RunError(f"{output} exists already: choose another --output")
        if not 0 <= episodes <= MOST_EPISODES or validate_every < 0:
            raise InitialisationError(
                f"--episodes {episodes}, --validate-every {validate_every}: they are at least 0, and at most"
                f" {MOST_EPISODES:,} episodes are answered"
            )
        if not os.path.isdir(output.parent):
            raise RunError(f"{output} cannot be written: there is no folder {output.parent}")
        self.request, self.output, self.episodes = request, output, episodes
        self.method, self.distribution, self.tests_on = self._prepared()
        self.validate_every = validate_every or max(1, self.method.iterations // 10)
        weigh(self.method, self.distribution, len(request.seeds))
        words = words_of(self.method, self.distribution.model, request.scenario, request.seeds)
        self.checkpointer = Checkpoints(checkpoint, words, every)

    def _prepared(self) -> tuple[InitialisationLearner, TaskDistribution, str]:
        request, device = self.request, device_of(self.request.device)
        if request.scenario in NAMED_SOURCES:
            method = parse(request.init, "initialisations")
            if not isinstance(method, InitialisationLearner):
                raise InitialisationError(f"{request.init} is nothing that learns: name a meta-learner, as in 'MAML()'")
            model, source = parse(request.model or "MLP(40, 40)", "models"), NAMED_SOURCES[request.scenario]()
            return method, distribution_of_source(method, model, source).to(device), request.scenario
        _, stream, start = request.build()
        if not isinstance(start, PendingInitialisation):
            raise InitialisationError(f"{request.init} is nothing that learns: name a meta-learner, as in 'ProtoNet()'")
        return start.method, start.distribution.to(device), request.data or stream.dataset.name

    def learn(self, watch: Consumer | None) -> dict[str, Any]:
        """Learn, write the file, and say what it says of itself. Raises RunError where another process learns it, too."""
        place = self.output.parent
        with held_alone(place, f".{self.output.name}.lock"), goes_on(place, "the same command"):
            for path in (self.output, self.checkpointer.path):  # what a process that was killed left
                path.with_name(f"{path.name}.partial").unlink(missing_ok=True)
            learned = pretrain(
                self.method, self.distribution, self.request.seeds, validate_every=self.validate_every,
                episodes=self.episodes, watch=watch, checkpointer=self.checkpointer,
            )  # fmt: skip
            about = about_learned(learned, self.distribution)
            about |= {"tests on": self.tests_on, "scenario": self.request.scenario}
            if len(self.request.seeds) > 1:
                about["starts"] = "one for each seed"
            save_learned(self.output, learned.meta, about)
            self.checkpointer.path.unlink(missing_ok=True)
        return about


def learn_for_run(start: Any, folder: Any, watch: Consumer | None) -> dict[str, Any]:
    """Learn a run's start, kept in its folder, if it is one that is learned; what it says of itself."""
    if isinstance(start, PendingInitialisation):
        words = words_of(start.method, start.distribution.model, folder.request.scenario, start.seeds)
        path = folder.path / "start.checkpoint.safetensors"
        checkpointer = Checkpoints(path, words, folder.every, asked=lambda: _asked(folder))
        start = start.learn(folder.path / "start.safetensors", watch, checkpointer)
        path.unlink(missing_ok=True)
    return start.about if isinstance(start, LearnedInitialisation) else {}


def weigh_start(start: Any) -> None:
    """Raise ResourceError where a run's start is one that is learned, and too large to be."""
    if isinstance(start, PendingInitialisation):
        weigh(start.method, start.distribution, len(start.seeds))


def _asked(folder: Any) -> bool:
    """Whether a folder's run is to be stopped; it can save from now on."""
    folder.begun = True
    return folder.stop_asked


def opened(
    path: Path, data: str, root: str, device: str
) -> tuple[LearnedInitialisation, InitialisationLearner, TaskDistribution]:
    """A start on a device, the method that made it, and the distribution of tasks that it is tested on, there, too."""
    start, place = load_learned(path), device_of(device)
    start = replace(start, meta=tree_map(lambda leaf: leaf.to(place), start.meta))
    refuse_unnamed([start.about["made by"], start.about["model"]], path)
    method = parse(start.about["made by"], "initialisations")
    model = parse(start.about["model"], "models")
    if start.about["data"] in NAMED_SOURCES:
        source = NAMED_SOURCES[start.about["data"]]()
        return (
            start,
            method,
            _fitted(path, start, method, TaskDistribution(model, source, source).to(place)),
        )
    name = data or start.about.get("tests on", "")
    if not name:
        raise InitialisationError(f"{path} does not say what it is to be tested on: name it, as in --data omniglot")
    dataset = load_dataset(name, root or None)
    if dataset.shape != tuple(start.about["shape"]):
        raise InitialisationError(
            f"{path} learned from rows of shape {start.about['shape']}, and {name} has {dataset.shape}"
        )
    start.check_apart(dataset, root or None)
    source = method.pool(dataset).to(place)
    return start, method, _fitted(path, start, method, TaskDistribution(model, source, source))


def _fitted(
    path: Path, start: LearnedInitialisation, method: InitialisationLearner, distribution: TaskDistribution
) -> TaskDistribution:
    """The distribution, once the start is what its method would learn on it; a head may be of other classes.

    Raises RunError where a tensor is missing, or of another shape or kind.
    """
    wanted = named(method.init(distribution, torch.Generator()))
    found = named(start.meta_of_seed)
    if distribution.kind == "classes":
        wanted, found = (
            {name: leaf for name, leaf in each.items() if "'head." not in name} for each in (wanted, found)
        )
    other = [name for name in wanted.keys() ^ found.keys()]
    other += [
        name
        for name in wanted
        if name in found and (wanted[name].shape, wanted[name].dtype) != (found[name].shape, found[name].dtype)
    ]
    if other:
        raise RunError(f"{path} is of another network, or damaged: see its {other[0]}")
    return distribution


def few_shot_rows(
    paths: list[Path],
    data: str,
    way: int,
    shot: int,
    query: int,
    episodes: int,
    root: str,
    device: str,
    tell: Tell = _silent,
) -> list[dict[str, Any]]:
    """Accuracy of each start, for each source and mode, over the same episodes; and the paired difference to the first.

    The 95 % interval of one start is over episodes, that of several starts over the starts.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, torch.Tensor] = {}
    for path in paths:
        start, method, distribution = opened(path, data, root, device)
        metas = [start.of(seed).meta_of_seed for seed in start.seeds]
        for name, source in distribution.train.tests.items():
            for inductive in (False, True) if distribution.model.mixes_rows else (True,):
                title = f"{path.name}, {name}, {'inductive' if inductive else 'transductive'}"
                found = [
                    scored(method, distribution, meta, source, way=way, shot=shot, query=query, episodes=episodes,
                           inductive=inductive, tell=_of_several(tell, title, place, len(metas)))
                    for place, meta in enumerate(metas)
                ]  # fmt: skip
                row, test = _row(path, start, distribution, data or name, found), found[0]
                key = f"{name} {source.content} {test.mode} {test.way} {test.shot} {test.query}"
                scores = torch.stack([each.scores for each in found]).mean(0)
                if key in first:
                    gap = estimate(scores - first[key])
                    row |= {"difference": gap.mean, "difference_half_width": gap.half_width}
                first.setdefault(key, scores)
                rows.append(row)
    return rows


def _of_several(tell: Tell, title: str, place: int, count: int) -> Callable[[int, int], None]:
    """Tell of the episodes of one of several starts as of a part of all."""
    return lambda done, wanted: tell(title, place * wanted + done, count * wanted)


def _row(
    path: Path, start: LearnedInitialisation, distribution: TaskDistribution, source: str, found: list[Scored]
) -> dict[str, Any]:
    test, several = found[0], len(found) > 1
    means = torch.stack([each.scores.mean() for each in found])
    return {
        "start": path.name,
        "overlap allowed": start.about["overlap allowed"],
        "data": source,
        "measure": distribution.measure,
        "way": test.way if distribution.kind == "classes" else 0,
        "shot": test.shot,
        "query": test.query,
        "episodes": len(test.scores),
        "mode": test.mode,
        "norm": getattr(distribution.model, "norm", "none"),
        "answered by": test.answered_by,
        "mean": float(means.mean()),
        "half_width": estimate(means).half_width if several else test.half_width,
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
        start, _, distribution = opened(path, data, root, device)
        if distribution.kind != "classes":
            raise InitialisationError(f"{path} was learned for regression, and --online tells classes apart")
        for found in online_accuracy(distribution, start, classes, strategies, runs, optimiser):
            shared = start.about["overlap allowed"]
            rows.append({"start": path.name, "overlap allowed": shared, "data": distribution.train.name, **found})
    return rows
