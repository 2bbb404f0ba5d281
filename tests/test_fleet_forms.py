"""The forms of a fleet on the streams that they were made for: a member learns the same alone and with whatever others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from lifelong import metrics
from lifelong.contracts.learners import _Killed, equal, states
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, Stopped, run
from lifelong.core.sampler import Sampler
from lifelong.core.strategy import Strategy
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.notation.varied import vary
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.strategies.replay.replay import Replay
from scenarios.catalogue import CATALOGUE, build
from scenarios.longtail import long_tailed
from scenarios.split import split
from scenarios.stream import Budget, ScenarioError, Seed
from scenarios.synthetic import blobs
from tests.contracts.parts import ModuleLearner

SMALL = MLP(20)


def digits(name: str, budget: Budget | None = None, **options):
    return build(CATALOGUE[f"{name}-digits"], options, budget=budget)


def same(a, i: int, b, j: int, words: str, tolerance: float = 0.0) -> None:
    """Member i of a and member j of b: losses, and accuracies before learning and after, on tasks known and unknown.

    Along the way a fleet is evaluated until its longest member is through: compared is wherever both were.
    """
    places = [[(task, -1 if end else i) for task, i, end, _ in result.when.tolist()] for result in (a, b)]
    shared = [place for place in places[0] if place in set(places[1])]
    assert len(shared) >= min(map(len, places)) and len(set(shared)) == len(shared), words
    left, right = (
        result.accuracy[member, [where.index(place) for place in shared]]
        for result, member, where in ((a, i, places[0]), (b, j, places[1]))
    )
    equal((left, a.losses[i]), (right, b.losses[j]), words, tolerance)


# --- looped -------------------------------------------------------------------------------------------------------


def test_a_torch_module_learns_the_same_alone_and_looped():
    """With dropout and running batch norm; and its accuracies move, so that the check can fail."""
    stream = digits("split", Budget(iterations=40, batch=32))
    learner = ModuleLearner(width=32, rate=0.1)
    fleet = run(learner, stream, [1, 3, 4], eval_every=20)
    same(run(learner, stream, [3], eval_every=20), 0, fleet, 1, "alone and looped")
    same(run(learner, stream, [1, 3, 4], eval_every=20, fleet=2), 2, fleet, 2, "in chunks of two")
    assert fleet.at_task_ends[:, 0, 0].mean() > 0.9 and not torch.equal(fleet.accuracy[0], fleet.accuracy[1])


def test_a_torch_module_is_resumed_at_the_ends_of_tasks():
    stream = digits("online", Budget(epochs=1, batch=32, repeats=2), tasks=3)
    learner = ModuleLearner(width=8)
    whole = states(learner, stream, [0, 1])
    for after in (1, 2):
        checkpointer = _Killed(after)
        with pytest.raises(Stopped):
            run(learner, stream, [0, 1], checkpointer=checkpointer)
        result = run(learner, stream, [0, 1], checkpointer=checkpointer)
        equal(checkpointer.final, whole, f"stopped after {after} tasks, and whole")
        same(result, 1, run(learner, stream, [1]), 0, "resumed and alone")


def test_a_torch_module_stands_beside_a_mapped_learner():
    """The same stream, the same rows in the same order, one paired comparison."""
    stream = digits("split", Budget(iterations=30, batch=32))
    seen: dict[str, list[torch.Tensor]] = {}
    looped, mapped = ModuleLearner(width=32, rate=0.1), Learner(MLP(32), optimiser=SGD(0.1))
    for name, learner in (("looped", looped), ("mapped", mapped)):
        session = Session(learner, stream, [0, 1])
        seen[name] = [batch.row for t in range(5) for batch in session.sampler.batches(t)]
    equal(seen["looped"], seen["mapped"], "rows that they are shown")
    results = [run(learner, stream, [0, 1]) for learner in (looped, mapped)]
    assert torch.equal(results[0].when, results[1].when)
    gap = metrics.paired(metrics.learning_accuracy, *results)
    assert abs(gap.mean) < 0.2 and len(gap.per_seed) == 2


# --- varied -------------------------------------------------------------------------------------------------------

VARIED = {
    "strength": (EWC(vary(1.0, 10.0)), Adam(), ["strength=1.0", "strength=10.0"]),
    "rate": (EWC(10.0), Adam(vary(1e-3, 1e-2)), ["rate=0.001", "rate=0.01"]),
    "both": (
        EWC(vary(1.0, 10.0)),
        Adam(vary(1e-3, 1e-2)),
        [f"strength={s!r}, rate={r!r}" for s in (1.0, 10.0) for r in (0.001, 0.01)],
    ),
}


@pytest.mark.parametrize("batch", [32, 128])
@pytest.mark.parametrize("words", VARIED)
def test_a_varied_member_is_the_same_run_alone(words, batch):
    strategy, optimiser, names = VARIED[words]
    stream = digits("split", Budget(iterations=15, batch=batch))
    both = run(Learner(SMALL, strategy, optimiser), stream, [0, 3], eval_every=10).by_setting()
    assert list(both) == names
    distinct = []
    for name, result in both.items():
        numbers = dict(word.split("=") for word in name.split(", "))
        alone = Learner(SMALL, EWC(float(numbers.get("strength", 10.0))), Adam(float(numbers.get("rate", 1e-3))))
        for place, seed in enumerate([0, 3]):
            same(run(alone, stream, [seed], eval_every=10), 0, result, place, f"{name}, seed {seed}, batch {batch}")
        distinct.append(result.losses)
    assert all(not torch.equal(distinct[0], other) for other in distinct[1:]), "the settings differ"


# --- alone = companions -------------------------------------------------------------------------------------------

BUDGETS = {
    "iterations": Budget(iterations=12, batch=32),
    "epochs": Budget(epochs=2.5, batch=128),
    "one pass": Budget(epochs=1, batch=32),
    "repeats": Budget(epochs=0.5, batch=32, repeats=3),
}


@pytest.mark.parametrize("budget", BUDGETS)
def test_ten_classes_are_the_same_to_the_bit_whoever_is_beside(budget):
    stream = digits("longtail", replace(BUDGETS[budget]), tasks=5, imbalance=5.0)
    learner = Learner(SMALL, EWC(5.0) + Replay(40, rows=7))
    alone = run(learner, stream, [3], eval_every=4)
    same(run(learner, stream, [1, 3, 4], eval_every=4), 1, alone, 0, f"{budget}: with others")
    same(run(learner, stream, [4, 1, 3], eval_every=4, fleet=2), 2, alone, 0, f"{budget}: in the second chunk of two")
    varied = run(Learner(SMALL, EWC(vary(1.0, 5.0)) + Replay(40, rows=7)), stream, [1, 3], eval_every=4)
    same(varied.by_setting()["strength=5.0"], 1, alone, 0, f"{budget}: in a varied fleet")
    told = run(learner, stream, [Seed(3, 3, 3), Seed(3, 1, 0)], eval_every=4)
    same(told, 0, alone, 0, f"{budget}: by a seed told apart")


@pytest.mark.parametrize("batch", [32, 128])
@pytest.mark.parametrize("name", ["gradual", "blurry", "noisy", "mixed"])
def test_streams_of_other_shapes_are_the_same_to_the_bit_whoever_is_beside(name, batch):
    options = {"tasks": 4} if name == "mixed" else {}
    stream = digits(name, Budget(epochs=1, batch=batch), **options)
    learner = Learner(SMALL, Replay(40, weighting="equal"))
    alone = run(learner, stream, [3])
    same(run(learner, stream, [1, 3, 4]), 1, alone, 0, f"{name}: with others")
    same(run(learner, stream, [4, 1, 3], fleet=2), 2, alone, 0, f"{name}: in the second chunk of two")


@pytest.mark.parametrize("batch", [5, 7, 10])
@pytest.mark.parametrize("budget", [Budget(iterations=10), Budget(epochs=1), Budget(epochs=1.3)], ids=repr)
def test_nine_classes_are_the_same_in_float64(budget, batch):
    """A processor may sum other sizes in another order: 1e-12."""
    stream = long_tailed(split(blobs(9, 6, 40), 3, budget=replace(budget, batch=batch)), 4.0)
    # a large epsilon: Adam would else make full steps of rounding errors
    learner = Learner(MLP(8), EWC(5.0) + Replay(20), Adam(0.01, epsilon=1e-4))
    alone = run(learner, stream, [3], dtype=torch.float64, eval_every=5)
    many = run(learner, stream, [1, 3, 4], dtype=torch.float64, eval_every=5)
    same(many, 1, alone, 0, f"batch {batch}: with others", 1e-12)
    chunked = run(learner, stream, [4, 1, 3], dtype=torch.float64, eval_every=5, fleet=2)
    same(chunked, 2, alone, 0, f"batch {batch}: in the second chunk of two", 1e-12)


def test_chunks_whose_tasks_end_at_other_steps_are_evaluated_alike():
    """One pass, evaluated every 2 iterations: two chunks make one result, with the evaluations of one fleet."""
    stream = digits("longtail", Budget(epochs=1, batch=32), imbalance=5.0)
    assert len(set(Session(Learner(SMALL), stream, [1, 3, 4]).sampler.paces)) > 1
    whole, chunked = (run(Learner(SMALL), stream, [1, 3, 4], eval_every=2, fleet=size) for size in (0, 1))
    assert torch.equal(whole.when, chunked.when)
    equal((whole.accuracy, whole.losses), (chunked.accuracy, chunked.losses), "in one fleet and one by one")


@dataclass(frozen=True)
class Dice(Strategy):
    """Answers by luck alone, drawn for each evaluation."""

    def prepare_draws(self, problem):
        return {"score": (problem.classes,)}

    def prepare(self, problem, params, memory, draws):
        return {"score": draws["score"].to(problem.dtype)}

    def init(self, problem, params, generator):
        return params, {"score": problem.zeros(problem.classes)}

    def predict(self, problem, params, memory, x, task):
        return memory["score"].expand(len(x), -1)


def test_what_is_drawn_for_an_evaluation_does_not_depend_on_companions():
    """At the end of a task that others take longer for."""
    stream = digits("longtail", Budget(epochs=1, batch=32), imbalance=5.0)
    fleet = run(Learner(SMALL, Dice()), stream, [1, 3, 4], eval_every=2)
    for place, seed in enumerate([1, 3, 4]):
        same(run(Learner(SMALL, Dice()), stream, [seed], eval_every=2), 0, fleet, place, f"seed {seed}")
    assert len(fleet.accuracy[0, :, 0].unique()) > 1


# --- what the streams were made for -------------------------------------------------------------------------------


def test_a_gradual_stream_is_learned_by_replay_that_needs_no_task_ends():
    stream = digits("gradual", Budget(iterations=60, batch=32))
    with pytest.raises(ScenarioError, match=r"write Replay\(weighting='equal'\)"):
        run(Learner(MLP(50), Replay(200)), stream, [0])
    plain, equal_ = (
        metrics.average_accuracy(run(Learner(MLP(50), way, Adam(0.003)), stream, [0, 1])).mean()
        for way in (parse("FineTuning()", "strategies"), Replay(200, weighting="equal"))
    )
    assert plain < 0.4 and equal_ > 0.75, (plain, equal_)


def test_a_long_tailed_stream_at_one_pass_shows_each_row_once():
    """Counted in the sampler of a fleet whose members have tasks of other lengths: what only fills up is marked."""
    stream = digits("longtail", Budget(epochs=1, batch=10), imbalance=20.0)
    session = Session(Learner(SMALL), stream, [1, 3, 4])
    assert len(set(session.sampler.paces)) == 3
    for s, seed in enumerate([1, 3, 4]):
        times = torch.zeros(len(stream.dataset.y), dtype=torch.int64)
        for t, task in enumerate(stream.tasks_of(seed)):
            batches = list(session.sampler.batches(t))
            rows = torch.cat([batch.row[s][batch.shown[s]] for batch in batches])
            times += torch.bincount(rows, minlength=len(times))
            weights = torch.stack([batch.weight[s] for batch in batches])
            assert torch.equal(weights > 0, torch.stack([batch.shown[s] for batch in batches]))
            assert int((weights.sum(1) > 0).sum()) == int(session.sampler.steps[s, t]) == -(-len(task.train) // 10)
        train = torch.cat([task.train for task in stream.tasks_of(seed)])
        assert torch.equal(times[train], torch.ones_like(train)) and int(times.sum()) == len(train)


def test_three_steps_a_batch_learn_more_than_one():
    """One pass, batches of 10: with Replay(weighting='equal', rows=10), once and three times."""
    scores = []
    for repeats in (1, 3):
        stream = digits("online", repeats=repeats, tasks=5)
        result = run(Learner(MLP(50), Replay(200, rows=10, weighting="equal")), stream, [0, 1])
        scores.append(metrics.average_accuracy(result))
    assert (scores[1] > scores[0] + 0.05).all(), scores


# --- draws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), (3,), (2, 5)], ids=str)
def test_numbers_drawn_for_fewer_rows_begin_those_drawn_for_more(more):
    """What `lifelong.core.sampler` relies on where a shape's first number depends on companions, for every length around a vector's."""
    most = torch.rand((3000, *more), generator=torch.Generator().manual_seed(7))
    for count in [*range(1, 70), 127, 128, 129, 1000, 2999]:
        few = torch.rand((count, *more), generator=torch.Generator().manual_seed(7))
        assert torch.equal(few, most[:count]), count


def test_a_finished_task_draws_the_same_for_its_rows_whoever_is_beside():
    stream = digits("longtail", Budget(epochs=1, batch=10), imbalance=20.0)
    learner = Learner(SMALL, EWC(fisher="sampled"))
    alone, beside = Session(learner, stream, [3]), Session(learner, stream, [1, 3, 4])
    longer = replace(beside.fleet.problem, task_rows=beside.fleet.problem.task_rows + 512)
    for session in (beside, Session(learner, stream, [1, 3, 4])):
        if session is not beside:  # as if companions had far longer tasks
            session.sampler = Sampler(stream, session.seeds, longer, learner.draws(longer))
        for t in range(5):
            few, many = alone.sampler.finished(t).draws[0]["label"][0], session.sampler.finished(t).draws[0]["label"][1]
            assert torch.equal(few, many[: len(few)])
    assert alone.fleet.problem.task_rows < longer.task_rows
