"""Features of a data set by any network, computed once and kept as a data set: a table with its provenance in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.core.batch import Params
from lifelong.core.files import make_folder
from lifelong.core.loop import device_of
from lifelong.core.problem import scaled
from lifelong.meta.learned import load_learned
from lifelong.meta.pretraining import with_trunk
from lifelong.models.outside import code_of, features_of, is_outside, load_weights, outside_network, weights_hash
from lifelong.notation.expression import parse
from lifelong.notation.user_code import code_named, digest_of
from lifelong.notation.varied import varied_paths
from scenarios.brief import in_brief
from scenarios.datasets import load_dataset
from scenarios.errors import ConfigurationError
from scenarios.stream import Dataset, generator
from scenarios.tables import about_table, refuse_damaged, write_table

VERSION = 1  # of how a table is made; raised where the same request gives other numbers
NORMALISED = {  # means and deviations of each channel
    "": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
}


class FeatureError(ConfigurationError):
    """A table of features that cannot be made; its message is one line."""


@dataclass(frozen=True)
class Transform:
    """What happens to a row before the network sees it: bytes to 0 ... 1, then the following.

    size: images are scaled to size x size, bilinearly; 0 leaves them. channels: grey images are repeated so often; 0
    leaves them. normalise: "imagenet", or "half" for (x - 1/2) / (1/2); "" leaves them.
    """

    size: int = 0
    channels: int = 0
    normalise: str = ""

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISED:
            raise FeatureError(f"--normalise {self.normalise!r}: it is imagenet, half, or left out")
        if min(self.size, self.channels) < 0:
            raise FeatureError("--size and --channels are at least 1, or left out")

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [B, ...] as the network sees them."""
        if self == Transform():
            return x
        if x.ndim not in (3, 4):
            raise FeatureError(
                f"rows of shape {tuple(x.shape[1:])} are no images: leave --size, --channels, --normalise out"
            )
        x = x if x.ndim == 4 else x[:, None]
        if self.channels and x.shape[1] not in (1, self.channels):
            raise FeatureError(f"--channels {self.channels}: images of {x.shape[1]} channels cannot be repeated")
        if self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        if self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        mean, deviation = (x.new_tensor(values)[:, None, None] for values in NORMALISED[self.normalise])
        if len(mean) not in (1, x.shape[1]):
            raise FeatureError(
                f"--normalise {self.normalise} is of {len(mean)} channels, and images have {x.shape[1]}: see --channels"
            )
        return (x - mean) / deviation


@dataclass(frozen=True)
class Asked:
    """A request for a table. data, model: as named. weights: a file of them, or none. pretrained_on: in words, or "".

    pretrained: take the weights that a package offers, which it fetches. seed: of random weights. batch: rows at once.
    """

    data: str
    model: str
    weights: str = ""
    pretrained: bool = False
    pretrained_on: str = ""
    transform: Transform = field(default_factory=Transform)
    seed: int = 0
    batch: int = 256
    device: str = "cpu"
    data_root: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise FeatureError(f"--seed {self.seed}: a seed is at least 0 and below 2**63")


class Trunk(NamedTuple):
    """A network that gives features: rows [B, ...] to [B, F]; its tensors; the hash of its code; what it learned from."""

    features: Callable[[Tensor], Tensor]
    tensors: dict[str, Tensor]
    code: str
    pretrained_on: str
    __repr__ = in_brief


class Table(NamedTuple):
    """A table on disk, what it says of itself, and whether it was made now."""

    path: Path
    about: dict[str, Any]
    is_new: bool


@contextmanager
def _refusing_what_no_memory_holds() -> Iterator[None]:
    """Say in one line that rows, or what becomes of them, are too large."""
    try:
        yield
    except RuntimeError as error:  # torch has no error of its own for memory on a processor
        if "memory" not in str(error):
            raise
        words = "the network and its rows need more memory than there is"
        raise FeatureError(
            f"{words}: take a smaller --model, fewer rows at once (--batch), or a smaller --size"
        ) from None


@_refusing_what_no_memory_holds()
def feature_table(asked: Asked, out: Path | None = None) -> Table:
    """The table that was asked for: computed, or found where it lies already, by its key.

    Raises a ConfigurationError in one line for what cannot be made, and where `out` holds something else.
    """
    if asked.batch < 1:
        raise FeatureError("--batch must be at least 1")
    if out is not None and out.suffix != ".npz":
        raise FeatureError(f"--out {out}: a table's name ends with .npz")
    dataset, device = load_dataset(asked.data, asked.data_root or None), device_of(asked.device)
    trunk = _trunk(asked, dataset, device)
    about = _about(asked, dataset, trunk)
    path = out or Path("features") / f"{_slug(asked.data)}-{_slug(asked.model)}-{about['key'][:8]}.npz"
    if os.path.lexists(path):
        if _key(path) != about["key"]:
            raise FeatureError(f"{path} holds something else, and stays as it is: choose another --out, or delete it")
        return Table(path, about, False)
    make_folder(path.parent)
    rows = _features(asked, dataset, trunk, device)
    first = next(rows)

    def pieces() -> Iterator[np.ndarray]:
        yield first
        yield from rows

    write_table(path, pieces(), first.shape[1:], _labels(dataset), dataset.train_rows, about)
    return Table(path, about, True)


