"""A finished run answers raw rows in the data's own labels: what it was measured on, it gives back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.runs.execute import execute, new_folder
from lifelong.runs.folder import load
from lifelong.runs.labels import seeds_label
from lifelong.runs.prediction import PredictionError
from lifelong.runs.request import Request
from scenarios.errors import ConfigurationError
from scenarios.stream import stream_index

QUICK = {"seeds": (0, 1, 5), "iterations": 15, "device": "cpu", "fleet": 2}


def learned(tmp_path, **words):
    folder = new_folder(Request(**{"scenario": "split-digits", **QUICK, **words}), tmp_path, "run")
    execute(folder)
    return load(folder.path)


def answered(run, stream, told: bool, scaled: bool = False):
    """Final accuracy [S, T], by the raw test rows of each task of each seed, and `predict` alone.

    scaled: the rows are divided by 255 before they are handed over.
    """
    dataset, seeds = stream.dataset, run.result.seeds
    index = stream_index(stream, list(seeds))
    accuracy = torch.zeros(len(seeds), len(stream), dtype=torch.float64)
    labels = np.asarray(dataset.labels or range(dataset.classes))
    for t in range(len(stream)):
        for s in range(len(seeds)):
            rows = index["rows_test"][s, t, : index["count_test"][s, t]]
            x = dataset.x[rows].numpy()
            x = x.astype(np.float32) / 255 if scaled else x
            found = run.predict_labels(x, task=t)[s] if told else run.predict_labels(x)[s]
            accuracy[s, t] = float((found == labels[dataset.y[rows].numpy()]).mean())
    return accuracy


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"setting": "class", "strategy": "Replay(size=50)"}, False),
        ({"setting": "task"}, True),
        ({"setting": "domain"}, True),
        ({"setting": "class", "learner": "NearestClassMean()"}, False),
        ({"setting": "task", "model": "Conditioned(MLP(20))"}, True),
        ({"scenario": "permuted-digits(tasks=2)"}, True),
        ({"scenario": "rotated-digits(tasks=2)"}, True),
        ({"setting": "class", "baseline": "joint"}, False),
    ],
    ids=str,
)
def test_predict_gives_the_recorded_accuracy_back(tmp_path, words, told):
    run = learned(tmp_path, **words)
    _, stream, _ = run.request.build()
    assert len(run.sessions()) == 2 and len(run.result.seeds) == 3
    assert torch.equal(answered(run, stream, told), run.result.at_task_ends[:, -1])


def own_data(kind: str) -> str:
    """Data of a user's own in the present folder, four classes of twenty rows: its name."""
    random, y = np.random.default_rng(0), np.repeat((3, 7, 9, 12), 20)
    shades = np.clip(random.normal(60 * (y % 4)[:, None, None] + 30, 25, (80, 6, 6)), 0, 255).astype(np.uint8)
    if kind == "images":
        from PIL import Image

        for i, (label, pixels) in enumerate(zip(y, shades, strict=True)):
            place = Path("images", "test" if i % 5 == 0 else "train", f"class-{label}")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i}.png")
        return "images"
    np.savez(f"{kind}.npz", x=shades if kind == "bytes" else shades[:, 0] / 255 - 0.5, y=y)
    return f"{kind}.npz"


@pytest.mark.parametrize("kind", ["numbers", "bytes", "images"])
@pytest.mark.parametrize("setting", ["task", "domain", "class"])
def test_own_data_gives_the_recorded_accuracy_back(tmp_path, monkeypatch, kind, setting):
    """Raw rows and, where the data are bytes, rows that were divided by 255 already."""
    monkeypatch.chdir(tmp_path)
    words = {"scenario": f"split(data='{own_data(kind)}', tasks=2)", "setting": setting, "model": "MLP(8)"}
    run = learned(tmp_path, **words)
    stream, final = run.request.build()[1], run.result.at_task_ends[:, -1]
    for scaled in (False, True) if kind != "numbers" else (False,):
        assert torch.equal(answered(run, stream, setting != "class", scaled), final)
    assert final.isfinite().all() and len(final.unique()) > 1, "nothing was learned that could be answered wrongly"


def test_rows_in_every_form_a_user_has_them(tmp_path):
    run = learned(tmp_path)
    x = run.request.build()[1].dataset.x[:7]
    scores = run.predict(x)
    assert scores.shape == (3, 7, 10) and run.labels == tuple(range(10))
    for form in (x.numpy(), x.tolist(), x.to(torch.int64), x.to(torch.float64), x.numpy().astype(np.float32) / 255):
        torch.testing.assert_close(run.predict(form), scores)
    assert run.predict(x[:0]).shape == (3, 0, 10)
    assert (run.predict_labels(x) == run.predict(x).argmax(2).numpy()).all()
    for wrong, said in (
        (x[0], "shape"),
        (x.flatten(1), r"\[B, 8, 8\]"),
        (x.to(torch.float32) * 2, "bytes"),
        (x.to(torch.float32) - 1, "bytes"),
        (x / 100, "bytes"),
        (x.to(torch.float32).fill_(torch.nan), "NaN"),
        ("words", "array of numbers"),
        (None, "array of numbers"),
    ):
        with pytest.raises(PredictionError, match=said):
            run.predict(wrong)
    for task in (-1, 5, 1.5, "a", True):
        with pytest.raises(PredictionError, match=r"0 \.\.\. 4"):
            run.predict(x, task)


