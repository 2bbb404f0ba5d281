"""Steps that are recorded and played back: what a recording may do to its arguments, and blocks of steps of any length."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from torch.utils._pytree import tree_map

from lifelong.contracts.learners import equal
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, Stepped, learned, run
from lifelong.core.passes import IN_PLACE
from lifelong.core.recorded import NotRecorded, Recording, recorded
from lifelong.core.strategy import Strategy
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.optimisers.adam import Adam, AdamW
from lifelong.optimisers.sgd import SGD
from scenarios.catalogue import CATALOGUE, build
from scenarios.stream import Budget

LARGE = 5000


def numbers(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.rand(LARGE, generator=random) + 0.5 for _ in range(count)]


def written(recording: Recording) -> int:
    """Operations that write into an argument."""
    return sum(node.target in IN_PLACE.values() for node in recording.graph.graph.nodes)


FUNCTIONS = {
    "a chain": (lambda a, b, c: (a * b + c).sqrt().neg(), 3),
    "an argument read later": (lambda a, b, c: (a * b + a - c, a), None),
    "a result that is read again": (lambda a, b, c: (lambda t: (t + c, t * b))(a - b), None),
    "one tensor twice": (lambda a, b, c: (a + a) * (b + c), None),
    "a view that is read later": (lambda a, b, c: (lambda v: (a + b, v * c))(a.view(50, 100)[0].repeat(50)), None),
    "a shape that grows": (lambda a, b, c: a.view(1, -1) * b.expand(3, -1) + c, None),
    "another type": (lambda a, b, c: (a > b) * c + (a < c), None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("owned", [0, 1, 3])
def test_what_is_written_in_place_changes_no_number(name, owned):
    function, least = FUNCTIONS[name]
    given = numbers(3)
    expected = function(*(value.clone() for value in given))
    recording = Recording(function, *given, owned=owned)
    assert least is None or written(recording) >= least
    for _ in range(2):
        copies = [value.clone() for value in given]
        equal(recording(*copies), expected, name)
        kept = zip(copies[owned:], given[owned:], strict=True)
        assert all(torch.equal(copy, value) for copy, value in kept), "what is not owned is left alone"


def test_an_argument_that_is_owned_takes_the_result():
    a, b = numbers(2)
    recording = Recording(lambda a, b: a + b, a, b, owned=1)
    result = recording(a.clone(), b)
    assert written(recording) == 1 and torch.equal(result, a + b)
    assert written(Recording(lambda a, b: a + b, a, b)) == 0


def test_recording_leaves_the_arguments_as_they_were():
    def step(a, b):
        a.add_(b)
        return a * 2

    a, b = numbers(2)
    before = a.clone()
    recording = Recording(step, a, b)
    assert torch.equal(a, before)
    assert torch.equal(recording(a, b), (before + b) * 2) and torch.equal(a, before + b)


TABLE = torch.arange(60 * 20, dtype=torch.uint8).view(60, 4, 5)


def by_parts(first, second):
    """Rows of a table, looked up in two parts: converted alike; not alike; and one of them read by itself, too."""

    def rows(place, most=255):
        return TABLE[place].to(torch.float32) / most

    shared = rows(second)
    return [torch.cat([rows(first), rows(second)], 1), torch.cat([rows(first), rows(second, 7)], 1),
            torch.cat([rows(first), shared], 1), shared * 2]  # fmt: skip


def counted(x):
    """What depends on no argument, of which some is handed out and some is written into."""
    zeros, ones = torch.zeros_like(x), torch.ones_like(x)
    held = torch.zeros(x.shape[0], dtype=torch.int64)
    held.index_put_((torch.tensor([0, 2]),), torch.tensor(5))
    return (
        x * ones + torch.arange(len(x)).view(-1, 1),
        zeros,
        held,
        zeros.scatter_add(0, held.clamp(max=2)[None], x[:1]),
    )


def descended(p, x, d, again):
    """Parameters that a product moves; again: whether the product is also read elsewhere."""
    g = torch.bmm(x.transpose(1, 2), d)
    p.add_(g, alpha=-0.1)
    return p, d + 1, g.sum() if again else x


def by_one(write):
    """A product by one, of which and of whose source `write` makes something."""

    def function(x):
        return write(x, x * torch.ones_like(x), torch.ops.aten.mul.Scalar(x, 1))

    return function


COPIES = {
    "the source is written into": lambda x, y, z: (x.add_(1), y * 2, z * 2)[1:],
    "the products are written into": lambda x, y, z: (y.add_(1) * 2, z.add_(2) * 2),
    "all are handed out": lambda x, y, z: (x, y, z),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_product_by_one_is_a_copy(name):
    """It may be left out where nobody can tell; but who writes into it does not write into its source."""
    function, x = by_one(COPIES[name]), torch.rand(7)
    recording, copy, other = Recording(function, x), x.clone(), x.clone()
    expected = function(other)
    results = recording(copy)
    equal(results, expected, name)
    assert torch.equal(copy, other), "what becomes of the argument"
    assert len({value.data_ptr() for value in results}) == len(results)


def test_rows_are_looked_up_before_anybody_writes():
    table = torch.rand(60, 20)

    def places(first, second):
        held = first.clone()
        parts = [table[held], table[second]]
        held.zero_()
        return torch.cat(parts), held

    def rows(table, first, second):
        parts = [table[first], table[second]]
        table.add_(1)
        return torch.cat(parts)

    def twice(first):
        found = table[first] / 3
        return torch.cat([found, found])

    first, second = torch.tensor([1, 2]), torch.tensor([4, -2])
    equal(Recording(places, first, second)(first, second), places(first, second), "a place is written into")
    given = table.clone(), first, second
    equal(Recording(rows, *given)(*given), rows(table.clone(), first, second), "the table is written into")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        equal(Recording(twice, first)(first), twice(first), "one part twice")


@pytest.mark.parametrize("place", [60, -61])
def test_a_row_that_is_not_there_is_refused(place):
    table = torch.rand(60, 20)
    recording = Recording(lambda place: table[place] * 2, torch.tensor([1, 2]))
    equal(recording(torch.tensor([-60, 59])), table[torch.tensor([-60, 59])] * 2, "the ends")
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        recording(torch.tensor([3, place]))


def test_the_last_numbers_of_a_tensor_are_rounded_as_they_were():
    random = torch.Generator().manual_seed(2)
    p, x, d = (torch.rand(5, *shape, generator=random).bfloat16() for shape in ((700, 161), (6, 700), (6, 161)))
    recording = Recording(lambda p, x, d: descended(p, x, d, False), p, x, d, owned=1)
    equal(recording(p.clone(), x, d), descended(p.clone(), x, d, False), "no whole vectors")


def operations(recording: Recording) -> list[str]:
    return [str(node.target) for node in recording.graph.graph.nodes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fewer_operations_give_the_same_numbers(dtype):
    random = torch.Generator().manual_seed(1)
    places = [torch.randint(-60, 60, (3, size), generator=random) for size in (2, 7)]
    x = torch.rand(3, 3, generator=random, dtype=dtype)
    for function, given in ((by_parts, places), (counted, [x])):
        recording, expected = Recording(function, *given), function(*given)
        for _ in range(3):  # what was handed out is the caller's, who may write into it
            results = recording(*given)
            equal(results, expected, function.__name__)
            for result in results:
                result.fill_(7)
    looked_up = operations(Recording(by_parts, *places))
    assert looked_up.count("aten.index_select.default") == 1 + 2 + 2 and looked_up.count("aten.cat.default") == 3
    assert not any("ones" in name or "arange" in name for name in operations(Recording(counted, x)))


def test_rows_of_each_member_are_copied_whole_and_a_place_beyond_the_end_is_refused():
    random = torch.Generator().manual_seed(3)
    table = torch.rand(3, 4, 20, generator=random)
    task, kind = (torch.randint(-size, size, (3, 7), generator=random) for size in (4, 3))

    def of_member(table, task):
        return torch.vmap(lambda rows, at: rows[at])(table, task)

    def by_two(table, task, kind):
        return table[kind, task]

    for function, given in ((of_member, (task,)), (by_two, (task, kind))):
        recording = Recording(function, table, *given)
        assert operations(recording).count("aten.index_select.default") == 1
        equal((recording(table, *given),), (function(table, *given),), function.__name__)
        for beyond in (4, -5):  # in a flattened table, both would be places of another member's row
            wrong = task.clone()
            wrong[1, 2] = beyond
            with pytest.raises(RuntimeError, match="out of range"):
                recording(table, wrong, *given[1:])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("members", [1, 2, 5])
def test_a_product_is_added_some_members_at_a_time(members, again):
    random = torch.Generator().manual_seed(2)
    p, x, d = (torch.rand(members, *shape, generator=random) for shape in ((700, 160), (6, 700), (6, 160)))
    recording = Recording(lambda p, x, d: descended(p, x, d, again), p, x, d, owned=1)
    in_pieces = any("_add_product" in name for name in operations(recording))
    assert in_pieces == (members > 2 and not again)
    equal(recording(p.clone(), x, d), descended(p.clone(), x, d, again), "piece by piece")


@pytest.mark.parametrize("optimiser", [SGD(0.1), Adam(0.01), AdamW(0.01, schedule="cosine")], ids=repr)
def test_what_is_recorded_is_interpreted(optimiser):
    """An optimiser's kernel stays between two pieces; none of them is lost, and no piece stays Python's."""
    learner = Learner(MLP(20), parse("EWC(10.0) + Replay(size=20)", "strategies"), optimiser)
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "task", budget=Budget(iterations=5, batch=10))
    session = Session(learner, stream, [0, 1], record=True)
    learned(session)
    playback = session.fleet.playback
    assert playback is not None and playback.recording.run is not playback.recording.graph.forward


def test_what_the_interpreter_does_not_know_stays_pythons():
    def sizes(x, y):
        return [torch.bincount(x, minlength=4), *torch.ops.aten.split_with_sizes(y, [1, 2])]

    def broken(*arguments, **options):
        raise RuntimeError("not known")

    given = torch.tensor([0, 3, 3]), torch.rand(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.jit, "trace", broken)
        recording = Recording(sizes, *given)
    assert recording.run == recording.graph.forward
    equal(recording(*given), sizes(*given), "played from Python")


def test_a_kernel_that_returns_nothing_is_not_lost():
    """The interpreter's tracer passes over every operation that returns no tensor, and says nothing of it."""

    def momentum(p, g, v):
        fixed = {"weight_decay": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False, "is_first_step": False}
        torch._fused_sgd_([p], [g * 2], [v], momentum=0.9, lr=0.05, **fixed)
        return p + 1, v

    def lists(p, g, v):
        torch._foreach_mul_([v, p], 0.5)
        torch._foreach_add_([v, p], [g, v])
        return p * 2, v

    for function in (momentum, lists):
        recording = Recording(function, *numbers(3))
        assert recording.run != recording.graph.forward
        given, expected = numbers(3), numbers(3)
        equal(recording(*given), function(*expected), function.__name__)
        equal(given, expected, f"what {function.__name__} wrote into")


