"""What is done to recorded operations before they are played: fewer of them, over less memory, with the same numbers.

Each pass rewrites a graph of aten operations in place, and keeps every result equal to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

aten = torch.ops.aten
# operations that hand on what they were given, where neither shape nor strides change
LOOKS = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.detach.default, aten.alias.default}
# of what these make, only the shape depends on their argument
FILLED = {
    aten.new_zeros.default: 0,
    aten.zeros_like.default: 0,
    aten.new_ones.default: 1,
    aten.ones_like.default: 1,
}
FOLDED = 2**16  # numbers: larger constants are made anew, and need not be held


def tidy(graph: GraphModule) -> None:
    """Take out what changes nothing: views of the shape that was there, products with one, and what nobody reads."""
    for node in list(graph.graph.nodes):
        idle = node.target in LOOKS or (node.target is aten.mul.Scalar and node.args[1] == 1)
        if idle and is_same(node, node.args[0]):
            node.replace_all_uses_with(node.args[0])
    _clean(graph)


def fold(graph: GraphModule) -> None:
    """Compute once what depends on no argument: numbers of members, zeros to add into, masks of constants."""
    nodes = list(graph.graph.nodes)
    memory = memories(nodes)
    # what is handed out is written into by the next step, and what is written into here is no constant
    moving = {memory[source] for node in nodes for source in _written(node)}
    moving |= {memory[source] for node in nodes if node.op == "output" for source in node.all_input_nodes}
    values: dict[Node, Tensor] = {}
    for node in nodes:
        if node.op == "get_attr" and memory[node] not in moving:
            values[node] = getattr(graph, str(node.target))
        elif memory[node] not in moving and _can_be_folded(node, values):
            values[node] = value = _value(node, values)
            name = f"folded_{node.name}"
            graph.register_buffer(name, value, persistent=False)
            with graph.graph.inserting_before(node):
                constant = graph.graph.get_attr(name)
            constant.meta["val"] = node.meta["val"]
            values[constant] = value
            node.replace_all_uses_with(constant)
    for node in list(graph.graph.nodes):
        if node.target is not aten.mul.Tensor:
            continue
        for factor, other in (node.args, node.args[::-1]):
            if (
                factor in values
                and isinstance(other, Node)
                and is_same(node, other)
                and bool((values[factor] == 1).all())
            ):
                node.replace_all_uses_with(other)
                break
    _clean(graph)


def _can_be_folded(node: Node, values: dict[Node, Tensor]) -> bool:
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(node.target, OpOverload) or not isinstance(value, Tensor):
        return False
    if value.numel() > FOLDED or torch.Tag.nondeterministic_seeded in node.target.tags:
        return False
    return node.target in FILLED or all(source in values for source in node.all_input_nodes)


def _value(node: Node, values: dict[Node, Tensor]) -> Tensor:
    if node.target in FILLED:
        like = node.meta["val"]
        made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)
        return made.fill_(FILLED[node.target])
    arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: values[source])
    return node.target(*arguments[0], **arguments[1])


def whole_rows(graph: GraphModule) -> None:
    """Look rows up by copying them whole: indexing would go from number to number, ten times as long."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.index.Tensor or len(node.args[1]) != 1:
            continue
        (table, (place,)), value = node.args, node.meta["val"]
        rows, where = table.meta["val"], place.meta["val"]
        if where.dtype != torch.int64 or not rows.is_contiguous() or rows[0].numel() < 16:
            continue
        with graph.graph.inserting_before(node):
            flat = graph.graph.call_function(aten.reshape.default, (place, [-1]))
            # an index may count from the end, as -1 does
            flat = graph.graph.call_function(aten.remainder.Scalar, (flat, len(rows)))
            found = graph.graph.call_function(aten.index_select.default, (table, 0, flat))
            shaped = graph.graph.call_function(aten.view.default, (found, list(value.shape)))
        shaped.meta["val"] = value
        for made in (flat, found):
            made.meta["val"] = None
        node.replace_all_uses_with(shaped)
    _clean(graph)


def _clean(graph: GraphModule) -> None:
    graph.graph.eliminate_dead_code(is_impure_node=_is_needed)
    graph.recompile()


def is_same(node: Node, source: Any) -> bool:
    """Whether an operation's result has the shape, strides and type of its source."""
    before, after = (each.meta.get("val") if isinstance(each, Node) else None for each in (source, node))
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    return before.shape == after.shape and before.stride() == after.stride() and before.dtype == after.dtype


def _is_needed(node: Node) -> bool:
    """Whether a node does something besides giving its result."""
    return node.op in ("placeholder", "output") or bool(_written(node))


def _written(node: Node) -> list[Node]:
    """The nodes into whose memory an operation writes."""
    if not isinstance(node.target, OpOverload) or not node.target._schema.is_mutable:
        return []
    written: list[Node] = []
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += [
                each for each in (value if isinstance(value, list | tuple) else [value]) if isinstance(each, Node)
            ]
    return written


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


def write_into_what_dies(graph: GraphModule, owned: int) -> None:
    """Elementwise operations on large tensors write into their first argument where nobody reads it afterwards.

    The same kernels on the same numbers, so the results are the same to the bit.
    """
    nodes = list(graph.graph.nodes)
    memory = memories(nodes)
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
            if home is None or home not in free or last[home] != place or not is_same(node, first):
                continue
            if any(memory[source] is home for source in node.all_input_nodes if source is not first):
                continue
            taken = memory[node]
            node.target, node.args = IN_PLACE[node.target], arguments
            last[home] = last[taken]
            memory.update({other: home for other in nodes if memory[other] is taken})
            break
    graph.recompile()


def memories(nodes: Sequence[Node]) -> dict[Node, Node]:
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
