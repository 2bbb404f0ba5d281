"""Configuration files: each run writes its own, which repeats it; the command line wins; what is wrong is one line."""

import json

import pytest

from lifelong.core.files import RunError
from lifelong.runs.configuration import read_configuration, write_configuration

TINY = ("split-blobs", "--model", "MLP(8)", "--seeds", "2", "--iterations", "4", "--out", "runs")


def written(tmp_path, text: str):
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path


def test_what_is_written_is_read_back(tmp_path):
    words = {
        "scenario": "split(data='a\"b\\c.npz')",
        "seeds": "3",
        "epochs": 0.5,
        "linear-probe": True,
        "strategy": ("A()", "B(é)"),
        "init": "a\x7f\t.safetensors",
    }
    write_configuration(tmp_path, "run", words)
    expected = {**{k: str(v) for k, v in words.items()}, "linear-probe": True, "strategy": ["A()", "B(é)"]}
    assert read_configuration(tmp_path / "run.toml") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seeds =", "write it like"),
        ("[table]\nx = 1", "is a dict"),
        ("a = 1979-05-27", "is a date"),
        ("a = [[1]]", "is a list"),
        ("a = [false]", "is a list"),
        ("a = 0x" + "f" * 20_000, "too long"),
        ("a = " + "9" * 20_000, "too long"),
        ("\0", "write it like"),
    ],
)
def test_what_is_no_list_of_words_is_refused(tmp_path, text, reason):
    with pytest.raises(RunError, match=reason):
        read_configuration(written(tmp_path, text))
    for nothing in (tmp_path, tmp_path / "none.toml", tmp_path / ("x" * 300)):
        with pytest.raises(RunError, match="no such file"):
            read_configuration(nothing)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="no text"):
        read_configuration(tmp_path / "bytes")


def test_a_runs_own_file_repeats_it_and_the_command_line_wins(cli, tmp_path):
    assert cli("run", *TINY, "--strategy", "EWC(strength=3.0)", "--name", "first", "--json")[0] == 0
    code, out, errors = cli("run", "--config", "runs/first/run.toml", "--out", "runs", "--name", "second", "--json")
    first, second = (
        json.loads((tmp_path / "runs" / name / "summary.json").read_text()) for name in ("first", "second")
    )
    assert code == 0 and first["metrics"] == second["metrics"] and first["command"] == second["command"], errors
    code, out, errors = cli("run", "--config", "runs/first/run.toml", "--strategy", "SI()", "--name", "third", "--json")
    assert code == 0 and "SI()" in json.loads(out)["command"] and json.loads(out)["seeds"] == [0, 1], errors
    code, out, errors = cli(
        "run",
        "--config",
        "runs/first/run.toml",
        "--learner",
        "NearestClassMean()",
        "--epochs",
        "1",
        "--name",
        "fourth",
        "--json",
    )
    command = json.loads(out)["command"]
    assert code == 0 and "NearestClassMean" in command and "EWC" not in command and "--iterations" not in command, (
        errors
    )
    # one method of a run is a list of one where several are taken
    code, out, errors = cli("compare", "--config", "runs/first/run.toml", "--json")
    assert code == 0 and json.loads(out)["EWC(strength=3.0)"]["metrics"] == first["metrics"], errors


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('scenario = "split-blobs"\nstrategi = "EWC()"', "did you mean 'strategy'"),
        ('scenario = "split-blobs"\nseeds = [1, 2]', "seeds takes one value"),
        ('scenario = "split-blobs"\nlinear-probe = 3', "linear-probe is true or false"),
        ('scenario = "split-blobs"\nseeds = true', "not true or false"),
        ('scenario = "split-blobs"\ncheckpoint-every = 3', "knows no"),
        ('strategy = "EWC()"', "SCENARIO"),
    ],
)
def test_words_that_do_not_fit_are_one_line(cli, tmp_path, text, reason):
    code, out, errors = cli("run", "--config", written(tmp_path, text))
    assert code == 2 and errors.startswith("error: ") and errors.count("\n") == 1 and reason in errors
    assert len(errors) < 300 and not out


def test_code_that_a_configuration_names_is_said(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom lifelong import Strategy\n\n\n@dataclass(frozen=True)\nclass Mine(Strategy):\n    a: float = 1.0\n"
    )
    path = written(
        tmp_path, 'scenario = "split-blobs"\nstrategy = "mine.py:Mine()"\nseeds = 1\niterations = 2\nmodel = "MLP(4)"'
    )
    code, _, errors = cli("run", "--config", path, "--json")
    assert code == 0 and "names mine.py, which is executed" in errors


def test_comparisons_of_paradigms_write_theirs(cli, tmp_path):
    words = (
        "split-digits(tasks=5)",
        "--paradigms",
        "multi-task,continual",
        "--model",
        "MLP(4)",
        "--iterations",
        "2",
        "--seeds",
        "2",
    )
    code, _, errors = cli("compare", *words, "--strategy", "Replay(size=20)", "--out", "runs", "--json")
    (path,) = (tmp_path / "runs").glob("*/run.toml")
    held = read_configuration(path)
    assert code == 0 and held["paradigms"] == "multi-task,continual" and held["strategy"] == ["Replay(size=20)"], errors
