"""What a second reader of the core found: state that is shared, work that a chunk or a resume lost, rows shown or kept wrongly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from lifelong.adaptation.few_shot import FewShot, FewShotEvaluator, few_shot_probes
from lifelong.contracts.learners import PureFleet, _Killed, _Uneven, equal, tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, Stopped, TaskEnded, learned, run
from lifelong.core.playback import _copy
from lifelong.core.recorded import Recording, recorded
from lifelong.core.strategy import Strategy
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.models.perceptron import MLP
from lifelong.notation.varied import made, vary
from lifelong.optimisers.adam import Adam
from lifelong.optimisers.per_parameter import PerParameterSGD
from lifelong.optimisers.sgd import SGD
from lifelong.strategies.architecture.packnet import PackNet
from lifelong.strategies.replay.replay import ClassReplay
from scenarios.blurry import blurred
from scenarios.catalogue import CATALOGUE, build
from scenarios.errors import ConfigurationError
from scenarios.gradual import faded
from scenarios.joint import joint
from scenarios.stream import Budget, ScenarioError, Seed
from tests.contracts.parts import ModuleLearner
from tests.test_fleet_forms import Dice


@dataclass(frozen=True)
class SlowCopy(Strategy):
    """Own parameters that become the network's at a task's end, the very same tensors, and then learn by themselves."""

    acts_at_once = True

    def init(self, problem, params, generator):
        return {**params, "own": {name: value.clone() for name, value in params["net"].items()}}, {}

    def penalty(self, problem, params, memory, batch, outputs):
        return torch.stack([value.square().sum() for value in params["own"].values()]).sum()

    def after_task(self, problem, params, memory, task):
        return {**params, "own": dict(params["net"])}, memory


@dataclass(frozen=True)
class NoBias(Strategy):
    """Sets the head's bias to a constant after each step: a tensor that all members share."""

    acts_at_once = True

    def after_step(self, problem, params, memory, step):
        return {**params, "net": {**params["net"], "head.bias": problem.zeros(problem.classes)}}, memory


@pytest.mark.parametrize("part", [SlowCopy(), NoBias()], ids=repr)
def test_parameters_that_a_verb_hands_back_may_be_one_tensor(part):
    sessions = [Session(Learner(MLP(8), part, SGD(0.01)), tiny(), [0, 2], dtype=torch.float64) for _ in range(2)]
    fleet, pure = learned(sessions[0])[1], learned(sessions[1].by(PureFleet))[1]
    equal(fleet.params, pure.params, "in place and pure", 1e-12)


def uneven(setting="task"):
    stream = tiny(setting, classes=10, tasks=5)
    return replace(stream, task_generator=_Uneven(stream.task_generator), budget=Budget(epochs=1, batch=8))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_milestone_at_the_very_end_is_reached_in_every_chunk(share):
    learner = Learner(MLP(8), PackNet(share=share), Adam(0.01))
    whole, chunked = (run(learner, uneven(), [1, 3, 4], fleet=size) for size in (0, 1))
    equal((whole.accuracy, whole.losses), (chunked.accuracy, chunked.losses), "in one fleet and one by one")


@pytest.mark.parametrize("way", [joint, faded])
def test_a_looped_learner_resumes_where_no_task_ends(way):
    stream, learner = way(tiny(iterations=8, batch=8)), ModuleLearner(width=16)
    whole = _Killed(99)
    measured = run(learner, stream, [0, 1], checkpointer=whole)
    for after in (1, 2):
        checkpointer = _Killed(after)
        with pytest.raises(Stopped):
            run(learner, stream, [0, 1], checkpointer=checkpointer)
        result = run(learner, stream, [0, 1], checkpointer=checkpointer)
        equal(checkpointer.final, whole.final, f"stopped after {after} phases, and whole")
        equal(result.accuracy, measured.accuracy, "accuracies")


def test_a_looped_learner_says_that_it_looks_at_no_start():
    class Other:
        def of(self, seed):
            return self

    with pytest.raises(ScenarioError, match="makes its own network"):
        run(ModuleLearner(), tiny(), [0], init=Other())  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", ["proportional", "uniform", "round-robin", "temperature(2)"])
