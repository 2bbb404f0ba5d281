"""Methods that adapt by inner steps, by plain PyTorch loops over tasks: nothing of lifelong's learners, networks or optimisers.

Each is written from its paper. What is learned is a dictionary of dictionaries of tensors, as the row's own; a task is
(support x [R, 1, 28, 28], y, query x, y); about: the row's settings. Run one, with its own sampling, as

    python -m tests.reference.plain_optimisation boil 0 --data-root DIR --record docs/reference.json
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.reference.plain_few_shot import Characters

BLOCKS = 4


def scores(net, x, film=lambda block, x: x):
    """Four convolutions of stride 2 with batch statistics, and a linear head; film sees a block before its relu."""
    for i in range(BLOCKS):
        x = F.conv2d(x, net[f"block{i}.weight"], stride=2, padding=1)
        x = F.batch_norm(x, None, None, net[f"block{i}.scale"], net[f"block{i}.shift"], True, eps=1e-5)
        x = film(i, x).relu()
    return x.flatten(1) @ net["head.weight"] + net["head.bias"]


def features(net, x):
    """Those of the last block [R, F]."""
    width = net["head.weight"].shape[0]
    eye, zero = torch.eye(width, dtype=x.dtype), torch.zeros(width, dtype=x.dtype)
    return scores({**net, "head.weight": eye, "head.bias": zero}, x)


def slopes(loss, net, names, graph):
    """Of a loss by some of a network's parameters."""
    return dict(zip(names, torch.autograd.grad(loss, [net[name] for name in names], create_graph=graph), strict=True))


def meta_sgd(meta, task, about):
    """One rate for each weight: p - rate * gradient."""
    net, (x, y, _, _) = dict(meta["net"]), task
    for _ in range(about.steps):
        gradient = slopes(F.cross_entropy(scores(net, x), y), net, list(net), True)
        net = {name: p - meta["rates"][name] * gradient[name] for name, p in net.items()}
    return net


def boil(meta, task, about):
    """Every layer moves but the last."""
    net, (x, y, _, _) = dict(meta["net"]), task
    for _ in range(about.steps):
        body = [name for name in net if not name.startswith("head")]
        gradient = slopes(F.cross_entropy(scores(net, x), y), net, body, True)
        net |= {name: net[name] - about.rate * gradient[name] for name in body}
    return net


def answered(adapt):
    """A method's loss and answers, where its adapted network answers."""

    def answers(meta, task, about):
        return scores(adapt(meta, task, about), task[2])

    return lambda meta, task, about, progress: F.cross_entropy(answers(meta, task, about), task[3]), answers


def maml_plus_plus(meta, task, about, steps=None):
    """The network after each step, step j at a rate of its own for each tensor; beyond the last rate, at the last."""
    net, (x, y, _, _), path = dict(meta["net"]), task, []
    for j in range(steps or about.steps):
        gradient = slopes(F.cross_entropy(scores(net, x), y), net, list(net), True)
        rate = {name: rates[min(j, len(rates) - 1)] for name, rates in meta["rates"].items()}
        net = {name: p - rate[name] * gradient[name] for name, p in net.items()}
        path.append(net)
    return path


def maml_plus_plus_loss(meta, task, about, progress):
    """A loss after each step; the weights of all but the last fall from 1 / k to 0, and the last takes what they lose."""
    path, k = maml_plus_plus(meta, task, about), about.steps
    share = min(progress / about.multi_step, 1.0)
    early = (1 - share) / k
    weights = [early] * (k - 1) + [1 - (k - 1) * early]
    return sum(w * F.cross_entropy(scores(net, task[2]), task[3]) for w, net in zip(weights, path, strict=True))


def maml_plus_plus_answers(meta, task, about):
    """Those of the last network, after as many steps as the test takes."""
    return scores(maml_plus_plus(meta, task, about, about.test_steps)[-1], task[2])


def in_context(meta, context, x):
    """The network whose blocks are scaled and shifted by linear maps of a context, after their norms."""

    def film(block, h):
        maps = [meta["told"].get(f"block{block}.norm.{part}") for part in ("scale", "shift")]
        if maps[0] is None:
            return h
        scale, shift = (sum(c * row for c, row in zip(context, part, strict=True)) for part in maps)
        return h * (1 + scale[:, None, None]) + shift[:, None, None]

    return scores(meta["net"], x, film)


