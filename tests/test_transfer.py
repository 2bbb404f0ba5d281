"""Transfer: the few-shot field of a run, metrics from hand-made datasets, paradigms, matrices, distillation, commands."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch.utils._pytree import tree_map

from lifelong import metrics
from lifelong.adaptation.few_shot import FewShot, FewShotEvaluator, few_shot_accuracy, few_shot_probes, read_shots
from lifelong.adaptation.methods import FullFineTuning, Scratch, SurgicalFineTuning, TransferError
from lifelong.contracts.learners import _Killed, equal, tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import Session, Stopped, run
from lifelong.core.result import FEW_SHOT, Result
from lifelong.display.transfer import show_transfer, transfer_json
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse, vocabulary
from lifelong.optimisers.adam import Adam
from lifelong.runs.folder import load
from lifelong.strategies.regularisation.ewc import EWC
from lifelong.strategies.replay.replay import Replay
from lifelong.studies.transfer import shots_of
from lifelong.transfer.distillation import Distillation, distil, fewer
from lifelong.transfer.established import p_of_no_difference, verdicts
from lifelong.transfer.matrix import TransferMatrix, evaluator_of, one_order, transfer_matrices
from lifelong.transfer.pairs import joint_upto, learned, transfer_pair
from lifelong.transfer.rate_choice import choose_rate
from lifelong.transfer.task_names import task_names
from scenarios.catalogue import build
from scenarios.errors import ConfigurationError
from scenarios.joint import isolate, joint
from scenarios.stream import Seed

LEARNER = Learner(MLP(8), EWC(1.0) + Replay(10), Adam(0.01))


@pytest.mark.parametrize("method", [make() for make in vocabulary("adaptations").values()], ids=repr)
def test_a_rule_is_its_text(method):
    assert parse(repr(method), "adaptations") == method


# --- the field of a run -------------------------------------------------------------------------------------------


def test_measuring_does_not_touch_training():
    plain = learned(LEARNER, tiny(), [0, 1])
    watched = learned(LEARNER, tiny(), [0, 1], probes=few_shot_probes((1, 3)))
    equal(plain[1], watched[1], "states with and without few-shot measurements")
    assert watched[0].few_shot.shape == (2, 2, 3, 2) and watched[0].few_shot.isfinite().all()
    assert plain[0].few_shot.numel() == 0


def test_before_the_first_task_there_is_nothing_to_transfer():
    result = run(LEARNER, tiny(), [0, 1], probes=few_shot_probes((1, 3)))
    assert torch.equal(result.few_shot[:, 0, 0], result.few_shot[:, 1, 0])
    assert not torch.equal(result.few_shot[:, 0, 1:], result.few_shot[:, 1, 1:])


def test_a_killed_run_measures_the_same():
    whole = run(LEARNER, tiny(), [0, 1], probes=few_shot_probes((1, 3)))
    for after in (2, 6, 9):
        checkpointer = _Killed(after)
        with pytest.raises(Stopped):
            run(LEARNER, tiny(), [0, 1], probes=few_shot_probes((1, 3)), checkpointer=checkpointer)
        assert torch.equal(
            run(LEARNER, tiny(), [0, 1], probes=few_shot_probes((1, 3)), checkpointer=checkpointer).few_shot,
            whole.few_shot,
        )


def test_chunks_measure_the_same():
    whole, parts = (run(LEARNER, tiny(), range(3), probes=few_shot_probes((2,)), fleet=size) for size in (0, 2))
    assert torch.equal(whole.few_shot, parts.few_shot) and parts.shots == (2,)


def test_every_setting_and_a_learner_without_gradients():
    for setting in ("task", "domain", "class"):
        result = run(NearestClassMean(model=MLP(8)), tiny(setting), [0, 1], probes=few_shot_probes((1, 2)))
        assert result.few_shot.isfinite().all()
    assert float(metrics.few_shot_forward_transfer(result)[0]) == 0.0  # sums of other classes do not help


def test_baselines_have_no_field_and_say_why():
    result = run(Learner(MLP(8)), isolate(tiny()), [0, 1], probes=few_shot_probes((1,)))
    with pytest.raises(metrics.NotMeasured, match="isolate"):
        metrics.few_shot_forward_transfer(result)
    with pytest.raises(metrics.NotMeasured, match="--few-shot"):
        metrics.few_shot_forward_transfer(run(Learner(MLP(8)), tiny(), [0]))


def test_the_command_saves_the_field_and_resumes_it(cli, tmp_path):
    words = ["split-blobs", "--seeds", "2", "--iterations", "5", "--few-shot", "1,5", "--name", "a"]
    code, out, errors = cli("run", *words)
    assert code == 0 and "few_shot_forward_transfer" in out, errors
    result = load(tmp_path / "runs/a").result
    assert result.few_shot.shape == (2, 2, 5, 2) and result.shots == (1, 5)
    before = load_file(tmp_path / "runs/a/results.safetensors")["probe few-shot accuracy at 1,5"]
    for file in ("results.safetensors", "learner-0.safetensors"):
        (tmp_path / "runs/a" / file).unlink()
    assert cli("resume", "runs/a")[0] == 0
    assert torch.equal(load_file(tmp_path / "runs/a/results.safetensors")["probe few-shot accuracy at 1,5"], before)


@pytest.mark.parametrize(
    "words, hint",
    [
        (["run", "split-blobs", "--few-shot", "1,99"], "ask for fewer"),
        (["run", "split-blobs", "--few-shot", "one"], "1,5,10"),
        (["run", "split-blobs", "--few-shot", "5,1"], "smallest first"),
        (["run", "split-blobs", "--few-shot", "0"], "at least 1"),
    ],
)
def test_bad_shots_are_one_line(cli, tmp_path, words, hint):
    code, out, errors = cli(*words)
    assert (code, out, errors.count("\n")) == (2, "", 1) and hint in errors, errors
    assert not (tmp_path / "runs").exists()


def test_shots_are_nested_and_a_function_of_place():
    session = Session(LEARNER, tiny(), [0, 3])
    small, large = (
        FewShotEvaluator(session.stream, [0, 3], session.fleet.problem, FewShot(shots)) for shots in ((2,), (2, 5))
    )
    assert torch.equal(large.support[..., :2], small.support)
    alone = Session(LEARNER, tiny(), [3])
    again = FewShotEvaluator(alone.stream, [3], alone.fleet.problem, FewShot((2,)))
    assert torch.equal(again.support[0], small.support[1])
    for s in range(2):
        for t, task in enumerate(session.stream.tasks_of([0, 3][s])):
            assert set(large.support[s, t].flatten().tolist()) <= set(task.train.tolist())
            spare = large._answer_rows("validation")[0][s, t].tolist()
            assert not set(spare) & (set(large.support[s, t].flatten().tolist()) | set(task.test.tolist()))


def test_reading_shots():
    assert read_shots("") == () and read_shots("1,5, 10") == (1, 5, 10)
    with pytest.raises(TransferError):
        FewShot((1,), steps=0)


# --- metrics ------------------------------------------------------------------------------------------------------


def dataset(matrix, before, paradigm="continual", between=(), few_shot=None) -> Result:
    """A result of one seed from its matrix; `between` has a row for the middle of each task."""
    rows, when = [before], [(0, 0, 0, 10)]
    for t, row in enumerate(matrix):
        if between:
            rows.append(between[t])
            when.append((t, 5, 0, 4))
        rows.append(row)
        when.append((t, 10, 1, 10))
    accuracy = torch.tensor([rows], dtype=torch.float64)
    name, values = FEW_SHOT + "1,5", torch.tensor([few_shot or 0.0], dtype=torch.float64)
    extra = {} if few_shot is None else {"probes": {name: values.transpose(1, 2)}}
    tasks = len(before)
    return Result(
        accuracy, torch.tensor(when), accuracy[:, 0], torch.zeros(1, tasks, 1), torch.full((1, 2), -1), (0,), paradigm,
        "task", **extra,
    )  # fmt: skip


MATRIX = [[0.9, 0.5, 0.4], [0.8, 0.7, 0.6], [0.7, 0.6, 0.8]]
ALONE = [[0.9, 0.5, 0.5], [0.5, 0.6, 0.5], [0.5, 0.5, 0.9]]
START = [0.5, 0.4, 0.3]


def test_few_shot_transfer_by_hand():
    before = [[0.5, 0.6], [0.7, 0.9], [0.6, 0.8]]
    scratch = [[0.5, 0.6], [0.6, 0.7], [0.7, 0.7]]
    result = dataset(MATRIX, START, few_shot=[before, scratch])
    torch.testing.assert_close(
        metrics.few_shot_curve(result), torch.tensor([[(0.1 - 0.1) / 2, (0.2 + 0.1) / 2]], dtype=torch.float64)
    )
    assert float(metrics.few_shot_forward_transfer(result)) == pytest.approx(0.15)
    assert "few_shot_forward_transfer" in metrics.summary(result)
    assert "few_shot_forward_transfer" not in metrics.summary(dataset(MATRIX, START))


def test_transfer_gain_by_hand():
    gain = metrics.transfer_gain(dataset(MATRIX, START), dataset(ALONE, START, "isolate"))
    assert float(gain) == pytest.approx(((0.7 - 0.6) + (0.8 - 0.9)) / 2)
    with pytest.raises(metrics.NotMeasured, match="--baseline isolate"):
        metrics.transfer_gain(dataset(MATRIX, START), dataset(ALONE, START))


def test_learning_speed_by_hand():
    half = [[0.8, 0.4, 0.4], [0.8, 0.6, 0.5], [0.7, 0.6, 0.7]]
    alone_half = [[0.8, 0.4, 0.4], [0.5, 0.5, 0.5], [0.5, 0.5, 0.6]]
    result = dataset(MATRIX, START, between=half)
    alone = dataset(ALONE, START, "isolate", between=alone_half)
    # areas: half of the first stretch, half of the second; alone begins at the start, not at the task before
    areas = [(0.5 + 2 * 0.6 + 0.7) / 4, (0.6 + 2 * 0.7 + 0.8) / 4]
    alone_areas = [(0.4 + 2 * 0.5 + 0.6) / 4, (0.3 + 2 * 0.6 + 0.9) / 4]
    expected = sum((a - b) / (1 - b) for a, b in zip(areas, alone_areas, strict=True)) / 2
    assert float(metrics.learning_speed(result, alone)) == pytest.approx(expected)
    with pytest.raises(metrics.NotMeasured, match="--eval-every"):
        metrics.learning_speed(dataset(MATRIX, START), dataset(ALONE, START, "isolate"))
    with pytest.raises(metrics.NotMeasured, match="same --eval-every"):
        metrics.learning_speed(result, dataset(ALONE, START, "isolate"))


def test_intransigence_by_hand_and_by_its_helper():
    upto = [dataset([row[:k] for row in [[0.95, 0.9, 0.85]] * k], START[:k], "joint") for k in (1, 2, 3)]
    value = metrics.intransigence(dataset(MATRIX, START), upto)
    assert float(value) == pytest.approx(((0.95 - 0.9) + (0.9 - 0.7) + (0.85 - 0.8)) / 3)
    stream, learner = tiny("task"), Learner(MLP(8))
    runs = joint_upto(learner, stream, [0, 1])
    assert [r.tasks for r in runs] == [1, 2, 3]
    assert torch.equal(runs[2].accuracy, run(learner, joint(stream), [0, 1]).accuracy)
    assert metrics.intransigence(run(learner, stream, [0, 1]), runs).shape == (2,)


# --- paradigms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
@pytest.mark.parametrize("at_task_end", ["kept", "reset"])
def test_transfer_is_fine_tuning_in_the_continual_reading(setting, at_task_end):
    learner, stream = Learner(MLP(8), optimiser=Adam(0.01, at_task_end=at_task_end)), tiny(setting, tasks=2)
    result, state = transfer_pair(learner, stream, [0, 1])
    continual, end = learned(learner, stream, [0, 1])
    equal(state, end, "states of the two paradigms")
    assert torch.equal(result.accuracy, continual.at_task_ends)
    with pytest.raises(TransferError, match="two tasks"):
        transfer_pair(learner, tiny(setting), [0])


# --- learning rates and matrices ----------------------------------------------------------------------------------


def test_a_rate_is_chosen_on_the_other_tasks_and_the_grid_grows_to_hold_it():
    asked = []

    def measure(rates):
        """Task 1 is best at 30 and counts most; task 2 at 0.01; the accuracy of task 3 is the same everywhere."""
        asked.extend(rates)
        log = torch.tensor(rates, dtype=torch.float64).log10()[:, None]
        each = torch.cat([-(log - 1.5).abs(), -0.1 * (log + 2).abs(), 0 * log], 1)
        return each[:, None, :, None]

    chosen = choose_rate(measure, (0.01, 0.1, 1.0))
    assert chosen.inside and len(asked) == len(set(asked)) == len(chosen.grid)
    assert chosen.rates[0, 0] == pytest.approx(0.01)  # by tasks 2 and 3
    assert 10 < chosen.rates[1, 0] < 100 and chosen.rates[1, 0] == chosen.rates[2, 0]
    assert not choose_rate(lambda rates: torch.tensor(rates)[:, None, None, None], (1.0, 2.0), widenings=2).inside
    tied = choose_rate(lambda rates: torch.ones(len(rates), 1, 2, 1), (0.1, 1.0, 10.0))
    assert tied.rates.flatten().tolist() == [1.0, 1.0] and tied.grid == (0.1, 1.0, 10.0)


def test_a_matrix_is_made_of_adaptations():
    stream, learner = tiny("task"), Learner(MLP(8), optimiser=Adam(0.01))
    seeds = [Seed(0, 0, 0), Seed(0, 4, 4)]
    protocol = FewShot((1, 3), optimiser=Adam(0.03), steps=5)
    scratch, full = transfer_matrices(learner, stream, [0, 4], [Scratch(), FullFineTuning()], protocol)
    assert full.accuracy.shape == (2, 3, 3, 2) and not scratch.gain.any()
    _, state = learned(learner, stream[1:2], seeds)
    session = Session(learner, stream, seeds)
    bench = evaluator_of(session, protocol)
    for k in range(2):
        rate = Adam(float(full.rates[2, k]))
        accuracy = few_shot_accuracy(bench, state.params["net"], dataclasses.replace(protocol, optimiser=rate))
        torch.testing.assert_close(full.accuracy[:, 1, 2, k], accuracy[:, 2, k])
    cell = full.cell(0, 2, 3)
    assert cell.mean == pytest.approx(float((full.accuracy[:, 0, 2, 1] - full.scratch[:, 2, 1]).mean()))
    pairs = [full.accuracy[:, s, t, 0] for s in range(3) for t in range(3) if s != t]
    assert full.curve()[0].mean == pytest.approx(float(torch.stack(pairs).mean()))


def test_all_seeds_of_a_matrix_have_the_same_tasks_and_rows_of_their_own():
    stream, protocol = replace(build("split-digits"), seed=3, setting="task"), FewShot((2,), steps=1)
    session = Session(Learner(MLP(4)), stream, one_order(stream, [0, 1]))
    assert [seed.order for seed in session.seeds] == [3, 3] and [seed.data for seed in session.seeds] == [0, 1]
    bench = evaluator_of(session, protocol)
    y, rows = stream.dataset.y, bench.support
    assert torch.equal(y[rows[0]], y[rows[1]]) and not torch.equal(rows[0], rows[1])
    names = task_names(stream, 3)
    for t, name in enumerate(names):
        assert name == ", ".join(str(int(y[rows[0, t, w, 0]])) for w in range(2))
    with pytest.raises(TransferError, match="orders 0, 1"):
        transfer_matrices(session.fleet.learner, stream, [Seed(0, 0, 0), Seed(1, 1, 1)], [Scratch()], protocol)


def test_tasks_are_named_by_what_tells_them_apart():
    assert task_names(build("rotated-digits", tasks=3), 0) == ("0°", "90°", "180°")
    assert task_names(build("permuted-digits", tasks=2), 0) == ("pixels 1", "pixels 2")
    many = task_names(build("split-digits", tasks=1), 0)[0]
    assert many.endswith("... (10)") and many.count(",") == 3


def test_transfer_is_established_as_scipy_and_holm_say():
    """Student's t by scipy, the correction by hand; one seed says nothing; a planted shift of a tenth is seen."""
    from scipy import stats

    random = torch.Generator().manual_seed(1)
    values = [shift + 0.02 * torch.randn(6, generator=random, dtype=torch.float64) for shift in (0.0, 0.08, -0.05)]
    expected = [float(stats.ttest_1samp(value.numpy(), 0).pvalue) for value in values]
    assert [p_of_no_difference(value) for value in values] == pytest.approx(expected, rel=1e-9)
    assert p_of_no_difference(1.001 * values[1] + 0.001) != pytest.approx(expected[1], rel=1e-4)
    found = verdicts(values)
    assert [verdict.sign for verdict in found] == ["open", "positive", "negative"]
    assert found[1].p == pytest.approx(3 * min(expected))
    assert p_of_no_difference(torch.tensor([0.3])) == 1.0 and p_of_no_difference(torch.zeros(4)) == 1.0
    assert p_of_no_difference(torch.full((5,), 0.2)) == pytest.approx(stats.binomtest(5, 5).pvalue)  # no spread
    lost = torch.tensor([True] * 5 + [False])
    assert p_of_no_difference(values[1], lost) == p_of_no_difference(values[1][:5])


