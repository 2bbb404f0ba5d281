"""Copied weights, trained anew: CWR (Lomonaco and Maltoni, 2017) and CWR* (Lomonaco, Maltoni and Pellegrini, 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.core.batch import FinishedTask, Memory, Params, Step
from lifelong.core.problem import Problem
from lifelong.core.strategy import Requirements, Strategy, require
from lifelong.strategies.architecture.head_rows import bias_of, with_rows
from lifelong.strategies.expectations import expected
from scenarios.stream import Stream

BANDS = {
    "class": "{} learns features in the first task alone: in class-incremental streams that begin with few classes expect"
    " little. On Split-MNIST: CWRStar 30.2 %, CWR 20.7, fine-tuning 19.9 (our own table, docs/methods.md); its authors begin"
    " with ten classes (Lomonaco and Maltoni, 2017)."
}


@dataclass(frozen=True)
class CWRStar(Strategy):
    """Learn the features in the first task alone; then for each task a head of its own, of which the best is copied to keep.

    A task begins with the head at w_c = kept_c for its classes that were seen before, and 0 for all others, and trains it; the
    rest of the network is fixed after the first task. At its end, for each class c of the task, with n_c its rows now
    and N_c those before: kept_c <- (kept_c r + w_c - mean w) / (r + 1), r = sqrt(N_c / n_c), N_c <- N_c + n_c; mean w is one
    number, over all weights of the task's classes. Answers are given by what is kept. (Lomonaco et al., 2020, algorithm 1.)

    What differs from the source: the authors begin with a network that was trained on other images; here it is as the run
    starts it. Biases are kept in the same way as weights, less their own mean; in a well-known code they train on unkept.
    A class that is in no finished task answers while its first task lasts with w_c - mean w, of which the source says
    nothing. The first task's features are all that there will be: with few classes in it, expect little.

    Memory: two heads, N [C], done.
    """

    keeps = "a second head"
    witness = "a plain float64 loop: tests/reference/witnesses/test_cwr.py"
    previous_params = True
    acts_at_once = True
    requires = Requirements(settings=("class",), task_ends=True, classes=True)

    def notes(self, stream: Stream) -> list[str]:
        """What features are worth that few classes made."""
        few = 2 * len(stream[0].classes) < stream.classes
        return expected(BANDS, type(self).__name__, stream) if few else []

    def notes_beside(self, other: Strategy) -> list[str]:
        """Of what holds weights that do not move."""
        name = type(self).__name__
        line = f"{name} fixes all but the head after the first task and begins each head anew, so {type(other).__name__} has little or nothing left to hold"
        return [line] if other.anchors else []

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> tuple[Params, Memory]:
        """The head begins at 0; kept weights [C, F + 1], rows N [C] and tasks done, 0 as yet."""
        rows = rows_of(problem, params)
        started = with_head(problem, params, torch.zeros_like(rows))
        return started, {
            "kept": torch.zeros_like(rows),
            "rows": problem.zeros(problem.classes),
            "done": problem.zeros(),
        }

    def after_step(self, problem: Problem, params: Params, memory: Memory, step: Step) -> tuple[Params, Memory]:
        """Put back what is fixed."""
        net, before, first = params["net"], step.previous["net"], memory["done"] == 0
        moved = {n: v if n.startswith("head.") else torch.where(first, v, before[n]) for n, v in net.items()}
        return {**params, "net": moved}, memory

    def after_task(self, problem: Problem, params: Params, memory: Memory, task: FinishedTask) -> tuple[Params, Memory]:
        """Copy this task's rows of the head to those that are kept, and begin the next one's."""
        y = problem.y(task.row, task.number.expand(len(task.row)))
        member = (y[:, None] == torch.arange(problem.classes, device=y.device)) & task.valid[:, None]
        now, past = member.sum(0).to(problem.dtype), memory["rows"]
        ours, share = (now > 0)[:, None], (past / now.clamp(min=1)).sqrt()[:, None]
        fresh = self.fresh(rows_of(problem, params), ours)
        kept = torch.where(ours, self.merged(memory["kept"], fresh, share), memory["kept"])
        after = {"kept": kept, "rows": past + now, "done": memory["done"] + 1}
        begun = self.begun(kept, classes_of(problem, after["done"]))
        return with_head(problem, params, begun), after

    def fresh(self, rows: Tensor, ours: Tensor) -> Tensor:
        """What the task has learned of its classes, bool [C, 1]."""
        return shifted(rows, ours)

    def merged(self, kept: Tensor, fresh: Tensor, share: Tensor) -> Tensor:
        """What is kept of a class from now on; share: r, [C, 1]."""
        return (kept * share + fresh) / (share + 1)

    def begun(self, kept: Tensor, coming: Tensor) -> Tensor:
        """The head with which the next task begins; coming: its classes, bool [C, 1]."""
        return torch.where(coming, kept, 0)

    def predict(self, problem: Problem, params: Params, memory: Memory, x: Tensor, task: Tensor) -> Tensor:
        """Scores by the kept head, and for classes that it lacks by the one that learns."""
        known = (memory["rows"] > 0)[:, None]
        fresh = self.fresh(rows_of(problem, params), classes_of(problem, memory["done"]) & ~known)
        rows = torch.where(known, memory["kept"], fresh)
        return problem.logits(with_head(problem, params, rows), x)


@dataclass(frozen=True)
class CWR(CWRStar):
    """Copy weights with re-init: every task trains a head from 0, and scale x w_c of its classes is copied to keep.

    Nothing is merged: a class that comes back is overwritten, with what its last task knows of it; and nothing is
    shifted, so that tasks whose weights grow longer win. The rest as in `CWRStar`. (Lomonaco and Maltoni, 2017.)

    What differs from the source: the authors draw each new head at random, here it begins at 0; and they choose one scale
    for the first task and another for all later ones, here one serves all.
    """

    scale: float = 1.0
    defaults = "ours"

    def __post_init__(self) -> None:
        require(self, self.scale > 0, "scale must be above 0")

    def fresh(self, rows: Tensor, ours: Tensor) -> Tensor:
        """As it was learned, scaled."""
        return torch.where(ours, self.scale * rows, 0)

    def merged(self, kept: Tensor, fresh: Tensor, share: Tensor) -> Tensor:
        """What is new."""
        return fresh

    def begun(self, kept: Tensor, coming: Tensor) -> Tensor:
        """At 0."""
        return torch.zeros_like(kept)


def classes_of(problem: Problem, done: Tensor) -> Tensor:
    """Which classes the task has that follows those done, bool [C, 1]; of the last one, once all are done."""
    tasks = problem.index["classes_of"]
    return tasks[done.to(torch.int64).clamp(max=len(tasks) - 1)[None]][0][:, None]


def rows_of(problem: Problem, params: Params) -> Tensor:
    """The head, a row for each class, its bias at the end, [C, F + 1]."""
    rows, bias = problem.model.head_rows(params["net"]), bias_of(params["net"], problem.classes)
    return torch.cat([rows, torch.zeros_like(rows[:, :1]) if bias is None else bias[:, None]], 1)


def with_head(problem: Problem, params: Params, rows: Tensor) -> Params:
    """The parameters with another head, as `rows_of` gives it."""
    return {**params, "net": {**params["net"], **with_rows(problem, params["net"], rows[:, :-1], rows[:, -1])}}


def shifted(rows: Tensor, ours: Tensor) -> Tensor:
    """Rows of some classes, bool [C, 1], less the mean of their weights, biases less that of theirs; 0 for the others."""
    count = ours.sum().clamp(min=1)
    chosen = torch.where(ours, rows, 0)
    weights, bias = chosen[:, :-1], chosen[:, -1:]
    mean = torch.cat(
        [(weights.sum() / (count * weights.shape[1])).expand(weights.shape[1]), (bias.sum() / count)[None]]
    )
    return torch.where(ours, rows - mean, 0)
