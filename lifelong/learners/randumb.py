"""RanDumb (Prabhu, Sinha, Kumaraguru, Torr, Sener and Dokania, 2024): random features of a kernel, and one covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import Memory
from lifelong.core.problem import Problem
from lifelong.core.strategy import require
from lifelong.learners.gaussians import PooledGaussians


@dataclass(frozen=True)
class RanDumb(PooledGaussians):
    """Random Fourier features of the Gaussian kernel, decorrelated, and the nearest class mean among them.

    z(f) = sqrt(2 / D) cos(f W + b), W [F, D] normal with variance 2 gamma / F, b uniform in 0 ... 2 pi, so that
    z(f) . z(g) is about exp(-gamma |f - g|^2 / F) (Rahimi and Recht, 2007); drawn once for each seed, never learned.
    score_c = z' P mu_c - mu_c' P mu_c / 2, P = (S + ridge I)^-1: the Mahalanobis distance to the means mu_c, under the
    covariance S within classes (Prabhu et al., 2024, section 2). D = width. Sums over a task's rows, at its end.

    gamma: of features that vary by v each, 1 / v is scikit-learn's "scale", which the authors take; it is 10 for MNIST.
    What differs from the source: their width is 25,000 and needs D^2 numbers for each seed; their code inverts the
    covariance with the shrinkage of Chen et al. (2010), here it is a ridge as in the paper; images are not flipped as well.
    """

    width: int = 1000
    gamma: float = 10.0
    ridge: float = 1e-6
    keeps = "a projection, a mean for each class, one covariance"
    witness = "a plain float64 loop: tests/reference/witnesses/test_randumb.py"
    defaults = "ours, but for gamma, the authors' rule for MNIST"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.width >= 1, "width must be at least 1")
        require(self, self.gamma > 0, "gamma must be above 0")
        require(self, self.ridge > 0, "ridge must be above 0")

    def sums(self, problem: Problem, width: int, generator: torch.Generator) -> Memory:
        """directions [F, D], before gamma; phases b [D]; mean [C, D], count [C], scatter [D, D]."""
        directions = torch.randn(width, self.width, generator=generator) * math.sqrt(2 / width)
        phases = torch.rand(self.width, generator=generator) * (2 * math.pi)
        drawn = {"directions": directions, "phases": phases}
        drawn = {name: value.to(problem.device, problem.dtype) for name, value in drawn.items()}
        return {**drawn, **super().sums(problem, self.width, generator)}

    def embedded(self, memory: Memory, features: Tensor) -> Tensor:
        """sqrt(2 / D) cos(f W + b)."""
        return math.sqrt(2 / self.width) * (features @ memory["directions"] * self.gamma**0.5 + memory["phases"]).cos()

    def regularised(self, covariance: Tensor) -> Tensor:
        """With a ridge."""
        unit = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return covariance + self.ridge * unit