def test_all_is_what_every_class_has():
    stream, shots = shots_of("1,5,all", build("split-digits"))
    least = min(int((task.label[stream.dataset.y[task.train]] == c).sum()) for task in stream for c in task.classes)
    assert shots == (1, 5, least) and all(len(task.validation) for task in stream)
    assert shots_of("2", stream)[1] == (2,)
    with pytest.raises(TransferError, match="1,5,all"):
        shots_of("", stream)


def test_what_has_no_matrix_is_refused():
    learner, protocol = Learner(MLP(8)), FewShot((1,), steps=1)
    with pytest.raises(TransferError, match="at least 2 tasks"):
        transfer_matrices(learner, tiny(tasks=1), [0], [FullFineTuning()], protocol)
    with pytest.raises(ConfigurationError, match="layer7"):
        transfer_matrices(learner, tiny(), [0], [SurgicalFineTuning("layer7")], protocol)


def test_wide_matrices_fit_narrow_pages():
    matrix = TransferMatrix(
        "FullFineTuning()", torch.rand(3, 12, 12, 1, generator=torch.Generator().manual_seed(0)).double(),
        torch.full((3, 12, 1), 0.5).double(), (5,), torch.ones(12, 1), True, torch.ones(3, dtype=torch.bool),
    )  # fmt: skip
    for width in (80, 120):
        console = Console(width=width, record=True, file=io.StringIO())
        show_transfer([matrix], console)
        text = console.export_text()
        assert "…" not in text and max(map(len, text.splitlines())) <= width, text
        assert any(line.split()[:1] == ["12"] and len(line.split()) >= 13 for line in text.splitlines()), text
    assert json.loads(json.dumps(transfer_json([matrix])))["FullFineTuning()"]["5"]["matrix"][0][0]["mean"]