def test_other_shapes_go_through_the_function_itself():
    double = recorded(lambda x: x * 2, "doubles")
    for size in (3, 3, 4):
        assert torch.equal(double(torch.arange(size)), torch.arange(size) * 2)


def test_what_cannot_be_recorded_is_called_as_it_is_and_said_once(monkeypatch):
    def broken(*arguments):
        raise ValueError("it decides:\non a value\nmore words")

    monkeypatch.setattr("lifelong.core.recorded.Recording", broken)
    play, x = recorded(lambda x: x * 2, "doubles", after=1), torch.arange(3.0)
    with pytest.warns(NotRecorded, match="doubles are not recorded.*: on a value$") as caught:
        for _ in range(4):
            assert torch.equal(play(x), x * 2)
    assert len(caught) == 1


def in_blocks(session: Session, most: int):
    """A session whose fleet asks for blocks of so many steps."""
    session.fleet.at_once = lambda: most
    sizes: list[int] = []
    state = None
    for event in session.events(session.begin()):
        if isinstance(event, Stepped):
            sizes.append(event.loss.shape[1])
        state = event.state
    return state, sizes


@pytest.mark.parametrize(
    ("strategy", "optimiser", "budget"),
    [
        ("Replay(size=30) + EWC(10.0)", Adam(0.01), Budget(iterations=45, batch=10)),
        ("SI()", SGD(0.1, momentum=0.9, weight_decay=0.01, schedule="cosine"), Budget(iterations=45, batch=10)),
        ("DER(size=30)", Adam(0.01, schedule="linear", clip=1.0), Budget(epochs=0.3, batch=10, repeats=2)),
        ("PackNet()", Adam(0.01), Budget(iterations=30, batch=10)),
    ],
)
def test_blocks_of_steps_are_the_steps_one_by_one(strategy, optimiser, budget):
    """Recorded or not; cut where an evaluation, a milestone or the end of a task falls."""
    learner = Learner(MLP(100), parse(strategy, "strategies"), optimiser)
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "task", budget=budget)
    result, eager = learned(Session(learner, stream, [0, 3], eval_every=7, record=False))
    for most, record in ((1, True), (4, True), (100, True), (100, False)):
        session = Session(learner, stream, [0, 3], eval_every=7, record=record)
        state, sizes = in_blocks(session, most)
        assert max(sizes) == min(most, 7) and (session.fleet.playback is None) != record
        equal(state.fleet, eager, f"blocks of {most}, recorded: {record}")
        equal((state.losses, torch.stack(state.accuracy, 1)), (result.losses, result.accuracy), f"curves, {most}")


