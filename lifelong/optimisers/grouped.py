"""Several optimisers, each for some parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lifelong.optimisers.base import Optimiser


@dataclass(frozen=True)
class Grouped:
    """Several optimisers, each for some parameters: `rule` for the network, and one for the own parameters of a part.

    groups: (label of the part, its optimiser). Norms are clipped in each group by itself.
    """

    rule: Optimiser
    groups: tuple[tuple[str, Optimiser], ...]

    @property
    def rate(self) -> float:
        """The network's."""
        return self.rule.rate

    @property
    def scheduled(self) -> bool:
        """Whether any of their rates depends on progress."""
        return self.rule.scheduled or any(optimiser.scheduled for _, optimiser in self.groups)

    def _split(self, tree: Any) -> list[tuple[str, Optimiser, Any]]:
        """Name, optimiser and parameters of each group."""
        apart = dict(self.groups)
        of_parts = tree.get("own", {})
        rest = {label: leaves for label, leaves in of_parts.items() if label not in apart}
        first = {**tree, "own": rest} if rest else {name: part for name, part in tree.items() if name != "own"}
        return [("", self.rule, first)] + [(label, rule, of_parts[label]) for label, rule in self.groups]

    def init(self, params: Any) -> Any:
        """The state of each, by label; that of the network as ""."""
        return {label: rule.init(part) for label, rule, part in self._split(params)}

    def update(self, params: Any, gradients: Any, state: Any, progress: Tensor) -> tuple[Any, Any]:
        """One step of one learner."""
        moved, states = {}, {}
        pairs = zip(self._split(params), self._split(gradients), strict=True)
        for (label, rule, part), (_, _, gradient) in pairs:
            moved[label], states[label] = rule.update(part, gradient, state[label], progress)
        of_parts = {**moved[""].get("own", {}), **{label: moved[label] for label, _ in self.groups}}
        return {**moved[""], "own": of_parts}, states

    def update_(self, params: Any, gradients: Any, state: Any, progress: float | Tensor) -> None:
        """One step of a fleet."""
        pairs = zip(self._split(params), self._split(gradients), strict=True)
        for (label, rule, part), (_, _, gradient) in pairs:
            rule.update_(part, gradient, state[label], progress)

    def after_task(self, params: Any, state: Any) -> Any:
        """Each as its own record says."""
        return {label: rule.after_task(part, state[label]) for label, rule, part in self._split(params)}