# --- distillation -------------------------------------------------------------------------------------------------


def teacher_of(stream, learner, seeds):
    session = Session(learner, stream, seeds)
    return session, learned(learner, stream, seeds)[1]


@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_labels_alone_are_no_teacher(setting):
    """alpha = 1 is the student alone, to the bit; a teacher moves it; every seed has its own."""
    stream, seeds = tiny(setting), [0, 2]
    fleet, state = teacher_of(stream, Learner(MLP(12), optimiser=Adam(0.01)), seeds)
    student = Learner(MLP(4), optimiser=Adam(0.01))
    same = distil(fleet, state, stream, seeds, student, Distillation(alpha=1.0), 0.5)
    assert torch.equal(same["alone"].losses, same["taught"].losses)
    other = distil(fleet, state, stream, seeds, student, Distillation(alpha=0.1), 0.5)
    assert torch.equal(same["alone"].losses, other["alone"].losses)
    assert not torch.equal(other["alone"].losses, other["taught"].losses)
    alone = tree_map(lambda leaf: leaf[1:], state)
    fleet_of_one, _ = teacher_of(stream, Learner(MLP(12), optimiser=Adam(0.01)), [2])
    again = distil(fleet_of_one, alone, stream, [2], student, Distillation(alpha=0.1), 0.5)
    torch.testing.assert_close(again["taught"].losses[0], other["taught"].losses[1], rtol=1e-5, atol=1e-7)


