"""XdG against a plain float64 loop."""

from __future__ import annotations

import pytest
import torch

from lifelong.models.perceptron import MLP
from lifelong.strategies.architecture.xdg import XdG
from tests.reference.plain_methods import descend, detached, leaves, row_losses
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def gated_scores(params, x, gates):
    """gates: one [H] for each hidden layer."""
    for i, gate in enumerate(gates):
        x = torch.relu(x @ params[f"layer{i}.weight"] + params[f"layer{i}.bias"]) * gate
    return x @ params["head.weight"] + params["head.bias"]


def xdg(start, tasks, optimiser, gates):
    """gates[t]: those of task t."""
    params = leaves(start)
    steps = optimiser(list(params.values()))
    for t, batches in enumerate(tasks):
        for rows in batches:
            descend(steps, row_losses(gated_scores(params, rows.x, gates[t]), rows).mean())
    return detached(params)


@pytest.mark.parametrize("share, off", [(0.5, 6), (0.9, 11), (0.0, 0)])
def test_xdg_is_its_plain_loop(share, off):
    run = beside(XdG(share), stream_of("task"), model=MLP(12, 12))
    ranks = [run.memory[0][f"layer{i}"] for i in range(2)]
    for rank in ranks:  # each unit has a place of its own
        assert torch.equal(rank.sort(1).values, torch.arange(12).expand(3, 12))
    assert not torch.equal(ranks[0], ranks[1]) and not torch.equal(ranks[0][0], ranks[0][1])
    gates = [[(rank[t] >= off).double() for rank in ranks] for t in range(3)]
    theirs = xdg(run.start, run.tasks, adam, gates)
    assert gap(run.net, theirs) < TOLERANCE
    wrong = [[(rank[t] >= off + 1).double() for rank in ranks] for t in range(3)]
    assert gap(run.net, xdg(run.start, run.tasks, adam, wrong)) > PLANTED
    if off:
        assert gap(run.net, xdg(run.start, run.tasks, adam, gates[1:] + gates[:1])) > PLANTED
    x, task = run.tasks[0][0].x, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    each = torch.stack([gated_scores(theirs, x, gates[t]) for t in range(3)])
    told = each[task, torch.arange(8)]
    assert float((run.scores(x, task) - told).abs().max()) < TOLERANCE
