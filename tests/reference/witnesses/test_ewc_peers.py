"""EWC in the forms that others have made of it, against plain float64 loops written from their formulas and codes.

Rows of a task are looked at one by one, in a Python loop; only the stream's rows and the first weights are ours.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.models.perceptron import MLP
from lifelong.strategies.regularisation.ewc import EWC
from scenarios.split import split
from scenarios.stream import Budget
from scenarios.synthetic import blobs
from tests.reference.plain_methods import Rows, descend, detached, leaves, loss, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap

SMALL = MLP(5)


def stream(setting):
    """Few rows, since each is looked at by itself."""
    return split(blobs(6, 8, 10), 3, setting, budget=Budget(iterations=10, batch=8))


def squares(params, row, label):
    """The square of the gradient of -log p_label of a row."""
    value = row_losses(scores(params, row.x), row._replace(y=torch.tensor([label]))).sum()
    return [g**2 for g in torch.autograd.grad(value, list(params.values()))]


def probabilities(params, row):
    with torch.no_grad():
        return torch.softmax(scores(params, row.x).masked_fill(~row.allowed, -torch.inf), 1)[0]


def exact(params, row):
    """van de Ven, "all": every label, weighted by its probability."""
    p = probabilities(params, row)
    each = [[p[c] * g for g in squares(params, row, c)] for c in range(len(p)) if row.allowed[0, c]]
    return [sum(column) for column in zip(*each, strict=True)]


def predicted(params, row):
    """van de Ven, "pred"."""
    return squares(params, row, int(probabilities(params, row).argmax()))


def empirical(params, row):
    """van de Ven, "true"."""
    return squares(params, row, int(row.y))


def likelihood(params, row):
    """Mammoth: exp_cond_prob = exp(log p_y), fish += exp_cond_prob * grads ** 2."""
    return [probabilities(params, row)[int(row.y)] * g for g in squares(params, row, int(row.y))]


def least_likely(params, row):
    """A planted error."""
    p = probabilities(params, row)
    return squares(params, row, int(p.masked_fill(~row.allowed[0], 2).argmin()))


def by_rows(kind):
    def importance(params, rows, batch):
        each = [kind(params, Rows(*(part[i : i + 1] for part in rows[:3]))) for i in range(len(rows.y))]
        return [sum(column) / len(each) for column in zip(*each, strict=True)]

    return importance


def of_batches(params, rows, batch):
    """Avalanche: the square of the mean gradient of each mini-batch, mean over the mini-batches."""
    total, count = [torch.zeros_like(p) for p in params.values()], 0
    for first in range(0, len(rows.y), batch):
        part = Rows(*(value[first : first + batch] for value in rows[:3]))
        gradients = torch.autograd.grad(loss(params, part), list(params.values()))
        total, count = [f + g**2 for f, g in zip(total, gradients, strict=True)], count + 1
    return [f / count for f in total]


def online(start, tasks, whole, importance, pull, gamma, batch=8, normalised=False):
    """penalty = pull x sum_i F_i (p_i - p_last_i)^2, F <- gamma F + F_task; whole: the rows of each task."""
    params = leaves(start)
    steps = adam(list(params.values()))
    fisher = centre = None
    for batches, rows in zip(tasks, whole, strict=True):
        for shown in batches:
            total = loss(params, shown)
            if fisher is not None:
                gaps = [((p - c) ** 2 * f).sum() for p, c, f in zip(params.values(), centre, fisher, strict=True)]
                total = total + pull * sum(gaps)
            descend(steps, total)
        new = importance(params, rows, batch)
        if normalised:
            mean = torch.cat([f.flatten() for f in new]).mean()
            new = [f / mean for f in new]
        fisher = new if fisher is None else [gamma * f + n for f, n in zip(fisher, new, strict=True)]
        centre = list(detached(params).values())
    return detached(params)


def rows_of(ours):
    """All training rows of each task, in the order of the dataset's rows as the task holds them."""
    whole = []
    for task in ours.finished:
        row = task.row[task.valid]
        number = task.number.expand(len(row))
        whole.append(Rows(ours.problem.x(row, number), ours.problem.y(row, number), ours.problem.allowed(number)))
    return whole


LAMBDA, GAMMA = 70.0, 0.6
PEERS = {
    "van de Ven, all": (EWC(LAMBDA * GAMMA, True, GAMMA), by_rows(exact), GAMMA * LAMBDA / 2),
    "van de Ven, pred": (EWC(LAMBDA * GAMMA, True, GAMMA, "predicted"), by_rows(predicted), GAMMA * LAMBDA / 2),
    "van de Ven, true": (EWC(LAMBDA * GAMMA, True, GAMMA, "empirical"), by_rows(empirical), GAMMA * LAMBDA / 2),
    "Mammoth, ewc_on": (EWC(2 * LAMBDA, True, GAMMA, "likelihood"), by_rows(likelihood), LAMBDA),
    "Avalanche, online": (EWC(2 * LAMBDA, True, GAMMA, "batch"), of_batches, LAMBDA),
    "Schwarz, normalised": (EWC(LAMBDA * GAMMA, True, GAMMA, normalised=True), by_rows(exact), GAMMA * LAMBDA / 2),
}


@pytest.mark.parametrize("setting", ["class", "task"])
@pytest.mark.parametrize("peer", PEERS)
def test_a_named_form_is_its_plain_loop(peer, setting):
    strategy, importance, pull = PEERS[peer]
    ours = beside(strategy, stream(setting), model=SMALL)

    def plain(importance=importance, pull=pull, gamma=GAMMA):
        whole = rows_of(ours)
        return online(ours.start, ours.tasks, whole, importance, pull, gamma, normalised=strategy.normalised)

    assert gap(ours.net, plain()) < TOLERANCE
    assert gap(ours.net, plain(pull=pull * 1.001)) > PLANTED
    assert gap(ours.net, plain(gamma=GAMMA * 1.001)) > PLANTED
    assert gap(ours.net, plain(importance=by_rows(least_likely))) > PLANTED


def test_the_forms_are_not_each_other():
    nets = [
        beside(replace(strategy, strength=5.0), stream("class"), model=SMALL).net for strategy, *_ in PEERS.values()
    ]
    for i, left in enumerate(nets):
        for right in nets[:i]:
            assert gap(left, right) > PLANTED
