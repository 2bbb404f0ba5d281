"""Every strategy, learner and scenario x every check, all of them discovered."""

from __future__ import annotations

import pytest
import torch

from lifelong.contracts.learners import (
    LEARNER_CHECKS,
    CheckFailed,
    _learner,
    alone_is_fleet,
    check_strategy,
    outcome,
    recorded_is_eager,
    stream_for,
)
from lifelong.contracts.streams import STREAM_CHECKS
from lifelong.core.loop import run
from lifelong.core.recorded import NotRecorded
from lifelong.learners.closed_form import ClosedForm
from lifelong.notation.expression import parse, vocabulary
from lifelong.optimisers.adam import Adam
from scenarios.catalogue import CATALOGUE, build
from scenarios.stream import SETTINGS
from tests.contracts.broken import BROKEN, Counted, LateByProgress
from tests.contracts.parts import DrawsEverywhere, ModuleLearner, SoftReplay, Temperature, ToldAnswers

SUMS = (
    "EWC(strength=10.0) + Replay(size=20)",
    "SI() + LwF()",
    "Replay(size=10) + ClassReplay(per_class=3)",
    "EWC(online=True, fisher='sampled') + SI()",
    "TaskWeights() + PCGrad()",
    "UncertaintyWeights(start=-0.5) + TaskWeights()",
)
VARIANTS = (
    "EWC(fisher='empirical')",
    "EWC(fisher='batch')",
    "LwF(scaled=False) + WarmUp()",
    "EWC(fisher='predicted')",
    "ShrinkAndPerturb(shrink=0.99, noise=0.001, every='step')",
    "ContinualBackprop(rate=0.05, maturity=2)",
    "EWC(online=True, decay=0.9, fisher='likelihood', normalised=True)",
    "Replay(size=20, rows=7, weighting='equal')",
    "Replay(size=20, rows=3, replacement=False)",
)
OURS_TO_TEST = [Temperature(), DrawsEverywhere(), SoftReplay(), ToldAnswers(), ModuleLearner()]
OURS_TO_TEST += [DrawsEverywhere() + SoftReplay(), Temperature() + parse("EWC(strength=10.0)", "strategies")]
VARIED_SUBJECTS = [parse(text, "strategies") for text in (*SUMS, *VARIANTS)]
SUBJECTS = [
    *(make() for make in vocabulary("strategies").values()),
    *(make() for make in vocabulary("learners").values()),
    *VARIED_SUBJECTS,
    *(
        parse(f"{name}('{trunk}')", "learners")
        for name, make in vocabulary("learners").items()
        if issubclass(make, ClosedForm)
        for trunk in ("net", "first")
    ),
    parse("FeCAM(covariance='shared', correlations=False)", "learners"),
    *OURS_TO_TEST,
]


# what another setting of a method, or another neighbour, can break that the method by itself has not shown
OF_VARIANTS = (
    "alone and in a fleet it learns the same",
    "the fleet equals the pure step",
    "its numbers may vary within a fleet",
    "recorded and taken step by step it is the same",
    "it runs on any device",
)


def held_to(check, subject):
    """Whether a check is tried on a subject."""
    if subject in VARIED_SUBJECTS:  # the rest is shown for the method by itself
        return check.name in OF_VARIANTS
    # what lives in a test file is no plug-in
    return subject not in OURS_TO_TEST or check.name != "its repr builds it again"


PAIRS = [(subject, check) for check in LEARNER_CHECKS for subject in SUBJECTS if held_to(check, subject)]


@pytest.mark.parametrize(
    ("subject", "check"), PAIRS, ids=[f"{subject!r}-{check.name.replace(' ', '-')}" for subject, check in PAIRS]
)
def test_learner(subject, check):
    check.holds(subject)


def test_every_line_is_tried_on_every_subject_that_it_is_for():
    for name, make in (*vocabulary("strategies").items(), *vocabulary("learners").items()):
        assert sum(subject == make() for subject, _ in PAIRS) >= len(LEARNER_CHECKS), name


@pytest.mark.parametrize(
    ("name", "broken"), [(name, broken) for name, all_of in BROKEN.items() for broken in all_of],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else value.__name__,
)  # fmt: skip
def test_each_line_sees_what_breaks_its_promise(name, broken):
    """By 0.1 % where the promise is a number's, at the sizes that every method is held to."""
    seen = {check.name: outcome(check, broken()) for check in LEARNER_CHECKS if check.name == name}
    assert seen[name] and "TypeError" not in seen[name], seen


def test_every_line_has_seen_something_broken():
    assert set(BROKEN) == {check.name for check in LEARNER_CHECKS}


STREAMS = [
    build(entry, {"tasks": 3}, setting)
    for entry in CATALOGUE.values()
    if entry.data in ("digits", "blobs", "gaussian")
    for setting in SETTINGS
]


@pytest.mark.parametrize("check", STREAM_CHECKS, ids=lambda check: check.name.replace(" ", "-"))
@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: f"{stream.name}-{stream.setting}")
def test_stream(stream, check):
    check.holds(stream)


def test_contract_catches_hidden_state():
    failed = [name for name, seen, _ in check_strategy(Counted()) if seen]
    assert "stopped and resumed it is the same" in failed
    assert "the fleet equals the pure step" in failed
    assert "recorded and taken step by step it is the same" in failed


def test_contract_catches_a_python_decision_on_progress():
    """One that gets past vmap: a recording would hold on to the first answer for ever."""
    learner, stream = _learner(LateByProgress()), stream_for(LateByProgress(), iterations=20, tasks=2)
    with pytest.raises(CheckFailed, match="not recorded"):
        recorded_is_eager(LateByProgress())
    with pytest.warns(NotRecorded, match="operation by operation") as caught:
        result = run(learner, stream, [0, 1], record=True)
    assert len(caught) == 1  # said once, and the numbers are those of eager steps
    assert torch.equal(result.losses, run(learner, stream, [0, 1], record=False).losses)


def test_contract_catches_a_branch_on_a_tensor():
    from dataclasses import dataclass

    from lifelong.core.strategy import Strategy

    @dataclass(frozen=True)
    class Branch(Strategy):
        def penalty(self, problem, params, memory, batch, outputs):
            return batch.weight.sum() if outputs.logits.sum() > 0 else -batch.weight.sum()

    assert any("vmap" in seen or "data-dependent" in seen for _, seen, _ in check_strategy(Branch()))


def test_alone_is_fleet_on_odd_widths():
    """Widths that fill no vector: the optimiser's kernels must not tell the ends apart."""
    alone_is_fleet(parse("FineTuning()", "strategies"))


@pytest.mark.parametrize("subject", SUBJECTS if torch.cuda.is_available() else [], ids=repr)
def test_on_the_gpu(subject):
    """The same stream on the CPU and on the GPU, by captured steps, in float64."""
    learner = _learner(subject, Adam(0.01, epsilon=1e-4))
    cpu = run(learner, stream_for(subject), [0, 1], dtype=torch.float64)
    gpu = run(learner, stream_for(subject), [0, 1], dtype=torch.float64, device="cuda", record=True)
    assert torch.equal(cpu.accuracy, gpu.accuracy)
    torch.testing.assert_close(cpu.losses, gpu.losses, rtol=1e-7, atol=1e-9)