@pytest.mark.parametrize("budget", [Budget(epochs=1, batch=4), Budget(iterations=30, batch=4)], ids=str)
def test_jointly_a_row_is_first_seen_once_and_a_pass_shows_each(sampling, budget):
    stream = joint(replace(uneven("class"), budget=budget), sampling)
    session = Session(Learner(MLP(8)), stream, [1, 3])
    for s, seed in enumerate([1, 3]):
        times, first = (torch.zeros(len(stream.dataset.y), dtype=torch.int64) for _ in range(2))
        for t in range(5):
            for batch in session.sampler.batches(t):
                times += torch.bincount(batch.row[s][batch.shown[s]], minlength=len(times))
                first += torch.bincount(batch.row[s][batch.first_seen[s]], minlength=len(times))
        assert torch.equal(first, (times > 0).to(torch.int64))
        train = torch.cat([task.train for task in stream.tasks_of(seed)])
        if sampling == "proportional" and budget.epochs:  # a pass is divided over 5 phases, rounded up
            assert int(times[train].min()) == 1 and int(times.sum()) < len(train) + 5


def test_jointly_the_nearest_class_mean_is_that_of_all_rows():
    """One pass over all rows, together and one task after another: the same sums."""
    stream = replace(tiny(), budget=Budget(epochs=1, batch=4))
    means = [learned(Session(NearestClassMean(), way, [0, 3]))[1].memory for way in (stream, joint(stream))]
    equal(*means, "sums and counts, task by task and together", 1e-4)


def test_a_class_that_comes_back_keeps_the_rows_that_it_had():
    """Blurry: in later tasks there are few rows of a class; a uniform sample of all of its rows is kept."""
    stream, size = blurred(tiny(iterations=2), 0.3), 10
    session, seen = Session(Learner(MLP(8), ClassReplay(size)), stream, [0]), torch.zeros(6, dtype=torch.int64)
    for event in session.events(session.begin()):
        if isinstance(event, TaskEnded):
            task = stream.tasks_of(0)[event.state.task - 1]
            seen += torch.bincount(task.label[stream.dataset.y[task.train]], minlength=6)
            kept = event.state.fleet.memory[0]
            memory = {name: kept[name].view(1, 6, size) for name in ("row", "task", "filled")}
            assert torch.equal(memory["filled"][0].sum(1), seen.clamp(max=size))
            for c in range(6):
                row = memory["row"][0, c][memory["filled"][0, c]]
                assert bool((task.label[stream.dataset.y[row]] == c).all()) and len(row.unique()) == len(row)
    assert len(memory["task"][0][memory["filled"][0]].unique()) == 3


def test_what_a_run_predicts_with_afterwards_is_what_it_was_scored_with():
    session = Session(Learner(MLP(8), Dice()), tiny(), [0, 1, 2, 3])
    result, state = learned(session)
    again = session.evaluator.scores(session.prepared_at_end(state), True, 2)[0]
    equal(again, result.accuracy[:, -1], "accuracies at the end and afterwards")
    assert len(again.unique()) > 1


def test_a_seed_named_in_two_ways_is_named_twice():
    with pytest.raises(ConfigurationError, match="named twice"):
        run(Learner(MLP(8)), tiny(), [3, Seed(3, 3, 3)])


VARIED = {
    "widths[0]=16": (lambda n: Learner(made(MLP, n)), 8, 16),
    "momentum=0.9": (lambda n: Learner(MLP(8), optimiser=SGD(0.1, momentum=n)), 0.0, 0.9),
    "rate=0.01": (lambda n: Learner(MLP(8), optimiser=made(PerParameterSGD, n, at_task_end="reset")), 0.1, 0.01),
}


@pytest.mark.parametrize("words", VARIED)
def test_sizes_a_momentum_of_0_and_rates_that_are_state_vary(words):
    learner, first, second = VARIED[words]
    both = run(learner(vary(first, second)), tiny(), [0, 1]).by_setting()[words]
    alone = run(learner(second), tiny(), [1])
    equal((both.accuracy[1], both.losses[1]), (alone.accuracy[0], alone.losses[0]), f"{words}: varied and alone")


def test_the_random_draw_that_few_shot_accuracy_is_compared_with_is_the_run_s_own():
    """Before the first task a run from a random draw stands there itself, whatever its seed means for data and order."""
    seed = Seed(3, 40, 5)
    session = Session(Learner(MLP(8)), tiny(), [seed])
    bench = FewShotEvaluator(
        session.stream, [seed.data], session.fleet.problem, FewShot((1,)), [seed.order], [seed.start]
    )
    equal(bench.random, session.first_state().params["net"], "the draw compared with and the run's start")
    probe = run(Learner(MLP(8), optimiser=SGD(1e-9)), tiny(), [0, seed], probes=few_shot_probes((1,))).few_shot
    equal(probe[:, 0], probe[:, 1], "few-shot accuracies from a net that hardly moves and from its first draw")