def test_a_teacher_in_closed_form():
    stream = tiny("class")
    fleet, state = teacher_of(stream, NearestClassMean(model=MLP(3)), [0])
    result = distil(fleet, state, stream, [0], Learner(MLP(4)), Distillation(), 0.5)["taught"]
    assert result.losses.isfinite().all() and result.kept.all()


def test_shares_are_nested_and_hold_every_class():
    stream = tiny()
    small, large = (fewer(stream, share).tasks_of(3) for share in (0.05, 0.4))
    for few, more, all_ in zip(small, large, stream.tasks_of(3), strict=True):
        assert set(few.train.tolist()) <= set(more.train.tolist()) <= set(all_.train.tolist())
        assert set(few.label[stream.dataset.y[few.train]].tolist()) == set(few.classes)
        assert torch.equal(few.test, all_.test)


def test_what_cannot_teach_is_refused():
    with pytest.raises(ConfigurationError, match="lifelong distil"):
        run(Learner(MLP(4), Distillation()), tiny(), [0])
    stream = tiny()
    fleet, state = teacher_of(stream, Learner(MLP(4)), [0])
    with pytest.raises(TransferError, match="nothing to distil"):
        distil(fleet, state, isolate(stream), [0], Learner(MLP(4)), Distillation(), 0.5)


