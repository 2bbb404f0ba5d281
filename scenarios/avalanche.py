"""An Avalanche benchmark as a Stream. The only file here that imports avalanche, and only when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scenarios.catalogue import Entry
from scenarios.datasets import default_root
from scenarios.stream import Budget, Dataset, ScenarioError, Stream, Task


@dataclass(frozen=True)
class AvalancheTasks:
    """The benchmark's own tasks: the same for every seed, since the benchmark drew its order when it was made."""

    tasks_: tuple[Task, ...]

    def tasks(self, dataset: Dataset, seed: int) -> list[Task]:
        """The experiences."""
        return list(self.tasks_)


def _module() -> Any:
    try:
        import avalanche.benchmarks as benchmarks
    except ImportError as error:
        raise ScenarioError(f"avalanche cannot be imported ({error}): pip install avalanche-lib") from None
    return benchmarks


# transforms that make a row a function of the row alone; every other one is refused by its name
PLAIN = ("ToTensor", "PILToTensor", "ConvertImageDtype", "Normalize", "Resize", "Grayscale", "PixelsPermutation")
WRAPPERS = ("Compose", "MultiParamCompose", "MultiParamTransformCallable", "FlattenTransform")
ASIDE = "read rows as they are with train_transform=None, eval_transform=None"


def _refuse_transforms(transform: Any) -> None:
    """Refuse by name what is not known to be a function of the row."""
    name = type(transform).__name__
    if name == "TupleTransform":  # one for the row, one for its label; reading twice watches over the labels
        return _refuse_transforms(transform.transforms[0])
    inside = [getattr(transform, "transforms", None), getattr(transform, "transform", None)]
    parts = [
        part for held in inside if held is not None for part in (held if isinstance(held, list | tuple) else [held])
    ]
    fixed = name == "RandomRotation" and len(set(transform.degrees)) == 1  # how Avalanche turns by a fixed angle
    if transform is None or name in PLAIN or fixed:
        return
    if name not in WRAPPERS and not parts:
        raise ScenarioError(f"the transform {name} cannot be honoured, since it may be random: {ASIDE}")
    for part in parts:
        _refuse_transforms(part)


def _layers(data: Any) -> Iterator[Any]:
    """Every layer of an Avalanche dataset, from the outermost in."""
    yield data
    for inner in [getattr(data, "_flat_data", None), *(getattr(data, "_datasets", None) or [])]:
        if inner is not None:
            yield from _layers(inner)


def _rows(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    for layer in _layers(dataset):
        for held in ("_transform_groups", "_frozen_transform_groups"):
            groups = getattr(layer, held, None)
            if groups is not None:
                _refuse_transforms(groups.transform_groups.get(groups.current_group))
        _refuse_transforms(
            getattr(layer, "transform", None) if type(layer).__module__.startswith("torchvision") else None
        )
    for i in range(min(4, len(dataset))):
        once, again = dataset[i], dataset[i]
        if not np.array_equal(_array(once[0]), _array(again[0])) or once[1] != again[1]:
            raise ScenarioError(
                f"the benchmark's rows change from one reading to the next (a random transform): {ASIDE}"
            )
    x, y = zip(*((_array(row[0]), int(row[1])) for row in dataset), strict=True)
    return np.stack(x), np.array(y)


def _array(x: Any) -> np.ndarray:
    """A row as numbers: floating point as it is, images as bytes, channels first."""
    array = np.asarray(x)
    return array.transpose(2, 0, 1) if array.dtype == np.uint8 and array.ndim == 3 else array


def stream_of(benchmark: Any, setting: str = "", name: str = "avalanche", budget: Budget | None = None) -> Stream:
    """The stream of an Avalanche benchmark: its train and test streams, row by row through its own transforms, once.

    setting: "task" where the benchmark gives task labels and nothing else is said, "domain" where its experiences
    share classes, else "class". Raises ScenarioError for transforms that cannot be honoured, naming them.
    """
    train = [_rows(experience.dataset) for experience in benchmark.train_stream]
    test = [_rows(experience.dataset) for experience in benchmark.test_stream]
    if len(train) != len(test):
        raise ScenarioError(
            f"the benchmark has {len(train)} training and {len(test)} test experiences; a stream needs as many"
        )
    labels = [
        int(experience.task_label) if len(set(experience.task_labels)) == 1 else 0
        for experience in benchmark.train_stream
    ]
    classes_of = [sorted(set(y.tolist())) for _, y in train]
    shared = any(set(a) & set(b) for i, a in enumerate(classes_of) for b in classes_of[i + 1 :])
    multi = len(set(labels)) > 1
    setting = setting or ("task" if multi else "domain" if shared else "class")
    x = torch.from_numpy(np.concatenate([x for x, _ in train + test]))
    y = torch.from_numpy(np.concatenate([y for _, y in train + test]))
    total = int(y.max()) + 1
    sizes = [len(part[1]) for part in train + test]
    starts = np.cumsum([0, *sizes])
    heads = shared and setting == "task"  # each task its own outputs
    tasks = []
    for t, classes in enumerate(classes_of):
        label = torch.full((total,), -1, dtype=torch.int64)
        numbers = torch.tensor(classes) + (t * total if heads else 0)
        label[torch.tensor(classes)] = numbers
        rows = [torch.arange(starts[i], starts[i] + sizes[i]) for i in (t, len(train) + t)]
        tasks.append(Task(t, rows[0], rows[0][:0], rows[1], label, tuple(numbers.tolist())))
    dataset = Dataset(name, x, y, int(starts[len(train)]), total)
    width = total * len(train) if heads else total
    return Stream(
        name,
        dataset,
        AvalancheTasks(tuple(tasks)),
        setting,
        len(train),
        width,
        budget=budget or Budget(iterations=500, batch=128),
    )


def entry_of(name: str, options: dict[str, Any]) -> Entry:
    """A catalogue entry for `avalanche:NAME(...)`, a classic benchmark by its Avalanche name."""
    import difflib

    benchmarks = _module()
    maker = getattr(benchmarks, name, None)
    if maker is None or name.startswith("_") or not callable(maker):
        known = [n for n in dir(benchmarks) if n[0].isupper()]
        near = difflib.get_close_matches(name, known, 1)
        raise ScenarioError(f"avalanche has no benchmark {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
    options = {"dataset_root": str(default_root()), **options}

    def make(dataset: Dataset, setting: str = "", budget: Budget | None = None) -> Stream:
        try:
            benchmark = maker(**options)
        except TypeError as error:
            raise ScenarioError(f"avalanche:{name}: {str(error).splitlines()[0]}") from None
        except (OSError, RuntimeError) as error:
            raise ScenarioError(f"avalanche:{name}: its data is not there ({str(error).splitlines()[0]})") from None
        return stream_of(benchmark, setting if setting != "auto" else "", f"avalanche:{name}", budget)

    return Entry(
        f"avalanche:{name}",
        make,
        "digits",
        "auto",
        budget=Budget(iterations=500, batch=128),
        about="read from Avalanche",
    )
