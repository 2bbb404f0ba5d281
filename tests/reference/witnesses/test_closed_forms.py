"""Every learner in closed form, discovered: its trunk, and that the order of tasks does not matter to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from lifelong.adaptation.few_shot import few_shot_probes
from lifelong.core.loop import Session, Stepped, run
from lifelong.core.loop import learned as session_learned
from lifelong.learners.closed_form import FEATURES, ClosedForm
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.learners.random_features import RandomFeaturesRidge
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse, vocabulary
from lifelong.optimisers.adam import Adam, AdamW
from lifelong.runs.request import Request
from scenarios.errors import ConfigurationError
from tests.reference.witnesses.beside import DOUBLE, NET, PLANTED, SEEDS, TOLERANCE, gap
from tests.reference.witnesses.closed import QUERY, first_task_net, learned, streams

CLOSED = [make for make in vocabulary("learners").values() if issubclass(make, ClosedForm)]


def small(make, features):
    """A learner on a small network; random features are few."""
    learner = make(features, model=NET, optimiser=Adam(0.01))
    return replace(learner, width=30) if "width" in vars(learner) else learner


def answers(learner, stream):
    session = Session(learner, stream, SEEDS, dtype=DOUBLE)
    state = session_learned(session)[1]
    return session.fleet.answer(session.fleet.prepare(state, ()), QUERY)


def test_they_are_found():
    assert {"NearestClassMean", "StreamingLDA", "RandomFeaturesRidge", "FeCAM", "RanDumb"} <= {
        c.__name__ for c in CLOSED
    }


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("make", CLOSED, ids=lambda make: make.__name__)
@pytest.mark.parametrize("stream", streams(), ids=lambda stream: stream.setting)
def test_the_order_of_tasks_does_not_matter(stream, make, features):
    """With a trunk of the first task, that of the others does not; another first task gives another trunk."""
    learner = small(make, features)
    forward = answers(learner, replace(stream, chosen=(0, 1, 2)))
    for order in ((0, 2, 1),) if features == "first" else ((2, 0, 1), (1, 2, 0)):
        torch.testing.assert_close(
            answers(learner, replace(stream, chosen=order)), forward, rtol=TOLERANCE, atol=TOLERANCE
        )
    if features == "first":
        assert float((answers(learner, replace(stream, chosen=(1, 0, 2))) - forward).abs().max()) > PLANTED


@dataclass(frozen=True)
class Forgets(NearestClassMean):
    """A mean that runs away from what it was, as no sum does."""

    def after_task(self, problem, state, task):
        return state._replace(memory={**state.memory, "sum": 0.999 * state.memory["sum"]})


def test_an_order_that_matters_is_seen():
    stream = next(iter(streams()))
    there, back = (answers(Forgets(model=NET), replace(stream, chosen=order)) for order in ((0, 1, 2), (2, 1, 0)))
    assert float((there - back).abs().max()) > PLANTED


@pytest.mark.parametrize("make", CLOSED, ids=lambda make: make.__name__)
def test_the_trunk_of_the_first_task_is_that_of_plain_descent(make):
    """By torch's Adam on the first task's batches alone; the later tasks move nothing, whatever the optimiser decays."""
    stream = next(iter(streams()))
    run_of = learned(small(make, "first"), stream).run
    assert gap(run_of.net, first_task_net(run_of)) < TOLERANCE < PLANTED < gap(run_of.net, run_of.start)
    decayed = replace(small(make, "first"), optimiser=AdamW(0.01, weight_decay=0.1))
    nets = [
        session_learned(Session(decayed, part, SEEDS, dtype=DOUBLE))[1].params["net"] for part in (stream[:1], stream)
    ]
    assert gap(*nets) == 0


def test_a_shrunken_rate_is_seen():
    stream = next(iter(streams()))
    run_of = learned(replace(small(NearestClassMean, "first"), optimiser=Adam(0.01 * 1.001)), stream).run
    assert gap(run_of.net, first_task_net(run_of)) > PLANTED


@pytest.mark.parametrize("make", CLOSED, ids=lambda make: make.__name__)
def test_a_frozen_trunk_takes_no_step(make):
    """The pure step after the first task, which adapts to a few rows in a comparison, leaves network and optimiser."""
    learner, stream = small(make, "first"), next(iter(streams()))
    session = Session(learner, stream, SEEDS[:1])
    state = session_learned(session)[1]
    batch = next(session.sampler.batches(1))
    first = [torch.utils._pytree.tree_map(lambda leaf: leaf[0], tree) for tree in (state, batch)]
    index = {name: value[0] for name, value in session.fleet.problem.index.items()}
    after = learner.step(replace(session.fleet.problem, index=index), *first)
    assert all(torch.equal(a, b) for a, b in zip(*map(torch.utils._pytree.tree_leaves, (first[0], after)), strict=True))


@pytest.mark.parametrize("make", CLOSED, ids=lambda make: make.__name__)
def test_steps_that_change_nothing_are_not_taken(make):
    """And the evaluations along the way are where they would be."""
    stream = next(iter(streams()))
    for features in FEATURES:
        learner = small(make, features)
        session = Session(learner, stream, SEEDS, eval_every=2)
        events = list(session.events(session.begin()))
        tasks = {event.state.task for event in events if isinstance(event, Stepped)}
        stepped = sum(event.loss.shape[1] for event in events if isinstance(event, Stepped))
        expected = [task for task in range(3) if learner.takes_steps(task)]
        assert stepped == 4 * len(expected) and len(tasks) <= 1
        when = events[-1].result.when[:, :3].tolist()
        assert when == [[0, 0, 0], *([t, i, e] for t in range(3) for i, e in ((2, 0), (4, 1)))]


def test_few_shot_columns_and_varied_rates_go_through():
    stream = next(iter(streams()))
    learner = parse("StreamingLDA('first', optimiser=Adam(vary(0.01, 0.02)))", "learners")
    result = run(replace(learner, model=MLP(8)), stream, [0, 1])
    assert len(result.seeds) == 4 and bool(result.accuracy.isfinite().all())
    alone = run(replace(learner, model=MLP(8), optimiser=Adam(0.02)), stream, [0, 1])
    assert torch.equal(result.accuracy[2:], alone.accuracy)
    probed = run(small(NearestClassMean, "first"), stream, [0], probes=few_shot_probes((1,)))
    assert all(bool(value.isfinite().all()) for value in probed.probes.values())


def test_a_ridge_below_rounding_is_raised_to_it():
    """Products of large features whose rounding left an eigenvalue of minus the ridge: with it alone none could be solved."""
    width, error = 300, 0.0625  # the spacing of single precision just below a million
    learner, stream = RandomFeaturesRidge(width=width, ridge=error), next(iter(streams()))
    session = Session(learner, stream, [0])
    problem, state = session.fleet.problem, session.first_state()
    gram = 1e6 * torch.ones(width, width) - error * torch.eye(width)
    alone = {name: value[0] for name, value in state.memory.items()}
    ready = learner.prepare(problem, state._replace(memory={**alone, "gram": gram, "sum": torch.randn(6, width)}), ())
    assert bool(ready.memory["weight"].isfinite().all()) and float(ready.memory["weight"].abs().max()) < 10
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.solve(gram + error * torch.eye(width), torch.ones(width, 1))


def test_the_command_lines_optimiser_is_heard():
    words = {"scenario": "split-blobs", "learner": "FeCAM('first')"}
    learners = [Request(**words, optimiser=text).build()[0] for text in ("", "SGD(0.5)")]
    assert [repr(learner.optimiser).partition("(")[0] for learner in learners] == ["Adam", "SGD"]
    given = Request("split-blobs", learner="FeCAM('first', optimiser=SGD(0.25))").build()[0]
    assert given.optimiser.rate == 0.25


def test_a_stream_without_task_ends_is_refused():
    stream = replace(next(iter(streams())), task_ends=False)
    with pytest.raises(ConfigurationError, match="does not say when: write"):
        run(small(NearestClassMean, "first"), stream, [0])
