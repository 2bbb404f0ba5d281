"""Strategies that break one promise each, by little: what a line of the contract must see at the sizes that it is run at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lifelong.core.strategy import Strategy
from lifelong.strategies.regularisation.ewc import EWC


def behind(tensor: torch.Tensor) -> torch.Tensor:
    """The whole fleet's values behind what a mapped verb is handed."""
    while torch._C._functorch.is_batchedtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def scaled(grads, scale):
    return {**grads, "net": {name: scale * value for name, value in grads["net"].items()}}, {}


@dataclass(frozen=True)
class SeesTheFleet(Strategy):
    """A gradient that is 0.1 % larger where others learn beside it."""

    def grads(self, problem, params, memory, batch, grads):
        together = behind(params["net"]["head.bias"]).shape[:1] not in ((1,), (problem.classes,))
        return scaled(grads, 1.001 if together else 1.0)


@dataclass(frozen=True)
class SeesTheFleetAtTaskEnds(Strategy):
    """A centre that is 0.1 % further where others learn beside it; it only shows in what is remembered."""

    def init(self, problem, params, generator):
        return params, {"centre": torch.zeros_like(params["net"]["head.bias"])}

    def after_task(self, problem, params, memory, task):
        together = behind(params["net"]["head.bias"]).shape[:1] not in ((1,), (problem.classes,))
        return params, {"centre": params["net"]["head.bias"] * (1.001 if together else 1.0)}


@dataclass(frozen=True)
class CountsOthers(Strategy):
    """Counts the greatest number of rows that any member has."""

    acts_at_once = True

    def init(self, problem, params, generator):
        return params, {"rows": problem.zeros()}

    def after_task(self, problem, params, memory, task):
        most = behind(task.valid).sum(-1).max().to(problem.dtype)
        return params, {"rows": memory["rows"] + most + 0 * task.valid.sum()}


@dataclass(frozen=True)
class Counted(Strategy):
    """A gradient that grows by 0.1 % at each call."""

    seen: list = field(default_factory=list, compare=False)

    def grads(self, problem, params, memory, batch, grads):
        self.seen.append(1)
        return scaled(grads, 1 + 1e-3 * len(self.seen))


@dataclass(frozen=True)
class ChangesShape(Strategy):
    """Remembers in another type of number, from the first end of a task on."""

    def init(self, problem, params, generator):
        return params, {"count": torch.zeros((), dtype=torch.int64)}

    def after_task(self, problem, params, memory, task):
        return params, {"count": memory["count"] + 0.5}


@dataclass(frozen=True)
class NotSilent(Strategy):
    """A penalty of a thousandth before any task has ended."""

    def penalty(self, problem, params, memory, batch, outputs):
        return 1e-3 * params["net"]["head.weight"].square().sum()

    def after_task(self, problem, params, memory, task):
        return params, memory


@dataclass(frozen=True)
class NotOff(Strategy):
    """At strength 0, a gradient 0.1 % larger from the second task on."""

    strength: float = 0.0
    off = {"strength": 0.0}

    def init(self, problem, params, generator):
        return params, {"on": problem.zeros()}

    def grads(self, problem, params, memory, batch, grads):
        return scaled(grads, 1 + memory["on"] * (self.strength + 1e-3))

    def after_task(self, problem, params, memory, task):
        return params, {"on": torch.ones_like(memory["on"])}


@dataclass(frozen=True)
class WritesInPlace(Strategy):
    """Adds to the memory that it was handed, at a task's end."""

    def init(self, problem, params, generator):
        return params, {"count": problem.zeros()}

    def after_task(self, problem, params, memory, task):
        memory["count"].add_(1)
        return params, memory


@dataclass(frozen=True)
class LooksAtNeighbours(Strategy):
    """A gradient 0.1 % larger where the sum has other parts, for it asks how it was called."""

    def grads(self, problem, params, memory, batch, grads):
        import inspect

        frames = [frame.frame.f_locals.get("self") for frame in inspect.stack()]
        beside = any(len(getattr(each, "parts", ())) > 1 for each in frames if isinstance(each, Strategy))
        return scaled(grads, 1.001 if beside else 1.0)


@dataclass(frozen=True)
class Rounds(Strategy):
    """A number that is rounded by Python once, to what it was when the fleet was made."""

    strength: float = 0.1

    def grads(self, problem, params, memory, batch, grads):
        strength = self.strength
        if isinstance(strength, torch.Tensor):
            strength = behind(strength).flatten()[0] * 1.001
        return scaled(grads, 1 + strength)


@dataclass(frozen=True)
class ReadsTheTask(Strategy):
    """Answers by the task's number, told or not."""

    def predict(self, problem, params, memory, x, task):
        return problem.logits(params, x) * (1 + 1e-3 * task[:, None])


@dataclass(frozen=True)
class DividesByNothing(Strategy):
    """From the first end of a task on, a gradient divided by the 0 that it has remembered."""

    def init(self, problem, params, generator):
        return params, {"on": problem.zeros()}

    def grads(self, problem, params, memory, batch, grads):
        return scaled(grads, torch.where(memory["on"] > 0, 1 / (memory["on"] - 1), 1.0))

    def after_task(self, problem, params, memory, task):
        return params, {"on": torch.ones_like(memory["on"])}


@dataclass(frozen=True)
class StaysBehind(Strategy):
    """Remembers a tensor that was made on the processor."""

    def init(self, problem, params, generator):
        return params, {"scale": torch.ones(2)}


@dataclass(frozen=True)
class LateByProgress(Strategy):
    """Takes a Python decision on a value that gets past vmap."""

    def grads(self, problem, params, memory, batch, grads):
        progress = behind(batch.progress)
        return scaled(grads, 1.001 if progress.numel() and float(progress.max()) > 0.4 else 1.0)


@dataclass(frozen=True, eq=False)
class SaysLess(EWC):
    """Leaves out a number that is not the default."""

    strength: float = 100.1

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __hash__(self):
        return hash(self.strength)

    def __repr__(self):
        return "EWC()"


BROKEN = {
    "its repr builds it again": (SaysLess,),
    "alone and in a fleet it learns the same": (SeesTheFleet, SeesTheFleetAtTaskEnds),
    "seeds of other lengths beside it do not matter": (CountsOthers,),
    "the fleet equals the pure step": (Counted, SeesTheFleet),
    "memory keeps its shapes and dtypes": (ChangesShape,),
    "it is silent before the first task ends": (NotSilent,),
    "what it declares as off is fine-tuning": (NotOff,),
    "its inputs stay untouched": (WritesInPlace,),
    "an empty part beside it changes nothing": (LooksAtNeighbours,),
    "its numbers may vary within a fleet": (Rounds,),
    "withheld task numbers do not matter": (ReadsTheTask,),
    "stopped and resumed it is the same": (Counted,),
    "recorded and taken step by step it is the same": (Counted, LateByProgress),
    "it stays finite": (DividesByNothing,),
    "it runs on any device": (StaysBehind, LateByProgress),
}
