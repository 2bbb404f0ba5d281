"""GEM against a plain float64 loop, whose programme SciPy solves as a non-negative least squares problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from lifelong.optimisers.sgd import SGD
from lifelong.strategies.projection.gem import GEM, bounded_minimum
from lifelong.strategies.replay.icarl import ICaRL
from lifelong.strategies.replay.lucir import LUCIR
from tests.reference.plain_methods import Rows, detached, leaves, loss
from tests.reference.witnesses.beside import DOUBLE, PLANTED, TOLERANCE, adam, beside, gap, stream_of


def programme(matrix, linear, bound):
    """argmin 1/2 v'Av + b'v, v >= bound: with A = LL', v = bound + u, that is min |L'u + L^-1 (b + A bound)|, u >= 0."""
    lower = np.linalg.cholesky(matrix)
    u, _ = nnls(lower.T, -np.linalg.solve(lower, linear + matrix @ bound), maxiter=1000)
    return bound + u


def flat_gradient(params, rows):
    parts = torch.autograd.grad(loss(params, rows), list(params.values()))
    return torch.cat([part.flatten() for part in parts])


def gem(start, tasks, optimiser, memory, margin, epsilon, always=False):
    """The loop; memory[t]: rows kept of task t. Returns the net and how often it projected. always: an error planted."""
    params, projected = leaves(start), 0
    steps = optimiser(list(params.values()))
    for t, batches in enumerate(tasks):
        for batch in batches:
            g = flat_gradient(params, batch)
            if t:
                old = torch.stack([flat_gradient(params, memory[k]) for k in range(t)])
                if always or bool((old @ g < 0).any()):
                    matrix = (old @ old.T).numpy() + epsilon * np.eye(t)
                    v = programme(matrix, (old @ g).numpy(), np.full(t, margin))
                    g, projected = g + torch.from_numpy(v) @ old, projected + 1
            pieces = g.split([value.numel() for value in params.values()])
            for value, piece in zip(params.values(), pieces, strict=True):
                value.grad = piece.view_as(value)
            steps.step()
    return detached(params), projected


def kept(strategy, run):
    """The last K rows that came by of each task, or those with the smallest tickets."""
    memory = []
    for t, batches in enumerate(run.tasks):
        if strategy.keep == "last":
            parts = [torch.cat([rows[i] for rows in batches])[-strategy.per_task :] for i in range(3)]
            memory.append(Rows(*parts))
        else:
            task = run.finished[t]
            row, ticket = task.row[task.valid], task.draws[0]["ticket"][task.valid]
            row = row[ticket.argsort()[: strategy.per_task]]
            number = torch.full_like(row, t)
            problem = run.problem
            memory.append(Rows(problem.x(row, number), problem.y(row, number), problem.allowed(number)))
    return memory


@pytest.mark.parametrize("strategy, setting", [
    (GEM(20, 0.5, epsilon=0.5), "class"),
    (GEM(20, 0.3, "random", epsilon=0.2), "domain"),
    (GEM(300, 0.5), "task"),
    (GEM(300, 0.0, "random"), "task"),
], ids=str)  # fmt: skip
def test_gem_is_its_plain_loop(strategy, setting):
    for ours, theirs in ((None, adam), (SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9))):
        run = beside(strategy, stream_of(setting), ours)
        memory, words = kept(strategy, run), {"margin": strategy.margin, "epsilon": strategy.epsilon}
        net, projected = gem(run.start, run.tasks, theirs, memory, **words)
        assert gap(run.net, net) < TOLERANCE
        assert projected >= 3
        for name in words:
            if words[name] > 1e-3:
                wrong = gem(run.start, run.tasks, theirs, memory, **{**words, name: words[name] * 1.001})[0]
                assert gap(run.net, wrong) > PLANTED, name
        others = [rows._replace(x=rows.x.flip(0)) for rows in memory]
        assert gap(run.net, gem(run.start, run.tasks, theirs, others, **words)[0]) > PLANTED
        if setting != "class" and strategy.margin:  # some steps are let alone
            assert projected < 24
            assert gap(run.net, gem(run.start, run.tasks, theirs, memory, always=True, **words)[0]) > PLANTED


@pytest.mark.parametrize("n", [1, 2, 5, 19])
def test_the_programme_is_solved(n):
    """Many tasks, gradients of all lengths, some nearly the same; as NNLS solves it, and no direction is forbidden."""
    generator = torch.Generator().manual_seed(n)
    active = 0
    for trial in range(20):
        old = torch.randn(n, 40, generator=generator, dtype=DOUBLE) * 10.0 ** (trial % 3 - 1)
        old = old + trial % 2 * 2 * old[:1]
        g = torch.randn(40, generator=generator, dtype=DOUBLE) - old.sum(0) * (trial % 4 == 0)
        matrix, linear, bound = old @ old.T + 1e-3 * torch.eye(n), old @ g, torch.full((n,), 0.1, dtype=DOUBLE)
        ours = bounded_minimum(matrix, linear, bound)
        theirs = programme(matrix.numpy(), linear.numpy(), bound.numpy())
        assert float((ours - torch.from_numpy(theirs)).abs().max()) < 1e-9
        active += int((ours > bound).sum())
        slope = matrix @ ours + linear
        assert float(slope.min()) > -1e-8
    assert active >= 5


def test_off_and_the_ring():
    """The ring keeps the last rows that came by, of more batches than one."""
    run = beside(GEM(21), stream_of("task"))
    (memory,) = run.memory
    for t in range(2):
        last = torch.cat([rows.x for rows in run.tasks[t]])[-21:]
        torch.testing.assert_close(run.problem.x(memory["row"][t], torch.full((21,), t)), last, rtol=0, atol=0)
    assert bool(memory["filled"].all())
    assert replace(GEM(), **GEM.off).per_task == 0


def test_exemplars_that_another_part_shows_are_not_kept_as_rows_of_the_task():
    """ICaRL puts rows of earlier tasks in the place of the stream's; LUCIR hands on gradients that lie otherwise."""
    for other in (ICaRL(per_class=4), LUCIR(per_class=4)):
        run = beside(GEM(per_task=12) + other, stream_of("class"))
        row, filled = run.memory[0]["row"], run.memory[0]["filled"]
        for t in range(len(row)):
            assert set(row[t][filled[t]].tolist()) <= set(run.finished[t].row[run.finished[t].valid].tolist())
        assert filled.any()
