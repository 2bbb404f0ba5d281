"""What is done to recorded operations before they are played: fewer of them, over less memory, with the same numbers.

Each pass rewrites a graph of aten operations in place, and keeps every result equal to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

aten = torch.ops.aten
# operations that hand on what they were given, where neither shape nor strides change
LOOKS = {aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.detach.default, aten.alias.default}
# of what these make, only the shape depends on their argument
FILLED: dict[Any, int] = {
    aten.new_zeros.default: 0,
    aten.zeros_like.default: 0,
    aten.new_ones.default: 1,
    aten.ones_like.default: 1,
}
FOLDED = 2**16  # numbers: larger constants are made anew, and need not be held


def tidy(graph: GraphModule) -> None:
    """Take out what changes nothing: views of the shape that was there, constants read twice, and what nobody reads."""
    constants: dict[Any, Node] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            node.replace_all_uses_with(constants.setdefault(node.target, node))
        if not is_same(node, node.args[0] if node.args else None):
            continue
        by_one = node.target is aten.mul.Scalar and node.args[1] == 1
        if node.target in LOOKS or (by_one and _needs_no_copy(graph, node, node.args[0])):
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
                and _needs_no_copy(graph, node, other)
            ):
                node.replace_all_uses_with(other)
                break
    _clean(graph)


def _needs_no_copy(graph: GraphModule, node: Node, source: Node) -> bool:
    """Whether a node of its source's numbers can be the source itself: neither is written into after it.

    Nor is it handed out: whoever gets both may write into one of them.
    """
    nodes = list(graph.graph.nodes)
    memory = memories(nodes)
    ours = {memory[node], memory[source]}
    moves = any(memory[each] in ours for other in nodes[nodes.index(node) :] for each in _written(other))
    return not moves and all(memory[each] is not memory[node] for each in nodes[-1].all_input_nodes)


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
    assert isinstance(node.target, OpOverload)
    arguments, options = map_arg((node.args, node.kwargs), lambda source: values[source])
    return node.target(*arguments, **options)


EXACT = {aten._to_copy.default, aten.div.Tensor, aten.div_.Tensor, aten.mul.Tensor}  # the same wherever a number stands


class _Found(NamedTuple):
    """Rows that one index brought, and the operations on them since, the last one first."""

    found: Node
    table: Node
    place: Node
    steps: list[Node]

    def alike(self, other: _Found) -> bool:
        """Whether another's rows are of the same table, and were converted alike."""
        words = [[(node.target, node.args[1:], node.kwargs) for node in each.steps] for each in (self, other)]
        return self.table is other.table and words[0] == words[1]


def look_up_together(graph: GraphModule) -> None:
    """Look rows up once that are looked up in parts, converted alike and put together: the stream's and the memories'."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.cat.default:
            continue
        sources, dim = node.args[0], node.args[1] if len(node.args) > 1 else 0
        parts = [part for part in map(_looked_up, sources) if part is not None]
        if len(parts) < max(2, len(sources)) or not all(part.alike(parts[0]) for part in parts):
            continue
        if not 0 <= dim < parts[0].place.meta["val"].ndim or not _stays(graph, parts, node):
            continue
        with graph.graph.inserting_before(node):
            together = graph.graph.call_function(aten.cat.default, ([part.place for part in parts], dim))
            together.meta["val"] = torch.cat([part.place.meta["val"] for part in parts], dim)
            found = graph.graph.call_function(aten.index.Tensor, (parts[0].table, [together]))
            found.meta["val"] = parts[0].table.meta["val"][together.meta["val"]]
            for step in reversed(parts[0].steps):
                shape = found.meta["val"].shape
                assert isinstance(step.target, OpOverload)
                found = graph.graph.call_function(step.target, (found, *step.args[1:]), step.kwargs)
                found.meta["val"] = step.meta["val"].new_empty(shape)
        node.replace_all_uses_with(found)
        for gone in dict.fromkeys([node, *(step for part in parts for step in part.steps)]):
            graph.graph.erase_node(gone)
    _clean(graph)


def _stays(graph: GraphModule, parts: Sequence[_Found], end: Node) -> bool:
    """Whether table and places are at the end what they were when the first of these rows were looked up."""
    nodes = list(graph.graph.nodes)
    memory, first = memories(nodes), min(nodes.index(part.found) for part in parts)
    read = {memory[each] for part in parts for each in (part.table, part.place)}
    return not any(memory[each] in read for node in nodes[first : nodes.index(end)] for each in _written(node))


def _looked_up(node: Node) -> _Found | None:
    """Rows of a table that one index brought, if these are."""
    steps: list[Node] = []
    while node.target in EXACT and len(node.users) == 1 and node.all_input_nodes == [node.args[0]]:
        steps.append(node)
        (node,) = node.all_input_nodes
    if node.target is not aten.index.Tensor or len(node.users) > 1:
        return None
    table, places = cast("tuple[Node, list[Node]]", node.args)
    if len(places) != 1 or places[0].meta["val"].dtype != torch.int64 or table.meta["val"].ndim < 2:
        return None
    return _Found(node, table, places[0], steps)


def whole_rows(graph: GraphModule) -> None:
    """Look rows up by copying them whole: indexing would go from number to number, ten times as long."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.index.Tensor:
            continue
        (table, places), value = node.args, node.meta["val"]
        rows, of_row = table.meta["val"], table.meta["val"].shape[len(places) :]
        if any(place is None or place.meta["val"].dtype != torch.int64 for place in places):
            continue
        if not rows.is_contiguous() or math.prod(of_row) < 16:
            continue
        with graph.graph.inserting_before(node):
            place, flat = _place_of_row(graph, places, rows.shape), table
            if len(places) > 1:
                flat = graph.graph.call_function(aten.view.default, (table, [-1, *of_row]))
            found = graph.graph.call_function(aten.index_select.default, (flat, 0, place))
            shaped = graph.graph.call_function(aten.view.default, (found, list(value.shape)))
        shaped.meta["val"] = value
        for made in (flat, found) if len(places) > 1 else (found,):
            made.meta["val"] = None
        node.replace_all_uses_with(shaped)
    _clean(graph)


