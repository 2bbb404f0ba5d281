"""OGD against a plain float64 loop: Gram-Schmidt, a vector after another."""

from __future__ import annotations

import pytest
import torch

from lifelong.core.learner import Learner
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.projection.ogd import OGD
from tests.reference.plain_methods import detached, leaves, loss, scores
from tests.reference.witnesses.beside import NET, PLANTED, TOLERANCE, adam, beside, gap, stream_of


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


def ogd(start, tasks, optimiser, kept, way, scale=1.0, of="class"):
    """kept[t]: x, y of the rows whose scores count. way: "movement" projects the step, too. scale: of each projection, and
    of: another score, errors planted."""
    params, directions = leaves(start), []
    steps = optimiser(list(params.values()))
    for batches, (x, y) in zip(tasks, kept, strict=True):
        for batch in batches:
            g = flat(torch.autograd.grad(loss(params, batch), list(params.values())))
            g = g - scale * sum(((g @ u) * u for u in directions), torch.zeros_like(g))
            pieces = g.split([value.numel() for value in params.values()])
            for value, piece in zip(params.values(), pieces, strict=True):
                value.grad = piece.view_as(value)
            before = flat([value.detach().clone() for value in params.values()])
            steps.step()
            if way == "movement":
                moved = flat([value.detach() for value in params.values()]) - before
                moved = moved - scale * sum(((moved @ u) * u for u in directions), torch.zeros_like(moved))
                pieces = (before + moved).split([value.numel() for value in params.values()])
                for value, piece in zip(params.values(), pieces, strict=True):
                    value.data = piece.view_as(value)
        for row, label in zip(x, y.tolist(), strict=True):
            answer = scores(params, row[None])[0]
            answer = answer[label] if of == "class" else answer.sum()
            v = flat(torch.autograd.grad(answer, list(params.values())))
            rest = v.clone()
            for u in directions:
                rest = rest - (rest @ u) * u
            if rest.norm() > 1e-4 * v.norm():
                directions.append(rest / rest.norm())
    return detached(params), directions


def kept(run, count):
    rows = []
    for t, task in enumerate(run.finished):
        row, ticket = task.row[task.valid], task.draws[0]["ticket"][task.valid]
        row = row[ticket.argsort()[:count]]
        number = torch.full_like(row, t)
        rows.append((run.problem.x(row, number), run.problem.y(row, number)))
    return rows


@pytest.mark.parametrize("setting", ["class", "domain", "task"])
@pytest.mark.parametrize("count, way", [(7, "movement"), (60, "gradient")])
def test_ogd_is_its_plain_loop(setting, count, way):
    """60: more than there are rows in a task. Adam gets the projected gradient, too."""
    for ours, theirs in ((SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)), (None, adam)):
        run = beside(OGD(count, way), stream_of(setting), ours)
        rows = kept(run, count)
        net, directions = ogd(run.start, run.tasks, theirs, rows, way)
        assert gap(run.net, net) < TOLERANCE
        assert gap(run.net, ogd(run.start, run.tasks, theirs, rows, way, scale=1.001)[0]) > PLANTED
        assert gap(run.net, ogd(run.start, run.tasks, theirs, rows, way, of="sum")[0]) > PLANTED
        other = "gradient" if way == "movement" else "movement"
        assert gap(run.net, ogd(run.start, run.tasks, theirs, rows, other)[0]) > PLANTED
        ours_u = torch.cat([leaf.flatten(1) for leaf in run.memory[0].values()], 1)
        count_of_two = int((ours_u.norm(dim=1) > 0.5).sum())
        theirs_u = torch.stack(directions)[:count_of_two]
        gap_of_spans = ours_u.T @ ours_u - theirs_u.T @ theirs_u
        assert float(gap_of_spans.abs().max()) < TOLERANCE


def test_a_step_leaves_old_scores_alone():
    """To first order: with plain gradient descent, the smaller the rate the squarer."""
    moved = []
    for rate in (1e-3, 1e-4):
        run = beside(OGD(10), stream_of("task", iterations=6), SGD(rate))
        x, y = kept(run, 10)[0]
        number = torch.zeros_like(y)
        before = scores(beside(OGD(10), stream_of("task", iterations=6)[:1], SGD(rate)).net, x).gather(1, y[:, None])
        moved.append(float((run.scores(x, number).gather(1, y[:, None]) - before).abs().max()))
    assert moved[1] < moved[0] / 50


@pytest.mark.parametrize("way", ["movement", "gradient"])
def test_weights_that_are_fixed_stay_where_they_are(way):
    run = beside(Learner(NET, OGD(7, way), Adam(0.01), trainable="head"), stream_of("class"))
    moved = {name for name, value in run.net.items() if not torch.equal(value, run.start[name])}
    assert moved == {"head.weight", "head.bias"}
