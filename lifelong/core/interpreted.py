"""Recorded operations given to TorchScript's interpreter: the same kernels, without a microsecond of Python for each.

A step of a small network is a hundred kernels of a microsecond or two; called from Python, half of its time is the calling.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from lifelong.core.passes import is_kernel

MOST = 8  # kernels of a graph, beyond which the calls between the pieces cost what they save


def interpreted(graph: GraphModule, leaves: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
    """The graph as a function; leaves: arguments of its form, which are written into.

    Optimisers' kernels, which write into lists of tensors and return nothing, are passed over in silence where a graph is
    traced: they stay Python's, between what comes before them and after them. All stays Python's where the interpreter
    does not take it.
    """
    nodes = list(graph.graph.nodes)
    arguments = [node for node in nodes if node.op == "placeholder"]
    output = list(cast("Sequence[Node]", nodes[-1].args[0]))
    if sum(map(is_kernel, nodes)) > MOST or any(node.op == "get_attr" for node in output):
        return graph.forward
    runs = _runs([node for node in nodes if node.op == "call_function"])
    if len(runs) == 1:
        pieces = [_Piece(graph, runs[0], arguments, output)]
    else:
        pieces = [_Piece(graph, run, _read(run), _handed_on(run)) for run in runs]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # it is deprecated, and has no successor that changes no number
            _hand_over(pieces, dict(zip(arguments, leaves, strict=True)))
    except (RuntimeError, TypeError, AttributeError):  # what it does not know; or a torch that is without it
        return graph.forward
    return pieces[0].run if len(pieces) == 1 else _in_turn(pieces, arguments, output)


class _Piece:
    """Some nodes of a graph as a function of what they read."""

    def __init__(self, whole: GraphModule, nodes: Sequence[Node], reads: Sequence[Node], gives: Sequence[Node]) -> None:
        self.reads, self.gives, self.is_kernel = list(reads), list(gives), is_kernel(nodes[0])
        graph, copies = Graph(), {}
        for source in reads:
            copies[source] = graph.placeholder(source.name)
        constants = dict.fromkeys(
            source for node in nodes for source in node.all_input_nodes if source.op == "get_attr"
        )
        for node in [*constants, *nodes]:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output([copies[node] for node in gives])
        self.run: Callable[..., list[Tensor]] = GraphModule(whole, graph).forward

    def hand_over(self, values: Sequence[Tensor]) -> None:
        """To the interpreter; values: of the form of what is read, which are written into."""
        traced = cast("Callable[..., list[Tensor]]", torch.jit.trace(self.run, tuple(values), check_trace=False))

        def run(*values: Tensor) -> list[Tensor]:
            with torch.jit.optimized_execution(False):  # as they are: nothing is fused or reordered
                return traced(*values)

        self.run = run


def _runs(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes between kernels, and each kernel by itself."""
    runs: list[list[Node]] = []
    for node in nodes:
        if not runs or is_kernel(node) or is_kernel(runs[-1][-1]):
            runs.append([])
        runs[-1].append(node)
    return runs


def _read(run: Sequence[Node]) -> list[Node]:
    """What these nodes read of others."""
    read = dict.fromkeys(source for node in run for source in node.all_input_nodes)
    return [source for source in read if source.op != "get_attr" and source not in set(run)]


def _handed_on(run: Sequence[Node]) -> list[Node]:
    """Those of these nodes that others read."""
    inside = set(run)
    return [node for node in run if any(user not in inside for user in node.users)]


def _hand_over(pieces: Sequence[_Piece], values: dict[Node, Tensor]) -> None:
    """Give the pieces to the interpreter, but for the kernels; values: the arguments, which are written into."""
    for piece in pieces:
        given = [values[node] for node in piece.reads]
        if not piece.is_kernel and piece.gives:
            piece.hand_over(given)
        values.update(zip(piece.gives, piece.run(*given), strict=True))


def _in_turn(
    pieces: Sequence[_Piece], arguments: Sequence[Node], output: Sequence[Node]
) -> Callable[..., list[Tensor]]:
    """One function that calls the pieces, and lets go of what is not read any more."""
    last = {node: i for i, piece in enumerate(pieces) for node in piece.reads if node not in output}
    dying = [[node for node in piece.reads if last.get(node) == i] for i, piece in enumerate(pieces)]

    def run(*leaves: Tensor) -> list[Tensor]:
        values = dict(zip(arguments, leaves, strict=True))
        for piece, dead in zip(pieces, dying, strict=True):
            found = piece.run(*[values[node] for node in piece.reads])
            for node in dead:
                del values[node]
            values.update(zip(piece.gives, found, strict=True))
        return [values[node] for node in output]

    return run