def cavia_answers(meta, task, about):
    """Steps on the context alone, from 0."""
    x, y, query, _ = task
    context = torch.zeros(about.context, dtype=x.dtype, requires_grad=True)
    for _ in range(about.steps):
        (gradient,) = torch.autograd.grad(F.cross_entropy(in_context(meta, context, x), y), context, create_graph=True)
        context = context - about.rate * gradient
    return in_context(meta, context, query)


def cavia_loss(meta, task, about, progress):
    """Of those answers."""
    return F.cross_entropy(cavia_answers(meta, task, about), task[3])


def proximal(meta, task, about):
    """Gradient descent on the loss and strength / 2 |q - p|^2."""
    x, y, _, _ = task
    start = {name: p.detach() for name, p in meta["net"].items()}
    net = {name: p.clone().requires_grad_() for name, p in start.items()}
    for _ in range(about.steps):
        pull = sum((net[name] - p).square().sum() for name, p in start.items())
        gradient = slopes(F.cross_entropy(scores(net, x), y) + about.strength / 2 * pull, net, list(net), False)
        net = {name: (p - about.rate * gradient[name]).detach().requires_grad_() for name, p in net.items()}
    return net


def implicit(meta, task, about):
    """v with (1 + Hessian / strength) v = gradient of the queries' loss, by conjugate gradient as in a textbook."""
    net, (x, y, query, target) = proximal(meta, task, about), task
    leaves = list(net.values())
    b = torch.autograd.grad(F.cross_entropy(scores(net, query), target), leaves)
    slope = torch.autograd.grad(F.cross_entropy(scores(net, x), y), leaves, create_graph=True)

    def times(v):
        return [
            a + h / about.strength
            for a, h in zip(v, torch.autograd.grad(slope, leaves, v, retain_graph=True), strict=True)
        ]

    def dot(u, v):
        return sum(float((a * c).sum()) for a, c in zip(u, v, strict=True))

    found, residual, direction = [torch.zeros_like(p) for p in leaves], list(b), list(b)
    for _ in range(about.solver_steps):
        turned, before = times(direction), dot(residual, residual)
        length = before / dot(direction, turned)
        found = [v + length * d for v, d in zip(found, direction, strict=True)]
        residual = [r - length * t for r, t in zip(residual, turned, strict=True)]
        ratio = dot(residual, residual) / before
        direction = [r + ratio * d for r, d in zip(residual, direction, strict=True)]
    return dict(zip(net, found, strict=True))


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + torch.exp(-x))


def size_and_sign(x):
    """A number as two: (log |x| / 10, sign) of a large one, (-1, e^10 x) of one below e^-10."""
    value = x.flatten().numpy()
    large = np.abs(value) >= np.exp(-10)
    pairs = np.stack([np.full_like(value, -1.0), np.exp(10) * value], 1)
    pairs[large] = np.stack([np.log(np.abs(value[large])) / 10, np.sign(value[large])], 1)
    return torch.from_numpy(pairs)


def learned_optimiser(meta, task, about):
    """Parameters as the memory of a cell that sees their gradients, which with the losses are constants."""
    x, y, _, _ = task
    cell, names, width = meta["cell"], list(meta["net"]), about.hidden
    shapes = [meta["net"][name].shape for name in names]
    p = torch.cat([meta["net"][name].flatten() for name in names])
    hidden = memory = torch.zeros(len(p), width, dtype=x.dtype)
    gates = {"forget": torch.zeros(len(p), dtype=x.dtype), "input": torch.zeros(len(p), dtype=x.dtype)}

    def net_of(p):
        pieces = torch.split(p, [shape.numel() for shape in shapes])
        return {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}

    for _ in range(about.steps):
        net = {name: value.detach().requires_grad_() for name, value in net_of(p).items()}
        loss = F.cross_entropy(scores(net, x), y)
        gradient = torch.cat([g.flatten() for g in slopes(loss, net, names, False).values()])
        shown = torch.cat([size_and_sign(gradient), size_and_sign(loss.detach()).repeat(len(p), 1), hidden], 1)
        parts = shown @ cell["recurrent"] + cell["recurrent_bias"]
        i, f, g, o = (parts[:, k * width : (k + 1) * width] for k in range(4))
        memory = sigmoid(f) * memory + sigmoid(i) * torch.tanh(g)
        hidden = sigmoid(o) * torch.tanh(memory)
        for gate, before in gates.items():
            weight = cell[gate]
            seen = hidden @ weight[:width] + weight[width] * p + weight[width + 1] * before
            gates[gate] = sigmoid(seen + cell[f"{gate}_bias"])
        p = gates["forget"] * p - gates["input"] * gradient
    return net_of(p)


