"""A request runs by one function, from the command line or from Python; nothing that was saved is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lifelong.contracts.new import write_new
from lifelong.core import files
from lifelong.core.files import RunError
from lifelong.core.stopped import Stopped
from lifelong.display.report.page import write_report
from lifelong.runs.execute import estimated, execute, new_folder
from lifelong.runs.folder import RunFolder, load
from lifelong.runs.request import Request
from lifelong.studies import comparison as side_by_side
from lifelong.studies import paradigms as paradigms
from lifelong.studies.comparison import Asked, compare_paradigms
from scenarios.errors import ConfigurationError

PLAIN = Request("split-blobs", seeds=(0, 1), iterations=6, device="cpu", strategy="Replay(size=9)")
ASKED = Asked(
    replace(PLAIN, strategy="", setting="task", few_shot="1,2"),
    ("Replay(size=9)",),
    "all",
    ("MAML(shot=2, query=2, tasks=2)",),
)


def test_python_and_the_command_line_run_the_same(cli, tmp_path):
    told = []
    result = execute(PLAIN, out=tmp_path / "runs", name="python", watch=told.append)
    words = ["--seeds", "2", "--iterations", "6", "--device", "cpu", "--strategy", "Replay(size=9)", "--name", "words"]
    assert cli("run", "split-blobs", *words)[0] == 0
    assert torch.equal(load(tmp_path / "runs/words").result.accuracy, result.accuracy) and told
    assert torch.equal(load(tmp_path / "runs/python").result.accuracy, result.accuracy)
    with pytest.raises(ConfigurationError, match="exists already"):
        execute(PLAIN, out=tmp_path / "runs", name="python")
    with pytest.raises(ConfigurationError, match="goes with the baseline joint"):
        execute(replace(PLAIN, strategy="PCGrad()"), out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    assert "2 seeds, 5 tasks, 10 classes" in estimated(PLAIN)


def test_a_run_killed_before_its_summary_has_one_after_resume(cli, tmp_path):
    """Between results and summary there is a moment; what was measured is there, and the rest follows from it."""
    folder = new_folder(PLAIN, tmp_path, "run")
    execute(folder)
    summary, about = (json.loads((folder.path / name).read_text()) for name in ("summary.json", "run.json"))
    (folder.path / "summary.json").unlink()
    files.write_json(folder.path / "run.json", {**about, "status": "running"})
    code, out, errors = cli("resume", folder.path, "--json")
    assert code == 0 and json.loads(out) == summary, errors
    assert json.loads((folder.path / "summary.json").read_text()) == summary
    assert json.loads((folder.path / "run.json").read_text()) == about


def test_a_stop_saves_says_how_to_go_on_and_loses_nothing(tmp_path):
    whole = execute(PLAIN, out=tmp_path, name="whole")
    folder = new_folder(PLAIN, tmp_path, "cut", every=1e9)

    def interrupt(event) -> None:
        if event.task == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match=r"lifelong resume .*cut"):
        execute(folder, watch=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    (tmp_path / "cut/checkpoint.safetensors.partial").write_bytes(b"left by a kill")
    assert torch.equal(execute(RunFolder.open(tmp_path / "cut")).accuracy, whole.accuracy)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_second_interrupt_ends_at_once():
    """In a process of its own, since it is the process that ends, whatever it is in the middle of."""
    code = """
import os, signal, types
from lifelong.runs.execute import stopping
with stopping(types.SimpleNamespace(stop_asked=False)):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 130 and "still here" not in ended.stdout, ended
    assert "Ctrl-C again ends at once" in ended.stderr


def test_two_processes_do_not_work_in_one_folder(cli, tmp_path):
    folder = new_folder(PLAIN, tmp_path, "run")
    with files.held_alone(folder.path):
        code, out, errors = cli("resume", folder.path)
    assert (code, out, errors.count("\n")) == (2, "", 1) and "another process" in errors
    assert cli("resume", folder.path)[0] == 0


def test_names_with_brackets_are_shown_as_they_are(cli, tmp_path):
    """Words of a user's are never read as the marks of a dataset's colours."""
    words = ["--seeds", "1", "--iterations", "2", "--device", "cpu", "--strategy", "TaskWeights((1,2,3,4,5))"]
    code, _, errors = cli("run", "split-blobs", *words, "--name", "[/]")
    assert code == 0 and "saved in runs/[/]" in errors, errors
    execute(replace(PLAIN, optimiser="Adam(0.1)"), out=tmp_path, name="[red]")
    execute(replace(PLAIN, optimiser="Adam(0.1)"), out=tmp_path, name="[bold]")
    code, out, errors = cli("show", "[red]", "[bold]")
    assert code == 0 and "[red]" in out and "[bold]" in out, errors


