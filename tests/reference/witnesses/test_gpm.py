"""GPM against a plain float64 loop: bases that grow, by NumPy's singular vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lifelong.contracts.learners import largest_gap, states, tiny
from lifelong.core.learner import Learner
from lifelong.models.convolutional import Conv4
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.projection.gpm import GPM, layer_inputs, projected, widened
from tests.reference.plain_methods import detached, leaves, loss
from tests.reference.witnesses.beside import DOUBLE, NET, PLANTED, TOLERANCE, adam, beside, gap, stream_of


def inputs_of(params, x):
    """What enters each layer, with a 1 for its bias."""
    constant, inputs = torch.ones(len(x), 1, dtype=x.dtype), {}
    names = sorted(name.removesuffix(".weight") for name in params if name.startswith("layer") and "weight" in name)
    for name in [*names, "head"]:
        inputs[name] = torch.cat([x, constant], 1)
        x = torch.relu(x @ params[f"{name}.weight"] + params[f"{name}.bias"])
    return inputs


def grown(basis, inputs, threshold):
    """A basis [F, k] with singular vectors more, one after another, until the share of the squares is reached."""
    seen = inputs.numpy().T
    total, rest = (seen**2).sum(), seen - basis @ (basis.T @ seen)
    vectors, lengths, _ = np.linalg.svd(rest, full_matrices=False)
    held = 1 - (rest**2).sum() / total
    for vector, length in zip(vectors.T, lengths, strict=True):
        if held >= threshold:
            break
        held += length**2 / total
        basis = np.hstack([basis, vector[:, None]])
    return basis


def gpm(start, tasks, optimiser, kept, *, threshold, growth, of, head, scale=1.0):
    """kept[t]: x of the rows whose inputs count. head: whether it is projected. scale: an error planted."""
    params = leaves(start)
    steps = optimiser(list(params.values()))
    layers = [name.removesuffix(".weight") for name in params if name.endswith(".weight")]
    layers = [name for name in layers if head or name != "head"]
    basis = {name: np.zeros((params[f"{name}.weight"].shape[0] + 1, 0)) for name in layers}

    def project(change):
        for name in layers:
            both = torch.cat([change[f"{name}.weight"], change[f"{name}.bias"][None]])
            span = torch.from_numpy(basis[name] @ basis[name].T)
            both = both - scale * span @ both
            change[f"{name}.weight"], change[f"{name}.bias"] = both[:-1], both[-1]

    for t, (batches, x) in enumerate(zip(tasks, kept, strict=True)):
        for batch in batches:
            change = dict(zip(params, torch.autograd.grad(loss(params, batch), list(params.values())), strict=True))
            project(change)
            for name, value in params.items():
                value.grad = change[name]
            before = detached(params)
            steps.step()
            if of == "movement":
                moved = {name: value.detach() - before[name] for name, value in params.items()}
                project(moved)
                for name, value in params.items():
                    value.data = before[name] + moved[name]
        inputs = inputs_of(detached(params), x)
        basis = {name: grown(basis[name], inputs[name], min(threshold + growth * t, 1.0)) for name in layers}
    return detached(params), basis


def kept(run, count):
    rows = []
    for t, task in enumerate(run.finished):
        row, ticket = task.row[task.valid], task.draws[0]["ticket"][task.valid]
        row = row[ticket.argsort()[:count]]
        rows.append(run.problem.x(row, torch.full_like(row, t)))
    return rows


@pytest.mark.parametrize("strategy, setting", [
    (GPM(0.8, 0.05, 20, "gradient"), "class"),
    (GPM(0.7, 0.03, 20, "movement"), "domain"),
    (GPM(0.6, 0.1, 300, "gradient"), "task"),
    (GPM(0.9, 0.0, 10, "movement"), "task"),
], ids=str)  # fmt: skip
def test_gpm_is_its_plain_loop(strategy, setting):
    words = {"threshold": strategy.threshold, "growth": strategy.growth, "of": strategy.of, "head": setting != "task"}
    for ours, theirs in ((SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)), (None, adam)):
        run = beside(strategy, stream_of(setting), ours)
        rows = kept(run, strategy.rows)
        net, basis = gpm(run.start, run.tasks, theirs, rows, **words)
        assert gap(run.net, net) < TOLERANCE
        for name, span in run.memory[0]["span"].items():
            assert float((span - torch.from_numpy(basis[name] @ basis[name].T)).abs().max()) < 1e-8
            assert basis[name].shape[1] > 0
        assert gap(run.net, gpm(run.start, run.tasks, theirs, rows, scale=1.001, **words)[0]) > PLANTED
        for changed in ({"threshold": words["threshold"] - 0.2}, {"growth": words["growth"] - 0.3}):
            assert gap(run.net, gpm(run.start, run.tasks, theirs, rows, **{**words, **changed})[0]) > PLANTED
        swapped = {**words, "of": "gradient" if strategy.of == "movement" else "movement"}
        assert gap(run.net, gpm(run.start, run.tasks, theirs, rows, **swapped)[0]) > PLANTED
        swapped = {**words, "head": not words["head"]}
        assert gap(run.net, gpm(run.start, run.tasks, theirs, rows, **swapped)[0]) > PLANTED


def test_the_share_decides_how_many_join():
    """Inputs along the axes with squares 50, 30, 15, 5: a share that is just not reached takes one direction more."""
    inputs = torch.diag(torch.tensor([5.0, 50.0, 15.0, 30.0], dtype=DOUBLE).sqrt())
    for share, count in ((0.5 - 1e-9, 1), (0.5 + 1e-9, 2), (0.8 + 1e-9, 3), (0.95 + 1e-9, 4), (2.0, 4)):
        span = widened(torch.zeros(4, 4, dtype=DOUBLE), inputs, share)
        assert round(float(span.trace())) == count
    half = torch.diag(torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=DOUBLE))
    assert torch.equal(widened(half, inputs, 0.5), half)


def test_of_a_convolution_it_projects_patches():
    """A change of the kernel that is projected changes no output on the rows that count; norms are fixed."""
    import dataclasses

    from scenarios.split import split
    from scenarios.stream import Budget
    from scenarios.synthetic import blobs

    dataset = blobs(4, 25, 20)
    dataset = dataclasses.replace(dataset, x=dataset.x.view(-1, 5, 5))
    stream = split(dataset, 2, "domain", budget=Budget(iterations=3, batch=8))
    for halving in ("stride", "pool"):
        model = Conv4(channels=4, blocks=2, groups=2, halving=halving)
        run = beside(GPM(1.0, rows=3), stream, SGD(0.05), model)
        change = {name: torch.randn_like(value) for name, value in run.net.items()}
        moved = projected(run.problem, run.memory[0], change)
        x = kept(run, 3)[1]
        inputs = layer_inputs(run.problem, {"net": run.net}, x)
        kernel = moved["block0.weight"].flatten(1)
        assert float((inputs["block0"] @ kernel.T).abs().max()) < 1e-6
        assert float((inputs["block0"] @ change["block0.weight"].flatten(1).T).abs().max()) > 0.1
        padded = F.conv2d(x[:, None], moved["block0.weight"], padding=1, stride=2 if halving == "stride" else 1)
        assert float(padded.abs().max()) < 1e-6
        assert not moved["block0.scale"].any() and change["block0.scale"].any()


def test_plain_descent_is_the_same_either_way():
    a, b = (
        states(Learner(NET, GPM(0.7, of=of), SGD(0.05)), tiny(), [0], DOUBLE).params["net"]
        for of in ("gradient", "movement")
    )
    assert largest_gap(a, b) < 1e-12
