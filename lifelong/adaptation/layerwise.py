"""Rules of adaptation that treat layers differently: unfrozen one after another, or each at a rate of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lifelong.adaptation.methods import Phases, TransferError
from lifelong.core.learner import Learner
from lifelong.models.base import Net, blocks
from lifelong.optimisers.multiplied import Multiplied


@dataclass(frozen=True)
class LayerDecay:
    """m = 1 for the head and 1 / factor less for each block below it (Howard and Ruder, 2018)."""

    factor: float

    def of(self, net: Net, gradients: Net) -> Net:
        """factor^-d, d = 0 in the head, 1 in the block below it ..."""
        depth = {block: d for d, block in enumerate(reversed(blocks(net)))}
        return {name: p.new_tensor(self.factor ** -depth[name.partition(".")[0]]) for name, p in net.items()}


@dataclass(frozen=True)
class RelativeGradientNorms:
    """m = r / max r, r = |g| / |p| of each tensor (Lee et al., 2023: Auto-RGN).

    Scales and shifts of norms stay as they are, as in the authors' code; so does whatever has no gradient.
    """

    def of(self, net: Net, gradients: Net) -> Net:
        """A tensor that is all 0 has no relative norm, and moves as the one with the largest does."""
        names = [name for name in net if not name.endswith((".scale", ".shift"))]
        size = torch.stack([net[name].norm() for name in names])
        slope = torch.stack([gradients[name].norm() for name in names])
        ratio = torch.where(size > 0, slope / size.where(size > 0, torch.ones_like(size)), torch.zeros_like(size))
        most = ratio.max()
        share = torch.where(size > 0, ratio / most.where(most > 0, torch.ones_like(most)), torch.ones_like(ratio))
        found = dict(zip(names, share.unbind(), strict=True))
        return {name: found.get(name, p.new_zeros(())) for name, p in net.items()}


@dataclass(frozen=True)
class GradualUnfreezing:
    """Train the head alone, then the block below it as well, and so on down to all (Howard and Ruder, 2018: ULMFiT).

    With L blocks below the head, phase l = 0 ... L - 1 trains the head and the l blocks next to it, and ends after
    round(share x steps x (l + 1) / L) steps; the rest of the steps trains everything. The paper unfreezes a block an
    epoch. The optimiser starts afresh in each phase.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise TransferError(f"{self!r}: the share of the steps within which all is unfrozen lies in 0 ... 1")

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """A learner for each number of unfrozen blocks, and one that trains everything."""
        below = [name for name in reversed(blocks(net)) if name != "head"]
        ends = [round(self.share * steps * (layer + 1) / len(below)) for layer in range(len(below))]
        found = []
        for layer, (first, last) in enumerate(zip([0, *ends], ends, strict=False)):
            found.append((replace(learner, trainable=",".join(["head", *below[:layer]])), last - first))
        return (*found, (learner, steps - (ends[-1] if ends else 0)))


@dataclass(frozen=True)
class LayerwiseRates:
    """Discriminative rates: the head at the whole rate, each block below it at the rate of the next / decay.

    rate_d = rate / decay^d, d = 0 in the head, 1 in the block below it, ... (Howard and Ruder, 2018; their 2.6).
    """

    decay: float = 2.6

    def __post_init__(self) -> None:
        if not self.decay > 0:
            raise TransferError(f"{self!r}: decay, by which the rate is divided from block to block, must be above 0")

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """One learner that trains everything, its optimiser slower further down."""
        return ((replace(learner, optimiser=Multiplied(learner.optimiser, LayerDecay(self.decay))), steps),)


@dataclass(frozen=True)
class AutoRGN:
    """Rates by how large a tensor's gradient is beside the tensor itself (Lee et al., 2023: Auto-RGN).

    rate_p = rate x r_p / max r, r_p = |dL/dp| / |p|, for each tensor p; scales and shifts of norms stay. Asked anew every
    `every` steps, and the optimiser starts afresh then. (In the paper once an epoch, a mean over five batches; a step of
    ours sees all rows.)
    """

    every: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise TransferError(f"{self!r}: rates are asked anew every so many steps, a whole number of at least 1")

    def phases(self, learner: Learner, steps: int, net: Net) -> Phases:
        """A fresh optimiser for each stretch of steps, with multipliers of its own."""
        weighed = replace(learner, optimiser=Multiplied(learner.optimiser, RelativeGradientNorms()))
        return tuple((weighed, min(self.every, steps - first)) for first in range(0, steps, self.every))
