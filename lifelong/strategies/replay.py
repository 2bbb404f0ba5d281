"""Experience replay: a uniform reservoir (Vitter, 1985; Chaudhry et al., 2019), and a fixed number for each class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.problem import Batch, FinishedTask, Memory, Params, Problem, Step
from lifelong.strategy import Strategy, require

WEIGHTINGS = ("tasks", "equal")


def replay(
    problem: Problem, batch: Batch, row: Tensor, task: Tensor, count: Tensor, uniforms: Tensor, share: Tensor
) -> Batch:
    """The batch with rows drawn uniformly, with replacement, from the first `count` of a memory [M].

    uniforms [R] say which; share, 0-d, is the weight of the batch as it was, and 1 - share that of the added rows;
    an empty memory leaves the batch all the weight.
    """
    slot = (uniforms * count).to(torch.int64).clamp(max=row.shape[0] - 1)
    share = torch.where(count > 0, share, torch.ones_like(share))
    old = batch._replace(weight=batch.weight * share)
    weight = ((1 - share) / slot.shape[0]).expand(slot.shape[0])
    return old.add(problem, row[slot], task[slot], weight, slot)


def new_share(weighting: str, done: Tensor, batch: Batch) -> Tensor:
    """Weight of the stream's rows: "tasks" 1 / k with k tasks begun, "equal" 1/2; 0-d."""
    one = torch.ones_like(batch.weight[0])
    return one / (done + 1) if weighting == "tasks" else one / 2


@dataclass(frozen=True)
class Replay(Strategy):
    """Keep a uniform sample of all rows seen so far, and learn as many of them again with each batch.

    size: M, rows kept. ratio: replayed rows for each new one. weighting: "tasks" weighs new rows 1/k and old ones
    1 - 1/k with k tasks begun; "equal" halves. The current task is part of the sample.
    """

    size: int = 1000
    ratio: int = 1
    weighting: str = "tasks"

    def __post_init__(self) -> None:
        require(self, self.size >= 0, "size must be at least 0")
        require(self, self.ratio >= 1, "ratio must be at least 1")
        require(self, self.weighting in WEIGHTINGS, f"weighting is one of {', '.join(WEIGHTINGS)}")

    @property
    def uniforms_per_row(self) -> int:  # type: ignore[override]
        """One for each replayed row, and a ticket for the reservoir."""
        return self.ratio + 1

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """row, task and ticket [M], tasks done; an empty place has an infinite ticket."""
        first = problem.rules["rows_train"][0, :1].expand(self.size).clone()
        some = next(iter(params["net"].values()))
        ticket = torch.full((self.size,), torch.inf, device=some.device)
        return params, {"row": first, "task": torch.zeros_like(first), "ticket": ticket, "done": some.new_zeros(())}

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows."""
        if self.size == 0:
            return batch
        count = memory["ticket"].isfinite().sum()
        uniforms = batch.uniforms[:, : self.ratio].flatten()
        share = new_share(self.weighting, memory["done"], batch)
        return replay(problem, batch, memory["row"], memory["task"], count, uniforms, share)

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Of old and new rows, those with the smallest tickets stay: a uniform sample of all that came by."""
        if self.size == 0:
            return params, memory
        uniforms = step.batch.uniforms
        count = uniforms.shape[0]  # the stream's rows come first
        fresh = step.batch.first_seen[:count]
        ticket = torch.cat(
            [memory["ticket"], torch.where(fresh, uniforms[:, -1].to(memory["ticket"].dtype), torch.inf)]
        )
        kept, place = ticket.topk(self.size, largest=False)
        row = torch.cat([memory["row"], step.batch.row[:count]])[place]
        task = torch.cat([memory["task"], step.batch.task[:count]])[place]
        return params, {**memory, "row": row, "task": task, "ticket": kept}

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Count the task."""
        return params, {**memory, "done": memory["done"] + 1}


@dataclass(frozen=True)
class ClassReplay(Strategy):
    """Keep `per_class` random rows of each class (domain-incremental: of each class and task), chosen at a task's end.

    So the current task is never replayed. The replayed rows are as many as the stream's. This is the "ER" of
    van de Ven, Tuytelaars and Tolias (2022). weighting: as in `Replay`.
    """

    per_class: int = 100
    weighting: str = "tasks"
    uniforms_per_row = 1
    uniforms_per_task_row = 1

    def __post_init__(self) -> None:
        require(self, self.per_class >= 0, "per_class must be at least 0")
        require(self, self.weighting in WEIGHTINGS, f"weighting is one of {', '.join(WEIGHTINGS)}")

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """row, task, filled [G, K]: a group of K places for each class (and task); order [G K], filled places first."""
        groups = problem.classes * (problem.tasks if problem.setting == "domain" else 1)
        first = problem.rules["rows_train"][0, :1].expand(groups, self.per_class).clone()
        some = next(iter(params["net"].values()))
        filled = torch.zeros_like(first, dtype=torch.bool)
        order = torch.arange(filled.numel(), device=some.device)
        return params, {
            "row": first,
            "task": torch.zeros_like(first),
            "filled": filled,
            "order": order,
            "done": some.new_zeros(()),
        }

    def extend(self, problem: Problem, params: Params, memory: Memory, batch: Batch) -> Batch:
        """Add replayed rows."""
        if self.per_class == 0:
            return batch
        order = memory["order"]
        row, task = memory["row"].flatten()[order], memory["task"].flatten()[order]
        share = new_share(self.weighting, memory["done"], batch)
        return replay(problem, batch, row, task, memory["filled"].sum(), batch.uniforms[:, 0], share)

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Of each class of the task, the rows with the smallest uniforms."""
        done = memory["done"] + 1
        if self.per_class == 0:
            return params, {**memory, "done": done}
        y = problem.y(task.row, task.number.expand(task.row.shape[0]))
        own = (y == torch.arange(problem.classes, device=y.device)[:, None]) & task.valid  # [C, N]
        wanted = min(self.per_class, y.shape[0])
        ticket = torch.where(own, task.uniforms[:, 0], torch.full_like(task.uniforms[:, 0], 2.0))
        smallest, place = ticket.topk(wanted, dim=1, largest=False)  # [C, wanted]
        pad = (0, self.per_class - wanted)
        row = torch.nn.functional.pad(task.row[place], pad)
        found = torch.nn.functional.pad(smallest < 1.5, pad)
        number = task.number.expand(found.shape)
        if problem.setting == "domain":  # the groups of this task alone
            groups = torch.arange(memory["row"].shape[0], device=y.device) // problem.classes
            ours = (groups == task.number)[:, None]
            row, found, number = (value.repeat(problem.tasks, 1) for value in (row, found, number))
        else:
            ours = task.classes[:, None]
        filled = torch.where(ours, found, memory["filled"])
        return params, {
            "row": torch.where(ours & found, row, memory["row"]),
            "task": torch.where(ours & found, number, memory["task"]),
            "filled": filled,
            "order": filled.flatten().to(torch.int8).argsort(descending=True, stable=True),
            "done": done,
        }
