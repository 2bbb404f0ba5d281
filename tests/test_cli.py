"""Every command, and every kind of wrong input: one line, exit code 2, nothing overwritten."""

from __future__ import annotations

import json

import numpy as np
import pytest

QUICK = ["--seeds", "2", "--iterations", "5"]


def test_run_show_report_list(cli, tmp_path):
    code, out, errors = cli(
        "run", "split-blobs", *QUICK, "--strategy", "EWC(strength=10.0) + Replay(size=20)", "--name", "a"
    )
    assert code == 0 and "average_accuracy" in out, errors
    summary = json.loads((tmp_path / "runs/a/summary.json").read_text())
    value = summary["metrics"]["average_accuracy"]
    assert set(value) == {"mean", "half_width", "per_seed"} and 0 <= value["mean"] <= 1 and len(value["per_seed"]) == 2
    assert cli("show", "runs/a")[1].count("average_accuracy") == 1
    assert cli("show", "runs/a", "--csv")[1].startswith("seed,evaluation")
    assert cli("report", "runs/a")[0] == 0 and "average accuracy" in (tmp_path / "report.html").read_text()
    assert "Replay" in cli("list", "strategies")[1]
    assert "after_task" in cli("explain", "EWC() + Replay(size=9)", "--scenario", "split-blobs")[1]


def test_json_is_all_there_is(cli):
    code, out, errors = cli("run", "split-blobs", *QUICK, "--json")
    assert code == 0 and json.loads(out)["metrics"] and errors.startswith("saved in")


def test_compare_baselines_and_learners(cli):
    code, out, errors = cli(
        "compare",
        "split-blobs",
        *QUICK,
        "--strategy",
        "FineTuning()",
        "--learner",
        "NearestClassMean()",
        "--baselines",
        "joint,isolate",
    )
    assert code == 0 and all(word in out for word in ("NearestClassMean", "joint", "isolate")), errors


def test_dry_run_writes_nothing(cli, tmp_path):
    code, out, _ = cli("run", "split-blobs", *QUICK, "--dry-run")
    assert code == 0 and "seconds" in out and not (tmp_path / "runs").exists()


def test_own_strategy_in_five_minutes(cli, tmp_path):
    assert cli("new", "strategy", "my_idea.py")[0] == 0
    code, out, errors = cli("check", "my_idea.py")
    assert code == 0 and "fails" not in out, out + errors
    code, _, errors = cli(
        "run",
        "split-blobs",
        *QUICK,
        "--strategy",
        "my_idea.py:MyIdea(strength=0.1) + Replay(size=20)",
        "--name",
        "mine",
    )
    assert code == 0, errors
    held = json.loads((tmp_path / "runs/mine/run.json").read_text())
    assert list(held["files"]) == ["my_idea.py"]
    (tmp_path / "runs/mine/results.safetensors").unlink()
    (tmp_path / "my_idea.py").write_text((tmp_path / "my_idea.py").read_text() + "\n# changed\n")
    code, _, errors = cli("resume", "runs/mine")
    assert code == 2 and "changed since" in errors


def test_own_scenario_and_arrays(cli, tmp_path):
    assert cli("new", "scenario", "odd_even.py")[0] == 0
    assert cli("check", "odd_even.py")[0] == 0
    assert cli("run", "odd_even.py:odd_even", *QUICK)[0] == 0
    random = np.random.default_rng(0)
    np.savez(tmp_path / "my.npz", x=random.normal(size=(80, 5)), y=np.arange(80) % 4)
    code, _, errors = cli("run", "split(data='my.npz', tasks=2)", *QUICK)
    assert code == 0 and errors.count("found my: ") == 1 and "test rows of 5 numbers, 4 classes (0, 1, 2, 3)" in errors


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes, width=8, norm=False):
        super().__init__()
        size = shape[0]
        middle = [nn.BatchNorm1d(width)] if norm else []
        self.features = nn.Sequential(nn.Linear(size, width), *middle, nn.Tanh())
        self.head = nn.Linear(width, classes)
