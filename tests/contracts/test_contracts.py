"""Every strategy, learner and scenario x every check, all of them discovered."""

from __future__ import annotations

import pytest
import torch

from lifelong.contracts.learners import LEARNER_CHECKS, _learner, alone_is_fleet, stream_for
from lifelong.contracts.streams import STREAM_CHECKS
from lifelong.core.loop import run
from lifelong.core.recorded import NotRecorded
from lifelong.learners.closed_form import ClosedForm
from lifelong.notation.expression import parse, vocabulary
from lifelong.optimisers.adam import Adam
from scenarios.catalogue import CATALOGUE, build
from scenarios.stream import SETTINGS
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


@pytest.mark.parametrize("check", LEARNER_CHECKS, ids=lambda check: check.name.replace(" ", "-"))
@pytest.mark.parametrize("subject", SUBJECTS, ids=repr)
def test_learner(subject, check):
    if subject in VARIED_SUBJECTS and check.name not in OF_VARIANTS:
        pytest.skip("shown for the method by itself")
    if subject in OURS_TO_TEST and check.name == "its repr builds it again":
        pytest.skip("it lives in a test file, which is not a plug-in")
    check.holds(subject)


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
    from dataclasses import dataclass, field

    from lifelong.contracts.learners import check_strategy
    from lifelong.core.strategy import Strategy

    @dataclass(frozen=True)
    class Cheat(Strategy):
        seen: list = field(default_factory=list)

        def penalty(self, problem, params, memory, batch, outputs):
            self.seen.append(1)
            return len(self.seen) * 1e-3 * params["net"]["head.bias"].sum()

    failed = [name for name, seen, _ in check_strategy(Cheat()) if seen]
    assert "stopped and resumed it is the same" in failed
    assert "the fleet equals the pure step" in failed
    assert "recorded and taken step by step it is the same" in failed


def test_contract_catches_a_python_decision_on_progress():
    """One that gets past vmap: a recording would hold on to the first answer for ever."""
    from dataclasses import dataclass

    from lifelong.contracts.learners import check_strategy
    from lifelong.core.strategy import Strategy

    @dataclass(frozen=True)
    class Late(Strategy):
        def grads(self, problem, params, memory, batch, grads):
            progress = batch.progress
            while torch._C._functorch.is_batchedtensor(progress):
                progress = torch._C._functorch.get_unwrapped(progress)
            scale = 2.0 if progress.numel() and float(progress.max()) > 0.4 else 1.0
            return {**grads, "net": {name: scale * value for name, value in grads["net"].items()}}, {}

    seen = {name: words for name, words, _ in check_strategy(Late())}
    assert "not recorded" in seen["recorded and taken step by step it is the same"]
    learner, stream = _learner(Late()), stream_for(Late(), iterations=60)
    with pytest.warns(NotRecorded, match="operation by operation") as caught:
        result = run(learner, stream, [0, 1], record=True)
    assert len(caught) == 1  # said once, and the numbers are those of eager steps
    assert torch.equal(result.losses, run(learner, stream, [0, 1], record=False).losses)


def test_contract_catches_a_branch_on_a_tensor():
    from dataclasses import dataclass

    from lifelong.contracts.learners import check_strategy
    from lifelong.core.strategy import Strategy

    @dataclass(frozen=True)
    class Branch(Strategy):
        def penalty(self, problem, params, memory, batch, outputs):
            return batch.weight.sum() if outputs.logits.sum() > 0 else -batch.weight.sum()

    assert any("vmap" in seen or "data-dependent" in seen for _, seen, _ in check_strategy(Branch()))


def test_alone_is_fleet_on_odd_widths():
    """Widths that fill no vector: the optimiser's kernels must not tell the ends apart."""
    alone_is_fleet(parse("FineTuning()", "strategies"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("subject", SUBJECTS, ids=repr)
def test_on_the_gpu(subject):
    """The same stream on the CPU and on the GPU, by captured steps, in float64."""
    learner = _learner(subject, Adam(0.01, epsilon=1e-4))
    cpu = run(learner, stream_for(subject), [0, 1], dtype=torch.float64)
    gpu = run(learner, stream_for(subject), [0, 1], dtype=torch.float64, device="cuda", record=True)
    assert torch.equal(cpu.accuracy, gpu.accuracy)
    torch.testing.assert_close(cpu.losses, gpu.losses, rtol=1e-7, atol=1e-9)