def _key(path: Path) -> str:
    """The key of a table that is there, sound and whole; "" where it is another kind of file."""
    key = about_table(path).get("key")
    if not isinstance(key, str):
        return ""
    refuse_damaged(path)
    return key


def _features(asked: Asked, dataset: Dataset, trunk: Trunk, device: torch.device) -> Iterator[np.ndarray]:
    """Features of all rows in order, a piece at a time, float32 [n, F]."""
    with torch.no_grad():
        for x in dataset.x.split(asked.batch):
            seen = asked.transform(scaled(x.to(device), torch.float32))
            yield trunk.features(seen).flatten(1).cpu().numpy()


def _labels(dataset: Dataset) -> np.ndarray:
    """Labels as the data have them, where they are numbers; else the classes."""
    named = dataset.labels if all(isinstance(label, int) for label in dataset.labels) else ()
    return np.array(named, dtype=np.int64)[dataset.y.numpy()] if named else dataset.y.numpy()


def _about(asked: Asked, dataset: Dataset, trunk: Trunk) -> dict[str, Any]:
    """What the table says of itself; its key is the hash of all of it."""
    about = {
        "version": VERSION,
        "model": asked.model,
        "code": trunk.code,
        "weights": weights_hash(trunk.tensors),
        "pretrained on": trunk.pretrained_on,
        "transform": "" if asked.transform == Transform() else repr(asked.transform),
        "data": asked.data,
        "data content": dataset.content_hash(),
        "training rows": dataset.train_rows,
        "labels": list(dataset.labels),
        "data origin": dataset.origin,
    }
    return {**about, "key": hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", Path(text).name.lower().removesuffix(".npz")).strip("-")[:40]


# --- networks ---------------------------------------------------------------------------------------------------------


def _trunk(asked: Asked, dataset: Dataset, device: torch.device) -> Trunk:
    if asked.weights and asked.pretrained:
        raise FeatureError("--weights and --pretrained name two sets of weights: leave one of them out")
    trunk = _outside(asked, device) if is_outside(asked.model) else _ours(asked, dataset, device)
    if trunk.pretrained_on.startswith("nothing") and asked.pretrained_on:
        raise FeatureError(
            "the weights are random, and were trained on nothing: give --weights, or leave --pretrained-on out"
        )
    return trunk._replace(pretrained_on=" ".join(asked.pretrained_on.split()) or trunk.pretrained_on)


def _outside(asked: Asked, device: torch.device) -> Trunk:
    """A user's function, or a network of a package."""
    file = asked.model.partition(":")[0].endswith(".py")
    if file and asked.pretrained:
        raise FeatureError(
            "--pretrained is for networks of packages: let the function load its weights, or give --weights"
        )
    module = outside_network(asked.model, asked.seed, asked.pretrained)
    learned = "unknown" if file or asked.pretrained or asked.weights else f"nothing: random weights, seed {asked.seed}"
    if asked.weights:
        load_weights(module, Path(asked.weights))
    module = module.to(device)
    return Trunk(lambda x: features_of(module, x), dict(module.state_dict()), code_of(asked.model), learned)


def _ours(asked: Asked, dataset: Dataset, device: torch.device) -> Trunk:
    """A model of ours or a user's class, as in `Conv4(32)`; its weights are those of a start's file."""
    model = parse(asked.model, "models")
    if varied_paths(model):
        raise FeatureError(f"{model!r} varies, and a table is of one network")
    if asked.pretrained:
        raise FeatureError(f"{model!r} has no weights that could be fetched: give --weights with a start's file")
    if model.mixes_rows or model.task_embedding:
        raise FeatureError(
            f"{model!r} needs more than a row to say its features: take a network that sees each by itself"
        )
    shape = tuple(asked.transform(scaled(dataset.x[:1], torch.float32)).shape[1:])
    net = model.init(shape, dataset.classes, generator(asked.seed, "model"))
    learned = f"nothing: random weights, seed {asked.seed}"
    if asked.weights:
        start = load_learned(Path(asked.weights)).of(asked.seed)
        if start.about["model"] != repr(model):
            raise FeatureError(f"{asked.weights} is for {start.about['model']}, and not for {model!r}")
        net, learned = with_trunk(net, start.meta_of_seed["net"]), f"{start.about['data']}, by {start.about['made by']}"
    params: Params = {"net": {name: value.to(device) for name, value in net.items()}}
    trunk = {name: value for name, value in net.items() if not name.startswith("head.")}
    code = ", ".join(digest_of(path)[:16] for path in code_named([asked.model]))
    return Trunk(lambda x: model.features(params["net"], x), trunk, code, learned)


def about_lines(table: Table) -> dict[str, str]:
    """What is said of a table, in words, for a person."""
    return {name: str(value) for name, value in {**table.about, "labels": len(table.about["labels"])}.items() if value}


def as_json(table: Table) -> dict[str, Any]:
    """The same for a program."""
    return {"file": str(table.path), "made now": table.is_new, **table.about}


def of_words(words: dict[str, Any]) -> Asked:
    """The request that a command's words make."""
    known = asdict(Transform())
    transform = Transform(**{name: words.pop(name) for name in known})
    return Asked(**words, transform=transform)
