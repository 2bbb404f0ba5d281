"""DER, DER++, A-GEM, streaming LDA and random features against the plain loops beside this file: the same batches, the
same random numbers, float64. A coefficient that is wrong by a thousandth shows in each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from lifelong.contracts.learners import states
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, learned, run
from lifelong.learners.random_features import RandomFeaturesRidge
from lifelong.learners.streaming_lda import StreamingLDA
from lifelong.memory.base import groups as groups_of
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.projection.agem import AGEM
from lifelong.strategies.replay.der import DER, DERPlusPlus
from scenarios.errors import ConfigurationError
from scenarios.split import split
from scenarios.stream import Budget
from scenarios.synthetic import blobs
from scenarios.transformed import permuted
from tests.reference import plain_methods as plain
from tests.reference.plain_methods import Rows

DOUBLE = torch.float64
SEEDS, SEED = [0, 1], 1  # the second of two members is looked at
NET = MLP(12)
TOLERANCE, PLANTED = (
    1e-9,
    1e-6,
)  # ours and the loop's are nearer than the first; with an error planted, further than the second


def stream_of(setting="class", iterations=12, batch=8, validation=0.0, **options):
    budget = Budget(iterations=iterations, batch=batch)
    return split(blobs(6, 8, 30), 3, setting, budget=budget, validation=validation, **options)


def shown(session):
    """The rows of each step of each task, each of them new, and the numbers that the strategy drew, for a plain loop."""
    tasks, draws = [], []
    for task in range(session.tasks):
        batches = list(session.sampler.batches(task))
        tasks.append([Rows(b.x[SEED], b.y[SEED], b.allowed[SEED], b.shown[SEED]) for b in batches])
        draws.append([{name: u[SEED] for name, u in b.draws[0].items()} for b in batches])
    return tasks, draws


def start_of(session):
    return {name: value[SEED] for name, value in session.first_state().params["net"].items()}


def gap(ours, theirs):
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


def ours_and_session(strategy, stream, optimiser=None):
    learner = Learner(NET, strategy, optimiser or Adam(0.01))
    net = states(learner, stream, SEEDS, DOUBLE).params["net"]
    return {name: value[SEED] for name, value in net.items()}, Session(learner, stream, SEEDS, dtype=DOUBLE)


def adam(leaves):
    return torch.optim.Adam(leaves, 0.01)


def momentum(leaves):
    return torch.optim.SGD(leaves, 0.05, momentum=0.9)


# --- DER and DER++ ----------------------------------------------------------------------------------------------------

DARK = [
    (DERPlusPlus(20, 0.7, 0.4, rows=5, replacement=True), "class"),
    (DERPlusPlus(20, 0.7, 0.4, rows=5), "class"),
    (DERPlusPlus(11, 0.3, 1.5), "task"),
    (DERPlusPlus(4, 0.7, 0.4, rows=9), "domain"),
    (DER(20, 0.6, rows=6), "class"),
    (DER(20, 0.6, replacement=True), "task"),
]


def loop_of(strategy, session):
    """The plain loop of a strategy on a session's rows."""
    tasks, draws = shown(session)
    for step in (step for steps in draws for step in steps):
        step.setdefault("place_again", step["place"])  # DER draws but once
    return plain.der_plus_plus(
        start_of(session), tasks, adam, draws, size=strategy.size, rows=strategy.rows or 8, alpha=strategy.alpha,
        beta=getattr(strategy, "beta", 0.0), replacement=strategy.replacement, over="allowed",
    )  # fmt: skip


@pytest.mark.parametrize("strategy, setting", DARK, ids=str)
def test_dark_replay_is_its_plain_loop(strategy, setting):
    """More rows are shown than there are, so some come again, and enter the reservoir again."""
    ours, session = ours_and_session(strategy, stream_of(setting))
    assert gap(ours, loop_of(strategy, session)) < TOLERANCE
    for name in ("alpha", "beta"):
        if hasattr(strategy, name):
            wrong = replace(strategy, **{name: getattr(strategy, name) * 1.001})
            assert gap(ours, loop_of(wrong, session)) > PLANTED, name