def test_a_resumed_run_on_other_data_is_refused(tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"

    def draw(value: int) -> None:
        from PIL import Image

        for name in ("ant", "bee"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(6):
                pixels = np.full((4, 4, 3), value + i, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{i}.png")

    draw(10)
    made = new_folder(replace(PLAIN, scenario="split(data='images', tasks=2)"), tmp_path / "runs", "a")
    execute(made)
    assert load(made.path).predict(np.zeros((1, 3, 32, 32), np.uint8)).shape == (2, 1, 2)
    (made.path / "results.safetensors").unlink()
    draw(90)
    from lifelong.runs.request import _built

    _built.cache_clear()
    with pytest.raises(RunError, match="changed since"):
        RunFolder.open(made.path).changes()


# --- a comparison of paradigms keeps each line as it is finished ---------------------------------------------------


def numbers(lines):
    """What lines measured, without the clock."""
    plain = [{**vars(line), "seconds": 0} for line in lines]
    return [{k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in line.items()} for line in plain]


def test_a_stopped_comparison_goes_on_and_learns_no_line_again(cli, tmp_path, monkeypatch):
    _, whole, _ = compare_paradigms(ASKED, tmp_path / "whole")
    learned = []
    measured = paradigms.Comparison._measured

    def stop_at_the_sixth(comparison, outcome):
        if len(learned) == 5:
            raise KeyboardInterrupt
        return count(comparison, outcome)

    def count(comparison, outcome):
        learned.append(outcome.line.method)
        return measured(comparison, outcome)

    monkeypatch.setattr(paradigms.Comparison, "_measured", stop_at_the_sixth)
    with pytest.raises(Stopped, match="lifelong resume"):
        compare_paradigms(ASKED, tmp_path / "cut")
    (folder,) = (tmp_path / "cut").iterdir()
    about, kept = side_by_side.load_lines(folder)
    assert about["status"] == "running" and [line.method for line in kept] == learned
    learned_before, learned = learned, []
    monkeypatch.setattr(paradigms.Comparison, "_measured", count)
    about, lines, again = compare_paradigms(folder)
    assert again == folder and about["status"] == "done"
    assert [*learned_before, *learned] == [line.method for line in whole]
    assert numbers(lines) == numbers(whole)
    learned.clear()
    code, out, errors = cli("resume", folder)
    assert code == 0 and "ceiling" in out and not learned, errors


def test_a_comparison_that_cannot_be_kept_is_refused_before_it_learns(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")

    def learn(*_):
        raise AssertionError("it learned")

    monkeypatch.setattr(paradigms.Comparison, "learn", learn)
    with pytest.raises(RunError, match="cannot be made"):
        compare_paradigms(ASKED, tmp_path / "file/inside")
    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(RunError, match="Read-only"):
        compare_paradigms(ASKED, tmp_path / "full")


def test_damaged_words_of_a_comparison_are_one_line(tmp_path):
    for text in ("{", "[]", "{}", '{"request": 3}'):
        (tmp_path / "paradigms.json").write_text(text)
        with pytest.raises(RunError, match=r"paradigms\.json"):
            compare_paradigms(tmp_path)


# --- file systems that refuse ---------------------------------------------------------------------------------------


def refuse(*_, **__):
    raise OSError(30, "Read-only file system")


@pytest.fixture
def read_only(monkeypatch):
    """Nothing can be opened for writing, removed or made, as on a file system that may only be read."""
    import builtins

    plain = builtins.open

    def opened(file, mode="r", *rest, **named):
        return refuse() if set(mode) & set("wax+") else plain(file, mode, *rest, **named)

    def now() -> None:
        monkeypatch.setattr(builtins, "open", opened)
        for name in ("unlink", "mkdir"):
            monkeypatch.setattr(Path, name, refuse)

    return now


def test_a_file_system_that_may_only_be_read_is_one_line(tmp_path, read_only):
    folder = new_folder(PLAIN, tmp_path, "run")
    execute(folder)
    cut = new_folder(PLAIN, tmp_path, "cut")
    from lifelong.runs.groups import groups_of
    from lifelong.studies.published.reproduce import write_page

    groups = groups_of([load(folder.path)])
    before = sorted((path, path.stat().st_size) for path in tmp_path.rglob("*") if path.is_file())
    read_only()
    attempts = {
        "resume": lambda: execute(RunFolder.open(cut.path)),
        "resume of a finished run": lambda: execute(RunFolder.open(folder.path)),
        "run": lambda: execute(PLAIN, out=tmp_path, name="more"),
        "report": lambda: write_report(groups, tmp_path / "report.html"),
        "new": lambda: write_new("strategy", tmp_path / "idea.py"),
        "paradigms": lambda: compare_paradigms(ASKED, tmp_path / "paradigms"),
        "page": lambda: write_page([], tmp_path / "docs/page.md"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(RunError, match="Read-only file system") as error:
            attempt()
        assert "\n" not in str(error.value), name
    assert sorted((path, path.stat().st_size) for path in tmp_path.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(
    "words",
    [
        ["report", "run", "--output", "run/run.json/page.html"],
        ["report", "run", "--output", "/"],
        ["report", "run", "--output", "/proc/page.html"],
        ["run", "split-blobs", "--out", "run/run.json/runs"],
        ["run", "split-blobs", "--out", "/proc/runs"],
        ["new", "strategy", "/proc/idea.py"],
        ["reproduce", "--dataset-only", "--record", "none.json", "--page", "run/run.json/docs/page.md"],
        ["pretrain", "sines", "--init", "MAML(iterations=2, shot=5)", "--output", "/proc/start.safetensors"],
        ["compare", "split-blobs", "--setting", "task", "--paradigms", "multi-task", "--out", "run/run.json/runs"],
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_places_that_cannot_be_written_are_one_line(cli, tmp_path, words):
    execute(PLAIN, out=tmp_path, name="run")
    code, _, errors = cli(*words)
    assert code == 2 and "Traceback" not in errors, errors
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == errors.splitlines()[-1:]


def test_a_run_of_an_older_format_is_refused_in_a_line(cli, tmp_path):
    execute(PLAIN, out=tmp_path / "runs", name="old")
    path = tmp_path / "runs/old/run.json"
    about = files.read_json(path)
    for older in ({**about, "format": 1}, {name: value for name, value in about.items() if name != "format"}):
        path.write_text(json.dumps(older))
        for word in ("resume", "show", "distil"):
            code, out, errors = cli(word, "runs/old")
            assert (code, out, errors.count("\n")) == (2, "", 1) and "older version of lifelong" in errors, errors
