"""What learning a start will hold in memory, found before it begins: by arithmetic, and on tensors without values."""

from __future__ import annotations

import math

import torch
from torch.utils._pytree import tree_leaves

from lifelong.core.footprint import ENDLESS, MOST_MEMBERS, ResourceError, free_on, refuse_above
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationLearner

MOST_INNER_STEPS = 10_000  # of a network that is differentiated through all of them
COPIES = 3  # of a network while it is learned: itself, its gradient, and the least that an optimiser keeps


def weigh(method: InitialisationLearner, distribution: TaskDistribution, seeds: int) -> None:
    """Raise ResourceError, naming what to change, where starts for so many seeds need more than the device has free.

    The figures are lower bounds: networks of all seeds, and the rows that one iteration learns from.
    """
    if seeds > MOST_MEMBERS:
        raise ResourceError(f"{seeds:,} starts together are more than {MOST_MEMBERS:,}: ask for fewer --seeds")
    steps = getattr(method, "steps", 1)
    if steps > MOST_INNER_STEPS:
        raise ResourceError(f"{steps:,} inner steps are more than {MOST_INNER_STEPS:,}: take fewer steps in --init")
    rows = _rows(method, distribution)
    parts = {
        "the network and its optimiser": COPIES * seeds * _bytes_of_network(distribution),
        "the rows of an iteration": 4 * seeds * rows * math.prod(distribution.shape),
    }
    refuse_above(free_on(distribution.device), parts, 1)


def _rows(method: InitialisationLearner, distribution: TaskDistribution) -> int:
    """Rows that an iteration draws, at least: each is counted for each step on it, and twice where a step is differentiated."""
    return method.images(distribution) // (2 * max(1, getattr(method, "steps", 1)))


def _bytes_of_network(distribution: TaskDistribution) -> int:
    """Bytes of one network, which is not made; 0 where that cannot be found in advance."""
    try:
        with torch.device("meta"):
            net = distribution.model.init(distribution.shape, 2, torch.Generator())
    except (RuntimeError, OverflowError, MemoryError) as error:
        too_large = (
            isinstance(error, OverflowError | MemoryError) or "overflow" in str(error) or "too large" in str(error)
        )
        return ENDLESS if too_large else 0
    except Exception:  # it reads values, or does not fit: that is said when it is made with values
        return 0
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(net))
