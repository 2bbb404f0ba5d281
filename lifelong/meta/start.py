"""A stage put to use: the study that it learns from, the file that holds what it learned, and the start of a learner."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.files import RunError, Stopped, filled, load_tensors, named, save_tensors
from lifelong.meta.pretraining import Course, Learned, Tidings, pretrain
from lifelong.meta.stage import Meta, Stage, StageError, Study
from lifelong.model import Model, Net
from lifelong.problem import Params, Problem
from scenarios.datasets import load_table
from scenarios.episodes import Pool, Sines, check_apart, pool, split_classes
from scenarios.stream import ScenarioError, Stream, Table, generator

FEW = 50  # classes below which none are held out: validation then takes other images of the same classes
Watch = Callable[[Tidings], None]


def study_of(stage: Stage, model: Model, table: Table, apart_from: Table | None = None) -> Study:
    """The study of a stage on a table of background classes, kept apart from the table of the stream.

    A tenth of the classes, at most 100, validate; of fewer than 50 classes none, and the table's test rows do. Raises a
    Refusal where rows differ in shape, are shared with the stream and not allowed to be, or are too few.
    """
    if apart_from is not None:
        if table.shape != apart_from.shape:
            raise ScenarioError(
                f"the start learns from {table.name}, whose rows are {table.shape}, and those of {apart_from.name} are"
                f" {apart_from.shape}: name other data, as in {type(stage).__name__}(data='...')"
            )
        if not stage.allow_overlap:
            check_apart(table, apart_from)
    if table.classes >= FEW:
        train, held = split_classes(table, min(100, table.classes // 10), generator("validation classes"))
        pools = [pool(table, classes, "all", stage.rotations) for classes in (train, held)]
    else:
        pools = [pool(table, None, part, stage.rotations) for part in ("train", "test")]
    study = Study(model, pools[0], pools[1], table.shape)
    stage.check(study)
    return study


def study_of_sines(stage: Stage, model: Model, waves: Sines | None = None) -> Study:
    """The study of a stage on sine waves; it validates on fresh ones."""
    waves = waves or Sines()
    study = Study(model, waves, waves, (1,))
    stage.check(study)
    return study


def about_start(learned: Learned, study: Study) -> dict[str, Any]:
    """What a file says of a start: what made it, of which classes, how well it did, at what cost."""
    stage, (iteration, scores) = learned.stage, learned.validated[-1] if learned.validated else (0, None)
    return {
        "made by": repr(stage),
        "model": repr(study.model),
        "shape": list(study.shape),
        "data": study.train.table.name if isinstance(study.train, Pool) else "sines",
        "classes": len(study.train),
        "class split": study.train.hash,
        "validation split": study.validation.hash,
        "starts": "one for each seed" if stage.per_seed else "one, shared by all seeds",
        "overlap allowed": stage.allow_overlap,
        "seeds": list(learned.seeds),
        "iterations": stage.iterations,
        "images forward and backward": stage.images(study) * stage.iterations,
        "validated at": iteration,
        "validation": None if scores is None else scores.mean(1).tolist(),
        "curve": [[i, float(s.mean())] for i, s in learned.validated],
        "seconds": round(learned.seconds, 1),
        "torch": torch.__version__.split("+")[0],
    }


@dataclass(frozen=True)
class Start:
    """A learned start: the trunk of a network, shared by all seeds or one for each; the head stays the seed's own.

    meta: what the stage learned, every leaf [S, ...]. Called with (problem, params, generator) it returns params;
    `of(seed)` is the one of that seed.
    """

    meta: Meta
    about: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    place: int = 0

    def of(self, seed: int) -> Start:
        """The start of one seed. Raises StageError where there is none for it."""
        if self.about.get("starts", "").startswith("one, shared") or len(self.seeds) == 1:
            return self
        if seed not in self.seeds:
            raise StageError(f"this start was learned for the seeds {self.seeds}, and not for {seed}")
        return replace(self, place=self.seeds.index(seed))

    def fitting(self, model: Model, stream: Stream) -> Start:
        """Itself, once it is sure to fit. Raises a Refusal where the network or the shape of rows is another."""
        shape = tuple(self.about["shape"])
        if shape != stream.table.shape:
            raise StageError(f"the start learned from rows of shape {shape}, and the stream's are {stream.table.shape}")
        with_trunk(model.init(shape, stream.classes, generator(0, "model")), self.one["net"])
        if repr(model) != self.about["model"]:  # other norms, other activations: the same shapes mean something else
            raise StageError(f"the start is for another network: {self.about['model']}, and this one is {model!r}")
        data = self.about["data"]
        if data == stream.table.name and not self.about["overlap allowed"]:
            raise StageError(f"the start learned from {data}, which the stream tests on: learn it from other classes")
        return self

    def check_apart(self, table: Table, root: Path | str | None = None) -> None:
        """Raise a Refusal where the start saw a row of this table, and overlap was not allowed when it was learned."""
        if not self.about["overlap allowed"]:
            check_apart(load_table(self.about["data"], root), table)

    @property
    def one(self) -> Meta:
        """What the stage learned for this seed."""
        return tree_map(lambda leaf: leaf[self.place], self.meta)

    def __call__(self, problem: Problem, params: Params, generator: torch.Generator) -> Params:
        """The learner's parameters with the trunk replaced. Raises StageError where it is another network's."""
        return {**params, "net": with_trunk(params["net"], self.one["net"])}


def with_trunk(net: Net, given: Net) -> Net:
    """A network whose parameters but the head's are the given ones."""
    trunk = {name: value for name, value in given.items() if not name.startswith("head.")}
    own = {name for name in net if not name.startswith("head.")}
    for name in sorted(own | set(trunk)):
        shapes = [tuple(values[name].shape) if name in values else "missing" for values in (trunk, net)]
        if shapes[0] != shapes[1]:
            raise StageError(
                f"the start is for another network: its {name} is {shapes[0]}, and this one's is {shapes[1]}"
            )
    return {name: trunk[name].to(value.device, value.dtype) if name in trunk else value for name, value in net.items()}


