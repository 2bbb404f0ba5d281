"""A strategy for tests: replays rows with soft targets through `extend`, as distillation-based replay does."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lifelong.strategies.replay import Replay
from lifelong.strategy import Strategy


@dataclass(frozen=True)
class SoftReplay(Strategy):
    """Replayed rows are taught what the network of the last task's end answered, half and half with their label."""

    replay: Replay = field(default_factory=lambda: Replay(size=16))

    @property
    def uniforms_per_row(self):
        return self.replay.uniforms_per_row

    def init(self, problem, params, generator):
        params, memory = self.replay.init(problem, params, generator)
        teacher = {name: value.clone() for name, value in params["net"].items()}
        return params, {"rows": memory, "teacher": teacher}

    def extend(self, problem, params, memory, batch):
        count = batch.row.shape[0]
        longer = self.replay.extend(problem, params, memory["rows"], batch)
        added = slice(count, None)
        logits = problem.logits({"net": memory["teacher"]}, longer.x[added])
        target = logits.masked_fill(~longer.allowed[added], -torch.inf).softmax(1)
        soft = torch.full_like(longer.weight[added], 0.5) * (memory["rows"]["done"] > 0)
        scaled = longer._replace(
            **{
                name: getattr(longer, name)[:count]
                for name in ("row", "task", "x", "y", "weight", "part", "slot", "allowed", "first_seen")
            }
        )
        return scaled.add(
            problem,
            longer.row[added],
            longer.task[added],
            longer.weight[added],
            longer.slot[added],
            target=target,
            soft=soft,
        )

    def after_step(self, problem, params, memory, step):
        params, rows = self.replay.after_step(problem, params, memory["rows"], step)
        return params, {**memory, "rows": rows}

    def after_task(self, problem, params, memory, task):
        params, rows = self.replay.after_task(problem, params, memory["rows"], task)
        return params, {"rows": rows, "teacher": params["net"]}