# --- commands -----------------------------------------------------------------------------------------------------


def test_the_command_transfer(cli):
    words = ["transfer", "split-blobs", "--seeds", "2", "--iterations", "5", "--steps", "3", "--shots", "1,2"]
    code, out, errors = cli(*words, "--adaptation", "LinearProbe()", "--adaptation", "L2SP(strength=0.5)")
    assert code == 0 and "LinearProbe()" in out and "k = 2" in out and "source" in out, errors
    code, out, errors = cli(*words, "--json")
    held = json.loads(out)
    assert code == 0 and set(held) == {"Scratch()", "FullFineTuning()", "LinearProbe()"} and errors == ""
    assert len(held["LinearProbe()"]["2"]["matrix"]) == 5


def test_students_of_every_chunk_learn_as_long(cli):
    """The longest epoch of any seed counts, not that of its chunk: the digits' classes are of unequal sizes."""
    run = (
        "run",
        "split-digits",
        "--model",
        "MLP(4)",
        "--epochs",
        "1",
        "--batch",
        "4",
        "--seeds",
        "0,5",
        "--fleet",
        "1",
    )
    assert cli(*run, "--name", "a")[0] == 0
    code, _, errors = cli("distil", "runs/a", "--model", "MLP(4)", "--json")
    assert code == 0, errors


