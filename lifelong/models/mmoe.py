"""Multi-gate mixture of experts (Ma et al., 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lifelong.models.base import Hook, ModelError, Net
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.models.told import check_trunk, laid_out, stacked, taken_apart

EXPERT = "expert."


@dataclass(frozen=True)
class MMoE:
    """Several trunks, the experts, and for each task t a gate that mixes them row by row.

    features(x) = sum_e softmax(x W_t)_e f_e(x), W_t [F, E], x flat; the head's classes are each task's own. One expert is a
    trunk that all tasks share. Experts start from draws of their own, gates like a linear layer without bias. Nothing
    keeps a gate from giving one expert everything. Parameters: `expert.NAME` [E, ...], `gate.weight` [Z, F, E]. Raises
    ModelError for trunks other than an MLP or a Conv4.
    """

    expert: MLP | Conv4 = field(default_factory=lambda: MLP(50, 50))
    experts: int = 4
    task_embedding = True
    shows_layers = False  # a layer would be seen as that of one expert

    def __post_init__(self) -> None:
        check_trunk(self, self.expert)
        if self.experts < 1:
            raise ModelError(f"MMoE(experts={self.experts}): there must be at least 1")

    @property
    def mixes_rows(self) -> bool:
        """Where the experts do."""
        return self.expert.mixes_rows

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Fresh parameters. Raises ModelError unless the shape says how much of a row is the task_embedding."""
        rows, told = laid_out(self, self.expert, shape)
        heads = {k: v for k, v in self.expert.init(rows, classes, generator).items() if k.startswith("head.")}
        experts = stacked(self.expert, rows, self.experts, generator)
        wide = math.prod(rows)
        bound = 1 / math.sqrt(wide)
        gate = torch.empty(told, wide, self.experts).uniform_(-bound, bound, generator=generator)
        return {EXPERT + name: value for name, value in experts.items()} | {"gate.weight": gate} | heads

    def shares(self, net: Net, x: Tensor) -> Tensor:
        """How much each expert counts for each row [B, E], from rows [B, F + Z]; rows add up to 1."""
        rows, z = self._apart(net, x)
        return torch.einsum("bf,bz,zfe->be", rows.flatten(1), z, net["gate.weight"]).softmax(1)

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """The experts' mixture for each row's task [B, F], from rows [B, F + Z]."""
        rows, _ = self._apart(net, x)
        experts = {name.removeprefix(EXPERT): value for name, value in net.items() if name.startswith(EXPERT)}
        each = torch.func.vmap(lambda expert: self.expert.features(expert, rows))(experts)  # [E, B, F]
        return torch.einsum("be,ebf->bf", self.shares(net, x), each)

    def _apart(self, net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        named = {name.removeprefix(EXPERT): value for name, value in net.items()}
        return taken_apart(self, self.expert, named, x)

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return self.expert.head(net, features)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F]."""
        return self.expert.head_rows(net)
