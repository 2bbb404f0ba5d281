"""An optimiser whose step counts differently in each tensor: rates by layer, or by what the first gradient says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.optimisers.base import Optimiser


class Multipliers(Protocol):
    """What a step is multiplied by: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def of(self, net: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """A number, 0-d, for each tensor of the network, from the first step's parameters and gradients."""
        ...


@dataclass(frozen=True)
class Multiplied:
    """Another optimiser's step, multiplied in each tensor: p <- p + m_p (rule(p) - p).

    SGD, Adam and AdamW move by their rate times something, so this is the rule at the rate m_p x rate. The multipliers
    are chosen at the first step and stay. Own parameters of a strategy's parts take the whole step.
    """

    rule: Optimiser
    by: Multipliers

    @property
    def rate(self) -> float:
        """The rule's."""
        return self.rule.rate

    @property
    def scheduled(self) -> bool:
        """Whether the rule's rate depends on progress."""
        return self.rule.scheduled

    def init(self, params: Any) -> Any:
        """The rule's state, multipliers of 1, and that they are not chosen yet."""
        first = tree_leaves(params)[0]
        ones = {name: first.new_ones(()) for name in params["net"]}
        return {"rule": self.rule.init(params), "multipliers": ones, "chosen": first.new_zeros(())}

    def _chosen(self, params: Any, gradients: Any, state: Any) -> dict[str, Tensor]:
        """The multipliers of a step."""
        fresh = self.by.of(params["net"], gradients["net"])
        return {name: torch.where(state["chosen"] > 0, old, fresh[name]) for name, old in state["multipliers"].items()}

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        multipliers = self._chosen(params, gradients, state)
        moved, rule = self.rule.update(params, gradients, state["rule"], progress)
        net = {name: p + multipliers[name] * (moved["net"][name] - p) for name, p in params["net"].items()}
        new = {"rule": rule, "multipliers": multipliers, "chosen": torch.ones_like(state["chosen"])}
        return {**moved, "net": net}, new

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet."""
        multipliers = torch.func.vmap(self._chosen)(params, gradients, state)
        before = tree_map(torch.clone, params["net"])
        self.rule.update_(params, gradients, state["rule"], progress)
        for name, p in params["net"].items():
            factor = multipliers[name].view(-1, *[1] * (p.ndim - 1))
            p.copy_(before[name] + factor * (p - before[name]))
            state["multipliers"][name].copy_(multipliers[name])
        state["chosen"].fill_(1)

    def after_task(self, params: Any, state: Any) -> Any:
        """As the rule says; the multipliers stay."""
        return {**state, "rule": self.rule.after_task(params, state["rule"])}