def test_the_command_distil(cli):
    assert cli("run", "split-blobs", "--seeds", "3", "--iterations", "5", "--fleet", "2", "--name", "a")[0] == 0
    code, out, errors = cli("distil", "runs/a", "--model", "MLP(5)", "--share", "0.5")
    assert code == 0 and "taught - alone" in out, errors
    code, out, errors = cli("distil", "runs/a", "--json", "--features", "1", "--relations", "5")
    held = json.loads(out)
    assert code == 0 and len(held["taught"]["per_seed"]) == 3 and errors == ""
    assert "one task after another by FineTuning()" in held["teacher"]["learner"]
    assert "all tasks at once" in held["alone"]["learner"]


BAD = {
    "unknown method": (["transfer", "split-blobs", "--adaptation", "LinearProb()"], "LinearProbe"),
    "unknown block": (["transfer", "split-blobs", "--adaptation", "SurgicalFineTuning('layer9')"], "layer0"),
    "a share of no share": (["transfer", "split-blobs", "--adaptation", "ProbeThenFineTune(2.0)"], "0 ... 1"),
    "too many shots": (["transfer", "split-blobs", "--shots", "500"], "ask for fewer"),
    "no shots": (["transfer", "split-blobs", "--shots", ""], "1,5,10"),
    "no steps": (["transfer", "split-blobs", "--steps", "0"], "at least 1 step"),
    "one task": (["transfer", "split-blobs(tasks=1)"], "at least 2 tasks"),
    "no run": (["distil", "runs/none"], "not a run"),
}


