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
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

aten = torch.ops.aten
# operations that hand on what they were given, where neither shape nor strides change
LOOKS = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.detach.default, aten.alias.default}

KERNELS = {getattr(packet, name) for packet in (aten._fused_adam_, aten._fused_adamw_) for name in packet.overloads()}


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

        with torch.no_grad():
            graph = make_fx(flat)(*map(_copy, leaves))
        self.result = made[0]
        _tidy(graph)
        _write_into_what_dies(graph, owned)
        self.graph = graph
        self._run: Callable[..., list[Tensor]] = graph.forward
        if compiled:
            _keep_kernels(graph)
            self._run = torch.compile(graph)
            self.play(*map(_copy, leaves))  # compiled now, so that what cannot be is found here

    def fits(self, arguments: Any) -> bool:
        """Whether these arguments have the form that was recorded, and their tensors the shapes, types and strides."""
        leaves, form = tree_flatten(arguments)
        return form == self.form and list(map(_form, leaves)) == self.forms

    def play(self, *leaves: Tensor) -> list[Tensor]:
        """The leaves of the function's result, from those of its arguments."""
        with torch.no_grad():
            return self._run(*leaves)

    def __call__(self, *arguments: Any) -> Any:
        """As the function itself, on arguments that fit."""
        return tree_unflatten(self.play(*tree_leaves(arguments)), self.result)


def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A pure function of tensors whose operations are recorded at its first call, and played back from then on.

    Arguments of other shapes, types or strides go through the function itself.
    """
    held: list[Recording] = []

    def play(*arguments: Any) -> Any:
        if not held:
            held.append(Recording(function, *arguments))
        return held[0](*arguments) if held[0].fits(arguments) else function(*arguments)

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
        if node.target in KERNELS:
            node.target, node.args = _outside, (node.target, *node.args)
    graph.recompile()


@torch.compiler.disable
def _outside(kernel: OpOverload, *arguments: Any, **options: Any) -> Any:
    """A kernel called between compiled parts."""
    return kernel(*arguments, **options)


def _tidy(graph: GraphModule) -> None:
    """Take out what changes nothing: views of the shape that was there, and what nobody reads."""
    for node in list(graph.graph.nodes):
        idle = node.target in LOOKS or (node.target is aten.mul.Scalar and node.args[1] == 1)
        if idle and _is_same(node, node.args[0]):
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


# where the first argument is read for the last time, its memory takes the result: a pass less over the memory
IN_PLACE = {
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
    aten.addcmul.default: aten.addcmul_.default,
    aten.addcdiv.default: aten.addcdiv_.default,
    aten.neg.default: aten.neg_.default,
    aten.relu.default: aten.relu_.default,
    aten.sqrt.default: aten.sqrt_.default,
    aten.masked_fill.Scalar: aten.masked_fill_.Scalar,
}
COMMUTE = {aten.add.Tensor, aten.mul.Tensor}
SMALL = 2**12  # numbers: below that a new tensor costs nothing


def _write_into_what_dies(graph: GraphModule, owned: int) -> None:
    """Elementwise operations on large tensors write into their first argument where nobody reads it afterwards.

    The same kernels on the same numbers, so the results are the same to the bit.
    """
    nodes = list(graph.graph.nodes)
    memory = _memories(nodes)
    last = {memory[node]: -1 for node in nodes}  # of each memory, the last place where it is read
    for place, node in enumerate(nodes):
        for source in node.all_input_nodes:
            last[memory[source]] = place if node.op != "output" else len(nodes)
    free = {node for node in [n for n in nodes if n.op == "placeholder"][:owned]}
    free |= {node for node in nodes if node.op == "call_function" and memory[node] is node}
    for place, node in enumerate(nodes):
        if node.target not in IN_PLACE or not _is_large(node):
            continue
        orders = (
            [node.args, (*node.args[1::-1], *node.args[2:])]
            if node.target in COMMUTE and not node.kwargs
            else [node.args]
        )
        for arguments in orders:
            first = arguments[0]
            home = memory[first] if isinstance(first, Node) else None
            if home is None or home not in free or last[home] != place or not _is_same(node, first):
                continue
            if any(memory[source] is home for source in node.all_input_nodes if source is not first):
                continue
            taken = memory[node]
            node.target, node.args = IN_PLACE[node.target], arguments
            last[home] = last[taken]
            memory.update({other: home for other in nodes if memory[other] is taken})
            break
    graph.recompile()


def _memories(nodes: Sequence[Node]) -> dict[Node, Node]:
    """For each node the one that made the memory in which its result lies: itself, or what it is a view of."""
    memory: dict[Node, Node] = {}
    for node in nodes:
        sources = node.all_input_nodes
        made_anew = node.op != "call_function" or not sources
        if isinstance(node.target, OpOverload):
            views = any(result.alias_info is not None for result in node.target._schema.returns)
            made_anew = not views and node.target is not aten._unsafe_view.default
        memory[node] = node if made_anew else memory[sources[0]]
    return memory


def _is_large(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.numel() >= SMALL and value.is_contiguous()