def test_where_all_classes_compete_their_mean_is_the_authors():
    strategy = DERPlusPlus(20, 0.7, 0.4, rows=5)
    ours, session = ours_and_session(strategy, stream_of("class"))
    tasks, draws = shown(session)
    words = {"size": 20, "rows": 5, "alpha": 0.7, "beta": 0.4, "replacement": False}
    assert gap(ours, plain.der_plus_plus(start_of(session), tasks, adam, draws, **words)) < TOLERANCE
    assert gap(ours, plain.der_plus_plus(start_of(session), tasks, adam, draws, over="sum", **words)) > 1e-3


def test_scores_that_are_compared_are_those_before_the_step():
    """Whatever the network gave in the step in which a row came by, kept beside its row."""
    stream = stream_of("class", iterations=3)
    session = Session(Learner(NET, DER(100), Adam(0.01)), stream, [0], dtype=DOUBLE)
    before, seen = session.first_state(), {}
    for batch in session.sampler.batches(0):
        x, net = batch.x[0], {name: value[0].clone() for name, value in before.params["net"].items()}
        for row, logits in zip(batch.row[0].tolist(), plain.scores(net, x), strict=True):
            seen.setdefault(row, logits)
        before, _ = session.fleet.step(before, batch, [0.0])
    (memory,) = before.memory
    assert int(memory["seen"][0]) == len(seen) == 24
    for row, logits in zip(memory["row"][0][:24].tolist(), memory["logits"][0][:24], strict=True):
        torch.testing.assert_close(logits, seen[row], rtol=0, atol=1e-12)


def test_a_row_that_only_fills_a_batch_up_is_not_kept():
    """One pass over 48 rows in batches of 7: the last batch has 6 rows."""
    stream = replace(stream_of("class"), budget=Budget(epochs=1, batch=7))
    (memory,) = states(Learner(NET, DER(500), Adam(0.01)), stream, SEEDS, DOUBLE).memory
    assert memory["seen"].tolist() == [len(task.train) * 3 for task in stream[:1]] * 2


def test_dark_replay_needs_no_task_ends():
    stream = replace(stream_of("class"), task_ends=False)
    net = states(Learner(NET, DERPlusPlus(20), Adam(0.01)), stream, [0]).params["net"]
    assert all(bool(value.isfinite().all()) for value in net.values())


# --- A-GEM ------------------------------------------------------------------------------------------------------------


def kept_rows(session, strategy):
    """What a plain loop is to have in memory while each task is learned, and which places of ours those are.

    Of each class of a finished task (domain-incremental: and of each task) the rows with the smallest tickets.
    """
    problem, index = session.fleet.problem, {name: value[SEED] for name, value in session.sampler.index.items()}
    problem, memory, places = replace(problem, index=index), [None], [[]]
    groups, size = groups_of(problem), strategy.per_class
    held = {}
    for number in range(session.tasks - 1):
        task = session.sampler.finished(number)
        rows = task.row[SEED][task.valid[SEED]]
        ticket = task.draws[0]["ticket"][SEED][task.valid[SEED]]
        y = problem.y(rows, torch.full_like(rows, number))
        for c in sorted(set(y.tolist())):
            group = c + number * problem.classes if groups > problem.classes else c
            held[group] = (number, rows[y == c][ticket[y == c].argsort()[:size]])
        order = [(group, k) for group in sorted(held) for k in range(len(held[group][1]))]
        places.append([group * size + k for group, k in order])
        row = torch.cat([held[group][1] for group in sorted(held)])
        task_of = torch.cat([torch.full_like(held[g][1], held[g][0]) for g in sorted(held)])
        memory.append(Rows(problem.x(row, task_of), problem.y(row, task_of), problem.allowed(task_of)))
    return memory, places


