"""What a run measured: one tensor of accuracies, and what is needed to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Result:
    """S seeds, E evaluations, T tasks.

    accuracy: fractions of 1, float64 [S, E, T], NaN from where a seed diverged. when: int64 [E, 4]: tasks finished
    or, along the way, being learned (from 0); iteration in it; 1 at a task's end; rows scored of each seed. The first
    evaluation is before learning. untrained [S, T]: of a random draw of the network, whatever the start.
    losses [S, T, P]: training loss, means over P equal stretches of each task. diverged: int64 [S, 2]: task and
    iteration where a seed's loss stopped being finite, -1 where it never did. seconds: "training", "evaluation".
    few_shot [S, 2, T, K]: accuracy on each task with K numbers of rows of each class (`shots`), adapted from the state
    before the task and from a random draw; empty where it was not asked for.
    """

    accuracy: Tensor
    when: Tensor
    untrained: Tensor
    losses: Tensor
    diverged: Tensor
    seeds: tuple[int, ...]
    reading: str = "continual"
    setting: str = "class"
    open: str = "all"
    seconds: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    few_shot: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    shots: tuple[int, ...] = ()

    @property
    def tasks(self) -> int:
        """T."""
        return self.accuracy.shape[2]

    @property
    def kept(self) -> Tensor:
        """Which seeds never diverged, bool [S]."""
        return self.diverged[:, 0] < 0

    @property
    def at_task_ends(self) -> Tensor:
        """Accuracy on every task after each task, [S, T, T]: row t, column j = task j after task t."""
        return self.accuracy[:, self.when[:, 2] == 1]

    @property
    def before(self) -> Tensor:
        """Accuracy before learning, [S, T]."""
        return self.accuracy[:, 0]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, for a file."""
        names = ("accuracy", "when", "untrained", "losses", "diverged", "few_shot")
        return {name: getattr(self, name).contiguous() for name in names}

    def to_csv(self) -> str:
        """One line for each seed, evaluation and task."""
        lines = ["seed,evaluation,task_learned,iteration,task_end,task,accuracy"]
        for s, seed in enumerate(self.seeds):
            for e, (learned, iteration, end, _) in enumerate(self.when.tolist()):
                for t in range(self.tasks):
                    lines.append(f"{seed},{e},{learned},{iteration},{end},{t},{self.accuracy[s, e, t].item():.6g}")
        return "\n".join(lines) + "\n"


def joined(results: list[Result]) -> Result:
    """One result of several chunks of seeds."""
    first = results[0]
    names = ("accuracy", "untrained", "losses", "diverged", "few_shot")
    stacked = {name: torch.cat([getattr(r, name) for r in results]) for name in names}
    seconds = {name: sum(r.seconds[name] for r in results) for name in first.seconds}
    return Result(
        **stacked,
        when=first.when,
        seeds=tuple(seed for r in results for seed in r.seeds),
        reading=first.reading,
        setting=first.setting,
        open=first.open,
        seconds=seconds,
        about=first.about,
        shots=first.shots,
    )
