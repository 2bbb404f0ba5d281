"""What was learned, and how far learning got, on disk: plain files of tensors, never pickled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lifelong.core.files import RunError, filled, load_tensors, named, save_tensors
from lifelong.core.stopped import Stopped
from lifelong.meta.pretraining import Event, PretrainingState, Stepped
from scenarios.errors import ConfigurationError

CHECKPOINT = {"words": str, "iteration": int, "seconds": float, "validated": list[int]}
STRUCTURE = "structure"  # under which a file says how its tensors hang together


class StateError(ConfigurationError):
    """A tree that cannot be written as plain tensors; its message is one line."""


def save_tree(path: Path, tree: Any, about: dict[str, Any]) -> None:
    """Write dictionaries, tuples and lists of tensors, of any depth, and what is to be said of them."""
    tensors: dict[str, Tensor] = {}
    save_tensors(path, tensors, {**about, STRUCTURE: _taken_apart(tree, "", tensors)})


def load_tree(path: Path, kinds: Any = None) -> tuple[Any, dict[str, Any]]:
    """What `save_tree` wrote; kinds: of what is said, see `scenarios.typed`. Raises RunError where the file is damaged."""
    tensors, about = load_tensors(path, kinds)
    structure = about.pop(STRUCTURE, {"dict": {}})  # of a file that is no tree, what is said of it tells so
    try:
        return _put_together(structure, tensors), about
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise RunError(f"{path} is damaged: its tensors are not those that it names") from None


def _taken_apart(tree: Any, place: str, into: dict[str, Tensor]) -> Any:
    """A tree with the name of each tensor in its place; its tensors are put into a dictionary by these names.

    Of exactly these kinds: a named tuple, or a tuple of the user's own, would come back as another type.
    """
    if type(tree) is dict:
        for key in tree:
            if type(key) is not str:
                raise StateError(
                    f"what is learned is named by text, and{_at(place)} a key is {key!r}: write {str(key)!r}"
                )
        return {"dict": {key: _taken_apart(value, f"{place}/{key}", into) for key, value in tree.items()}}
    if type(tree) in (tuple, list):
        parts = [_taken_apart(value, f"{place}/{i}", into) for i, value in enumerate(tree)]
        return {type(tree).__name__: parts}
    if isinstance(tree, Tensor):
        into[place] = tree
        return place
    raise StateError(
        f"what is learned is made of dict, tuple, list and tensors, and{_at(place)} there is a {type(tree).__name__}"
    )


def _at(place: str) -> str:
    return f" at {place!r}" if place else ""


def _put_together(structure: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that `_taken_apart` took apart."""
    if isinstance(structure, str):
        return tensors[structure]
    ((kind, parts),) = structure.items()
    if kind == "dict":
        return {key: _put_together(part, tensors) for key, part in parts.items()}
    return {"tuple": tuple, "list": list}[kind](_put_together(part, tensors) for part in parts)


def _never() -> bool:
    return False


@dataclass
class Checkpoints:
    """Saves the outer loop beside its file, at the first iteration after every so many seconds; goes on from there.

    words: of the request, by which a checkpoint is known again. stop_asked, asked: whether to save and stop; begun:
    whether there is anything to save.
    """

    path: Path
    words: str
    every: float = 60.0
    stop_asked: bool = False
    asked: Callable[[], bool] = _never
    saved: float = field(default_factory=time.monotonic)
    begun: bool = False

    def restore(self, state: PretrainingState) -> PretrainingState:
        """The saved state, or the state as given. Raises RunError where it is another request's.

        Raises StateError, before anything is learned, where what will be learned could not be written.
        """
        _taken_apart(state.meta, "", {})
        if not os.path.lexists(self.path):
            return state
        tensors, about = load_tensors(self.path, CHECKPOINT)
        if about["words"] != self.words:
            raise RunError(f"{self.path} is of another request ({about['words'][:120]}): delete it to start again")
        iteration, scores = about["iteration"], [f"validated {i}" for i in about["validated"]]
        state.meta = filled(state.meta, tensors, "meta", self.path)
        state.optimiser = filled(state.optimiser, tensors, "optimiser", self.path)
        losses = tensors.get("losses")
        kinds = [losses, *map(tensors.get, scores)]
        if iteration < 1 or any(value is None or value.ndim != 2 or not value.is_floating_point() for value in kinds):
            raise RunError(f"{self.path} is of another run: delete it to start again")
        assert losses is not None
        state.iteration, state.seconds = iteration, about["seconds"]
        state.losses[:, :iteration] = losses
        state.validated = [(i, tensors[name]) for i, name in zip(about["validated"], scores, strict=True)]
        return state

    def __call__(self, event: Event) -> None:
        """After an iteration, save when it is time or when a stop was asked for."""
        state, self.begun = event.state, self.begun or isinstance(event, Stepped)
        if not isinstance(event, Stepped) or state.iteration == event.iterations:
            return
        stops = self.stop_asked or self.asked()
        if not stops and time.monotonic() - self.saved < self.every:
            return
        tensors: dict[str, Tensor] = {"meta" + name: leaf for name, leaf in named(state.meta).items()}
        tensors |= {"optimiser" + name: leaf for name, leaf in named(state.optimiser).items()}
        tensors |= {f"validated {i}": scores for i, scores in state.validated}
        tensors["losses"] = state.losses[:, : state.iteration].clone()
        where = {"iteration": state.iteration, "seconds": state.seconds, "words": self.words}
        save_tensors(self.path, tensors, {**where, "validated": [i for i, _ in state.validated]})
        self.saved = time.monotonic()
        if stops:
            raise Stopped