def projected(strategy, session, optimiser, scale=1.0):
    """The plain loop; scale: of epsilon, 1 unless an error is planted."""
    tasks, draws = shown(session)
    memory, places = kept_rows(session, strategy)
    if not strategy.replacement:  # a number for each place of ours, of which the loop has those that are filled
        draws = [[{"place": step["place"][here]} for step in steps] for steps, here in zip(draws, places, strict=True)]
    words = {"rows": strategy.rows or 8, "replacement": strategy.replacement, "epsilon": strategy.epsilon * scale}
    return plain.a_gem(start_of(session), tasks, optimiser, draws, memory, **words)


@pytest.mark.parametrize("strategy, setting", [
    (AGEM(5, rows=7), "class"),
    (AGEM(5, rows=7, replacement=True, epsilon=0.5), "class"),
    (AGEM(3, rows=20), "task"),
    (AGEM(4, epsilon=0.5), "domain"),
], ids=str)  # fmt: skip
def test_a_gem_is_its_plain_loop(strategy, setting):
    """With Adam and with momentum; some steps are projected, and but in class-incremental streams some are not."""
    for ours_by, theirs_by in ((Adam(0.01), adam), (SGD(0.05, momentum=0.9), momentum)):
        ours, session = ours_and_session(strategy, stream_of(setting), ours_by)
        theirs = projected(strategy, session, theirs_by)
        dots = [dot for task in theirs.dots[1:] for dot in task]
        assert sum(dot < 0 for dot in dots) >= 3, dots
        assert setting == "class" or sum(dot > 0 for dot in dots) >= 3, dots  # told all classes, old rows always object
        assert gap(ours, theirs.params) < TOLERANCE
        if strategy.epsilon:
            assert gap(ours, projected(strategy, session, theirs_by, 1.001).params) > PLANTED


def test_a_planted_error_of_the_projection_shows(monkeypatch):
    """A gradient of the memory that is a thousandth too long in one layer."""
    strategy, stream = AGEM(5, rows=7), stream_of("class")
    _, session = ours_and_session(strategy, stream)
    theirs = projected(strategy, session, adam).params
    right = type(session.fleet.problem).gradient

    def wrong(problem, params, row, task, weight):
        gradient = right(problem, params, row, task, weight)["net"]
        return {"net": {**gradient, "head.weight": 1.001 * gradient["head.weight"]}}

    monkeypatch.setattr(type(session.fleet.problem), "gradient", wrong)
    ours, _ = ours_and_session(strategy, stream)
    assert gap(ours, theirs) > PLANTED


def test_a_projected_step_does_not_raise_the_loss_on_the_memory():
    """g . r is not below 0 after the projection, whatever parts stand before it."""
    for text in ("AGEM(per_class=5, rows=20)", "LwF() + AGEM(per_class=5, rows=20)"):
        learner, stream = Learner(NET, parse(text, "strategies"), Adam(0.01)), stream_of("class")
        session = Session(learner, stream, [0], dtype=DOUBLE)
        state = session.first_state()
        for batch in session.sampler.batches(0):
            state, _ = session.fleet.step(state, batch, [0.0])
        state = session.fleet.after_task(state, session.sampler.finished(0))
        index = {name: value[0] for name, value in session.sampler.index.items()}
        problem = replace(session.fleet.problem, index=index)
        memory = {name: value[0] for name, value in state.memory[-1].items()}
        place = memory["filled"].flatten().nonzero()[:, 0]
        assert len(place) == 10
        least = 0.0
        for batch in session.sampler.batches(1):  # rows >= those in memory: all of them are drawn
            now = {"net": {name: value[0].clone() for name, value in state.params["net"].items()}}
            row, task = (memory[name].flatten()[place] for name in ("row", "task"))
            r = problem.gradient(now, row, task, torch.full((10,), 0.1, dtype=DOUBLE))["net"]
            step = session.fleet._gradients(state, batch)
            g = {name: value[0] for name, value in step.gradients["net"].items()}
            dot, length = (sum(float((part[name] * r[name]).sum()) for name in r) for part in (g, r))
            least = min(least, dot / length)
            state, _ = session.fleet.step(state, batch, [0.0])
        assert least > -1e-12, text


