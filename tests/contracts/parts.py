"""Parts and learners for the contract, each of which needs something that no shipped method does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lifelong.core.batch import normal
from lifelong.core.looped import LoopedLearner, LoopedMember
from lifelong.core.strategy import Requirements, Strategy
from lifelong.memory.drawn import drawn_rows
from lifelong.memory.reservoir import Reservoir
from lifelong.models.perceptron import MLP
from lifelong.optimisers.sgd import SGD


@dataclass(frozen=True)
class Temperature(Strategy):
    """A learned temperature, a scalar of its own with an optimiser of its own: scores are divided by exp(t)."""

    rate: float = 0.05

    @property
    def optimiser(self):
        return SGD(self.rate)

    def init(self, problem, params, generator):
        return {**params, "own": {"t": problem.zeros()}}, {}

    def objective(self, problem, params, memory, batch):
        outputs = problem.outputs(params, batch.x)
        outputs = outputs._replace(logits=outputs.logits / params["own"]["t"].exp())
        return (batch.weight * problem.loss_rows(outputs.logits, batch)).sum(), outputs

    def predict(self, problem, params, memory, x, task):
        return problem.logits(params, x) / params["own"]["t"].exp()


@dataclass(frozen=True)
class DrawsEverywhere(Strategy):
    """Draws in every verb, adds made rows, leaves notes, has milestones: whatever a neighbour changed would show."""

    strength: float = 0.01
    milestones = (0.0, 0.5, 1.0)
    acts_at_once = True

    def draws(self, problem):
        return {"row": (2,), "noise": (2, *problem.dataset.shape), "scale": ()}

    def task_draws(self, problem):
        return {"shift": (3,)}

    def prepare_draws(self, problem):
        return {"jitter": (problem.classes,)}

    def init(self, problem, params, generator):
        return params, {"shift": problem.zeros(3), "count": problem.zeros(), "jitter": problem.zeros(problem.classes)}

    def extend(self, problem, params, memory, batch):
        assert batch.mine == slice(len(batch.row), len(batch.row))
        place = (batch.draws["row"] * len(batch.row[batch.stream])).to(torch.int64)
        x = batch.x[place] + 0.1 * normal(batch.draws["noise"]).to(batch.x.dtype)
        weight = batch.weight[place] * self.strength
        return batch.add(problem, torch.full_like(place, -1), batch.task[place], weight, x=x, y=batch.y[place])

    def penalty(self, problem, params, memory, batch, outputs):
        added = outputs.logits[batch.mine].square().mean()
        return self.strength * batch.draws["scale"].to(added.dtype) * (1 + memory["shift"].sum()) * added

    def grads(self, problem, params, memory, batch, grads):
        scale = 1 + self.strength * batch.draws["scale"].to(problem.dtype)
        net = {name: value * scale for name, value in grads["net"].items()}
        return {**grads, "net": net}, {"scale": scale}

    def after_step(self, problem, params, memory, step):
        count = memory["count"] + step.notes["scale"] * step.batch.draws["scale"].to(problem.dtype)
        return params, {**memory, "count": count}

    def at_milestone(self, problem, params, memory, task, share):
        return params, {**memory, "shift": memory["shift"] + share * task.draws["shift"].to(problem.dtype)}

    def after_task(self, problem, params, memory, task):
        return params, {**memory, "shift": memory["shift"] + task.draws["shift"].to(problem.dtype)}

    def prepare(self, problem, params, memory, draws):
        return {**memory, "jitter": 1e-3 * draws["jitter"].to(problem.dtype)}

    def predict(self, problem, params, memory, x, task):
        return problem.logits(params, x) + memory["jitter"]


@dataclass(frozen=True)
class SoftReplay(Strategy):
    """Replayed rows are taught half by their label, half by what was answered when they were seen: an extra."""

    size: int = 16
    off = {"size": 0}
    acts_at_once = True

    def draws(self, problem):
        return {"place": (5,), **Reservoir().draws(problem, self.size)} if self.size else {}

    def init(self, problem, params, generator):
        return params, Reservoir().init(problem, self.size, answer=problem.zeros(problem.classes))

    def extend(self, problem, params, memory, batch):
        if not self.size:
            return batch
        draw = Reservoir().pick(memory, batch.draws["place"], 5)
        row, task = drawn_rows(memory, draw)
        half = torch.full_like(draw.place, 0.5, dtype=problem.dtype)
        weight = draw.weight(half[0])
        target = memory["answer"][draw.place]
        return batch.add(problem, row, task, weight, target=target, soft=half)

    def after_step(self, problem, params, memory, step):
        if not self.size:
            return params, memory
        rows = step.batch.stream
        answer = step.outputs.logits[rows].masked_fill(~step.batch.allowed[rows], -torch.inf).softmax(1)
        return params, Reservoir().insert(problem, memory, step.batch, step.batch.draws, answer=answer)


@dataclass(frozen=True)
class ToldAnswers(Strategy):
    """Answers differ with the task that is told; meant for task-incremental streams."""

    shift: float = 0.5
    requires = Requirements(task_id=True)
    checked_with = MLP(5, 3)

    def predict(self, problem, params, memory, x, task):
        return problem.logits(params, x) * (1 + self.shift * task[:, None])


@dataclass(frozen=True)
class ModuleLearner(LoopedLearner):
    """A torch module with dropout and batch norm by running statistics, trained by torch's own optimiser."""

    width: int = 8
    rate: float = 0.05
    model = MLP(8)

    def member(self, problem, generator):
        return ModuleMember(self, problem)


class ModuleMember(LoopedMember):
    def __init__(self, learner, problem):
        features = 1
        for size in problem.dataset.shape:
            features *= size
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(features, learner.width), nn.BatchNorm1d(learner.width), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(learner.width, problem.classes),
        ).to(problem.dtype)  # fmt: skip
        self.optimiser = torch.optim.SGD(self.net.parameters(), learner.rate)

    def step(self, problem, batch):
        self.net.train()
        logits = self.net(batch.x).masked_fill(~batch.allowed, -torch.inf)
        loss = (batch.weight * F.cross_entropy(logits, batch.y, reduction="none")).sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def predict(self, problem, x, task):
        self.net.eval()
        return self.net(x)

    def tensors(self):
        return {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def load(self, tensors):
        self.net.load_state_dict(tensors)
