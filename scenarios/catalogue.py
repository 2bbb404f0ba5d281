"""The named scenarios, each with its protocol's defaults, and how a user registers one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from scenarios.blurry import blurry
from scenarios.correlated import correlated, unbalanced
from scenarios.datasets import load_dataset
from scenarios.errors import in_a_line
from scenarios.few_classes import few_classes
from scenarios.gradual import gradual
from scenarios.longtail import longtail
from scenarios.machine import MOST_TASKS
from scenarios.noise import noisy
from scenarios.online import online
from scenarios.overlaid import multi_class
from scenarios.regression import mixed, regression
from scenarios.related import related
from scenarios.split import split
from scenarios.stream import Budget, ScenarioError, Stream
from scenarios.synthetic import MADE
from scenarios.transformed import permuted, rotated


@dataclass(frozen=True)
class Entry:
    """A named scenario: what makes its stream, and the protocol a run takes where the user says nothing.

    make(dataset, setting=..., **options) -> Stream; data: the data set, "" where the `data` option names it.
    model, optimiser: as text. background: the data set that meta-learning may use.
    """

    name: str
    make: Callable[..., Stream]
    data: str
    setting: str = "class"
    options: dict[str, Any] = field(default_factory=dict)
    model: str = "MLP(400, 400)"
    optimiser: str = "Adam(0.001)"
    budget: Budget = field(default_factory=lambda: Budget(iterations=500, batch=32))
    about: str = ""
    background: str = ""


CATALOGUE: dict[str, Entry] = {}


def register(entry: Entry) -> Entry:
    """Add a scenario to the catalogue, from Python or from a file named on the command line."""
    CATALOGUE[entry.name] = entry
    return entry


class _Trained(TypedDict):
    """What entries of one kind share: how long they are trained."""

    budget: Budget


class _TrainedOn(_Trained):
    """The same, and the network."""

    model: str


_SMALL: _TrainedOn = {"model": "MLP(100, 100)", "budget": Budget(iterations=200, batch=32)}
_MNIST: _Trained = {"budget": Budget(iterations=2000, batch=128)}
_ONCE: _Trained = {"budget": Budget(epochs=1, batch=10)}
_IMAGES: _TrainedOn = {"model": "Conv4(32)", "budget": Budget(iterations=2000, batch=64)}
for _entry in (
    Entry("split-digits", split, "digits", "class", {"tasks": 5}, **_SMALL, about="the embedded digits, 5 x 2 classes"),
    Entry("permuted-digits", permuted, "digits", "domain", {"tasks": 5}, **_SMALL, about="the embedded digits, pixels in a new order in each task"),
    Entry("rotated-digits", rotated, "digits", "domain", {"tasks": 5}, **_SMALL, about="the embedded digits, turned further in each task"),
    Entry("gradual-digits", gradual, "digits", "class", {"tasks": 5}, **_SMALL, about="the embedded digits, each 2 classes fade into the next 2; no task ends"),
    Entry("blurry-digits", blurry, "digits", "class", {"tasks": 5}, **_SMALL, about="the embedded digits, 30 % of each task's rows from the others (Blurry30, Bang et al., 2021)"),
    Entry("longtail-digits", longtail, "digits", "class", {"tasks": 5, "imbalance": 20.0}, **_SMALL, about="the embedded digits, the largest class with 20 times the rows of the smallest (Cao et al., 2019)"),
    Entry("noisy-digits", noisy, "digits", "class", {"tasks": 5}, **_SMALL, about="the embedded digits, 20 % of the training labels wrong"),
    Entry("online-digits", online, "digits", "class", {"tasks": 5}, model="MLP(100, 100)", **_ONCE, about="the embedded digits in one pass, batches of 10; steps on each: online-digits(repeats=3)"),
    Entry("regression-digits", regression, "digits", "task", {"tasks": 5}, **_SMALL, about="the embedded digits, another number in each task: centre of mass, slant, mass, spread"),
    Entry("mixed-digits", mixed, "digits", "task", {"tasks": 4}, **_SMALL, about="the embedded digits, tasks of classes and of numbers in turn"),
    Entry("related-digits", related, "digits", "task", {"tasks": 12}, **_SMALL, about="the embedded digits, turned and permuted in turn: related tasks and unrelated ones"),
    Entry("multi-digits", multi_class, "digits", "task", {"tasks": 2}, **_SMALL, about="two of the embedded digits in each image, a task for the left and one for the right"),
    Entry("correlated", correlated, "gaussian", "task", {"tasks": 2}, model="MLP(32)", budget=Budget(iterations=500, batch=64), about="two numbers asked of the same features, as alike as correlation=0.5 says (Ma et al., 2018)"),
    Entry("unbalanced", unbalanced, "gaussian", "task", {"tasks": 3}, model="MLP(100, 100)", budget=Budget(iterations=500, batch=64), about="tasks of one kind on scales 1, 10, 100 (Chen et al., 2018)"),
    Entry("split-blobs", split, "blobs", "class", {"tasks": 5}, model="MLP(50)", budget=Budget(iterations=50, batch=16), about="Gaussian clouds, 5 x 2 classes; milliseconds"),
    Entry("split-mnist", split, "mnist", "class", {"tasks": 5}, **_MNIST, about="MNIST, 5 x 2 digits (van de Ven et al., 2022)"),
    Entry("permuted-mnist", permuted, "mnist", "domain", {"tasks": 10}, model="MLP(1000, 1000)", optimiser="Adam(0.0001)", budget=Budget(iterations=5000, batch=256), about="MNIST, pixels in a new order in each of 10 tasks"),
    Entry("rotated-mnist", rotated, "mnist", "domain", {"tasks": 10}, **_MNIST, about="MNIST, turned by 0 ... 180 degrees over 10 tasks"),
    Entry("gradual-mnist", gradual, "mnist", "class", {"tasks": 5}, **_MNIST, about="MNIST, each 2 digits fade into the next 2; no task ends"),
    Entry("blurry-mnist", blurry, "mnist", "class", {"tasks": 5}, **_MNIST, about="MNIST, 30 % of each task's rows from the others (Blurry30, Bang et al., 2021)"),
    Entry("longtail-mnist", longtail, "mnist", "class", {"tasks": 5}, **_MNIST, about="MNIST, the largest class with 100 times the rows of the smallest (Cao et al., 2019)"),
    Entry("noisy-mnist", noisy, "mnist", "class", {"tasks": 5}, **_MNIST, about="MNIST, 20 % of the training labels wrong"),
    Entry("online-mnist", online, "mnist", "class", {"tasks": 5}, **_ONCE, about="MNIST in one pass, batches of 10; steps on each: online-mnist(repeats=3)"),
    Entry("regression-mnist", regression, "mnist", "task", {"tasks": 5}, **_MNIST, about="MNIST, another number in each task: centre of mass, slant, mass, spread"),
    Entry("mixed-mnist", mixed, "mnist", "task", {"tasks": 4}, **_MNIST, about="MNIST, tasks of classes and of numbers in turn"),
    Entry("multi-mnist", multi_class, "mnist", "task", {"tasks": 2}, **_MNIST, about="MultiMNIST: two digits in each image, a task for the left and one for the right (Sener and Koltun, 2018)"),
    Entry("split-fashion-mnist", split, "fashion-mnist", "class", {"tasks": 5}, **_MNIST, about="Fashion-MNIST, 5 x 2 classes"),
    Entry("split-omniglot", split, "omniglot", "task", {"tasks": 50}, model="Conv4(32)", budget=Budget(iterations=200, batch=32), about="Omniglot, 50 x 13 characters", background="omniglot-background"),
    Entry("few-omniglot", few_classes, "omniglot", "task", {"tasks": 54, "way": 5, "size": 14}, model="MLP(256, 64)", budget=Budget(iterations=50, batch=20), about="Omniglot, 54 tasks of 5 characters, 14 x 14 pixels", background="omniglot-background"),
    Entry("related-mnist", related, "mnist", "task", {"tasks": 12}, **_MNIST, about="MNIST, turned and permuted in turn: related tasks and unrelated ones"),
    Entry("split-cifar10", split, "cifar10", "class", {"tasks": 5}, **_IMAGES, about="CIFAR-10, 5 x 2 classes"),
    Entry("split-cifar100", split, "cifar100", "class", {"tasks": 10}, **_IMAGES, about="CIFAR-100, 10 x 10 classes"),
    Entry("split", split, "", "class", {"tasks": 5}, about="any data: split(data='my.npz', tasks=5)"),
    Entry("permuted", permuted, "", "domain", {"tasks": 5}, about="any data: permuted(data='my.npz')"),
    Entry("rotated", rotated, "", "domain", {"tasks": 5}, about="any images: rotated(data='folder/')"),
):  # fmt: skip
    register(_entry)


def find(name: str) -> Entry:
    """The entry of this name; underscores count as hyphens. Raises ScenarioError with the nearest name."""
    name = name.replace("_", "-")
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else "`lifelong list scenarios` shows them all"
        raise ScenarioError(f"unknown scenario {name!r}: {hint}")
    return CATALOGUE[name]


def build(
    scenario: str | Entry,
    options: Mapping[str, Any] | None = None,
    setting: str | None = None,
    root: Path | str | None = None,
    budget: Budget | None = None,
    **more: Any,
) -> Stream:
    """The stream of a scenario, by its name or entry, with the user's options, as in `build("split-digits", tasks=2)`.

    options, and whatever is named besides: the scenario's own, and `data`, which may name any data set, `.npz` file or
    image folder. root: the folder that data sets are kept in. Raises ScenarioError for what is not known or cannot be.
    """
    entry = find(scenario) if isinstance(scenario, str) else scenario
    chosen = {**entry.options, **(options or {}), **more}
    data = chosen.pop("data", entry.data)
    known = [name for name in inspect.signature(entry.make).parameters if name not in ("dataset", "budget", "name")]
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            raise ScenarioError(
                f"{entry.name} has no option {name!r}: "
                + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}")
            )
    _check_options(entry, chosen)
    if not data:
        raise ScenarioError(
            f"{entry.name} needs data: name a data set, an .npz file or a folder, as in {entry.name}(data='my.npz')"
        )
    setting = setting or chosen.pop("setting", None) or entry.setting
    chosen.pop("setting", None)
    dataset = MADE[data]() if data in MADE else load_dataset(str(data), root)
    try:
        stream = entry.make(dataset, setting=setting, budget=budget or entry.budget, **chosen)
    except TypeError as error:
        raise ScenarioError(f"{entry.name}: {str(error).splitlines()[0]}") from None
    return replace(stream, name=entry.name)


_PLAIN = {
    "int": (int, "a whole number"), "float": (int | float, "a number"), "str": (str, "text"), "bool": (bool, "True or False"),
    "tuple[int, ...]": (tuple | list, "several whole numbers, as in (2, 0, 1)"),
}  # fmt: skip


def _check_options(entry: Entry, chosen: Mapping[str, Any]) -> None:
    """Raise ScenarioError for an option that is not of its declared type, or beyond what anybody waits for."""
    for name, option in inspect.signature(entry.make).parameters.items():
        declared = str(getattr(option.annotation, "__name__", option.annotation)).split(" | ")
        if name not in chosen or declared[0] not in _PLAIN or (chosen[name] is None and "None" in declared):
            continue
        (kind, words), value = _PLAIN[declared[0]], chosen[name]
        shown, inside = in_a_line(f"{entry.name}({name}={value!r})", 120), _inside(value)
        if not isinstance(value, kind) or any(isinstance(item, bool) for item in inside) != (kind is bool):
            raise ScenarioError(f"{shown}: {name} must be {words}")
        if isinstance(value, tuple | list) and not all(isinstance(item, int) for item in inside):
            raise ScenarioError(f"{shown}: {name} must be {words}")
        most = MOST_TASKS if name == "tasks" else 2**63 - 1
        if any(isinstance(item, int) and abs(item) > most for item in inside):
            raise ScenarioError(f"{shown}: at most {most:,} are possible: ask for fewer {name}")


def _inside(value: Any) -> list[Any]:
    """The values of a tuple or a list, or the one value that it is."""
    return list(value) if isinstance(value, tuple | list) else [value]