def test_a_gem_of_finished_tasks_alone():
    """Nothing is projected in the first task, though its rows come by often."""
    stream = stream_of("class")[:1]
    ours, session = ours_and_session(AGEM(5), stream)
    tasks, _ = shown(session)
    assert gap(ours, plain.fine_tuning(start_of(session), tasks, adam)) < TOLERANCE


def test_a_gem_with_a_memory_that_asks_for_nothing_divides_by_nothing(monkeypatch):
    """Gradients whose squares are 0 in single precision, as of rows that are answered with certainty."""
    session = Session(Learner(NET, AGEM(5)), stream_of("task"), [0])
    index = {name: value[0] for name, value in session.sampler.index.items()}
    problem = replace(session.fleet.problem, index=index)
    params = {"net": {name: value[0] for name, value in session.first_state().params["net"].items()}, "own": {}}
    batch = problem.batch_of_rows(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0.5, 0.5]))
    batch = batch.replace(draws={"place": torch.rand(30)})
    ones = {"net": {name: torch.ones_like(value) for name, value in params["net"].items()}}
    for tiny in (0.0, -1e-30):
        reference = {"net": {name: tiny * value for name, value in ones["net"].items()}}
        monkeypatch.setattr(type(problem), "gradient", lambda *_, reference=reference: reference)
        found, _ = AGEM(5).grads(problem, params, AGEM(5).memory.init(problem, 5 * problem.classes), batch, ones)
        assert gap(found["net"], ones["net"]) == 0


# --- in closed form -----------------------------------------------------------------------------------------------------


def scores_of(learner, stream, x, seeds=SEEDS):
    """Scores of rows from outside, by the member that is looked at, after the stream; and its session."""
    session = Session(learner, stream, seeds, dtype=DOUBLE)
    state = learned(session)[1]
    return session.fleet.answer(session.fleet.prepare(state, ()), x)[SEED], session, state


def all_rows(session):
    """Rows and classes of all tasks, padding left out, in the order of the tasks."""
    x, y = [], []
    index = {name: value[SEED] for name, value in session.sampler.index.items()}
    problem = replace(session.fleet.problem, index=index)
    for number in range(session.tasks):
        task = session.sampler.finished(number)
        row = task.row[SEED][task.valid[SEED]]
        t = torch.full_like(row, number)
        x, y = [*x, problem.x(row, t).flatten(1)], [*y, problem.y(row, t)]
    return torch.cat(x), torch.cat(y)


def features_of(learner, session, x):
    if learner.features == "pixels":
        return x.flatten(1).to(DOUBLE)
    return plain.features(start_of(session), x.to(DOUBLE))


def streams():
    """Tasks of other sizes, some of more rows than a piece; domain-incremental ones meet their classes again and again."""
    budget = Budget(iterations=2, batch=4)
    yield split(blobs(6, 8, 30), 3, "class", budget=budget, validation=0.1)
    yield split(blobs(6, 8, 130), 3, "domain", budget=budget)
    yield permuted(blobs(4, 5, 50), 3, "domain", budget=budget)


QUERY = torch.randn(9, 8, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)


