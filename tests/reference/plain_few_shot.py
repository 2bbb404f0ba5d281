"""Few-shot rows by plain PyTorch loops: their own sampling, their own inner loops, nothing of lifelong's learners.

Only the decoded images and the list of training characters are shared. Run one as

    python tests/reference/plain_few_shot.py maml 0 --data-root DIR --record docs/reference.json
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

ITERATIONS = {"protonet": 10000, "maml": 4500, "anil": 6000, "first-order-maml": 9000, "reptile": 4500}


class Net(nn.Module):
    """Four convolutions of stride 2 with batch statistics, and a linear head."""

    def __init__(self, channels=32, ways=5):
        super().__init__()
        sizes = [1, *[channels] * 4]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, track_running_stats=False) for _ in range(4))
        self.head = nn.Linear(channels * 4, ways)

    def features(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        return x.flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


def functional(net, params, x, method="forward"):
    """The network with other parameters."""
    if method == "forward":
        return torch.func.functional_call(net, params, (x,))
    for i, norm in enumerate(net.norms):
        x = F.conv2d(x, params[f"convs.{i}.weight"], stride=2, padding=1)
        x = F.batch_norm(
            x, None, None, params[f"norms.{i}.weight"], params[f"norms.{i}.bias"], True, eps=norm.eps
        ).relu()
    return x.flatten(1)


class Characters:
    """Images by character, sampled with Python's and numpy's generators."""

    def __init__(self, images, labels, classes, turns):
        self.images = {c: images[labels == c] for c in classes}
        self.names = [(c, turn) for c in classes for turn in range(turns)]

    def task(self, way, shot, query, rng):
        support, queries = [], []
        for c, turn in rng.sample(self.names, way):
            images = self.images[c]
            chosen = images[rng.sample(range(len(images)), shot + query)]
            chosen = torch.from_numpy(np.ascontiguousarray(np.rot90(chosen, turn, (1, 2)))).float()[:, None] / 255
            support.append(chosen[:shot])
            queries.append(chosen[shot:])
        y = torch.arange(way)
        return torch.cat(support), y.repeat_interleave(shot), torch.cat(queries), y.repeat_interleave(query)


def adapted(net, params, x, y, steps, rate, names, second):
    """Plain gradient descent on some parameters."""
    params = dict(params)
    for _ in range(steps):
        loss = F.cross_entropy(functional(net, params, x), y)
        gradients = torch.autograd.grad(loss, [params[n] for n in names], create_graph=second)
        params |= {n: params[n] - rate * g for n, g in zip(names, gradients, strict=True)}
    return params


def prototypes(net, x, y, query, way):
    """Minus squared distances to the class means; support and queries pass together."""
    features = net.features(torch.cat([x, query]))
    support, queries = features[: len(x)], features[len(x) :]
    means = torch.stack([support[y == c].mean(0) for c in range(way)])
    return -(queries[:, None] - means[None]).pow(2).sum(2)


def reptile_inner(net, params, x, y, batches):
    """Adam without momentum from given parameters, on one batch of rows after another."""
    weights = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
    optimiser = torch.optim.Adam(weights.values(), 3e-3, betas=(0.0, 0.999))
    for rows in batches:
        loss = F.cross_entropy(functional(net, weights, x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return weights


def drawn(method, characters, rng):
    """An iteration's tasks: support and queries with labels, and for Reptile the batches of rows in a random order."""
    if method == "protonet":
        return [(*characters.task(20, 1, 5, rng), None)]
    if method != "reptile":
        return [(*characters.task(5, 1, 1, rng), None) for _ in range(16)]
    tasks = []
    for _ in range(5):
        task = characters.task(5, 10, 1, rng)
        order = rng.sample(range(50), 50)
        tasks.append((*task, [order[i : i + 10] for i in range(0, 50, 10)]))
    return tasks


