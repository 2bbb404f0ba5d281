"""Operations on tensors, recorded once and played back: the same numbers without the bookkeeping of Python.

A recording knows shapes, not values: whoever takes a Python decision on a value would be held to the first one. So what
is recorded are pure functions of tensors, and the contract `recorded and eager are the same` holds every method to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

aten = torch.ops.aten
# operations that hand on what they were given, where neither shape nor strides change
LOOKS = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.detach.default, aten.alias.default}


class Recording:
    """The operations that a function of trees of tensors made of its arguments, to be played on others of their form.

    function: trees of tensors to a tree of tensors; it may write into its arguments in place, and playing then does.
    The recording is made on copies, so that the arguments are as they were. compiled: whether torch.compile takes over
    what was recorded. Raises whatever the function raises where it cannot be recorded.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, compiled: bool = False) -> None:
        leaves, self.form = tree_flatten(arguments)
        self.shapes = [leaf.shape for leaf in leaves]
        made: list[TreeSpec] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            results, form = tree_flatten(function(*tree_unflatten(list(leaves), self.form)))
            made.append(form)
            return results

        with torch.no_grad():
            graph = make_fx(flat)(*(leaf.clone() for leaf in leaves))
        self.result = made[0]
        _tidy(graph)
        self.graph = graph
        self._run: Callable[..., list[Tensor]] = torch.compile(graph) if compiled else graph.forward  # type: ignore[assignment]

    def fits(self, leaves: Sequence[Tensor]) -> bool:
        """Whether these leaves have the shapes that were recorded."""
        return [leaf.shape for leaf in leaves] == self.shapes

    def play(self, *leaves: Tensor) -> list[Tensor]:
        """The leaves of the function's result, from those of its arguments."""
        with torch.no_grad():
            return self._run(*leaves)

    def __call__(self, *arguments: Any) -> Any:
        """As the function itself; arguments of another form are refused by an assertion."""
        leaves, form = tree_flatten(arguments)
        assert form == self.form and self.fits(leaves), "played back on arguments of another form"
        return tree_unflatten(self.play(*leaves), self.result)


def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A pure function of tensors whose operations are recorded at its first call, and played back from then on.

    Arguments of other shapes go through the function itself.
    """
    held: list[Recording] = []

    def play(*arguments: Any) -> Any:
        if not held:
            held.append(Recording(function, *arguments))
        leaves, form = tree_flatten(arguments)
        if form != held[0].form or not held[0].fits(leaves):
            return function(*arguments)
        return tree_unflatten(held[0].play(*leaves), held[0].result)

    return play


def _tidy(graph: GraphModule) -> None:
    """Take out what changes nothing: views of the shape that was there, and what nobody reads."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in LOOKS and _is_same(node, node.args[0]):
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code(is_impure_node=_is_needed)
    graph.recompile()


def _is_same(node: Node, source: Any) -> bool:
    """Whether an operation hands on its source as it is."""
    before, after = (each.meta.get("val") if isinstance(each, Node) else None for each in (source, node))
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    return before.shape == after.shape and before.stride() == after.stride() and before.dtype == after.dtype


def _is_needed(node: Node) -> bool:
    """Whether a node does something besides giving its result."""
    mutates = isinstance(node.target, OpOverload) and node.target._schema.is_mutable
    return node.op in ("placeholder", "output") or mutates
