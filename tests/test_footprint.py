"""What a run needs is found before it starts, at once and without taking it; what is too large names what to change."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from lifelong.contracts.learners import first_setting, tiny
from lifelong.core import footprint as weighing
from lifelong.core.footprint import MOST_MEMBERS, MOST_TASKS, ResourceError, estimate_memory, use_threads
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, check_request
from lifelong.notation.expression import parse, vocabulary
from lifelong.notation.varied import made, vary
from lifelong.runs.request import RequestError, read_seeds
from scenarios.catalogue import build, find
from scenarios.machine import free_memory, processors
from scenarios.stream import Budget, ScenarioError
from scenarios.transformed import permuted

GIGABYTE = 10**9


def learner(strategy="FineTuning()", model="MLP(100, 100)"):
    return Learner(parse(model, "models"), parse(strategy, "strategies"))


def digits(name="split-digits", options=None, **budget):
    stream = build(find(name), options or {})
    return replace(stream, budget=replace(stream.budget, **budget))


HUGE = {
    "wide": (learner(model="MLP(1000000000)"), {}, "--model"),
    "wider than numbers go": (learner(model="MLP(1000000000000000000)"), {}, "--model"),
    "channels": (learner(model="Conv4(100000)"), {}, "--model"),
    "reservoir": (learner("Replay(size=1000000000)"), {}, "--strategy"),
    "large reservoir": (learner("Replay(size=170000000)"), {}, "--fleet 1"),
    "reservoir beyond numbers": (learner("Replay(size=9000000000000000000)"), {}, "--strategy"),
    "replayed rows": (learner("Replay(rows=32000000)"), {}, "replay fewer rows"),
    "rows of a class": (learner("ClassReplay(per_class=1000000000)"), {}, "--strategy"),
    "batch": (learner(), {"batch": 10**9}, "--batch"),
    "iterations": (learner(), {"iterations": 10**12}, "--iterations"),
    "epochs": (learner(), {"iterations": 0, "epochs": 1e18}, "--epochs"),
    "more epochs": (learner(), {"iterations": 0, "epochs": 1e300}, "--epochs"),
    "endless epochs": (learner(), {"iterations": 0, "epochs": float("inf")}, "finite"),
}


@pytest.fixture
def nine(monkeypatch):
    """The machine of the review: nine gigabytes are free."""
    monkeypatch.setattr(weighing, "free_memory", lambda: 9 * GIGABYTE)


@pytest.mark.parametrize("subject, budget, hint", HUGE.values(), ids=HUGE.keys())
def test_what_is_too_large_is_refused_at_once(nine, subject, budget, hint):
    began = time.process_time()
    with pytest.raises(ResourceError, match=hint) as error:
        check_request(subject, digits(**budget), list(range(5)), "cpu")
    assert "\n" not in str(error.value) and time.process_time() - began < 10


def test_too_many_tasks_or_members_are_refused_at_once(nine):
    began = time.process_time()
    with pytest.raises(ResourceError, match="ask for fewer tasks"):
        check_request(learner(), permuted(digits().dataset, tasks=10**6, budget=Budget(5)), [0], "cpu")
    with pytest.raises(ScenarioError, match="ask for fewer tasks"):  # by its name it is not even built
        digits("permuted-digits", {"tasks": 10**6})
    with pytest.raises(ResourceError, match="--fleet 1000"):
        check_request(learner(), digits(), list(range(100_000)), "cpu")
    with pytest.raises(ResourceError, match="--fleet 1000"):
        varied = replace(learner(), strategy=made(vocabulary("strategies")["EWC"], strength=vary(*range(2000))))
        check_request(varied, digits(), list(range(6)), "cpu")
    assert time.process_time() - began < 10


def test_a_fleet_that_fits_is_not_refused(nine):
    wide = learner(model="MLP(1000, 1000)")
    with pytest.raises(ResourceError, match="--fleet") as error:
        estimate_memory(wide, digits(), range(500))
    size = int(str(error.value).rpartition(" ")[2])
    assert sum(estimate_memory(wide, digits(), range(500), fleet=size).values()) <= 9 * GIGABYTE
    assert sum(estimate_memory(wide, digits(), range(size)).values()) > 8 * GIGABYTE


@pytest.mark.parametrize("text", [*(repr(make()) for make in vocabulary("strategies").values())])
def test_every_strategy_is_weighed_as_it_is(text):
    """What is found without values is what there is with values."""
    strategy = parse(text, "strategies")
    stream = tiny(first_setting(strategy))
    subject = learner(text, repr(strategy.parts[0].checked_with) if strategy.parts else "MLP(8)")
    found = estimate_memory(subject, stream, [0, 1, 2])
    state = Session(subject, stream, [0, 1, 2]).first_state()
    parts = {
        "the network and its optimiser": (state.params, state.optimiser),
        "the memory of the strategy": state.memory,
    }
    for name, tree in parts.items():
        assert found[name] == 2 * sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(tree)), name
    assert found["the rows of a step"] >= 3 * 4 * 4 * 8


@pytest.mark.parametrize("text", ["MLP(8)", "Conv4(8, 2)", "NearestClassMean()"])
def test_models_and_learners_are_weighed(text):
    subject = learner(model=text) if text in ("MLP(8)", "Conv4(8, 2)") else parse(text, "learners")
    assert estimate_memory(subject, digits(), [0])["the network and its optimiser"] > 0


def test_weighing_takes_no_memory_and_no_random_number():
    before = torch.get_rng_state()
    assert (
        estimate_memory(learner(model="MLP(10000, 10000)"), digits(), [0])["the network and its optimiser"]
        > 2 * GIGABYTE
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_own_code_that_cannot_be_weighed_is_left_to_what_makes_it():
    class Reads(type(learner().model)):
        def init(self, shape, classes, generator):
            net = super().init(shape, classes, generator)
            assert net["head.bias"].sum().item() < 1e9
            return net

    found = estimate_memory(replace(learner(), model=Reads(8)), digits(), [0])
    assert "the plan of what is shown" in found and "the network and its optimiser" not in found


def test_the_limits_are_this_machines():
    assert free_memory() > 10**7 and processors() >= 1 and MOST_MEMBERS and MOST_TASKS
    before = torch.get_num_threads()
    use_threads(before)
    for count in (0, -1, 100_000):
        with pytest.raises(ResourceError, match="--threads"):
            use_threads(count)
    assert torch.get_num_threads() == before
    assert estimate_memory(learner(), replace(tiny(), budget=Budget(epochs=2, batch=4)), [0])


@pytest.mark.parametrize(
    "text", ["99999999999999999999", "0:99999999999999999999", "-99999999999999999999:5", "200000"]
)
def test_seeds_are_counted_before_they_are_made(text):
    with pytest.raises(RequestError, match="at most 100,000"):
        read_seeds(text)
    assert read_seeds("7:9") == (7, 8) and read_seeds("3") == (0, 1, 2)


@pytest.mark.parametrize(
    "words", [["run", "split-blobs", "--iterations", "1000000000000"], ["run", "split-blobs", "--threads", "100000"],
              ["run", "split-blobs", "--threads", "0", "--dry-run"]], ids=" ".join)  # fmt: skip
def test_the_command_line_refuses_in_one_line_and_leaves_nothing(cli, tmp_path, words):
    code, out, errors = cli(*words)
    assert (code, out, errors.count("\n")) == (2, "", 1) and "--" in errors, errors
    assert not list(tmp_path.iterdir())