@pytest.mark.parametrize(
    "optimiser",
    [Adam(0.01), AdamW(0.01, schedule="cosine"), SGD(0.1, momentum=0.9, schedule="linear"), SGD(0.1)],
    ids=repr,
)
def test_members_that_are_through_stay_as_they_are_in_a_block(optimiser):
    learner = Learner(MLP(20), parse("Replay(size=20)", "strategies"), optimiser)
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "class", budget=Budget(epochs=1, batch=10))
    seeds = [0, 1, 4]
    steps = Session(learner, stream, seeds).sampler.steps
    assert (steps != steps[:1]).any(), "the seeds take different numbers of steps"
    result, eager = learned(Session(learner, stream, seeds, record=False))
    state, _ = in_blocks(Session(learner, stream, seeds, record=True), 50)
    equal((state.fleet, state.losses), (eager, result.losses), "blocks, recorded")
    for place, seed in enumerate(seeds):
        alone = run(learner, stream, [seed], record=True)
        equal(alone.losses[0], result.losses[place], f"seed {seed} alone")


def test_a_fleet_whose_settings_differ_is_recorded_too():
    learner = Learner(MLP(20), parse("EWC(strength=vary(1.0, 10.0))", "strategies"), parse("Adam(vary(0.01, 0.02), schedule='cosine')", "optimisers"))  # fmt: skip
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "task", budget=Budget(iterations=20, batch=10))
    eager, played = (run(learner, stream, [0, 1], record=record) for record in (False, True))
    equal((played.losses, played.accuracy), (eager.losses, eager.accuracy), "varied: recorded and eager")
    ends = played.losses[:, 1, -1]
    assert len(ends) == 8 and len(ends.unique()) == 8, "seeds and settings differ"


