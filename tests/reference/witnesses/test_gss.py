"""GSS against a plain loop that forms each row's gradient and keeps a list."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lifelong.core.learner import Learner
from lifelong.core.loop import Session
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.strategies.replay.gss import GSS
from lifelong.strategies.replay.row_products import gradient_products
from scenarios.datasets import load_dataset
from scenarios.split import split
from tests.reference.plain_methods import Rows, descend, detached, leaves, loss, places, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


def gradient(params, row):
    """Of one row's loss, by all parameters as one vector."""
    rows = Rows(*(value[None] for value in row))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss(params, rows), list(params.values()))])


def plain_gss(start, tasks, draws, *, size, compared, rows, replacement, share=0.5, first=1.1, least=False, told=None):
    """loss = share mean L(new) + (1 - share) mean L(R drawn rows); who enters by the largest cosine.

    share, first score, least: the smallest cosine instead, for errors that are planted. told: what befell rows, counted.
    """
    params = leaves(start)
    optimiser = adam(list(params.values()))
    memory, score = [], []
    told = Counter() if told is None else told
    for t, batches in enumerate(tasks):
        for batch, (drawn,) in zip(batches, draws[t], strict=True):
            value = row_losses(scores(params, batch.x), batch).mean()
            if memory:
                old = [memory[k] for k in places(drawn["place"], len(memory), rows, replacement)]
                again = Rows(*(torch.stack([row[i] for row in old]) for i in range(3)))
                value = share * value + (1 - share) * row_losses(scores(params, again.x), again).mean()
            descend(optimiser, value)
            known = [gradient(params, memory[k]) for k in places(drawn["compared"], len(memory), compared, False)]
            before = list(score)
            out = drawn["leaves"].tolist()
            turns = sorted(range(len(before)), key=lambda k: -math.log(out[k]) / before[k])
            for b in range(len(batch.y)):
                if not batch.first[b]:
                    continue
                row = (batch.x[b], batch.y[b], batch.allowed[b])
                cosines = [float(F.cosine_similarity(gradient(params, row), g, 0)) for g in known]
                c = 1 + (min(cosines) if least else max(cosines)) if cosines else first
                if len(memory) < size:
                    memory.append(row)
                    score.append(c)
                elif c < 1 and turns:
                    i = turns.pop(0)
                    told["won" if drawn["enters"][b] < before[i] / (before[i] + c) else "lost"] += 1
                    if drawn["enters"][b] < before[i] / (before[i] + c):
                        memory[i], score[i] = row, c
                else:
                    told["alike"] += 1
    return detached(params), score


CASES = [
    (GSS(12, compared=3), "class"),
    (GSS(10, compared=2, rows=5, replacement=False), "task"),
    (GSS(5, compared=2, rows=9), "domain"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_gss_is_its_plain_loop(strategy, setting):
    run = beside(strategy, stream_of(setting, iterations=8))

    def loop(**planted):
        words = {name: getattr(strategy, name) for name in ("size", "compared", "replacement")}
        return plain_gss(run.start, run.tasks, run.draws, **{**words, "rows": strategy.rows or 8, **planted})

    told = Counter()
    net, score = loop(told=told)
    assert gap(run.net, net) < TOLERANCE
    assert float((run.memory[0]["score"] - torch.tensor(score, dtype=torch.float64)).abs().max()) < TOLERANCE
    assert min(told[kind] for kind in ("won", "lost", "alike")) >= 3, told  # each of a row's fates was seen
    for planted in (
        {"share": 0.501},
        {"size": strategy.size - 1},
        {"compared": strategy.compared + 1},
        {"least": True},
    ):
        assert gap(run.net, loop(**planted)[0]) > PLANTED, planted
    # of 5 places all have changed hands since the first batch
    assert strategy.size == 5 or abs(sum(loop(first=1.2)[1]) - sum(score)) > PLANTED


@pytest.mark.parametrize("model", [MLP(6, 5), Conv4(8, blocks=2)], ids=str)
def test_products_of_gradients_are_those_of_the_gradients(model):
    """Layer by layer, and formed where a layer is more than a matrix."""
    session = Session(Learner(model), split(load_dataset("digits"), 5), [0], dtype=torch.float64)
    net = {name: value[0] for name, value in session.first_state().params["net"].items()}
    index = {name: value[0] for name, value in session.fleet.problem.index.items()}
    problem = replace(session.fleet.problem, index=index)
    rows = problem.batch_of_rows(index["rows_train"][1, :5], torch.ones(5, dtype=torch.int64), torch.ones(5))

    def each(moving, k):
        return problem.loss_rows(problem.logits({"net": moving}, rows.x), rows)[k]

    gradients = [torch.func.grad(each)(net, k) for k in range(5)]
    flat = torch.stack([torch.cat([g.flatten() for g in gradient.values()]) for gradient in gradients])
    torch.testing.assert_close(gradient_products(problem, {"net": net}, rows), flat @ flat.T, rtol=1e-12, atol=1e-12)
