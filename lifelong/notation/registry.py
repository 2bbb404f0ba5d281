"""Everything that can be named, found once in a process: in our packages, and in what installed packages offer.

Nothing is listed by hand: a public record in the right package that has the verbs of its kind can be named.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoints, entry_points
from types import ModuleType
from typing import Any

from lifelong.notation.user_code import words_of


class PlugInWarning(UserWarning):
    """An installed plug-in that cannot be used; everything else works without it."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What can be named as one kind of thing.

    sources: modules and packages of ours that are looked through; those that are not there are passed over. verbs: what
    a class of this kind has. without: classes that have the verbs and need more than a text can say. besides: classes that
    can be named without having the verbs, as "module:Name". maker: the function that says how a class is made into one,
    where calling it is not enough, as "module:name". singular: in words.
    """

    singular: str
    sources: tuple[str, ...]
    verbs: tuple[str, ...]
    without: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    maker: str = ""

    def fits(self, value: Any) -> bool:
        """Whether a value is a record of this kind that can be made."""
        return (
            inspect.isclass(value)
            and dataclasses.is_dataclass(value)
            and not inspect.isabstract(value)
            and set(self.verbs) <= set(dir(value))
        )


KINDS = {
    "strategies": Kind(
        "strategy", ("lifelong.core.strategy", "lifelong.strategies"), ("penalty", "extend"), ("Strategy", "Sum")
    ),
    "models": Kind("model", ("lifelong.models",), ("init", "features", "head"), ("Module",), maker="lifelong.models.module:described"),
    "optimisers": Kind(
        "optimiser", ("lifelong.optimisers",), ("init", "update", "update_"), ("PerParameterSGD", "PerStepSGD", "Grouped", "Multiplied"),
    ),
    "memories": Kind("memory", ("lifelong.memory",), ("insert", "insert_task", "pick"), ("RowMemory",)),
    "learners": Kind("learner", ("lifelong.learners",), ("init", "step", "predict")),
    "initialisations": Kind(
        "initialisation", ("lifelong.meta",), ("init", "draw", "gradient", "query_scores"),
        besides=("lifelong.core.initialisation:Random",),
    ),
    "probes": Kind("probe", ("lifelong.probes",), ("check", "begin", "name")),
    "adaptations": Kind("method of adaptation", ("lifelong.adaptation", "lifelong.strategies"), ("phases",)),
}  # fmt: skip


@functools.cache
def found(kind: str) -> dict[str, Any]:
    """What can be named of a kind, by name; looked for once."""
    about = KINDS[kind]
    ours = {place.partition(":")[2]: at_place(place) for place in about.besides} | {
        name: value
        for module in _modules(about.sources)
        for name, value in vars(module).items()
        if about.fits(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and name not in about.without
    }
    return ours | {name: value for name, value in _installed(kind, about) if name not in ours}


def at_place(place: str) -> Any:
    """What stands at "module:name", imported now."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _modules(sources: tuple[str, ...]) -> Iterator[ModuleType]:
    """The modules of some packages, in order; packages inside them too."""
    for source in sources:
        if not _is_there(source):
            continue
        module = importlib.import_module(source)
        yield module
        for info in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{source}."):
            yield importlib.import_module(info.name)


def _is_there(source: str) -> bool:
    """Whether a package of ours has a module of this name."""
    parent = importlib.import_module(source.rpartition(".")[0])
    return PathFinder.find_spec(source, parent.__path__) is not None


@functools.cache
def _points() -> EntryPoints:
    """Entry points of all that is installed; reading them takes long."""
    return entry_points()  # pyright: ignore[reportReturnType] # Python 3.11 has another name for what selects alike


def installed_names(kind: str) -> list[str]:
    """The names that installed packages offer, without importing any of them."""
    return [point.name for point in _points().select(group=f"lifelong.{kind}")]


def _installed(kind: str, about: Kind) -> Iterator[tuple[str, Any]]:
    """What installed packages offer as `lifelong.KIND`; what is broken is left out, with a warning that names it."""
    for point in _points().select(group=f"lifelong.{kind}"):
        try:
            value = point.load()
        except (Exception, SystemExit) as error:  # somebody else's package may raise anything at all
            reason = words_of(error)
        else:
            if about.fits(value) or (
                kind == "models" and inspect.isclass(value)
            ):  # a torch module is checked when made
                yield point.name, value
                continue
            reason = f"it is no {about.singular}"
        warnings.warn(f"the plug-in {point.name} ({point.value}) is left out: {reason}", PlugInWarning, stacklevel=2)