def convex_head(meta, task, about):
    """Ridge regression by its normal equations in the features, times a learned scale."""
    x, y, query, _ = task
    f = features(meta["net"], torch.cat([x, query]))
    shown, asked = f[: len(x)], f[len(x) :]
    targets = torch.zeros(len(y), int(y.max()) + 1, dtype=x.dtype)
    targets[torch.arange(len(y)), y] = 1
    normal = shown.T @ shown + about.strength * torch.eye(shown.shape[1], dtype=x.dtype)
    return meta["ridge"]["scale"] * asked @ torch.linalg.inv(normal) @ shown.T @ targets


LOSSES = {
    "meta-sgd": answered(meta_sgd),
    "boil": answered(boil),
    "maml++": (maml_plus_plus_loss, maml_plus_plus_answers),
    "cavia": (cavia_loss, cavia_answers),
    "lstm-optimiser": answered(learned_optimiser),
    "metaoptnet-ridge": (
        lambda meta, task, about, progress: F.cross_entropy(convex_head(meta, task, about), task[3]),
        convex_head,
    ),
}  # method -> the loss of one task, and the answers to its queries


def meta_gradient(method, meta, tasks, about, progress=0.5):
    """The mean over tasks of the gradient by all that is learned, in the same dictionaries."""
    leaves = {part: {n: v.detach().clone().requires_grad_() for n, v in tree.items()} for part, tree in meta.items()}
    if method == "imaml":
        found = [implicit(leaves, task, about) for task in tasks]
        return {"net": {name: sum(gradient[name] for gradient in found) / len(tasks) for name in leaves["net"]}}
    loss = sum(LOSSES[method][0](leaves, task, about, progress) for task in tasks) / len(tasks)
    loss.backward()
    return {
        part: {n: torch.zeros_like(v) if v.grad is None else v.grad for n, v in tree.items()}
        for part, tree in leaves.items()
    }


def answers(method, meta, task, about):
    """Scores of a task's queries after its support."""
    if method == "imaml":
        return scores(proximal(meta, task, about), task[2])
    leaves = {part: {n: v.detach().clone().requires_grad_() for n, v in tree.items()} for part, tree in meta.items()}
    return LOSSES[method][1](leaves, task, about).detach()


def fresh(method, about, channels=32, ways=5):
    """What is learned, before the first iteration."""
    net = {}
    for i in range(BLOCKS):
        net[f"block{i}.weight"] = nn.Conv2d(channels if i else 1, channels, 3).weight
        net[f"block{i}.scale"], net[f"block{i}.shift"] = torch.ones(channels), torch.zeros(channels)
    head = nn.Linear(4 * channels, ways)
    net |= {"head.weight": head.weight.T.contiguous(), "head.bias": head.bias}
    parts = {"net": net}
    if method in ("meta-sgd", "maml++"):
        parts["rates"] = {
            name: torch.full((about.steps,) if method == "maml++" else p.shape, about.rate) for name, p in net.items()
        }
    if method == "cavia":
        names = [f"block{i}.norm.{part}" for i in range(BLOCKS) for part in ("scale", "shift")]
        parts["told"] = {name: nn.Linear(about.context, channels).weight.T.contiguous() for name in names}
    if method == "lstm-optimiser":
        width = about.hidden
        parts["cell"] = {
            "recurrent": torch.empty(4 + width, 4 * width).uniform_(-(width**-0.5), width**-0.5),
            "recurrent_bias": torch.zeros(4 * width),
            "forget": torch.empty(width + 2).uniform_(-0.01, 0.01),
            "forget_bias": torch.tensor(5.0),
            "input": torch.empty(width + 2).uniform_(-0.01, 0.01),
            "input_bias": torch.tensor(math.log(about.rate / (1 - about.rate))),
        }
    if method == "metaoptnet-ridge":
        parts["ridge"] = {"scale": torch.tensor(1.0)}
    return {part: {n: v.detach().clone().requires_grad_() for n, v in tree.items()} for part, tree in parts.items()}


