"""The most bytes that a computation holds at once, counted on tensors without values: nothing is computed for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(compute: Callable[[], Any]) -> int:
    """The most bytes that `compute` holds at once besides what was there before it, graph included.

    Call it with tensors on the meta device, which have shapes and no values.
    """
    watch = _Held()
    with watch:
        compute()
    return watch.most


class _Held(TorchDispatchMode):
    """Watches what operations make, and when its memory is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.most = 0, 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        given = {_place(leaf) for leaf in tree_leaves((arguments, named)) if isinstance(leaf, Tensor)}
        result = operation(*arguments, **(named or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _place(leaf) not in given:  # a view holds nothing of its own
                self._take(leaf)
        return result

    def _take(self, made: Tensor) -> None:
        storage, place = made.untyped_storage(), _place(made)
        known = self._known.get(place)
        if known is not None and known() is not None:
            return
        size = storage.nbytes()

        def given_back(_: Any) -> None:
            self.held -= size

        self._known[place] = weakref.ref(storage, given_back)
        self.held += size
        self.most = max(self.most, self.held)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