def save_start(path: Path, meta: Meta, about: dict[str, Any]) -> None:
    """Write a start: parameters, extra parts such as learned rates, and what made it."""
    save_tensors(path, named(meta), about)


def load_start(path: Path) -> Start:
    """What `save_start` wrote. Raises RunError where it is damaged or no start at all."""
    tensors, about = load_tensors(path)
    if "made by" not in about:
        raise RunError(f"{path} is not a start: `lifelong pretrain` writes one")
    meta: Meta = {}
    for name, value in tensors.items():
        part, leaf = name.strip("[]'").split("']['")
        meta.setdefault(part, {})[leaf] = value
    return Start(meta, about, tuple(about["seeds"]))


@dataclass
class Checkpoints:
    """Saves the outer loop beside its file, at the first iteration after every so many seconds; goes on from there."""

    path: Path
    words: str
    every: float = 60.0
    stop_asked: bool = False
    saved: float = field(default_factory=time.monotonic)

    def restore(self, course: Course) -> Course:
        """The saved course, or the course as given. Raises RunError where it is another stage's."""
        if not self.path.exists():
            return course
        tensors, about = load_tensors(self.path)
        if about["words"] != self.words:
            raise RunError(f"{self.path} is of another request ({about['words']}): delete it to start again")
        course.meta = filled(course.meta, tensors, "meta", self.path)
        course.optimiser = filled(course.optimiser, tensors, "optimiser", self.path)
        course.iteration, course.seconds = about["iteration"], about["seconds"]
        course.losses = list(tensors["losses"].unbind(1))
        course.validated = [(i, tensors[f"validated {i}"]) for i in about["validated"]]
        return course

    def boundary(self, course: Course) -> None:
        """Save when it is time or when a stop was asked for."""
        if not self.stop_asked and time.monotonic() - self.saved < self.every:
            return
        tensors: dict[str, Tensor] = {"meta" + name: leaf for name, leaf in named(course.meta).items()}
        tensors |= {"optimiser" + name: leaf for name, leaf in named(course.optimiser).items()}
        tensors |= {f"validated {i}": scores for i, scores in course.validated}
        tensors["losses"] = torch.stack(course.losses, 1)
        where = {"iteration": course.iteration, "seconds": course.seconds, "words": self.words}
        save_tensors(self.path, tensors, {**where, "validated": [i for i, _ in course.validated]})
        self.saved = time.monotonic()
        if self.stop_asked:
            raise Stopped


@dataclass
class StageStart:
    """A stage that is learned when its start is first asked for, and then kept; on disk where it has a path."""

    stage: Stage
    study: Study
    seeds: tuple[int, ...]
    learned: Start | None = None

    def learn(self, path: Path | None = None, watch: Watch | None = None, keeper: Any = None) -> Start:
        """The start: as it was kept, from its file, or learned now."""
        if self.learned is None and path is not None and path.exists():
            self.learned = load_start(path)
        if self.learned is None:
            every = max(1, self.stage.iterations // 10)
            seeds = self.seeds if self.stage.per_seed else (0,)
            result = pretrain(self.stage, self.study, seeds, validate_every=every, watch=watch, keeper=keeper)
            self.learned = Start(result.meta, about_start(result, self.study), seeds)
            if path is not None:
                save_start(path, self.learned.meta, self.learned.about)
        return self.learned

    def of(self, seed: int) -> Start:
        """The start of one seed."""
        return self.learn().of(seed)


def words_of(stage: Stage, model: Model, data: str, seeds: Sequence[int]) -> str:
    """A stage's request in words, by which its checkpoint is known again."""
    return json.dumps([repr(stage), repr(model), data, list(seeds)])
