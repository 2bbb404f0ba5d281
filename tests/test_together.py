"""Tasks learned together, from the command line: one run, a comparison, a run gone on with, and wrong words."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from lifelong.core.loop import Stopped, run
from lifelong.runs.folder import RunFolder, load
from lifelong.runs.request import Request, read_baselines

QUICK = ["--setting", "task", "--seeds", "2", "--iterations", "4"]


def test_run_and_show(cli, tmp_path):
    code, out, errors = cli("run", "split-blobs", *QUICK, "--baseline", "joint", "--strategy", "PCGrad()")
    assert code == 0 and "average_accuracy" in out, errors
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("split-blobs-task-joint-pcgrad-")
    told = ["--model", "Conditioned(MLP(20), by='gates')", "--name", "told"]
    assert cli("run", "split-blobs", *QUICK, "--baseline", "joint(sampling='temperature(2)')", *told)[0] == 0
    assert cli("show", "runs/told", folder)[0] == 0
    assert json.loads((tmp_path / "runs/told/run.json").read_text())["request"]["model"] == told[1]


def test_compare_brings_the_joint_reading(cli):
    words = ["--strategy", "FineTuning()", "--strategy", "MGDA()", "--strategy", "UncertaintyWeights()"]
    code, out, errors = cli(
        "compare", "split-blobs", *QUICK, *words, "--baselines", "joint, joint(sampling='uniform'),isolate", "--json"
    )
    assert code == 0, errors
    names = [
        "FineTuning()",
        "joint, MGDA()",
        "joint, UncertaintyWeights()",
        "joint",
        "joint(sampling='uniform')",
        "isolate",
    ]
    assert list(json.loads(out)) == names
    code, out, errors = cli("compare", "split-blobs", *QUICK, "--strategy", "PCGrad()", "--baselines", "joint")
    assert code == 0 and "joint, PCGrad()" in out, errors


def test_a_run_brings_the_joint_reading_that_its_strategy_needs(cli, tmp_path):
    code, _, errors = cli("run", "split-blobs", "--setting", "task", *QUICK, "--strategy", "PCGrad()", "--name", "a")
    assert code == 0 and "--baseline joint" in errors, errors
    assert json.loads((tmp_path / "runs/a/run.json").read_text())["request"]["baseline"] == "joint"


def test_explain_says_what_it_needs(cli):
    out = cli("explain", "UncertaintyWeights() + TaskWeights((1.0, 2.0, 1.0, 1.0, 1.0))", "--scenario", "split-blobs")[
        1
    ]
    assert "replaces the loss" in out and "--baseline joint" in out
    assert "20 B" in out  # its own parameters, a logarithm for each of 5 tasks
    assert "backward pass for each task" in cli("explain", "PCGrad()", "--scenario", "split-blobs")[1]


def test_own_parameters_survive_a_stop(tmp_path):
    """The logarithms of the variances are part of the run: stopped, gone on with, and read back."""
    request = Request(
        "split-blobs", setting="task", strategy="UncertaintyWeights()", baseline="joint", seeds=(0, 1), iterations=6,
        device="cpu",
    )  # fmt: skip
    learner, stream, start = request.build()
    whole, cut = (RunFolder.create(tmp_path / name, request, 1e9) for name in ("whole", "cut"))
    whole.complete(run(learner, stream, request.seeds, start, checkpointer=whole))
    cut.stop_asked = True
    with pytest.raises(Stopped):
        run(learner, stream, request.seeds, start, checkpointer=cut)
    again = RunFolder.open(tmp_path / "cut", 1e9)
    again.complete(run(learner, stream, request.seeds, start, checkpointer=again))
    a, b = (load_file(tmp_path / name / "learner-0.safetensors") for name in ("whole", "cut"))
    assert a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())
    log_variances = [value for name, value in load(tmp_path / "cut").params.items() if "log_variance" in name]
    assert len(log_variances) == 1 and log_variances[0].shape == (2, 5) and log_variances[0].abs().min() > 0
    assert load(tmp_path / "cut").predict(stream.dataset.x[:3]).shape == (2, 3, 10)


def test_a_list_of_baselines():
    assert read_baselines("joint,isolate") == ["joint", "isolate"] and read_baselines("") == []
    assert read_baselines("joint(sampling='temperature(2)'), isolate") == [
        "joint(sampling='temperature(2)')",
        "isolate",
    ]


BAD = {
    "with isolate": (["run", "split-blobs", "--strategy", "MGDA()", "--baseline", "isolate"], "isolate"),
    "too few weights": (["run", "split-blobs", "--strategy", "TaskWeights((1, 2))", "--baseline", "joint"], "5 tasks"),
    "weights of words": (["run", "split-blobs", "--strategy", "TaskWeights(('a',))", "--baseline", "joint"], "numbers"),
    "two surgeons": (["run", "split-blobs", "--strategy", "PCGrad() + MGDA()", "--baseline", "joint"], "unheard"),
    "unknown sampling": (["run", "split-blobs", "--baseline", "joint(sampling='evn')"], "uniform"),
    "sampling of a number": (["run", "split-blobs", "--baseline", "joint(sampling=3)"], "str"),
    "unknown option": (["run", "split-blobs", "--baseline", "joint(samplin='uniform')"], "sampling"),
    "a sum of baselines": (["run", "split-blobs", "--baseline", "joint + isolate"], "cannot be read"),
    "a broken list": (["compare", "split-blobs", "--baselines", "joint(,isolate"], "cannot be read"),
    "told in another setting": (["run", "split-blobs", "--model", "Conditioned(MLP(9))"], "--setting task"),
    "an unknown way": (["run", "split-blobs", "--model", "Conditioned(MLP(9), by='flim')"], "film"),
    "told no layer": (["run", "split-digits", "--model", "Conditioned(MLP())"], "MLP(100, 100)"),
    "told no network": (["run", "split-blobs", "--model", "Conditioned()"], "trunk"),
}


@pytest.mark.parametrize("words, hint", BAD.values(), ids=BAD.keys())
def test_wrong_words_are_one_line(cli, tmp_path, words, hint):
    code, out, errors = cli(*words)
    assert code == 2 and out == "", (code, out, errors)
    assert errors.count("\n") == 1 and "Traceback" not in errors and hint in errors, errors
    assert not (tmp_path / "runs").exists()