@pytest.mark.parametrize("features", ["pixels", "net"])
@pytest.mark.parametrize("stream", streams(), ids=lambda stream: f"{stream.name}-{stream.setting}")
def test_streaming_lda_is_one_row_after_another(stream, features):
    learner = StreamingLDA(features, 0.02, model=MLP(7))
    query = QUERY[:, : stream.dataset.shape[0]]
    ours, session, state = scores_of(learner, stream, query)
    x, y = all_rows(session)
    theirs = plain.streaming_lda(features_of(learner, session, x), y, stream.classes, by="class")
    torch.testing.assert_close(state.memory["mean"][SEED], theirs.mean, rtol=0, atol=1e-11)
    covariance = state.memory["scatter"][SEED] / len(y)
    torch.testing.assert_close(covariance, theirs.covariance, rtol=0, atol=1e-11)
    z = features_of(learner, session, query)
    torch.testing.assert_close(ours, plain.lda_scores(theirs, z, 0.02), rtol=1e-9, atol=1e-9)
    assert float((ours - plain.lda_scores(theirs, z, 0.02 * 1.001)).abs().max()) > PLANTED
    wrong = theirs._replace(covariance=1.001 * theirs.covariance)
    assert float((ours - plain.lda_scores(wrong, z, 0.02)).abs().max()) > PLANTED


class DrawnToUnit:
    """A covariance for scikit-learn, drawn towards the unit matrix and not towards its own trace."""

    def __init__(self, shrinkage):
        self.shrinkage = shrinkage

    def fit(self, rows):
        spread = np.cov(rows.T, bias=True)
        self.covariance_ = (1 - self.shrinkage) * spread + self.shrinkage * np.eye(len(spread))
        return self


@pytest.mark.parametrize("features", ["pixels", "net"])
@pytest.mark.parametrize("stream", streams(), ids=lambda stream: f"{stream.name}-{stream.setting}")
def test_streaming_lda_is_scikit_learns(stream, features):
    """Its decision function, without the logarithm of how frequent a class is."""
    learner = StreamingLDA(features, 0.02, model=MLP(7))
    query = QUERY[:, : stream.dataset.shape[0]]
    ours, session, _ = scores_of(learner, stream, query)
    x, y = all_rows(session)
    z, q = features_of(learner, session, x).numpy(), features_of(learner, session, query).numpy()

    def theirs(shrinkage=0.02, first_row=0):
        lda = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=DrawnToUnit(shrinkage))
        lda.fit(z[first_row:], y.numpy()[first_row:])
        found = lda.decision_function(q)
        found = np.stack([0 * found, found], 1) if found.ndim == 1 else found  # of two classes it tells the difference
        found = found - np.log(lda.priors_)
        return torch.from_numpy(found - found[:, :1])

    ours = ours - ours[:, :1]
    assert ours.shape[1] == len(set(y.tolist()))
    assert float((ours - theirs()).abs().max()) < TOLERANCE
    assert float((ours - theirs(0.02 * 1.001)).abs().max()) > PLANTED
    assert float((ours - theirs(first_row=1)).abs().max()) > PLANTED, "a row more or less"


def test_streaming_lda_of_single_precision_does_not_cancel():
    """Pixels far from 0, whose squares drown their spread: scores as in double precision."""
    dataset = blobs(6, 8, 30)
    stream = split(replace(dataset, x=dataset.x + 300), 3, "class", budget=Budget(iterations=1, batch=4))
    learner, answers = StreamingLDA(shrinkage=0.5), []
    for dtype in (torch.float32, DOUBLE):
        session = Session(learner, stream, [0], dtype=dtype)
        answers.append(learned(session)[1].memory["scatter"][0].to(DOUBLE))
    assert float((answers[0] - answers[1]).abs().max() / answers[1].abs().max()) < 1e-4


