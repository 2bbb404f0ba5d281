"""Small working files to start from."""

from __future__ import annotations

from pathlib import Path

from lifelong.contracts.every_verb import strategy_with_every_verb
from lifelong.core.files import RunError, write
from scenarios.errors import ConfigurationError

STRATEGY = '''"""Hold the weights near where the last task left them."""

from dataclasses import dataclass

import torch

from lifelong import Strategy


@dataclass(frozen=True)
class {name}(Strategy):
    """penalty = strength / 2 x sum (p - anchor)^2, once a task is over."""

    strength: float = 0.1

    def init(self, problem, params, generator):
        anchor = {{name: p.clone() for name, p in params["net"].items()}}
        return params, {{"anchor": anchor, "on": torch.zeros((), device=next(iter(anchor.values())).device)}}

    def penalty(self, problem, params, memory, batch, outputs):
        distance = sum(((p - memory["anchor"][name]) ** 2).sum() for name, p in params["net"].items())
        return memory["on"].to(distance.dtype) * self.strength / 2 * distance

    def after_task(self, problem, params, memory, task):
        return params, {{"anchor": params["net"], "on": torch.ones_like(memory["on"])}}
'''

SCENARIO = '''"""Odd against even: each task is one pair of digits, and asks which of the two is even."""

from dataclasses import dataclass

import torch

from scenarios import Budget, Entry, Stream, Task, generator, register


@dataclass(frozen=True)
class {name}TaskGenerator:
    count: int

    def tasks(self, dataset, seed):
        odd = 2 * torch.randperm(5, generator=generator(seed, "odd")) + 1
        even = 2 * torch.randperm(5, generator=generator(seed, "even"))
        return [self.task(dataset, t, int(odd[t]), int(even[t])) for t in range(self.count)]

    def task(self, dataset, t, odd, even):
        label = torch.full((dataset.classes,), -1)
        label[odd], label[even] = 0, 1
        rows = torch.nonzero(label[dataset.y] >= 0)[:, 0]
        train, test = rows[rows < dataset.train_rows], rows[rows >= dataset.train_rows]
        return Task(t, train, rows[:0], test, label, (0, 1))


def make(dataset, tasks, setting, budget):
    return Stream("{word}", dataset, {name}TaskGenerator(tasks), setting, tasks, 2, budget=budget)


# what a run takes where nothing is said: data, setting, options of `make`, network, budget of each task
protocol = {{"model": "MLP(100)", "budget": Budget(iterations=100, batch=32)}}
{variable} = register(Entry("{word}", make, "digits", "domain", {{"tasks": 5}}, **protocol, about="odd against even"))
'''

MODEL = '''"""A small network: rows of any shape, one hidden layer.

`__init__` takes the shape of a row and the number of classes, then fields of your own. `features` makes [B, F] of rows
[B, *shape], and `head` scores [B, C] of features; each may be a submodule, as here, or a method. No dropout, no running
statistics, nothing kept between calls: many copies learn at once.
"""

import math

from torch import nn


class {name}(nn.Module):
    def __init__(self, shape, classes, width=64):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.ReLU())
        self.head = nn.Linear(width, classes)
'''


LEARNER = '''"""The nearest class mean of a network's features: a learner without gradient descent.

A state goes in, and a new one comes out. All that is learned lies in `state.memory`, a tree of tensors of fixed shapes; no
Python decision is taken on a tensor's value, since many seeds learn at once.
"""

from dataclasses import dataclass, field

import torch

from lifelong import MLP, Requirements
from lifelong.core.learner import AnyLearner, State
from lifelong.models.base import Model


@dataclass(frozen=True)
class {name}(AnyLearner):
    """score_c = -|f - mu_c|^2 / temperature, mu_c the mean of f over all rows of class c so far.

    f: features of the network where it starts, at random or from `--init`.
    """

    temperature: float = 1.0
    model: Model = field(default_factory=lambda: MLP(100), kw_only=True)

    @property
    def requirements(self):
        return [(repr(self), Requirements(paradigm="", classes=True))]

    def init(self, problem, params, generator):
        width = self.model.head_rows(params["net"]).shape[1]
        memory = {{"sum": problem.zeros(problem.classes, width), "count": problem.zeros(problem.classes)}}
        return State(params, {{}}, memory)

    def step(self, problem, state, batch):
        classes = torch.arange(problem.classes, device=batch.y.device)
        new = (batch.y[:, None] == classes) & batch.first_seen[:, None]  # each row once, and no padding
        member = new.to(problem.dtype)  # [B, C]
        total = state.memory["sum"] + member.T @ problem.features(state.params, batch.x)
        return state._replace(memory={{"sum": total, "count": state.memory["count"] + member.sum(0)}})

    def predict(self, problem, state, x, task):
        count = state.memory["count"]
        means = state.memory["sum"] / count.clamp(min=1)[:, None]
        features = problem.features(state.params, x)
        scores = -(features[:, None] - means).square().sum(2) / self.temperature
        return scores.masked_fill(count == 0, -torch.inf)
'''

