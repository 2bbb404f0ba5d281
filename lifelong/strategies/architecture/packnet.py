"""PackNet (Mallya and Lazebnik, 2018): tasks share one network, each weight belongs to one of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.models.base import Net


@dataclass(frozen=True)
class PackNet(Strategy):
    """Learn a task with all free weights, give most of them up, and learn on with the few that are kept and then fixed.

    Each task begins with all free weights. When `share` of it is over, in each layer by itself the round(prune x n)
    smallest |w| of its n weights become 0 and free for the next task; the rest of the task learns the others, which never
    move again. A told task k is answered with the weights of tasks 0 ... k alone. (Mallya and Lazebnik, 2018, section 3.)

    Biases and norms outside the head belong to the first task. The head is not pruned: its columns, with their biases,
    belong to the first task that has their class. The authors have a head for each task, and fix biases and norms
    likewise; they prune the last task too, as is done here.

    What is fixed is put back after each step, so that neither momentum nor weight decay moves it. The optimiser does not
    know: it still counts the gradients of fixed weights, in its moments and in clipping. A weight that is given up so
    takes the moments of its rest along into the next task, whose own gradients soon outweigh them; the authors start a
    new optimiser for each phase (at_task_end="reset" starts one for each task).
    """

    share: float = 0.5
    prune: float = 0.75
    keeps = "whose each weight is"
    witness = "a plain float64 loop: tests/reference/test_methods_b.py"
    defaults = "published, but for share"
    previous_params = True
    acts_at_once = True
    requires = Requirements(settings=("task",), task_ends=True, task_id=True, all_move=True)

    def __post_init__(self) -> None:
        require(self, 0 <= self.share <= 1, "share of a task lies in 0 ... 1")
        require(self, 0 <= self.prune < 1, "prune is a share of the weights, at least 0 and below 1")

    @property
    def milestones(self) -> tuple[float, ...]:  # pyright: ignore[reportIncompatibleVariableOverride] # computed from a field
        """When it prunes."""
        return (self.share,)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """owner int16, shaped like the net: the task that each entry is learned in, or is free for; task 0-d, from 0."""
        net, classes_of = params["net"], problem.index["classes_of"]
        first = classes_of.to(torch.int8).argmax(0).to(problem.dtype)  # [C], the first task that has the class
        # a head's weights may lie either way round: what takes them to rows of classes takes rows of numbers back
        rows, back = torch.func.vjp(problem.model.head_rows, net)[:2]
        numbers = back(first[:, None].expand_as(rows))[0]
        owner = {}
        for name, value in net.items():
            by_class = first if name.startswith("head.") and value.shape == first.shape else numbers[name]
            owner[name] = by_class.round().to(torch.int16)
        return params, {"owner": owner, "task": torch.zeros((), dtype=torch.int16, device=problem.device)}

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Put back what does not belong to this task."""
        previous, net = step.previous["net"], params["net"]
        free = {name: owner == memory["task"] for name, owner in memory["owner"].items()}
        return {**params, "net": {name: torch.where(free[name], net[name], previous[name]) for name in net}}, memory

    def at_milestone(
        self, problem: Problem, params: Params, memory: Memory, task: FinishedTask, share: float
    ) -> tuple[Params, Memory]:
        """Give up this task's smallest weights: they become 0, and the next task's."""
        net, owner = dict(params["net"]), dict(memory["owner"])
        for name in net:
            if net[name].ndim > 1 and not name.startswith("head."):
                given_up = smallest(net[name], owner[name] == memory["task"], self.prune)
                net[name] = torch.where(given_up, torch.zeros_like(net[name]), net[name])
                owner[name] = torch.where(given_up, memory["task"] + 1, owner[name])
        return {**params, "net": net}, {**memory, "owner": owner}

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """The next task's turn."""
        return params, {**memory, "task": memory["task"] + 1}

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scores by the weights of each row's task and of those before it: a pass for each task of the stream."""
        scores = problem.logits(params, x)  # the last task's: weights that are free are 0
        for number in range(problem.tasks - 1):
            told = problem.logits({"net": masked(params["net"], memory["owner"], number)}, x)
            scores = torch.where((task == number)[:, None], told, scores)
        return scores


def smallest(weights: Tensor, member: Tensor, prune: float | Tensor) -> Tensor:
    """The round(prune x n) smallest |w| of the n members, and those that equal the largest of them, bool."""
    sizes = weights.abs()
    rank = (member.sum().to(weights.dtype) * prune).round().to(torch.int64)
    ordered = sizes.masked_fill(~member, torch.inf).flatten().sort().values
    cut = ordered.gather(0, (rank - 1).clamp(min=0)[None])
    return member & (sizes <= cut) & (rank > 0)


def masked(net: Net, owner: Net, task: int) -> Net:
    """The net with 0 for all that belongs to later tasks."""
    return {name: torch.where(owner[name] <= task, value, torch.zeros_like(value)) for name, value in net.items()}