def test_naming_a_task_leaves_its_labels_alone(tmp_path):
    run = learned(tmp_path)
    stream = run.request.build()[1]
    for s, seed in enumerate(run.result.seeds):
        task = stream.tasks_of(seed)[3]
        inside = task.label >= 0
        scores = run.predict(stream.dataset.x[:4], task=3)[s]
        assert torch.equal(scores.isfinite().all(0), inside)


def test_labels_that_share_an_output_share_its_score(tmp_path):
    run = learned(tmp_path, setting="domain")
    dataset = run.request.build()[1].dataset
    scores = run.predict(dataset.x[:4])
    assert all(len(row.unique()) == 2 for row in scores.flatten(0, 1))
    with pytest.raises(PredictionError, match="name the task"):
        run.predict_labels(dataset.x[:4])


def test_what_cannot_be_answered_without_a_task_is_said(tmp_path):
    permuted = learned(tmp_path / "a", scenario="permuted-digits(tasks=2)")
    isolated = learned(tmp_path / "b", baseline="isolate")
    x = permuted.request.build()[1].dataset.x[:2]
    for run in (permuted, isolated):
        with pytest.raises(PredictionError, match="name"):
            run.predict(x)
    assert isolated.predict(x, task=4).shape == (3, 2, 10)


def arrays(path, seed=0, labels=(3, 7, 9, 12)):
    random = np.random.default_rng(seed)
    y = np.repeat(labels, 20)
    np.savez(path, x=random.normal(size=(80, 5)) + np.arange(5) * (y[:, None] % 5), y=y)


def test_own_labels_and_paths_that_hold(tmp_path, monkeypatch):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir(), here.mkdir()
    monkeypatch.chdir(there)
    arrays("my.npz")
    run = learned(there, scenario="split(data='my.npz', tasks=2)", setting="class")
    monkeypatch.chdir(here)
    run = load(there / "run")
    dataset = run.request.build()[1].dataset
    assert run.labels == (3, 7, 9, 12)
    assert set(np.unique(run.predict_labels(dataset.x))) <= {3, 7, 9, 12}
    assert torch.equal(answered(run, run.request.build()[1], False), run.result.at_task_ends[:, -1])
    with pytest.raises(PredictionError, match="NaN"):
        run.predict(np.full((2, 5), np.inf))
    arrays(there / "my.npz", seed=1)
    assert run.result.accuracy.shape[0] == 3  # what was measured can be read all the same
    with pytest.raises(ConfigurationError, match="changed since"):
        load(there / "run").predict(dataset.x)
    (there / "my.npz").unlink()
    with pytest.raises(ConfigurationError, match="not there any more"):
        load(there / "run").predict(dataset.x)


IDEA = """
from dataclasses import dataclass
from lifelong import Strategy

open({mark!r}, "a").write("executed\\n")

@dataclass(frozen=True)
class Idea(Strategy):
    pass
"""


def test_own_code_is_found_again_and_not_executed_when_it_changed(tmp_path, monkeypatch):
    there, mark = tmp_path / "there", tmp_path / "mark"
    there.mkdir()
    monkeypatch.chdir(there)
    (there / "idea.py").write_text(IDEA.format(mark=str(mark)))
    run = learned(there, scenario="split-blobs", strategy="idea.py:Idea()")
    monkeypatch.chdir(tmp_path)
    assert load(there / "run").predict(np.zeros((2, 20))).shape == (3, 2, 10)
    before = mark.read_text()
    (there / "idea.py").write_text(IDEA.format(mark=str(mark)) + "# another\n")
    with pytest.raises(ConfigurationError, match="changed since"):
        load(there / "run").predict(np.zeros((2, 20)))
    about = (there / "run/run.json").read_text()
    changed = about.replace('"files": {', '"plugins": {}, "unread": {')
    (there / "run/run.json").write_text(changed)
    with pytest.raises(ConfigurationError, match="not as it was written"):
        load(there / "run")
    (there / "run/run.json").write_text(re.sub(r',\s*"digest": "\w+"|"digest": "\w+",', "", changed))
    with pytest.raises(ConfigurationError, match="not executed"):
        load(there / "run")
    assert mark.read_text() == before and run.resolved["method"]


def test_a_seed_that_diverged_answers_nothing(tmp_path):
    run = learned(tmp_path, scenario="split-blobs", optimiser="SGD(1e30)")
    x = np.zeros((2, 20))
    assert run.predict(x).isnan().all()
    with pytest.raises(PredictionError, match="diverged"):
        run.predict_labels(x)


def test_seeds_in_words():
    assert [seeds_label(seeds) for seeds in ((0, 1), (0,), (3, 4), (3, 9))] == [
        "2 seeds", "1 seed", "seeds 3:5", "seeds 3,9",
    ]  # fmt: skip
