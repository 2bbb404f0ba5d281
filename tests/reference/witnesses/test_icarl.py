"""iCaRL against a plain loop with lists of exemplars."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.core.strategy import StrategyError
from lifelong.strategies.replay.icarl import ICaRL
from tests.reference.plain_methods import descend, detached, leaves, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of
from tests.reference.witnesses.plain_exemplars import herd, in_order, mixed, nearest, task_rows

CLASSES = 6


def plain_icarl(start, tasks, draws, data, *, each, temperature, late=0, taught=1.0, among=1.0):
    """Rebuffi et al. (2017), algorithm 3, by rows drawn from task and exemplars together; also the exemplars at the end.

    Errors that are planted: late classes too few among the old ones, targets and the number of rows times a factor.
    """
    params = leaves(start)
    optimiser = adam(list(params.values()))
    exemplars, old, teacher = {}, [], None
    for (x_all, y_all), batches, luck in zip(data, tasks, draws, strict=True):
        here = sorted(set(y_all.tolist()))
        for batch, (drawn,) in zip(batches, luck, strict=True):
            x, y, _ = mixed(batch, drawn, in_order(exemplars), among * len(y_all)) if drawn else (batch.x, batch.y, 0)
            probability = torch.sigmoid(scores(params, x))
            total = 0
            for label in [*old[late:], *here]:
                target = (y == label).to(x.dtype)
                if label in old:
                    target = taught * torch.sigmoid(scores(teacher, x)[:, label] / temperature)
                p = probability[:, label]
                total = total - (target * p.log() + (1 - target) * (1 - p).log()).mean()
            descend(optimiser, total)
        teacher, old = detached(params), old + here
        exemplars |= herd(params, x_all, y_all, each)
    return detached(params), exemplars


CASES = [ICaRL(3), ICaRL(5, temperature=1.0), ICaRL(40, temperature=3.0), ICaRL(0)]


@pytest.mark.parametrize("strategy", CASES, ids=str)
def test_icarl_is_its_plain_loop(strategy):
    """40 of each class are more than there are, and none leaves a teacher alone."""
    run = beside(strategy, stream_of("class"))

    def loop(strategy=strategy, **planted):
        words = {"each": strategy.per_class, "temperature": strategy.temperature, **planted}
        return plain_icarl(run.start, run.tasks, run.draws, task_rows(run), **words)

    net, exemplars = loop()
    assert gap(run.net, net) < TOLERANCE
    assert gap(run.net, loop(replace(strategy, temperature=strategy.temperature * 1.001))[0]) > PLANTED
    assert gap(run.net, loop(taught=1.001)[0]) > PLANTED
    assert gap(run.net, loop(late=1)[0]) > PLANTED
    if strategy.per_class:
        assert gap(run.net, loop(among=3)[0]) > PLANTED
        assert gap(run.net, loop(each=strategy.per_class - 1)[0]) > PLANTED or strategy.per_class == 40
    learner, state = run.session.fleet.learner, run.state
    x = torch.cat([x for x, _ in task_rows(run)])
    ready = run.session.fleet.prepare(state, run.session.sampler.prepared(2, 0))
    task = torch.full((len(x),), -1)
    if strategy.per_class:
        member = {name: value[1] for name, value in ready.memory[0].items() if name in ("means", "there")}
        ours = learner.strategy.predict(run.problem, {"net": run.net}, member, x, task)
        theirs = nearest(net, exemplars, x, CLASSES)
        assert float((ours - theirs).abs().max()) < TOLERANCE
        assert float((ours - nearest(net, exemplars, 1.001 * x + 0.001, CLASSES)).abs().max()) > PLANTED


def test_before_a_task_has_ended_the_network_answers():
    run = beside(ICaRL(3), stream_of("class"))
    empty = {"means": torch.zeros(CLASSES, 12, dtype=torch.float64), "there": torch.zeros(CLASSES, dtype=torch.bool)}
    x, task = run.tasks[0][0].x, torch.full((8,), -1)
    ours = ICaRL(3).predict(run.problem, {"net": run.net}, empty, x, task)
    assert torch.equal(ours, run.problem.logits({"net": run.net}, x))


def test_what_cannot_be_is_refused():
    for fields in ({"per_class": -1}, {"temperature": 0.0}):
        with pytest.raises(StrategyError):
            ICaRL(**fields)