@pytest.mark.parametrize("features", ["pixels", "net"])
@pytest.mark.parametrize("stream", streams(), ids=lambda stream: f"{stream.name}-{stream.setting}")
def test_random_features_are_one_ridge_regression_on_all_rows(stream, features):
    learner = RandomFeaturesRidge(features, 40, 3.0, model=MLP(7))
    query = QUERY[:, : stream.dataset.shape[0]]
    ours, session, state = scores_of(learner, stream, query)
    x, y = all_rows(session)
    z, q = features_of(learner, session, x), features_of(learner, session, query)
    projection = state.memory["projection"][SEED]
    theirs = plain.random_features_ridge(z, y, q, stream.classes, projection, 3.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    wrong = plain.random_features_ridge(z, y, q, stream.classes, projection, 3.0 * 1.001)
    assert float((ours - wrong).abs().max()) > PLANTED
    # the batch's regression, written as least squares: rows of sqrt(ridge) I below those of the features, zeros as answers
    h = torch.relu(z @ projection)
    left = torch.cat([h, 3.0**0.5 * torch.eye(40, dtype=DOUBLE)])
    right = torch.cat([torch.eye(stream.classes, dtype=DOUBLE)[y], torch.zeros(40, stream.classes, dtype=DOUBLE)])
    weight = torch.linalg.lstsq(left, right).solution
    torch.testing.assert_close(ours, torch.relu(q @ projection) @ weight, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("learner", [StreamingLDA(shrinkage=0.01), RandomFeaturesRidge(width=40, ridge=3.0)], ids=repr)
@pytest.mark.parametrize("stream", list(streams())[:2], ids=lambda stream: stream.setting)
def test_the_order_of_tasks_does_not_matter(learner, stream):
    forward = scores_of(learner, stream, QUERY)[0]
    for order in ((2, 0, 1), (1, 2, 0)):
        torch.testing.assert_close(
            scores_of(learner, replace(stream, chosen=order), QUERY)[0], forward, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("learner", [StreamingLDA(), RandomFeaturesRidge(width=30)], ids=repr)
def test_closed_forms_are_the_same_alone_and_in_a_fleet(learner):
    """Their state, which the contract does not look at: it compares parameters, and these have none that move."""
    stream = stream_of("class", iterations=2)
    alone, fleet = (states(learner, stream, seeds, DOUBLE).memory for seeds in ([1], [0, 1, 5]))
    for name, value in alone.items():
        torch.testing.assert_close(fleet[name][1], value[0], rtol=0, atol=1e-12)


def test_a_class_that_was_never_seen_is_not_answered():
    for learner in (StreamingLDA(), RandomFeaturesRidge(width=30)):
        stream = stream_of("class", iterations=1)[:2]
        scores, session, _ = scores_of(learner, stream, QUERY)
        seen = session.sampler.index["classes_of"][SEED].any(0)
        assert bool(scores[:, seen].isfinite().all()) and bool((scores[:, ~seen] == -torch.inf).all())
        assert int(seen.sum()) == 4


@pytest.mark.parametrize("text", [
    "DER(size=-1)", "DER(alpha=-0.1)", "DERPlusPlus(beta=-1.0)", "DERPlusPlus(rows=-2)", "AGEM(per_class=-1)",
    "AGEM(epsilon=-1e-07)", "StreamingLDA(shrinkage=0.0)", "StreamingLDA(shrinkage=1.5)", "StreamingLDA(features='x')",
    "RandomFeaturesRidge(ridge=0.0)", "RandomFeaturesRidge(width=0)",
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused_in_a_line(text):
    kind = "learners" if "LDA" in text or "Ridge" in text else "strategies"
    with pytest.raises(ConfigurationError) as refusal:
        parse(text, kind)
    assert "\n" not in str(refusal.value) and text.partition("(")[0] in str(refusal.value)


@pytest.mark.parametrize("learner", [
    Learner(NET, AGEM()), StreamingLDA(model=NET), RandomFeaturesRidge(model=NET),
], ids=["AGEM", "StreamingLDA", "RandomFeaturesRidge"])  # fmt: skip
def test_what_needs_task_ends_says_what_to_write_instead(learner):
    with pytest.raises(ConfigurationError, match="does not say when: write"):
        run(learner, replace(stream_of("class"), task_ends=False), [0])