@pytest.mark.parametrize(
    "optimiser", [SGD(0.1), Adam(0.01, epsilon=1e-3), AdamW(0.01, epsilon=1e-3, schedule="cosine")], ids=repr
)
def test_compiled_steps_learn_the_same_to_rounding(optimiser):
    learner = Learner(MLP(20), parse("SI(10.0)", "strategies"), optimiser)
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "task", budget=Budget(iterations=10, batch=10))
    eager = run(learner, stream, [0, 1], dtype=torch.float64, record=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotRecorded)  # it is compiled indeed
        compiled = run(learner, stream, [0, 1], dtype=torch.float64, compiled=True)
    torch.testing.assert_close(compiled.losses, eager.losses, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_compiled_is_played_as_it_was_recorded(monkeypatch):
    """As where no compiler is installed: it is said once, at the start, and nothing is lost."""

    def broken(graph):
        def play(*leaves):
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nmore words")

        return play

    monkeypatch.setattr(torch, "compile", broken)
    learner = Learner(MLP(8), parse("EWC(10.0)", "strategies"), SGD(0.1))
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "task", budget=Budget(iterations=6, batch=10))
    with pytest.warns(NotRecorded, match="not compiled.*no working C.. compiler found") as caught:
        result = run(learner, stream, [0, 1], compiled=True)
    assert len(caught) == 1
    equal(result.losses, run(learner, stream, [0, 1], record=False).losses, "not compiled, and eager")


CONSTANT = torch.linspace(0, 1, LARGE)


@dataclass(frozen=True)
class HandsBack(Strategy):
    """A constant becomes a part of the memory, or of the parameters after a step or after a task."""

    part: str = "memory"

    def init(self, problem, params, generator):
        return params, {"held": CONSTANT.clone(), "made": CONSTANT.clone()}

    def _changed(self, params):
        return {**params, "net": {**params["net"], "head.bias": CONSTANT[: len(params["net"]["head.bias"])]}}

    def after_step(self, problem, params, memory, step):
        if self.part == "step":
            params = self._changed(params)
        return params, {"held": CONSTANT, "made": memory["held"] * 2 + step.loss}

    def after_task(self, problem, params, memory, task):
        return self._changed(params) if self.part == "task" else params, memory


@pytest.mark.parametrize("part", ["memory", "step", "task"])
def test_a_constant_that_a_verb_hands_back_stays_as_it_is(part):
    """Of a fleet of one, too, where a result that is expanded over the members would be the constant itself."""
    learner, before = Learner(MLP(8), HandsBack(part), SGD(0.1)), CONSTANT.clone()
    stream = build(CATALOGUE["split-digits"], {"tasks": 2}, "class", budget=Budget(iterations=6, batch=10))
    together = learned(Session(learner, stream, [0, 1], record=False))[1]
    for record in (False, True):
        alone = learned(Session(learner, stream, [0], record=record))[1]
        equal(tree_map(lambda leaf: leaf[0], alone), tree_map(lambda leaf: leaf[0], together), f"recorded: {record}")
    assert torch.equal(CONSTANT, before)