"""


def test_own_network(cli, tmp_path):
    (tmp_path / "my_net.py").write_text(NET)
    code, _, errors = cli(
        "run", "split-blobs", *QUICK, "--model", "my_net.py:Net(width=12)", "--strategy", "EWC()", "--name", "net"
    )
    assert code == 0, errors
    assert json.loads((tmp_path / "runs/net/run.json").read_text())["request"]["model"] == "my_net.py:Net(width=12)"
    code, out, errors = cli("run", "split-blobs", *QUICK, "--model", "my_net.py:Net(norm=True)")
    assert (code, out, errors.count("\n")) == (2, "", 1) and "group norm" in errors


def test_load_gives_everything_back(cli, tmp_path, monkeypatch):
    import torch

    from lifelong import load

    assert cli("run", "split-blobs", *QUICK, "--strategy", "Replay(size=9)", "--name", "kept")[0] == 0
    monkeypatch.chdir(tmp_path)
    run = load("runs/kept")
    assert run.predict(torch.zeros(3, 20)).shape == (2, 3, 10)
    assert run.result.accuracy.shape[0] == 2 and run.params["net.head.bias"].shape == (2, 10)


BAD = {
    "unknown scenario": (["run", "split-blbs"], "split-blobs"),
    "unknown strategy": (["run", "split-blobs", "--strategy", "EWCC()"], "EWC"),
    "unknown option": (["run", "split-blobs", "--strateg", "x"], "--strategy"),
    "unknown field": (["run", "split-blobs", "--strategy", "EWC(strenth=1)"], "strength"),
    "unknown command": (["rum", "split-blobs"], "rum"),
    "unknown scenario option": (["run", "split-blobs(taks=2)"], "tasks"),
    "a call": (["run", "split-blobs", "--strategy", "__import__('os')"], "unknown strategy"),
    "a call inside": (["run", "split-blobs", "--strategy", "EWC(strength=open('x'))"], "plain value"),
    "negative size": (["run", "split-blobs", "--strategy", "Replay(size=-1)"], "at least 0"),
    "wrong type": (["run", "split-blobs", "--strategy", "Replay(size='a')"], "int"),
    "two predictors": (["run", "split-blobs", "--strategy", "EWC() ++"], "cannot be read"),
    "more tasks than classes": (["run", "split-blobs(tasks=11)"], "ask for fewer"),
    "tasks of the wrong type": (["run", "split-blobs(tasks='a')"], "whole number"),
    "zero seeds": (["run", "split-blobs", "--seeds", "0"], "--seeds 5"),
    "words for seeds": (["run", "split-blobs", "--seeds", "many"], "7:12"),
    "seeds twice": (["run", "split-blobs", "--seeds", "3,3"], "twice"),
    "negative iterations": (["run", "split-blobs", "--iterations", "-4"], "negative"),
    "unknown setting": (["run", "split-blobs", "--setting", "tsk"], "task, domain, class"),
    "unknown baseline": (["run", "split-blobs", "--baseline", "jont"], "joint"),
    "baseline with strategy": (["run", "split-blobs", "--baseline", "joint", "--strategy", "SI()"], "FineTuning"),
    "unknown device": (["run", "split-blobs", "--device", "gpu9"], "auto"),
    "unknown model": (["run", "split-blobs", "--model", "MPL(3)"], "MLP"),
    "model that does not fit": (["run", "split-blobs", "--model", "Conv4()"], "images"),
    "no such data": (["run", "split(data='nowhere.npz')"], "no such file"),
    "data that cannot be had": (["run", "split-cifar10", "--data-root", "empty"], "lifelong data get cifar10"),
    "no such run": (["resume", "runs/none"], "not a run"),
    "no such run to show": (["show", "runs/none"], "not a run"),
    "unknown kind": (["list", "strategis"], "strategies"),
    "unknown row": (["reproduce", "split-mnist-class-erx"], "split-mnist-class-er"),
    "new of what": (["new", "stratgy", "a.py"], "strategy, scenario, model, learner or meta"),
    "check of nothing": (["check", "none.py"], "cannot be read"),
}


@pytest.mark.parametrize("words, hint", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(cli, tmp_path, words, hint):
    before = sorted(tmp_path.rglob("*"))
    code, out, errors = cli(*words)
    assert code == 2 and out == "", (code, out, errors)
    assert errors.count("\n") == 1 and "Traceback" not in errors and hint in errors, errors
    assert sorted(tmp_path.rglob("*")) == before


ROWS = np.arange(40).reshape(8, 5) / 7.0
ARRAYS = {
    "NaN": ({"x": np.where(ROWS == 0, np.nan, ROWS), "y": np.arange(8) % 2}, "NaN"),
    "labels not whole": ({"x": ROWS, "y": np.arange(8) / 3}, "whole numbers"),
    "labels of text": ({"x": ROWS, "y": np.array(list("abababab"))}, "numbers"),
    "unequal lengths": ({"x": ROWS, "y": np.arange(7) % 2}, "8 rows and 7 labels"),
    "no y": ({"x": ROWS}, "x and y"),
    "objects": ({"x": ROWS, "y": np.array([{}] * 8)}, "Object arrays"),
}


@pytest.mark.parametrize("arrays, hint", ARRAYS.values(), ids=ARRAYS.keys())
def test_bad_arrays_are_one_line(cli, tmp_path, arrays, hint):
    np.savez(tmp_path / "bad.npz", **arrays)
    code, out, errors = cli("run", "split(data='bad.npz', tasks=2)")
    assert (code, out, errors.count("\n")) == (2, "", 1) and hint in errors, errors


FILES = {
    "syntax": ("def broken(:\n", "line 1"),
    "raises": ("raise RuntimeError('no')\n", "RuntimeError"),
    "not frozen": ("from lifelong import Strategy\nclass Idea(Strategy):\n    pass\n", "dataclass"),
    "breaks": (
        "from dataclasses import dataclass\nfrom lifelong import Strategy\n@dataclass(frozen=True)\nclass Idea(Strategy):\n"
        "    def penalty(self, problem, params, memory, batch, outputs):\n        return batch.weight.sum().item()\n",
        "checks failed",
    ),
}


@pytest.mark.parametrize("text, hint", FILES.values(), ids=FILES.keys())
def test_bad_files_are_one_line(cli, tmp_path, text, hint):
    (tmp_path / "idea.py").write_text(text)
    code, _, errors = cli("check", "idea.py")
    assert code == 2 and errors.count("\n") == 1 and hint in errors, errors


def test_a_strategy_that_breaks_in_a_run_is_one_line(cli, tmp_path):
    (tmp_path / "idea.py").write_text(FILES["breaks"][0])
    code, _, errors = cli("run", "split-blobs", *QUICK, "--strategy", "idea.py:Idea()")
    assert code == 2 and "lifelong check" in errors and "Traceback" not in errors, errors


def test_an_explicit_name_is_not_overwritten(cli, tmp_path):
    assert cli("run", "split-blobs", *QUICK, "--name", "a")[0] == 0
    before = (tmp_path / "runs/a/results.safetensors").read_bytes()
    code, _, errors = cli("run", "split-blobs", *QUICK, "--name", "a")
    assert code == 2 and "exists already" in errors
    assert (tmp_path / "runs/a/results.safetensors").read_bytes() == before
    cli("run", "split-blobs", *QUICK)
    cli("run", "split-blobs", *QUICK)
    assert any(path.name.endswith("-2") for path in (tmp_path / "runs").iterdir())


def test_a_folder_that_cannot_be_written(cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = cli("run", "split-blobs", *QUICK, "--out", "file/inside")
    assert code == 2 and errors.count("\n") == 1 and "cannot be made" in errors


def test_a_damaged_archive(cli, tmp_path):
    folder = tmp_path / "data/MNIST/raw"
    folder.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{part}-ubyte.gz").write_bytes(b"not an archive")
    code, out, errors = cli("run", "split-mnist", "--data-root", "data")
    assert (code, out, errors.count("\n")) == (2, "", 1) and "mnist" in errors, errors


def test_divergence_keeps_what_was_measured(cli, tmp_path):
    code, _, errors = cli("run", "split-blobs", *QUICK, "--optimiser", "SGD(1e30)", "--name", "far")
    assert code == 1 and "diverged in task 1 at iteration" in errors and "Traceback" not in errors, errors
    summary = json.loads((tmp_path / "runs/far/summary.json").read_text())
    assert [lost["seed"] for lost in summary["diverged"]] == [0, 1]