@pytest.mark.parametrize("words, hint", BAD.values(), ids=BAD.keys())
def test_bad_words_are_one_line(cli, words, hint):
    code, out, errors = cli(*words)
    assert (code, out, errors.count("\n")) == (2, "", 1) and hint in errors, errors


def test_bad_distillation_is_one_line(cli):
    assert cli("run", "split-blobs", "--seeds", "1", "--iterations", "2", "--name", "a")[0] == 0
    for words, hint in (
        (["--share", "0"], "share"),
        (["--alpha", "2"], "alpha"),
        (["--temperature", "0"], "temperature"),
        (["--model", "MPL(3)"], "MLP"),
        (["--iterations", "-1"], "negative"),
    ):
        code, out, errors = cli("distil", "runs/a", *words)
        assert (code, out, errors.count("\n")) == (2, "", 1) and hint in errors, errors


def test_rows_that_validate_are_evenly_spaced_and_no_more_than_are_needed():
    """Of 7 and of 2 held-out rows at most 3: evenly through the first, all of the second; padding is not taken."""
    from lifelong.adaptation.few_shot import _evenly

    rows = torch.tensor([[[10, 11, 12, 13, 14, 15, 16], [20, 21, 0, 0, 0, 0, 0]]])
    kept, count = _evenly(rows, torch.tensor([[7, 2]]), 3)
    assert kept.tolist() == [[[10, 12, 14], [20, 21, 0]]] and count.tolist() == [[3, 2]]


OLD_METHOD = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Old:
    def phases(self, learner, steps):
        return ((learner, steps),)
"""


@pytest.mark.parametrize("command", ["transfer", "similarity"])
def test_a_method_of_other_words_is_refused_before_anything_is_learned(cli, tmp_path, monkeypatch, command):
    (tmp_path / "old.py").write_text(OLD_METHOD)
    monkeypatch.chdir(tmp_path)
    code, out, errors = cli(command, "split-blobs", "--seeds", "1", "--iterations", "2", "--adaptation", "old.py:Old()")
    assert code == 2 and out == "" and "Traceback" not in errors
    assert errors == "error: old.py:Old(): write phases(self, learner, steps, net); it takes (learner, steps)\n", errors


def test_each_seeds_own_order_is_refused(cli):
    code, _, errors = cli("transfer", "split-blobs", "--order-seed", "-1")
    assert code == 2 and errors.count("\n") == 1 and "name one order" in errors, errors