def meta_gradient(method, net, tasks):
    """Leave the gradient of an iteration in the network's parameters; Reptile's is p - mean p_k."""
    params = dict(net.named_parameters())
    net.zero_grad()
    for x, y, query, target, batches in tasks:
        if method == "reptile":
            moved = reptile_inner(net, params, x, y, batches)
            for n, p in params.items():
                difference = (p - moved[n]).detach() / len(tasks)
                p.grad = difference if p.grad is None else p.grad + difference
            continue
        if method == "protonet":
            scores = prototypes(net, x, y, query, int(y.max()) + 1)
        else:
            weights = adapted(net, params, x, y, *inner(method, params), method != "first-order-maml")
            scores = functional(net, weights, query)
        (F.cross_entropy(scores, target) / len(tasks)).backward()


def inner(method, params):
    """Steps, rate, and the names of what moves, of the inner loop."""
    return (5, 0.4, ["head.weight", "head.bias"]) if method == "anil" else (1, 0.4, list(params))


def train(method, characters, seed):
    """The outer loop."""
    torch.manual_seed(1000 + seed)
    rng, net, iterations = random.Random(1000 + seed), Net(), ITERATIONS[method]
    outer = torch.optim.SGD(net.parameters(), 1.0) if method == "reptile" else torch.optim.Adam(net.parameters(), 1e-3)
    for i in range(iterations):
        if method == "reptile":
            outer.param_groups[0]["lr"] = 1 - i / iterations
        meta_gradient(method, net, drawn(method, characters, rng))
        outer.step()
    return net


def answers(method, net, x, y, query):
    """Scores of queries, which pass together, after learning from a support."""
    params = dict(net.named_parameters())
    if method == "protonet":
        return prototypes(net, x, y, query, 5)
    if method == "reptile":
        return functional(net, reptile_inner(net, params, x, y, [list(range(len(x)))] * 50), query)
    return functional(net, adapted(net, params, x, y, *inner(method, params), False), query)


def accuracy(method, net, characters, seed, episodes=600):
    """Mean over episodes of 5 ways, 1 shot, 15 queries each; every seed has its own, so that their luck averages out."""
    rng, right = random.Random(7 + seed), []
    for _ in range(episodes):
        x, y, query, target = characters.task(5, 1, 15, rng)
        right.append((answers(method, net, x, y, query).argmax(1) == target).float().mean().item())
    return np.mean(right), 1.96 * np.std(right) / len(right) ** 0.5


def main():
    """Train, test, append a cell."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("method", choices=ITERATIONS)
    words.add_argument("seed", type=int)
    words.add_argument("--data-root", required=True)
    words.add_argument("--record", type=Path, default=Path("docs/reference.json"))
    chosen = words.parse_args()
    torch.set_num_threads(1)
    from lifelong.studies.published.rows import append
    from scenarios.datasets import load_dataset
    from scenarios.episodes import split_classes
    from scenarios.stream import generator

    datasets = [load_dataset(name, chosen.data_root) for name in ("omniglot-background", "omniglot")]
    classes, _ = split_classes(datasets[0], 96, generator("validation classes"))
    images = [(t.x.numpy(), t.y.numpy()) for t in datasets]
    began = time.process_time()
    net = train(chosen.method, Characters(*images[0], classes, 4), chosen.seed)
    seconds = time.process_time() - began
    mean, width = accuracy(chosen.method, net, Characters(*images[1], range(datasets[1].classes), 1), chosen.seed)
    cell = {"setting": "omniglot-5-way-1-shot", "method": f"loop {chosen.method}", "seeds": [chosen.seed],
            "accuracy": [round(float(mean), 6)], "half_width": [round(float(width), 6)], "training seconds": round(seconds, 1)}  # fmt: skip
    append(chosen.record, cell)
    print(chosen.method, chosen.seed, f"{mean:.4f} ± {width:.4f} in {seconds:.0f} s")


if __name__ == "__main__":
    main()
