"""The ridge variant of meta-learning with a convex head, MetaOptNet (Lee, Maji, Ravichandran and Soatto, 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.r2d2 import R2D2


@dataclass(frozen=True)
class MetaOptNetRidge(R2D2):
    """R2D2's ridge head at a given strength: scores are scale x f(x) W, and of the head the scale alone is learned.

    W = argmin |X W - Y|^2 + strength |W|^2. strength: 50 in the authors' code. Their head is solved as a quadratic program
    whose answer is 2 W, which the scale, from 1 on, takes up; the same program with the hinge loss of a support vector
    machine is not here.
    """

    strength: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength > 0:
            raise InitialisationError(f"MetaOptNetRidge(strength={self.strength}): it is above 0")

    def learned_numbers(self, zero: Tensor) -> dict[str, Tensor]:
        """The scale."""
        return {"scale": zero + 1}

    def numbers(self, ridge: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Strength, scale and shift, 0-d."""
        scale = ridge["scale"]
        return scale.new_full((), self.strength), scale, scale.new_zeros(())