def _place_of_row(graph: GraphModule, places: list[Node], shape: torch.Size) -> Node:
    """Where a row lies in a table whose first dimensions were flattened, one place of each: [rows].

    A place may count from the end, as -1 does. One beyond either end is refused when it is looked up: beside others it
    must not become the place of another row, so the whole becomes -1 then.
    """

    def made(operation: Any, *words: Any, **more: Any) -> Node:
        node = graph.graph.call_function(operation, words, more)
        node.meta["val"] = None
        return node

    whole, beyond = None, []
    for place, size in zip(places, shape, strict=False):
        counted = place
        if not _lies_within(graph, place, size):
            counted = made(aten.sub.Tensor, place, made(aten.__rshift__.Scalar, place, 63), alpha=size)
            beyond += [made(aten.lt.Scalar, counted, 0), made(aten.ge.Scalar, counted, size)]
        whole = counted if whole is None else made(aten.add.Tensor, counted, made(aten.mul.Scalar, whole, size))
    assert whole is not None
    for wrong in beyond if len(places) > 1 else ():
        whole = made(aten.masked_fill.Scalar, whole, wrong, -1)
    return made(aten.reshape.default, whole, [-1])


def _lies_within(graph: GraphModule, place: Node, size: int) -> bool:
    """Whether places are constants, all of them from 0 on and below a size, as the numbers of members are."""
    if place.op != "get_attr":
        return False
    value = getattr(graph, str(place.target))
    return bool(((value >= 0) & (value < size)).all())


PIECE = 160_000  # numbers of a product that stay in a core's cache until they are read again
WHOLE = 32  # numbers of the widest vector, of the narrowest type: a tensor's last few may be rounded otherwise


def descend_piecewise(graph: GraphModule) -> None:
    """Add a product to what it changes some members at a time, so that the cache holds it in between.

    As gradient descent does with the gradient of a layer: g = x^T d, p <- p - rate g.
    """
    nodes = list(graph.graph.nodes)
    memory, at = memories(nodes), {node: place for place, node in enumerate(nodes)}
    for node in nodes:
        product = node.args[1] if node.target is aten.add_.Tensor else None
        if not isinstance(product, Node) or product.target is not aten.bmm.default or len(product.users) > 1:
            continue
        value = product.meta["val"]
        if value.device.type != "cpu" or not is_same(node, product) or value.numel() < 2 * PIECE:
            continue
        if node.kwargs.get("alpha", 1) != 1 and value[0].numel() % WHOLE:
            continue
        read = {memory[source] for source in product.all_input_nodes}
        between = nodes[at[product] + 1 : at[node] + 1]
        if value[0].numel() > PIECE or any(memory[each] in read for other in between for each in _written(other)):
            continue
        with graph.graph.inserting_before(node):
            arguments = (node.args[0], *product.args, node.kwargs.get("alpha", 1), PIECE // value[0].numel())
            added = graph.graph.call_function(_add_product, arguments)
        added.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(added)
        graph.graph.erase_node(node)
    _clean(graph)


def _add_product(to: Tensor, left: Tensor, right: Tensor, alpha: float, members: int) -> Tensor:
    """to + alpha left @ right, in place, so many members at a time."""
    for piece, a, b in zip(to.split(members), left.split(members), right.split(members), strict=True):
        piece.add_(torch.bmm(a, b), alpha=alpha)
    return to


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
    return node.op in ("placeholder", "output") or node.target is _add_product or bool(_written(node))


def _written(node: Node) -> list[Node]:
    """The nodes into whose memory an operation writes."""
    if node.target is _add_product:
        return [each for each in node.args[:1] if isinstance(each, Node)]
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


def is_kernel(node: Node) -> bool:
    """Whether an operation only writes and returns nothing, as an optimiser's kernels do, which take lists of tensors."""
    return isinstance(node.target, OpOverload) and not node.target._schema.returns


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
