"""Metric learners in plain PyTorch: one query, one pair, one cluster, one node at a time, from the papers.

Nothing of lifelong's learners. Rows are features; a row that counts twice stands there twice.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def of_class(labels, c):
    return [i for i, label in enumerate(labels) if label == c]


# --- siamese: pairs ---------------------------------------------------------------------------------------------------


def pair_logit(p, a, b):
    twins = [torch.sigmoid(f @ p["twin.weight"] + p["twin.bias"]) for f in (a, b)]
    return (p["pair.weight"][:, 0] * (twins[0] - twins[1]).abs()).sum() + p["pair.bias"][0]


def siamese_scores(p, shown, labels, asked, way):
    return torch.stack([
        torch.stack([sum(pair_logit(p, q, shown[i]) for i in rows) / len(rows) for rows in (of_class(labels, c) for c in range(way))])
        for q in asked
    ])  # fmt: skip


def siamese_loss(p, shown, labels, asked, targets, way):
    same, other = [], []
    for q, target in zip(asked, targets, strict=True):
        for x, label in zip(shown, labels, strict=True):
            logit = pair_logit(p, q, x)
            (same if label == target else other).append(F.softplus(-logit if label == target else logit))
    return (sum(same) / len(same) + sum(other) / len(other)) / 2


# --- matching: attention ------------------------------------------------------------------------------------------------


def cosine(a, b):
    return a @ b / (a @ a).sqrt() / (b @ b).sqrt()


def minus_square(a, b):
    return -((a - b) ** 2).sum()


def matching_scores(shown, labels, asked, way, similarity, sharpness):
    scores = []
    for q in asked:
        near = [torch.exp(sharpness * similarity(q, x)) for x in shown]
        scores.append(
            torch.stack([torch.log(sum(near[i] for i in of_class(labels, c)) / sum(near)) for c in range(way)])
        )
    return torch.stack(scores)


def in_full_context(p, shown, asked, steps):
    """The support by torch's bidirectional LSTM; queries by torch's cell, whose input is all that the gates see."""
    width = len(shown[0])
    weights = []
    for way in range(2):
        weights += [
            p["along.input"][way].T,
            p["along.hidden"][way].T,
            p["along.bias"][way],
            torch.zeros(4 * width).double(),
        ]
    along = nn.LSTM(width, width, bidirectional=True).double()
    names = [name for name, _ in along.named_parameters()]
    outputs, _ = torch.func.functional_call(along, dict(zip(names, weights, strict=True)), (torch.stack(shown),))
    known = [x + h[:width] + h[width:] for x, h in zip(shown, outputs, strict=True)]
    cell = nn.LSTMCell(3 * width, width).double()
    zero = torch.zeros(4 * width).double()
    parts = {
        "weight_ih": torch.cat([p["attend.input"], p["attend.hidden"]]).T,
        "weight_hh": torch.zeros(4 * width, width).double(),
        "bias_ih": p["attend.bias"],
        "bias_hh": zero,
    }
    found = []
    for q in asked:
        h, c = q, torch.zeros_like(q)
        for _ in range(steps):
            attention = torch.stack([torch.exp(h @ g) for g in known])
            read = sum(a * g for a, g in zip(attention / attention.sum(), known, strict=True))
            seen = torch.cat([q, h, read])[None]
            out, c = torch.func.functional_call(cell, parts, (seen, (torch.zeros_like(q)[None], c.view(1, -1))))
            h = out[0] + q
        found.append(h)
    return known, found


# --- relation -----------------------------------------------------------------------------------------------------------


def relation_scores(p, shown, labels, asked, way):
    scores = []
    for q in asked:
        for c in range(way):
            rows = of_class(labels, c)
            pair = torch.cat([sum(shown[i] for i in rows) / len(rows), q])
            hidden = torch.relu(pair @ p["pair.weight"] + p["pair.bias"])
            hidden = torch.relu(hidden @ p["middle.weight"] + p["middle.bias"])
            scores.append(torch.sigmoid(hidden @ p["score.weight"] + p["score.bias"])[0])
    return torch.stack(scores).view(len(asked), way)


def relation_loss(scores, targets):
    errors = [(r - float(c == y)) ** 2 for row, y in zip(scores, targets, strict=True) for c, r in enumerate(row)]
    return sum(errors) / len(errors)


# --- infinite mixtures --------------------------------------------------------------------------------------------------


def mixture_clusters(p, shown, labels, way, concentration):
    """Centres and labels, and how many clusters there were beyond one a class."""
    variance, width = p["log_variance"].exp(), len(shown[0])
    means = [sum(shown[i] for i in of_class(labels, c)) / len(of_class(labels, c)) for c in range(way)]
    middle = sum(means) / way
    spread = sum(((m - middle) ** 2).sum() for m in means) / (way - 1) / width
    reach = -2 * variance * math.log(concentration) + width * variance * torch.log(1 + spread / variance)
    centres = list(zip(means, range(way), strict=True))

    def distance(i, m):
        return ((shown[i] - m) ** 2).sum().item()

    for i in sorted(range(len(shown)), key=lambda i: -distance(i, means[labels[i]])):
        if min(distance(i, m) for m, label in centres if label == labels[i]) > reach.item():
            centres.append((shown[i], labels[i]))
    share = {}
    for i, x in enumerate(shown):
        open_to = [k for k, (_, label) in enumerate(centres) if label == labels[i]]
        density = [torch.exp(-((x - centres[k][0]) ** 2).sum() / (2 * variance)) for k in open_to]
        share |= {(i, k): d / sum(density) for k, d in zip(open_to, density, strict=True)}
    moved = []
    for k, (_, label) in enumerate(centres):
        rows = of_class(labels, label)
        moved.append((sum(share[i, k] * shown[i] for i in rows) / sum(share[i, k] for i in rows), label))
    return moved


def mixture_scores(p, shown, labels, asked, way, concentration):
    centres = mixture_clusters(p, shown, labels, way, concentration)
    scores = []
    for q in asked:
        gaps = [((q - m) ** 2).sum() for m, _ in centres]
        scores.append(
            torch.stack(
                [-min(g for g, (_, label) in zip(gaps, centres, strict=True) if label == c) for c in range(way)]
            )
        )
    return torch.stack(scores) / (2 * p["log_variance"].exp())


# --- messages between rows ----------------------------------------------------------------------------------------------


def leaky(x):
    return torch.where(x > 0, x, 0.01 * x)


def graph_scores(p, shown, labels, asked, way, depth):
    scores = []
    for q in asked:
        nodes = [*shown, q]
        told = [[q.new_tensor([float(c == label)]) for c in range(way)] for label in labels]
        told.append([q.new_tensor([1 / way])] * way)
        for layer in range(depth):
            hears = links(p, layer, nodes, told)
            heard = [sum(a * nodes[j] for j, a in row.items()) for row in hears]
            heard_of = [[sum(a * told[j][c] for j, a in row.items()) for c in range(way)] for row in hears]
            told = [
                [torch.cat([told[i][c], leaky(torch.cat([nodes[i], told[i][c], heard[i], heard_of[i][c]]) @ p[f"label{layer}.weight"]
                                              + p[f"label{layer}.bias"])]) for c in range(way)]
                for i in range(len(nodes))
            ]  # fmt: skip
            nodes = [
                torch.cat([nodes[i], leaky(torch.cat([nodes[i], heard[i]]) @ p[f"feature{layer}.weight"] + p[f"feature{layer}.bias"])])
                for i in range(len(nodes))
            ]  # fmt: skip
        row = links(p, depth, nodes, told)[-1]
        heard_of = [sum(a * told[j][c] for j, a in row.items()) for c in range(way)]
        scores.append(
            torch.stack([(torch.cat([told[-1][c][1:], heard_of[c]]) @ p["score.weight"])[0] for c in range(way)])
        )
    return torch.stack(scores)


def links(p, layer, nodes, told):
    """Of each node, how much it hears of each other one."""
    found = []
    for i, a in enumerate(nodes):
        near = {}
        for j, b in enumerate(nodes):
            if i != j:
                gap = torch.cat([(a - b).abs(), sum((u - v).abs() for u, v in zip(told[i], told[j], strict=True))])
                near[j] = torch.exp(
                    leaky(gap @ p[f"gap{layer}.weight"] + p[f"gap{layer}.bias"]) @ p[f"link{layer}.weight"]
                )
        found.append({j: value / sum(near.values()) for j, value in near.items()})
    return found


# --- prototypes and ridge regression --------------------------------------------------------------------------------------


def prototype_scores(shown, labels, asked, way):
    means = [sum(shown[i] for i in of_class(labels, c)) / len(of_class(labels, c)) for c in range(way)]
    return torch.stack([torch.stack([minus_square(q, m) for m in means]) for q in asked])


def ridge_scores(p, shown, labels, asked, way):
    x, y = torch.stack(shown), F.one_hot(torch.tensor(labels), way).to(shown[0].dtype)
    square = x.T @ x + p["log_strength"].exp() * torch.eye(x.shape[1], dtype=x.dtype)
    return p["scale"] * torch.stack(list(asked)) @ torch.linalg.inv(square) @ x.T @ y


# --- all of them ----------------------------------------------------------------------------------------------------------


def scores(method, p, shown, labels, asked, way):
    """Scores [Q, N] of query features after support features and their labels."""
    if method == "protonet":
        return prototype_scores(shown, labels, asked, way)
    if method == "siamese":
        return siamese_scores(p, shown, labels, asked, way)
    if method == "relation":
        return relation_scores(p, shown, labels, asked, way)
    if method == "r2d2":
        return ridge_scores(p, shown, labels, asked, way)
    if method == "infinite-mixture":
        return mixture_scores(p, shown, labels, asked, way, p["concentration"])
    if method == "gnn":
        return graph_scores(p, shown, labels, asked, way, 2)
    if method == "matching-full-context":
        shown, asked = in_full_context(p, shown, asked, 5)
    similarity, sharpness = (minus_square, 1.0) if method == "matching-euclidean" else (cosine, 10.0)
    return matching_scores(shown, labels, asked, way, similarity, sharpness)


def loss(method, p, shown, labels, asked, targets, way):
    """What one task's queries lose."""
    if method == "siamese":
        return siamese_loss(p, shown, labels, asked, targets, way)
    found = scores(method, p, shown, labels, asked, way)
    if method == "relation":
        return relation_loss(found, targets)
    return F.cross_entropy(found, torch.tensor(targets))
