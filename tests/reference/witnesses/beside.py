"""What every witness needs: a run of ours in float64, and its batches, draws and first weights for a plain loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.core.batch import FinishedTask
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, learned
from lifelong.core.problem import Problem
from lifelong.models.perceptron import MLP
from lifelong.optimisers.adam import Adam
from scenarios.split import split
from scenarios.stream import Budget, Stream
from scenarios.synthetic import blobs
from tests.reference.plain_methods import Rows

DOUBLE = torch.float64
SEEDS, SEED = [0, 1], 1  # the second of two members is looked at
NET = MLP(12)
TOLERANCE, PLANTED = (
    1e-9,
    1e-6,
)  # ours and the loop's are nearer than the first; with a planted error, further than the second


def stream_of(setting: str = "class", iterations: int = 12, batch: int = 8, validation: float = 0.0) -> Stream:
    """Three tasks of two classes of Gaussian clouds with 8 features; more rows are shown than there are."""
    return split(blobs(6, 8, 30), 3, setting, budget=Budget(iterations=iterations, batch=batch), validation=validation)


def adam(leaves: list[Tensor]) -> torch.optim.Optimizer:
    """torch's, as `Adam(0.01)` of ours."""
    return torch.optim.Adam(leaves, 0.01)


@dataclass
class Beside:
    """A run of ours, and everything that a plain loop must be given to end where it ended.

    net: the second member's final parameters; start: its first ones. memory, own_params: its parts' final memories, and their own parameters. tasks[t][i]: the
    rows of each step, `Rows`. draws[t][i][part]: the numbers that each part drew, by name. finished[t]: the task at its
    end, of this member. problem: as this member sees it.
    """

    net: dict[str, Tensor]
    start: dict[str, Tensor]
    memory: Any
    own_params: Any
    tasks: list[list[Rows]]
    draws: list[list[Any]]
    finished: list[FinishedTask]
    problem: Problem
    session: Session
    state: Any

    def scores(self, x: Tensor, task: Tensor) -> Tensor:
        """Our answers at the end of the run, [B, C]."""
        learner = self.session.fleet.learner
        return learner.predict(self.problem, member(self.state), x, task)


def member(tree: Any) -> Any:
    """The second member's part of a tree of stacked tensors."""
    return tree_map(lambda leaf: leaf[SEED] if isinstance(leaf, Tensor) else leaf, tree)


def beside(strategy: Any, stream: Stream, optimiser: Any = None, model: Any = NET) -> Beside:
    """Learn a stream with a strategy, or with a learner, and say what it was given."""
    learner = Learner(model, strategy, optimiser or Adam(0.01)) if hasattr(strategy, "objective") else strategy
    session = Session(learner, stream, SEEDS, dtype=DOUBLE)
    first = member(session.first_state())
    start = {name: value.clone() for name, value in first.params["net"].items()}
    _, state = learned(session)
    state = session.fleet.tensors(state)
    tasks, draws = [], []
    for task in range(session.tasks):
        batches = list(session.sampler.batches(task))
        tasks.append([Rows(b.x[SEED], b.y[SEED], b.allowed[SEED], b.first_seen[SEED]) for b in batches])
        draws.append([member(b.draws) for b in batches])
    finished = [member(session.sampler.finished(task)) for task in range(session.tasks)]
    problem = replace(session.fleet.problem, index={k: v[SEED] for k, v in session.fleet.problem.index.items()})
    final = member(state)
    return Beside(
        final.params["net"],
        start,
        final.memory,
        final.params.get("own", {}),
        tasks,
        draws,
        finished,
        problem,
        session,
        state,
    )


def gap(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference between two networks."""
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