def train(method, about, characters, seed):
    """The outer loop: Adam at 0.001, for MAML++ down a cosine, for the learned optimiser with its gradient's norm held."""
    torch.manual_seed(1000 + seed)
    chance, meta = random.Random(1000 + seed), fresh(method, about)
    leaves = [p for tree in meta.values() for p in tree.values()]
    outer = torch.optim.Adam(leaves, 1e-3)
    for i in range(about.iterations):
        tasks = [characters.task(about.way, about.shot, about.query, chance) for _ in range(about.tasks)]
        gradient = meta_gradient(method, meta, tasks, about, i / about.iterations)
        for part, tree in meta.items():
            for name, p in tree.items():
                p.grad = gradient[part][name]
        if method == "maml++":
            outer.param_groups[0]["lr"] = 0.5e-3 * (1 + math.cos(math.pi * i / about.iterations))
        if method == "lstm-optimiser":
            nn.utils.clip_grad_norm_(leaves, 0.25)
        outer.step()
        if method == "meta-sgd":
            with torch.no_grad():
                for rate in meta["rates"].values():
                    rate.clamp_(min=0)
    return meta


def accuracy(method, meta, about, characters, seed, episodes=600):
    """Mean over episodes of 5 ways, 1 shot, 15 queries each, and half of its 95 % interval."""
    chance, right = random.Random(7 + seed), []
    for _ in range(episodes):
        task = characters.task(5, 1, 15, chance)
        found = answers(method, meta, task, about).argmax(1)
        right.append((found == task[3]).float().mean().item())
    return np.mean(right), 1.96 * np.std(right) / len(right) ** 0.5


def main():
    """Train, test, append a cell."""
    from lifelong.notation.expression import parse
    from lifelong.studies.published.few_shot import OPTIMISATION
    from lifelong.studies.published.rows import append
    from scenarios.datasets import load_dataset
    from scenarios.episodes import split_classes
    from scenarios.stream import generator

    stages = {row.method: row.stage for row in OPTIMISATION}
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("method", choices=stages)
    words.add_argument("seed", type=int)
    words.add_argument("--data-root", required=True)
    words.add_argument("--record", type=Path, default=Path("docs/reference.json"))
    chosen = words.parse_args()
    torch.set_num_threads(1)
    about = parse(stages[chosen.method], "initialisations")  # its settings, and nothing of its verbs
    datasets = [load_dataset(name, chosen.data_root) for name in ("omniglot-background", "omniglot")]
    classes, _ = split_classes(datasets[0], 96, generator("validation classes"))
    images = [(t.x.numpy(), t.y.numpy()) for t in datasets]
    began = time.process_time()
    meta = train(chosen.method, about, Characters(*images[0], classes, 4), chosen.seed)
    seconds = time.process_time() - began
    unseen = Characters(*images[1], range(datasets[1].classes), 1)
    mean, width = accuracy(chosen.method, meta, about, unseen, chosen.seed)
    cell = {"setting": "omniglot-5-way-1-shot", "method": f"loop {chosen.method}", "seeds": [chosen.seed],
            "accuracy": [round(float(mean), 6)], "half_width": [round(float(width), 6)], "training seconds": round(seconds, 1)}  # fmt: skip
    append(chosen.record, cell)
    print(chosen.method, chosen.seed, f"{mean:.4f} ± {width:.4f} in {seconds:.0f} s")


if __name__ == "__main__":
    main()
