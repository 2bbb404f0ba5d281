"""Operations on tensors, recorded once and played back: the same numbers without the bookkeeping of Python.

A recording knows shapes, not values: whoever takes a Python decision on a value would be held to the first one. So what
is recorded are pure functions of tensors, and the contract `recorded and eager are the same` holds every method to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from lifelong.core.interpreted import interpreted
from lifelong.core.passes import (
    descend_piecewise,
    fold,
    is_kernel,
    look_up_together,
    tidy,
    whole_rows,
    write_into_what_dies,
)


class Recording:
    """The operations that a function of trees of tensors made of its arguments, to be played on others of their form.

    function: trees of tensors to a tree of tensors; it may write into its arguments in place, and playing then does.
    The recording is made on copies, so that the arguments are as they were. owned: how many of the first leaves belong
    to whoever plays, so that results may be written into them: no two may share memory. compiled: whether torch.compile
    takes over what was recorded. Raises whatever comes up where it cannot be recorded, or not be compiled.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, owned: int = 0, compiled: bool = False) -> None:
        leaves, self.form = tree_flatten(arguments)
        self.forms = list(map(_form, leaves))
        made: list[TreeSpec] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            results, form = tree_flatten(function(*tree_unflatten(list(leaves), self.form)))
            made.append(form)
            return results

        # one mode for the shapes of all that is recorded; else every operation makes its own, and takes twice as long
        with torch.no_grad(), tracing(TracingContext(FakeTensorMode())):
            graph = make_fx(flat)(*map(_copy, leaves))
        self.result = made[0]
        tidy(graph)
        fold(graph)
        look_up_together(graph)
        whole_rows(graph)
        if not compiled:
            descend_piecewise(graph)
        write_into_what_dies(graph, owned)
        self.graph = graph
        self.run: Callable[..., list[Tensor]] = graph.forward
        if all(leaf.device.type == "cpu" for leaf in leaves) and not compiled:
            self.run = interpreted(graph, list(map(_copy, leaves)))
        if compiled:
            _keep_kernels(graph)
            self.run = torch.compile(graph)
            self.play(*map(_copy, leaves))  # compiled now, so that what cannot be is found here

    def fits(self, arguments: Any) -> bool:
        """Whether these arguments have the form that was recorded, and their tensors the shapes, types and strides."""
        leaves, form = tree_flatten(arguments)
        return form == self.form and list(map(_form, leaves)) == self.forms

    def play(self, *leaves: Tensor) -> list[Tensor]:
        """The leaves of the function's result, from those of its arguments."""
        with torch.no_grad():
            return self.run(*leaves)

    def __call__(self, *arguments: Any) -> Any:
        """As the function itself, on arguments that fit."""
        return tree_unflatten(self.play(*tree_leaves(arguments)), self.result)


class NotRecorded(UserWarning):
    """Operations that cannot be recorded, or not be compiled; the numbers are the same without it."""


def warn_not_recorded(words: str, error: Exception, caller: int = 3) -> None:
    """Warn of operations that stay as they are, with the reason; caller: frames up to the line that is shown."""
    # a line that ends with a colon only announces the next
    lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith(":")]
    warnings.warn(f"{words}: {lines[0] if lines else type(error).__name__}", NotRecorded, stacklevel=caller)


def recorded(
    function: Callable[..., Any], name: str = "operations", after: int = 0, record: bool = True
) -> Callable[..., Any]:
    """A pure function of tensors whose operations are recorded after so many calls, and played back from then on.

    Arguments of other shapes, types or strides go through the function itself, and so do all where it cannot be recorded,
    with a warning that calls it by its name.
    """
    held: list[Recording] = []
    calls = 0

    def play(*arguments: Any) -> Any:
        nonlocal calls, record
        calls += 1
        if record and not held and calls > after:
            try:
                held.append(Recording(function, *arguments))
            except Exception as error:  # a user's code may raise anything where it meets no values
                record = False
                warn_not_recorded(f"{name} are not recorded, but taken operation by operation", error)
        return held[0](*arguments) if held and held[0].fits(arguments) else function(*arguments)

    return play


def _form(leaf: Tensor) -> tuple[Any, ...]:
    """What a recording takes for granted in a tensor: views of it were recorded, or copies, by its strides."""
    return leaf.shape, leaf.dtype, () if leaf.is_contiguous() else leaf.stride()


def _copy(leaf: Tensor) -> Tensor:
    """A copy that lies in memory as the tensor does: a plain one would be contiguous where the tensor has gaps."""
    if leaf.is_contiguous():
        return leaf.clone()
    extent = sum((size - 1) * step for size, step in zip(leaf.shape, leaf.stride(), strict=True)) + 1
    return leaf.as_strided((extent,), (1,)).clone().as_strided(leaf.shape, leaf.stride(), 0)


def _keep_kernels(graph: GraphModule) -> None:
    """Leave an optimiser's fused kernel as it is, between what is compiled before it and after it.

    The compiler does not know these kernels, which write into lists of tensors.
    """
    for node in graph.graph.nodes:
        if is_kernel(node):
            node.target, node.args = _outside, (node.target, *node.args)
    graph.recompile()


@torch.compiler.disable
def _outside(kernel: OpOverload, *arguments: Any, **options: Any) -> Any:
    """A kernel called between compiled parts."""
    return kernel(*arguments, **options)
