"""Black-box meta-learners as plain loops: a task at a time, a query at a time, with torch's own layers where it has them.

Nothing of lifelong's learners is used: only the names of the parameters are shared, and what was drawn.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def trunk(net, x, film=None):
    """Features of images [B, 28, 28] by convolutions of stride 2 with batch statistics, or of rows by a perceptron.

    film: for each layer its scale and shift [K], which act on what the layer (or its norm) puts out.
    """
    if "block0.weight" in net:
        x = x[:, None]
        for i in range(4):
            x = F.conv2d(x, net[f"block{i}.weight"], stride=2, padding=1)
            x = F.batch_norm(x, None, None, net[f"block{i}.scale"], net[f"block{i}.shift"], True)
            if film:
                scale, shift = film[f"block{i}.norm"]
                x = (1 + scale)[None, :, None, None] * x + shift[None, :, None, None]
            x = F.relu(x)
        return x.flatten(1)
    i = 0
    while f"layer{i}.weight" in net:
        x = F.linear(x, net[f"layer{i}.weight"].T, net[f"layer{i}.bias"])
        x = F.relu((1 + film[f"layer{i}"][0]) * x + film[f"layer{i}"][1] if film else x)
        i += 1
    return x


def affine(net, name, x):
    """x W + b, b = 0 where there is none."""
    return F.linear(x, net[f"{name}.weight"].T, net.get(f"{name}.bias"))


def two_layers(net, name, x):
    """With a smooth unit between; the last layer may have no bias."""
    hidden = F.silu(affine(net, f"{name}.0", x))
    return hidden @ net[f"{name}.1.weight"] + net.get(f"{name}.1.bias", 0)


def sequences(meta, x, y, query, outputs):
    """For each query the whole sequence [R + 1, I] that ends with it."""
    features = trunk(meta["net"], torch.cat([x, query]))
    labels = y if y.is_floating_point() else torch.eye(outputs, dtype=x.dtype)[y]
    rows = [torch.cat([f, label, torch.ones(1, dtype=x.dtype)]) for f, label in zip(features, labels, strict=False)]
    for f in features[len(x) :]:
        yield torch.stack([*rows, torch.cat([f, torch.zeros(outputs + 1, dtype=x.dtype)])])


def recurrent(method, meta, x, y, query, outputs):
    """torch's LSTM over each sequence, and its last state."""
    net, scores = meta["reader"], []
    for tokens in sequences(meta, x, y, query, outputs):
        network = nn.LSTM(tokens.shape[1], method.hidden, dtype=x.dtype)
        weights = {
            "weight_ih_l0": net["input.weight"].T,
            "weight_hh_l0": net["hidden.weight"].T,
            "bias_ih_l0": net["input.bias"],
            "bias_hh_l0": torch.zeros_like(net["input.bias"]),
        }
        states, _ = torch.func.functional_call(network, weights, (tokens,))
        scores.append(affine(net, "answer", states[-1]))
    return torch.stack(scores)


def mann(method, meta, x, y, query, outputs):
    """Head by head; which slots are least used is looked up in a sorted list."""
    return torch.stack(
        [_remembered(method, meta["reader"], tokens) for tokens in sequences(meta, x, y, query, outputs)]
    )


