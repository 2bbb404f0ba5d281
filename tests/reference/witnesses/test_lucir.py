"""LUCIR against a plain loop with lists of exemplars."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.core.strategy import StrategyError
from lifelong.strategies.replay.lucir import LUCIR
from tests.reference.plain_methods import descend, detached, features, leaves
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of
from tests.reference.witnesses.plain_exemplars import herd, in_order, length_one, mixed, task_rows

CLASSES = 6


def cosine_scores(params, fixed, x):
    """eta, and cosines between features and classes; fixed: weights of some classes that are not the head's."""
    weights = [fixed.get(label, params["head.weight"][:, label]) for label in range(CLASSES)]
    return params["scale"], length_one(features(params, x)) @ length_one(torch.stack(weights)).T


def plain_lucir(
    start, tasks, draws, data, *, each, strength, margin, ranking, hardest, scale, inverse=False, free=False
):
    """Hou et al. (2019), with the rows drawn from task and exemplars together. Planted: inverse takes new over old classes
    in lambda, free lets the weights of old classes learn."""
    params = leaves({**start, "scale": torch.tensor([scale], dtype=torch.float64)})
    optimiser = adam(list(params.values()))
    exemplars, old, teacher, fixed = {}, [], None, {}
    for (x_all, y_all), batches, luck in zip(data, tasks, draws, strict=True):
        here = sorted(set(y_all.tolist()))
        for batch, (drawn,) in zip(batches, luck, strict=True):
            x, y, _ = mixed(batch, drawn, in_order(exemplars), len(y_all)) if drawn else (batch.x, batch.y, 0)
            eta, cosines = cosine_scores(params, {} if free else fixed, x)
            known = [*old, *here]
            logits = eta * cosines[:, known]
            place = torch.tensor([known.index(int(label)) for label in y])
            loss = -logits.log_softmax(1)[torch.arange(len(y)), place].mean()
            if old:
                weight = strength * (len(here) / len(old) if inverse else len(old) / len(here)) ** 0.5
                now, then = features(params, x), features(teacher, x)
                loss = loss + weight * (1 - (length_one(now) * length_one(then)).sum(1)).mean()
                gaps = []
                for b, label in enumerate(y.tolist()):
                    if label in old:
                        for c in sorted(here, key=lambda c: -float(cosines[b, c].detach()))[:hardest]:
                            gaps.append((margin - cosines[b, label] + cosines[b, c]).clamp(min=0))
                loss = loss + (ranking * torch.stack(gaps).mean() if gaps else 0)
            descend(optimiser, loss)
        teacher, old = detached(params), old + here
        fixed |= {label: teacher["head.weight"][:, label] for label in here}
        exemplars |= herd(params, x_all, y_all, each)
    return detached(params), fixed


CASES = [
    LUCIR(4),
    LUCIR(3, strength=2.0, margin=0.8, ranking=0.5, hardest=1, scale=3.0),
    LUCIR(5, hardest=5, scale=1.0),
    LUCIR(0),
]


@pytest.mark.parametrize("strategy", CASES, ids=str)
def test_lucir_is_its_plain_loop(strategy):
    """Five hardest classes are more than a task has; without exemplars no row of an old class comes back."""
    run = beside(strategy, stream_of("class"))

    def loop(strategy=strategy, **planted):
        words = {name: getattr(strategy, name) for name in ("strength", "margin", "ranking", "hardest", "scale")}
        return plain_lucir(
            run.start, run.tasks, run.draws, task_rows(run), each=strategy.per_class, **{**words, **planted}
        )

    ours = {**run.net, "scale": run.own_params["LUCIR/0"]["scale"]}
    theirs, fixed = loop()
    assert gap(ours, theirs) < TOLERANCE
    # the margin decides which gaps count, and a thousandth of it may let the same ones through
    planted = {"strength": 1.001, "scale": 1.001, **({"ranking": 1.001, "margin": 0.1} if strategy.per_class else {})}
    for name, factor in planted.items():
        wrong = replace(strategy, **{name: getattr(strategy, name) * factor})
        assert gap(ours, loop(wrong)[0]) > PLANTED, name
    assert gap(ours, loop(inverse=True)[0]) > PLANTED
    assert gap(ours, loop(free=True)[0]) > PLANTED
    x = run.tasks[0][0].x
    held = run.memory[0]["fixed"]
    assert max(float((held[label] - weight).abs().max()) for label, weight in fixed.items()) < TOLERANCE
    eta, cosines = cosine_scores(ours, dict(enumerate(held)), x)
    answers = run.scores(x, torch.full((len(x),), -1))
    assert float((answers - eta * cosines).abs().max()) < TOLERANCE
    assert float((answers - 1.001 * eta * cosines).abs().max()) > PLANTED


def test_one_hardest_class_is_not_two():
    run = beside(LUCIR(4), stream_of("class"))
    words = {"each": 4, "strength": 5.0, "margin": 0.5, "ranking": 1.0, "hardest": 1, "scale": 10.0}
    theirs, _ = plain_lucir(run.start, run.tasks, run.draws, task_rows(run), **words)
    assert gap(run.net, {name: value for name, value in theirs.items() if name != "scale"}) > PLANTED


def test_what_cannot_be_is_refused():
    for fields in ({"per_class": -1}, {"strength": -1.0}, {"hardest": 0}, {"scale": 0.0}):
        with pytest.raises(StrategyError):
            LUCIR(**fields)
