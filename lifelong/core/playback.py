"""A recorded step, played for a block of steps: one after another, or on a CUDA device as one captured graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lifelong.core.batch import Block
from lifelong.core.recorded import Recording

GRAPH_STEPS = 32  # steps of a captured graph


def apart(tree: Any) -> Any:
    """Tensors that can each be written in place: copies of those that share storage with one before, or with themselves.

    A verb may hand back one tensor under two names, or a constant, which is expanded over the members.
    """
    taken: set[int] = set()

    def alone(leaf: Tensor) -> Tensor:
        place = leaf.untyped_storage().data_ptr()
        if place in taken or not leaf.is_contiguous():
            leaf = leaf.clone(memory_format=torch.contiguous_format)
        if leaf.numel():
            taken.add(leaf.untyped_storage().data_ptr())
        return leaf

    return tree_map(alone, tree)


class Playback:
    """Steps played back: (state, block) to (state, losses [S, K]). The state's leaves are flat in between, and written into.

    steps: how many it likes in a block, 0 for any number.
    """

    steps = 0

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def fits(self, state: Any, block: Block) -> bool:
        """Whether state and block have the form that was recorded; the end of a task may have changed a memory's."""
        return self.recording.fits((tree_map(Tensor.contiguous, state), next(block.each())))

    def __call__(self, state: Any, block: Block) -> tuple[Any, Tensor]:
        """The steps of a block."""
        leaves, form = tree_flatten(apart(state))
        leaves, loss = self._played(leaves, block.columns())
        return tree_unflatten(leaves, form), loss

    def _played(self, leaves: Sequence[Tensor], columns: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], Tensor]:
        """From the state's leaves, and each leaf of a block by steps: the new leaves, and the losses [S, K]."""
        losses: list[Tensor] = []
        for rows in zip(*columns, strict=True):
            *leaves, loss = self.recording.play(*leaves, *rows)
            losses.append(loss)
        return list(leaves), torch.stack(losses, 1)


class Captured(Playback):
    """The same as a CUDA graph of `GRAPH_STEPS` steps, and one of a single step for what is left over.

    Its state and its block lie still: a call copies into them, and replays. The warm-up runs on copies, so nothing is
    learned before the first replay. The host does nothing in between: rows are gathered, steps taken and losses noted
    by the graph.
    """

    steps = GRAPH_STEPS

    def __init__(self, recording: Recording, state: Any, block: Block) -> None:
        super().__init__(recording)
        self.leaves = [leaf.clone() for leaf in tree_leaves(apart(state))]
        self.graphs = {count: self._captured(block, count) for count in (1, GRAPH_STEPS)}

    def _captured(self, block: Block, count: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """A graph of so many steps, the block that it reads, and the losses that it writes."""
        still = [torch.stack([column[0]] * count) for column in block.columns()]  # [K, S, ...]
        columns = [leaf.unbind(0) for leaf in still]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._played([leaf.clone() for leaf in self.leaves], [column[:1] for column in columns])
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            leaves, losses = self._played(self.leaves, columns)
            _copy(self.leaves, leaves)
        return graph, still, losses

    def __call__(self, state: Any, block: Block) -> tuple[Any, Tensor]:
        """Bring in what changed outside (rows; a state after a task's end), and replay."""
        leaves, form = tree_flatten(state)
        _copy(self.leaves, leaves)
        size = GRAPH_STEPS if block.steps % GRAPH_STEPS == 0 else 1
        pieces = [leaf.transpose(0, 1).split(size) for leaf in tree_leaves(block)]
        losses = []
        for piece in zip(*pieces, strict=True):
            graph, held, loss = self.graphs[size]
            _copy(held, piece)
            graph.replay()
            losses.append(loss.clone())
        return tree_unflatten(list(self.leaves), form), torch.cat(losses, 1)


def _copy(to: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    """Copy the leaves that are not the very same tensors, those first that another copy would write over.

    A memory may keep what another name held before: {"now": new, "before": memory["now"]}.
    """
    places = {leaf.untyped_storage().data_ptr() for leaf in to if leaf.numel()}
    source = [
        other.clone()
        if other.untyped_storage().data_ptr() in places and other.data_ptr() != still.data_ptr()
        else other
        for still, other in zip(to, source, strict=True)
    ]
    for still, other in zip(to, source, strict=True):
        if still.data_ptr() != other.data_ptr():
            still.copy_(other)
