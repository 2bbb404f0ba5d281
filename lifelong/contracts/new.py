"""Small working files to start from."""

from __future__ import annotations

from pathlib import Path

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


def make(dataset, tasks=5, setting="domain", budget=None):
    return Stream("{word}", dataset, {name}TaskGenerator(tasks), setting, tasks, 2, budget=budget or Budget(iterations=100))


{variable} = register(Entry("{word}", make, "digits", "domain", {{"tasks": 5}}, model="MLP(100)", about="odd against even"))
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


def write_new(kind: str, path: Path) -> str:
    """Write the file; returns the command to try next. Refuses to overwrite."""
    texts = {"strategy": STRATEGY, "scenario": SCENARIO, "model": MODEL}
    if kind not in texts:
        raise ConfigurationError(f"unknown kind {kind!r}: it is strategy, scenario or model")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ConfigurationError(f"{path} must be a Python file whose name is a word, as in my_idea.py")
    if path.exists():
        raise ConfigurationError(f"{path} exists already: choose another name")
    if not path.parent.is_dir():
        raise RunError(f"{path.parent} is not a folder")
    name = "".join(word.capitalize() for word in path.stem.split("_"))
    word, variable = path.stem.replace("_", "-"), path.stem
    write(path, texts[kind].format(name=name, word=word, variable=variable).encode())
    if kind == "strategy":
        return f'lifelong run split-digits --strategy "{path}:{name}(strength=0.1) + Replay(size=200)"'
    if kind == "model":
        return f'lifelong run split-digits --strategy "Replay(size=200)" --model "{path}:{name}(width=64)"'
    return f"lifelong run {path}:{variable}"