def _remembered(method, net, tokens):
    heads, slots, width = method.heads, method.slots, method.width
    h = c = tokens.new_zeros(method.hidden)
    memory, usage, reading = tokens.new_zeros(slots, width), [0.0] * slots, tokens.new_zeros(heads * width)
    before = [tokens.new_zeros(slots)] * heads
    for t, token in enumerate(tokens):
        gates = affine(net, "input", torch.cat([token, reading])) + net["hidden.weight"].T @ h
        i, f, g, o = gates.view(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        keys = torch.tanh(affine(net, "keys", h)).view(heads, width)
        strengths = 1 + torch.log1p(affine(net, "strengths", h).exp())
        gate = torch.sigmoid(affine(net, "gates", h))
        looked = []
        for key, strength in zip(keys, strengths, strict=True):
            lengths = torch.sqrt((key @ key + 1e-6) * ((memory * memory).sum(1) + 1e-6))
            alike = torch.exp(strength * (memory @ key) / lengths)
            looked.append(alike / alike.sum())
        reading = torch.cat([weights @ memory for weights in looked])
        if t == len(tokens) - 1:
            return affine(net, "answer", torch.cat([h, reading]))
        least = sorted(range(slots), key=lambda s: (usage[s], s))[:heads]
        chosen = torch.tensor([float(s in least) for s in range(slots)], dtype=tokens.dtype)
        memory = torch.stack([memory[s] * (s not in least) for s in range(slots)])
        written = [gate[head] * before[head] + (1 - gate[head]) * chosen for head in range(heads)]
        for head in range(heads):
            memory = memory + torch.outer(written[head], keys[head])
        usage = [
            method.decay * usage[s] + float(sum((looked[head][s] + written[head][s]).detach() for head in range(heads)))
            for s in range(slots)
        ]
        before = looked
    raise AssertionError("a sequence ends with its query")


def snail(method, meta, x, y, query, outputs):
    """torch's causal attention and dilated convolutions over each whole sequence."""
    net, scores = meta["reader"], []
    for z in sequences(meta, x, y, query, outputs):
        for a in range(3):
            q, k, v = (affine(net, f"attention{a}.{part}", z)[None] for part in ("query", "key", "value"))
            z = torch.cat([z, F.scaled_dot_product_attention(q, k, v, is_causal=True)[0]], 1)
            if a == 2:
                break
            for i in range(math.ceil(math.log2(len(z)))):
                now, then = net[f"convolution{a}.{i}.weight"].chunk(2)
                kernel = torch.stack([then.T, now.T], 2)  # [out, in, 2]
                padded = F.pad(z.T[None], (2**i, 0))
                output = F.conv1d(padded, kernel, net[f"convolution{a}.{i}.bias"], dilation=2**i)[0].T
                values, gates = output.chunk(2, 1)
                z = torch.cat([z, torch.tanh(values) * torch.sigmoid(gates)], 1)
        scores.append(affine(net, "answer", z[-1]))
    return torch.stack(scores)


def neural_process(method, meta, x, y, query, outputs):
    """One query and one class at a time."""
    net, features = meta["process"], trunk(meta["net"], torch.cat([x, query]))
    shown, asked = features[: len(x)], features[len(x) :]
    if y.is_floating_point():
        r = two_layers(net, "encoder", torch.cat([shown, y], 1)).mean(0)
        return torch.stack([two_layers(net, "decoder", torch.cat([f, r])) for f in asked])
    r = [two_layers(net, "encoder", shown[y == c]).mean(0) for c in range(outputs)]
    return torch.stack([torch.cat([two_layers(net, "decoder", torch.cat([f, r_c])) for r_c in r]) for f in asked])


def film(method, meta, x, y, query, outputs):
    """The support sets scales and shifts; numbers are answered by the head, classes by the nearest mean."""
    net, told = meta["film"], trunk(meta["net"], x)
    numbers = y.is_floating_point()
    z = two_layers(net, "encoder", torch.cat([told, y], 1) if numbers else told).mean(0)
    names = [name.removesuffix(".scale") for name in net if name.endswith(".scale")]
    layers = {name: (z @ net[f"{name}.scale"], z @ net[f"{name}.shift"]) for name in names}
    if numbers:
        return affine(meta["net"], "head", trunk(meta["net"], query, layers))
    features = trunk(meta["net"], torch.cat([x, query]), layers)
    means = torch.stack([features[: len(x)][y == c].mean(0) for c in range(outputs)])
    return -torch.stack([(f - means).square().sum(1) for f in features[len(x) :]])


def descriptor_net(method, meta, about, query):
    """One query and one class at a time."""
    net, scores = meta["descriptors"], []
    for f in trunk(meta["net"], query):
        places = [two_layers(net, "embedding", v) if method.hidden else affine(net, "embedding", v) for v in about]
        scores.append(torch.stack([-((f - g / g.norm()) ** 2).sum() for g in places]))
    return torch.stack(scores)


ANSWERS = {
    "RecurrentLearner": recurrent, "MANN": mann, "SNAIL": snail, "NeuralProcess": neural_process, "FiLMNet": film,
}  # fmt: skip


def meta_gradient(method, meta, episode, outputs):
    """The gradient of the mean over tasks of the queries' mean loss: a tree like `meta`, two levels deep."""
    meta = {part: {name: leaf.detach().requires_grad_() for name, leaf in net.items()} for part, net in meta.items()}
    total = 0.0
    for x, y, query, target in zip(
        episode.support_x.double(), episode.support_y, episode.query_x.double(), episode.query_y, strict=True
    ):
        y, target = (v.double() if v.is_floating_point() else v for v in (y, target))
        scores = ANSWERS[type(method).__name__](method, meta, x, y, query, outputs)
        loss = (scores - target).square().sum(1).mean() if y.is_floating_point() else F.cross_entropy(scores, target)
        total = total + loss / len(episode.support_x)
    leaves = [leaf for net in meta.values() for leaf in net.values()]
    found = iter(torch.autograd.grad(total, leaves, allow_unused=True))
    return {part: {name: next(found) for name in net} for part, net in meta.items()}