SEEDS = 8  # so many that the index of a stream is large enough to be written into


@dataclass(frozen=True)
class DrawsAsMatrix(Strategy):
    """Its draws, of all members, go into one product: what is a view of them depends on the block around them."""

    def draws(self, problem):
        return {"u": (3, 5)}

    def init(self, problem, params, generator):
        return params, problem.zeros(3, 2)

    def after_step(self, problem, params, memory, step):
        weight = torch.arange(10, dtype=memory.dtype).view(2, 5)
        return params, memory / 2 + torch.nn.functional.linear(step.batch.draws["u"], weight)


@dataclass(frozen=True)
class IndexKept(Strategy):
    """Its memory is the index of the problem itself, from each step or from the end of a task."""

    at_end: bool = False

    def init(self, problem, params, generator):
        return params, {"rows": problem.index["rows_train"], "sum": problem.zeros()}

    def after_step(self, problem, params, memory, step):
        more = memory["rows"] + 1
        rows = more if self.at_end else problem.index["rows_train"]
        return params, {"rows": rows, "sum": memory["sum"] + more.sum() / 1e6}

    def after_task(self, problem, params, memory, task):
        return params, {**memory, "rows": problem.index["rows_train"]}


@dataclass(frozen=True)
class OtherShape(Strategy):
    """A memory that grows with the tasks."""

    def init(self, problem, params, generator):
        return params, {"a": problem.zeros(1, 4) + 1, "b": problem.zeros(4)}

    def after_step(self, problem, params, memory, step):
        return params, {"a": memory["a"] * 1.5, "b": memory["b"] + memory["a"].mean() + len(memory["a"])}

    def after_task(self, problem, params, memory, task):
        return params, {**memory, "a": torch.cat([memory["a"], memory["a"] + 1])}


@dataclass(frozen=True)
class OtherType(Strategy):
    """A memory of counts that an end of a task makes fractions."""

    def init(self, problem, params, generator):
        return params, {"a": problem.zeros(4).long(), "b": problem.zeros(4)}

    def after_step(self, problem, params, memory, step):
        return params, {"a": memory["a"].long() + 1, "b": memory["b"] + memory["a"]}

    def after_task(self, problem, params, memory, task):
        return params, {**memory, "a": memory["a"] + 0.7}


def learns_the_same(strategy: Strategy, most: int) -> None:
    """Recorded in blocks of so many steps, and eager; the index and the data are as they were, so twice in a session."""
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "task", budget=Budget(iterations=4, batch=4))
    learner, seeds = Learner(MLP(4), strategy, SGD(0.1)), list(range(SEEDS))
    result, eager = learned(Session(learner, stream, seeds, record=False))
    session = Session(learner, stream, seeds, record=True)
    session.fleet.at_once = lambda: most
    before = {name: value.clone() for name, value in session.fleet.problem.index.items()}
    for time in ("first", "second"):
        measured, state = learned(session)
        equal(state, eager, f"{strategy!r}, recorded and eager, {time} time")
        equal(measured.losses, result.losses, f"{strategy!r}, losses, {time} time")
    equal(session.fleet.problem.index, before, f"the index, after {strategy!r}")


@pytest.mark.parametrize(
    "strategy",
    [DrawsAsMatrix(), IndexKept(), IndexKept(at_end=True), OtherShape(), OtherType()],
    ids=repr,
)
def test_memories_that_are_no_tensors_of_their_own_are_recorded_and_eager_the_same(strategy):
    learns_the_same(strategy, 2)


def test_what_is_kept_under_another_name_is_copied_before_it_is_written_over():
    """As a captured graph brings a step's results home: {"now": new, "before": memory["now"]}, and two that swap."""
    now, before, left, right = (torch.full((3,), float(i)) for i in range(4))
    _copy([now, before, left, right], [torch.full((3,), 9.0), now, right, left])
    assert [float(leaf[0]) for leaf in (now, before, left, right)] == [9.0, 0.0, 3.0, 2.0]


def test_a_recording_is_played_on_tensors_that_lie_as_those_it_was_made_of():
    def folded(x):
        return x.reshape(-1) * 2

    wide = torch.arange(24.0).view(4, 6)
    play = recorded(folded)
    for given in (wide[:, :3].contiguous(), wide[:, :3], wide[:, 3:].T, wide[:1, :3].expand(4, 3)):
        assert torch.equal(play(given), folded(given))
        recording = Recording(folded, given)
        assert recording.fits((given,)) and torch.equal(recording(given), folded(given))
    assert not Recording(folded, wide).fits((wide.long(),))
