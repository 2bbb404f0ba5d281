"""Exports: every format has the results' numbers, unlike runs stay told apart, what is wrong is one line; trackers hear what runs say."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong import MLP, Learner, Request, build, execute, load, metrics
from lifelong.commands.completion import WORDS
from lifelong.core.loop import Member, Options, Progress, Session
from lifelong.core.settings import Setting
from lifelong.runs import export, tracking
from lifelong.runs.execute import new_folder
from scenarios.stream import Seed

TINY = {"scenario": "split-blobs", "model": "MLP(8)", "seeds": (0, 2), "iterations": 4, "batch": 8, "eval_every": 2}
METHODS = {"plain": "FineTuning()", "replay": "Replay(size=20)", "odd": "EWC(strength=1e0)"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    for name, strategy in METHODS.items():
        words = {"probe": "WeightMagnitude()"} if name == "plain" else {}
        execute(Request(**TINY, strategy=strategy, **words), out=out, name=name)
    return [load(out / name) for name in METHODS]


def test_words_that_complete_are_those_that_are_taken():
    assert set(WORDS["formats"]) == set(export.FORMATS) and set(WORDS["tables"]) == set(export.TABLES)
    assert set(WORDS["trackers"]) == set(tracking.TRACKERS)


def test_tidy_tables_have_every_number_of_the_result(runs):
    replay = runs[1]
    values = {
        (line["seed"], line["metric"]): line["value"] for line in export.lines(runs) if line["run"] == str(replay.path)
    }
    for name, value in metrics.summary(replay.result).items():
        assert [values[seed, name] for seed in replay.result.seeds] == list(value.per_seed)
    accuracy = [line["accuracy"] for line in export.lines([replay], "accuracy")]
    assert accuracy == replay.result.accuracy.flatten().tolist()
    assert [line["loss"] for line in export.lines([replay], "losses")] == [
        value if value == value else None for value in replay.result.losses.flatten().tolist()
    ]
    probes = export.lines(runs, "probes")
    assert [line["value"] for line in probes] == runs[0].result.probes["weight magnitude"].flatten().tolist()
    assert {line["method"] for line in probes} == {"FineTuning()"}
    with pytest.raises(export.ExportError, match="--probe"):
        export.lines([replay], "probes")


def test_formats_say_the_same(runs, tmp_path):
    lines = export.lines(runs)
    assert json.loads(export.export(runs, "json")) == lines
    read = list(csv.DictReader(io.StringIO(export.export(runs, "csv").decode())))
    assert [float(line["value"]) for line in read] == [line["value"] for line in lines]
    path = tmp_path / "table.parquet"
    export.write_export(path, export.export(runs, "parquet"))
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(path)
    assert frame.to_dict("records") == lines and export.frame(runs[1:2], "accuracy").accuracy.tolist() == pytest.approx(
        runs[1].result.accuracy.flatten().tolist(), abs=0
    )
    held = np.load(io.BytesIO(export.export(runs, "npz")))
    assert np.array_equal(held["Replay(size=20)/accuracy"], runs[1].result.accuracy.numpy())
    alone = np.load(io.BytesIO(export.export(runs[:1], "npz")))
    assert alone["seeds"].tolist() == [0, 2] and np.array_equal(alone["when"], runs[0].result.when.numpy())


def test_latex_has_means_with_intervals_and_paired_differences(runs):
    text = export.export(runs, "latex", shown=["average_accuracy", "forgetting"]).decode()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert rows[0] == r"method & average accuracy & forgetting & difference \\" and len(rows) == 4
    for row, run in zip(rows[1:], runs, strict=True):
        cells = row.removesuffix(r" \\").split(" & ")
        shown = metrics.summary(run.result)
        assert cells[1:3] == [
            "$" + shown[name].text().replace("±", r"\pm") + "$" for name in ("average_accuracy", "forgetting")
        ]
        gap = metrics.paired(metrics.average_accuracy, run.result, runs[0].result)
        assert cells[3] == ("" if run is runs[0] else f"${gap.mean * 100:+.2f} \\pm {gap.half_width * 100:.2f}$")
    assert export._escaped("a_b & 50% {x}^2 \\ ~#$") == (
        r"a\_b \& 50\% \{x\}\textasciicircum{}2 \textbackslash{} \textasciitilde{}\#\$"
    )


def test_groups_of_unlike_runs_are_tables_of_their_own(runs, tmp_path):
    execute(Request(**{**TINY, "iterations": 5}), out=tmp_path, name="longer")
    text = export.export([*runs, load(tmp_path / "longer")], "latex").decode()
    assert text.count(r"\begin{tabular}") == 2 and "difference \\\\" in text.split(r"\end{tabular}")[0]
    assert "difference \\\\" not in text.split(r"\end{tabular}")[1]


def test_seeds_of_two_kinds_are_texts_and_budgets_whole(runs, tmp_path):
    execute(Request(**TINY, start_seed=1, repeats=2), out=tmp_path, name="fixed")
    both = [runs[0], load(tmp_path / "fixed")]
    lines = export.lines(both)
    assert {line["seed"] for line in lines} == {"0", "2", "0/1/0", "2/1/2"}
    assert {line["repeats"] for line in lines} == {1, 2}
    pytest.importorskip("pyarrow")
    assert export.export(both, "parquet")


def test_latex_has_what_there_is_and_counts_the_seeds_that_it_means(runs, tmp_path):
    execute(Request(**TINY, baseline="joint"), out=tmp_path, name="joint")
    text = export.export([load(tmp_path / "joint")], "latex").decode()  # a joint run forgets nothing
    assert r"method & average accuracy \\" in text and "over 2 seeds;" in text
    execute(Request(**TINY, optimiser="SGD(1e20)"), out=tmp_path, name="diverged")
    lost = [load(tmp_path / "diverged")]
    text = export.export(lost, "latex").decode()
    assert "over 0 seeds (2 diverged, left out)" in text and "nan" not in text
    assert {line["value"] for line in json.loads(export.export(lost, "json"))} == {None}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--to", "cvs"], "did you mean 'csv'"),
        (["--table", "metric"], "did you mean 'metrics'"),
        (["--to", "latex", "--metrics", "forgeting"], "did you mean 'forgetting'"),
        (["--metrics", "forgetting"], "--to latex"),
        (["--to", "npz"], "--output"),
        (["--to", "latex", "--table", "losses"], "--table goes with csv"),
        (["--to", "npz", "--table", "losses", "--output", "x.npz"], "--table goes with csv"),
        (["--output", "."], "is a folder"),
        (["--output", "no/such/folder.csv"], "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_one_line(cli, runs, words, reason):
    code, out, errors = cli("export", runs[0].path, *words)
    assert code == 2 and reason in errors and errors.count("\n") == 1 and not out


def test_the_command_writes_what_python_gives(cli, runs, tmp_path):
    code, out, errors = cli("export", *(run.path for run in runs), "--to", "latex")
    assert code == 0 and out.encode() == export.export(runs, "latex"), errors
    code, out, errors = cli("export", runs[0].path, "--to", "parquet", "--output", "table.parquet")
    assert code == 0 and (tmp_path / "table.parquet").stat().st_size and "exported: table.parquet" in errors


def test_a_library_that_is_not_there_is_named(runs, monkeypatch):
    for name, ask in (("pyarrow", lambda: export.export(runs, "parquet")), ("pandas", lambda: export.frame(runs))):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(export.ExportError, match=rf"{name}.*lifelong\[export\]"):
            ask()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(tracking.TrackingError, match=r"--track wandb: .*lifelong\[track\]"):
        tracking.trackers_named("tensorboard,wandb")
    with pytest.raises(tracking.TrackingError, match="did you mean 'wandb'"):
        tracking.trackers_named("wand")


def test_an_event_is_told_as_numbers_by_name():
    accuracy = torch.tensor([[0.5, 0.75, torch.nan], [1.0, 0.25, torch.nan]])
    event = Progress(1, 3, 3, 10, (4, 7), accuracy, torch.tensor([2.0, 4.0]))
    assert tracking.numbers(event) == {
        "loss/mean": 3.0, "loss/seed 4": 2.0, "loss/seed 7": 4.0, "accuracy/task 1": 0.75, "accuracy/task 2": 0.5,
        "average accuracy so far/mean": 0.625, "average accuracy so far/seed 4": 0.625, "average accuracy so far/seed 7": 0.625,
    }  # fmt: skip
    assert tracking.numbers(Progress(2, 0, 3, 10, (4,), None, torch.tensor([2.0]))) == {"loss": 2.0}


def test_unlike_members_are_not_put_under_one_name():
    """Settings have no common mean, a seed may be three numbers, and a fleet of several is not the whole."""
    loss, seeds = torch.tensor([1.0, 3.0, 5.0, 7.0]), (Seed(0, 1, 9), Seed(0, 2, 9))
    varied = Progress(0, 1, 2, 4, seeds * 2, None, loss, settings=("a=1", "a=1", "a=2", "a=2"))
    assert tracking.numbers(varied) == {
        "loss/a=1/seed 0/1/9": 1.0, "loss/a=1/seed 0/2/9": 3.0, "loss/a=1/mean": 2.0,
        "loss/a=2/seed 0/1/9": 5.0, "loss/a=2/seed 0/2/9": 7.0, "loss/a=2/mean": 6.0,
    }  # fmt: skip
    assert tracking.numbers(Progress(0, 1, 2, 4, (4,), None, loss[:1], fleet=1, fleets=2)) == {"loss/seed 4": 1.0}
    assert tracking.numbers(Progress(0, 1, 2, 4, (4, 5), None, loss[:2], fleets=2)) == {
        "loss/seed 4": 1.0, "loss/seed 5": 3.0, "loss/mean of fleet 1": 2.0,
    }  # fmt: skip


def test_a_run_says_which_fleet_and_how_far_all_tasks_are(tmp_path):
    told: list[Progress] = []
    execute(Request(**{**TINY, "seeds": (0, 1, 2), "fleet": 2}), out=tmp_path, name="run", watch=told.append)
    for fleet in (0, 1):
        heard = [event for event in told if event.fleet == fleet]
        places = [event.done for event in heard]
        assert places == sorted(places) and places[-1] == 20 and {event.fleets for event in heard} == {2}
    assert {event.total for event in told} == {20} and told[-1].seeds == (2,)


def test_tasks_of_unlike_length_are_counted_as_long_as_they_are():
    stream, seed = build("split-blobs"), Seed(0, 1, 9)
    member = Member(Setting("rate=1", Learner(MLP(8))), seed)
    session = Session.of_members([member], stream, Options(lengths=(4, 9, 2, 2, 2)))
    state = session.begin()
    state.task, state.iteration = 2, 1
    event = session.progress(state, None)
    assert (event.done, event.total, event.iterations) == (14, 19, 2)
    assert event.seeds == (seed,) and event.settings == ("rate=1",)


def test_tensorboard_hears_every_evaluation_and_the_run_is_the_same(runs, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = new_folder(Request(**TINY, strategy=METHODS["replay"]), tmp_path, "tracked")
    told: list[Progress] = []
    with tracking.tracked(folder, ["tensorboard"], told.append) as watch:
        result = execute(folder, watch=watch)
    assert torch.equal(result.accuracy, runs[1].result.accuracy)
    written = accumulators.EventAccumulator(str(folder.path / "tensorboard"))
    written.Reload()
    heard = [(event.step, event.value) for event in written.Scalars("accuracy/task 2")]
    expected = [(event.done, float(event.accuracy[:, 1].mean())) for event in told if event.accuracy is not None]
    assert len(expected) == 2 * 5 and heard == [(step, pytest.approx(value, abs=1e-6)) for step, value in expected]


def test_wandb_is_written_offline(cli, tmp_path):
    pytest.importorskip("wandb")
    words = ("split-blobs", "--model", "MLP(4)", "--seeds", "1", "--iterations", "2", "--name", "heard", "--json")
    code, out, errors = cli("run", *words, "--track", "wandb")
    written = list(Path(tmp_path / "runs/heard/wandb").glob("offline-run-*/*.wandb"))
    assert code == 0 and json.loads(out)["seeds"] == [0] and len(written) == 1, errors