META = '''"""Prototypes with a temperature that is learned: a meta-learner.

Its loss is that of its own answers: `query_scores` says what they are. What is learned is the tree that `init` makes. A
method that learns from a support by steps says them in `adapt`, and keeps their graph: `lifelong check` sees whether it does.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lifelong.core.problem import scaled
from lifelong.meta import MetaLearner


@dataclass(frozen=True)
class {name}(MetaLearner):
    """score_c = -|f(x) - mean of f over the support of class c|^2 / temperature."""

    kinds = ("classes",)
    least = {{**MetaLearner.least, "shot": 1}}
    together = True  # support and queries pass through the network in one batch

    temperature: float = 1.0

    def init(self, distribution, generator):
        log = torch.full((), self.temperature, dtype=distribution.dtype, device=distribution.device).log()
        return {{**super().init(distribution, generator), "temperature": {{"log": log}}}}

    def query_scores(self, distribution, meta, support, query, way):
        problem = distribution.problem(way)
        x = scaled(torch.cat([support.x, query]), distribution.dtype)  # bytes become 0 ... 1
        features = problem.features({{"net": meta["net"]}}, x)  # [R + Q, F]
        shown, asked = features[: len(support.y)], features[len(support.y) :]
        member = F.one_hot(support.y, way).to(features.dtype)  # [R, N]
        means = (member.T @ shown) / member.sum(0)[:, None]
        return -(asked[:, None] - means).square().sum(2) / meta["temperature"]["log"].exp()

    @property
    def tests_shot(self):
        return self.shot
'''

TEXTS = {"strategy": STRATEGY, "scenario": SCENARIO, "model": MODEL, "learner": LEARNER, "meta": META}
TRIES = {  # what to try next, with the file's path, the class in it and the variable
    "strategy": 'lifelong run split-digits --strategy "{path}:{name}(strength=0.1) + Replay(size=200)"',
    "scenario": "lifelong run {path}:{variable}",
    "model": 'lifelong run split-digits --strategy "Replay(size=200)" --model "{path}:{name}(width=64)"',
    "learner": 'lifelong run split-digits --learner "{path}:{name}(temperature=1.0)"',
    "meta": 'lifelong pretrain split-omniglot --init "{path}:{name}(iterations=500)" --output start.safetensors',
}


def write_new(kind: str, path: Path, full: bool = False) -> str:
    """Write the file; returns the command to try next. Refuses to overwrite. full: a strategy with every verb."""
    if kind not in TEXTS:
        raise ConfigurationError(f"unknown kind {kind!r}: it is {', '.join(list(TEXTS)[:-1])} or {list(TEXTS)[-1]}")
    if full and kind != "strategy":
        raise ConfigurationError("--full shows every verb of a strategy: it goes with `lifelong new strategy` alone")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ConfigurationError(f"{path} must be a Python file whose name is a word, as in my_idea.py")
    if path.exists():
        raise ConfigurationError(f"{path} exists already: choose another name")
    if not path.parent.is_dir():
        raise RunError(f"{path.parent} is not a folder")
    name = "".join(word.capitalize() for word in path.stem.split("_"))
    word, variable = path.stem.replace("_", "-"), path.stem
    text = strategy_with_every_verb(name) if full else TEXTS[kind].format(name=name, word=word, variable=variable)
    write(path, text.encode())
    return TRIES[kind].format(path=path, name=name, variable=variable)
