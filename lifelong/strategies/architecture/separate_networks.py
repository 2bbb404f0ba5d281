"""A network for each task, as van de Ven, Tuytelaars and Tolias (2022) compare with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Memory, Params
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy


@dataclass(frozen=True)
class SeparateNetworks(Strategy):
    """Learn each task with a network of its own, and answer a told task with its network.

    At a task's end its network is kept, and the next task starts where the first did. Nothing is forgotten, and nothing
    is shared: the mark for all that share. (Van de Ven et al., 2022, "Separate Networks", of 100 units a layer, so that all
    together are as large as one of 400; theirs start each from another draw.) The baseline `isolate` learns the
    same networks and throws each away; this one answers all tasks at the end. The optimiser's moments are carried on
    to the next network, as they are in one network, unless it says at_task_end="reset", as in van de Ven et al. and in `isolate`.
    In a sum, parts at its right see at a task's end the network that starts afresh, and not the one that learned the task.
    Memory: T - 1 networks, and the start.
    """

    keeps = "the network of each past task"
    witness = "a plain float64 loop, and `isolate`: tests/reference/witnesses/test_separate_networks.py"
    requires = Requirements(settings=("task",), task_ends=True, task_id=True)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The start, room for the networks [T - 1, ...], and tasks done."""
        past = max(problem.tasks - 1, 1)
        return params, {
            "start": {name: value.clone() for name, value in params["net"].items()},
            "kept": {name: value.expand(past, *value.shape).clone() for name, value in params["net"].items()},
            "done": torch.zeros((), dtype=torch.int64, device=problem.device),
        }

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Keep the network, and start afresh; the last task's stays where it is."""
        done, net = memory["done"], params["net"]
        last = done + 1 >= problem.tasks
        kept = {}
        for name, value in memory["kept"].items():
            place = torch.arange(len(value), device=value.device).view(-1, *[1] * net[name].ndim)
            kept[name] = torch.where(place == done, net[name], value)
        started = {name: torch.where(last, net[name], memory["start"][name]) for name in net}
        return {**params, "net": started}, {**memory, "kept": kept, "done": done + 1}

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scores by the network of each row's task: a pass for each of them."""
        scores = problem.logits(params, x)
        for number in range(problem.tasks - 1):
            net = {name: value[number] for name, value in memory["kept"].items()}
            past = (task == number) & (number < memory["done"])
            scores = torch.where(past[:, None], problem.logits({"net": net}, x), scores)
        return scores
