"""An initialisation put to use: the distribution that it learns from, what it learned, and the start of a learner."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.core.files import FORMAT, RunError, check_format
from lifelong.core.problem import Params, Problem
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.files import load_tree, save_tree
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta
from lifelong.meta.pretraining import Checkpointer, Consumer, Learned, pretrain, with_trunk
from lifelong.models.base import Model
from scenarios.brief import in_brief
from scenarios.datasets import load_dataset
from scenarios.episodes import TaskSource, check_apart, split_classes
from scenarios.stream import Dataset, ScenarioError, Stream, generator
from scenarios.typed import TypedError, check, damaged

ABOUT = {  # what a start's file says, as far as it is read
    "made by": str, "model": str, "shape": list[int], "data": str, "starts": str, "overlap allowed": bool, "seeds": list[int],
    "tests on?": str, "scenario?": str,
}  # fmt: skip
FEW = 50  # classes below which none are held out: validation then takes other images of the same classes


def distribution_of(
    method: InitialisationLearner, model: Model, dataset: Dataset, apart_from: Dataset | None = None
) -> TaskDistribution:
    """The tasks of a dataset of background classes, kept apart from the dataset of the stream.

    A tenth of the classes, at most 100, validate; of fewer than 50 classes none, and the dataset's test rows do. Raises a
    ConfigurationError where rows differ in shape, are shared with the stream and not allowed to be, or are too few.
    """
    if apart_from is not None:
        if dataset.shape != apart_from.shape:
            raise ScenarioError(
                f"the start learns from {dataset.name}, whose rows are {dataset.shape}, and those of {apart_from.name} are"
                f" {apart_from.shape}: name other data, as in {type(method).__name__}(data='...')"
            )
        if not method.allow_overlap:
            check_apart(dataset, apart_from)
    if dataset.classes >= FEW:
        train, held = split_classes(dataset, min(100, dataset.classes // 10), generator("validation classes"))
        pools = [method.pool(dataset, classes, "all", method.rotations) for classes in (train, held)]
    else:
        pools = [method.pool(dataset, None, part, method.rotations) for part in ("train", "test")]
    distribution = TaskDistribution(model, pools[0], pools[1])
    method.check(distribution)
    return distribution


def distribution_of_source(method: InitialisationLearner, model: Model, source: TaskSource) -> TaskDistribution:
    """The tasks of a source that needs no data, such as sine waves; it validates on fresh ones."""
    distribution = TaskDistribution(model, source, source)
    method.check(distribution)
    return distribution


def about_learned(learned: Learned, distribution: TaskDistribution) -> dict[str, Any]:
    """What a file says of a start: what made it, of which classes, how well it did, at what cost."""
    method, (iteration, scores) = learned.method, learned.validated[-1] if learned.validated else (0, None)
    return {
        "made by": repr(method),
        "model": repr(distribution.model),
        "shape": list(distribution.shape),
        "data": distribution.train.name,
        "classes": len(distribution.train),
        "class split": distribution.train.hash,
        "validation split": distribution.validation.hash,
        "starts": "one for each seed" if method.per_seed else "one, shared by all seeds",
        "overlap allowed": method.allow_overlap,
        "seeds": list(learned.seeds),
        "iterations": method.iterations,
        "images forward and backward": method.images(distribution) * method.iterations,
        "validated at": iteration,
        "validation": None if scores is None else scores.mean(1).tolist(),
        "curve": [[i, float(s.mean())] for i, s in learned.validated],
        "seconds": round(learned.state.seconds, 1),
        "torch": torch.__version__.split("+")[0],
    }


@dataclass(frozen=True)
class LearnedInitialisation:
    """A learned start: the trunk of a network, shared by all seeds or one for each; the head stays the seed's own.

    meta: what was learned, every leaf [S, ...]. Called with (problem, params, generator) it returns params;
    `of(seed)` is the one of that seed.
    """

    meta: Meta
    about: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    place: int = 0
    __repr__ = in_brief

    def of(self, seed: int) -> LearnedInitialisation:
        """The start of one seed. Raises InitialisationError where there is none for it."""
        if self.about.get("starts", "").startswith("one, shared") or len(self.seeds) == 1:
            return self
        if seed not in self.seeds:
            raise InitialisationError(f"this start was learned for the seeds {self.seeds}, and not for {seed}")
        return replace(self, place=self.seeds.index(seed))

    def fitting(self, model: Model, stream: Stream) -> LearnedInitialisation:
        """Itself, once it is sure to fit. Raises a ConfigurationError where the network or the shape of rows is another."""
        shape = tuple(self.about["shape"])
        if shape != stream.dataset.shape:
            raise InitialisationError(
                f"the start learned from rows of shape {shape}, and the stream's are {stream.dataset.shape}"
            )
        with_trunk(model.init(shape, stream.classes, generator(0, "model")), self.meta_of_seed["net"])
        if repr(model) != self.about["model"]:  # other norms, other activations: the same shapes mean something else
            raise InitialisationError(
                f"the start is for another network: {self.about['model']}, and this one is {model!r}"
            )
        data = self.about["data"]
        if data == stream.dataset.name and not self.about["overlap allowed"]:
            raise InitialisationError(
                f"the start learned from {data}, which the stream tests on: learn it from other classes"
            )
        return self

    def check_apart(self, dataset: Dataset, root: Path | str | None = None) -> None:
        """Raise a ConfigurationError where the start saw a row of this dataset, and overlap was not allowed when it was learned."""
        if not self.about["overlap allowed"]:
            check_apart(load_dataset(self.about["data"], root), dataset)

    @property
    def meta_of_seed(self) -> Meta:
        """What was learned for this seed."""
        return tree_map(lambda leaf: leaf[self.place], self.meta)

    def __call__(self, problem: Problem, params: Params, generator: torch.Generator) -> Params:
        """The learner's parameters with the trunk replaced. Raises InitialisationError where it is another network's."""
        return {**params, "net": with_trunk(params["net"], self.meta_of_seed["net"])}


def save_learned(path: Path, meta: Meta, about: dict[str, Any]) -> None:
    """Write a start: parameters, all that was learned beside them, and what made it."""
    save_tree(path, meta, {**about, "format": FORMAT})


def load_learned(path: Path) -> LearnedInitialisation:
    """What `save_learned` wrote. Raises RunError where it is damaged or no start at all."""
    meta, about = load_tree(path)
    if "made by" not in about:
        raise RunError(f"{path} is not a start: `lifelong pretrain` writes one")
    check_format(about, path)
    try:
        check(about, ABOUT)
    except TypedError as error:
        raise RunError(damaged(path, error)) from None
    leaves, seeds = tree_leaves(meta), len(about["seeds"])
    named = isinstance(meta, dict) and isinstance(meta.get("net"), dict)
    if not named or not seeds or any(leaf.ndim < 1 or len(leaf) != seeds for leaf in leaves):
        raise RunError(damaged(path, f"it does not hold parameters of a network for each of {seeds} seeds"))
    if not all(isinstance(value, torch.Tensor) and value.is_floating_point() for value in meta["net"].values()):
        raise RunError(damaged(path, "what it holds is no network"))
    del about["format"]  # of the file, and not of what was learned
    return LearnedInitialisation(meta, about, tuple(about["seeds"]))


@dataclass
class PendingInitialisation:
    """An initialisation that is learned when its start is first asked for, and then kept; on disk where it has a path."""

    method: InitialisationLearner
    distribution: TaskDistribution
    seeds: tuple[int, ...]
    learned: LearnedInitialisation | None = None

    def learn(
        self, path: Path | None = None, watch: Consumer | None = None, checkpointer: Checkpointer | None = None
    ) -> LearnedInitialisation:
        """The start: as it was kept, from its file, or learned now."""
        if self.learned is None and path is not None and os.path.lexists(path):
            self.learned = load_learned(path)
        if self.learned is None:
            every = max(1, self.method.iterations // 10)
            seeds = self.seeds if self.method.per_seed else (0,)
            result = pretrain(
                self.method, self.distribution, seeds, validate_every=every, watch=watch, checkpointer=checkpointer
            )
            self.learned = LearnedInitialisation(result.meta, about_learned(result, self.distribution), seeds)
            if path is not None:
                save_learned(path, self.learned.meta, self.learned.about)
        return self.learned

    def of(self, seed: int) -> LearnedInitialisation:
        """The start of one seed."""
        return self.learn().of(seed)


def words_of(method: InitialisationLearner, model: Model, data: str, seeds: Sequence[int]) -> str:
    """A request in words, by which its checkpoint is known again."""
    return json.dumps([repr(method), repr(model), data, list(seeds)])
