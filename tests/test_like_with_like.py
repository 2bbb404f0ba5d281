"""Runs are put with their like: only inside a group is anything subtracted, and every row can be told from the others."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lifelong.core import storage
from lifelong.core.files import read_json
from lifelong.display.report import page as report
from lifelong.display.tables import compare_tables
from lifelong.runs.execute import execute, new_folder
from lifelong.runs.folder import load
from lifelong.runs.groups import csv_of, found, groups_of
from lifelong.runs.labels import Described, method_labels, row_labels
from lifelong.runs.request import Request
from lifelong.studies import comparison as side_by_side
from scenarios.errors import ConfigurationError
from scenarios.synthetic import blobs

PLAIN = Request("split-blobs", seeds=(0, 1), iterations=4, device="cpu")
OTHERS = {
    "scenario": {"scenario": "split-blobs(tasks=2)"},
    "data": {"scenario": "split-digits"},
    "setting": {"setting": "task"},
    "model": {"model": "MLP(9)"},
    "iterations": {"iterations": 5},
    "epochs": {"iterations": 0, "epochs": 0.5},
    "batch": {"batch": 8},
}


def made(tmp_path: Path, **words):
    folder = new_folder(replace(PLAIN, **words), tmp_path)
    execute(folder)
    return load(folder.path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain run, one that differs in the method alone, and those that differ in what must agree."""
    path = tmp_path_factory.mktemp("runs")
    alike = [made(path), made(path, strategy="Replay(size=9)"), made(path, baseline="joint")]
    return path, alike, {name: made(path, **words) for name, words in OTHERS.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_only_like_is_compared_with_like(runs, name):
    _, alike, others = runs
    groups = groups_of([*alike, others[name]])
    assert [len(group.runs) for group in groups] == [3, 1]
    assert groups[0].title != groups[1].title
    page = report.page(groups)
    sections = page.split("<section ")[1:]
    assert len(sections) == 2 and "All differences" in sections[0] and "All differences" not in sections[1]
    assert all(group.title.partition(" · ")[0] in section for group, section in zip(groups, sections, strict=True))
    tables = compare_tables(groups, 80)
    assert [len(table.rows) for table in tables if hasattr(table, "rows")] == [3, 1]


def test_the_same_words_in_other_letters_are_alike(runs):
    path, alike, _ = runs
    same = made(path, scenario="split-blobs(tasks=5, validation=0.0)", setting="class", model="MLP(50)", batch=16)
    assert len(groups_of([*alike, same])) == 1


def test_data_of_one_name_and_other_content_are_told_apart(runs):
    _, alike, _ = runs
    other = load(alike[0].path)
    other.resolved = json.loads(json.dumps(alike[0].resolved))
    other.resolved["data"]["content"] = "f" * 16
    titles = [group.title for group in groups_of([alike[0], other])]
    assert len(titles) == 2 and "ffff" in titles[1] and "ffff" not in titles[0]


def test_every_run_says_what_its_words_stand_for(runs):
    _, alike, _ = runs
    for file in ("run.json", "summary.json"):
        resolved = json.loads((alike[1].path / file).read_text())["resolved"]
        assert resolved["data"]["name"] == "blobs" and resolved["data"]["content"] == blobs().content_hash()
        assert (resolved["model"], resolved["setting"], resolved["method"][:13]) == (
            "MLP(50)",
            "class",
            "Replay(size=9",
        )
        assert resolved["budget"] == {"iterations": 4, "epochs": 0.0, "batch": 16, "repeats": 1}
    assert json.loads((alike[1].path / "run.json").read_text())["request"]["strategy"] == "Replay(size=9)"


def test_what_was_typed_is_shown_and_what_differs():
    typed = ["EWC(strength=10)", "EWC(strength=100.0)", "EWC()", "EWC(1.0, online=True)", "Replay(200)", "FineTuning()"]
    full = [
        *(f"EWC(strength={s}, online=False)" for s in ("10", "100.0", "100.0")),
        "EWC(strength=1.0, online=True)", "Replay(size=200, ratio=1)", "FineTuning()",
    ]  # fmt: skip
    assert method_labels(typed[:2], full[:2]) == typed[:2]
    assert method_labels(typed[1:2] + typed[4:], full[1:2] + full[4:]) == [typed[1], *typed[4:]]
    assert method_labels(typed[:4], full[:4]) == [
        "EWC(strength=10, online=False)", "EWC(strength=100.0, online=False)", "EWC(strength=100.0, online=False)",
        "EWC(1.0, online=True)",
    ]  # fmt: skip
    sums = ["my.py:Idea() + Replay(size=2)", "my.py:Idea(rate=3) + Replay(size=2)"]
    whole = ["/a/my.py:Idea(rate=1) + Replay(size=2, ratio=1)", "/a/my.py:Idea(rate=3) + Replay(size=2, ratio=1)"]
    assert method_labels(sums, whole)[0] == "my.py:Idea(rate=1) + Replay(size=2)"
    assert method_labels(["EWC(((", "EWC()"], ["x", "EWC(strength=1)"]) == ["EWC(((", "EWC()"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"seeds": (0, 1)}, {"seeds": (3, 9)}),
        ({"optimiser": "Adam(0.1)"}, {}),
        ({"eval_every": 5}, {}),
        ({"fleet": 1}, {}),
        ({"threads": 2}, {}),
        ({"init": "MAML()"}, {}),
        ({"strategy": "EWC()"}, {"strategy": "EWC(strength=100.0)"}),
        ({}, {}),
    ],
    ids=str,
)
def test_no_two_rows_are_called_the_same(first, second):
    described = []
    for number, words in enumerate((first, second)):
        request = replace(PLAIN, **words)
        origin = "" if request.init == "Random()" else f" from {request.init}"
        method = "EWC(strength=100.0)" if request.strategy else "FineTuning()"
        described.append(Described(request, method, request.optimiser or "Adam(0.001)", origin, f"run-{number}"))
    assert len(set(row_labels(described))) == 2


def test_folders_that_are_no_finished_run_are_passed_over_and_said(runs, tmp_path):
    path, alike, others = runs
    (tmp_path / "foreign").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/run.json").write_text("{")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/run.json").write_text((alike[0].path / "run.json").read_text())
    (tmp_path / "file").write_text("")
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed/run.json").write_text('{"request": []}')
    wrong = [tmp_path / name for name in ("foreign", "damaged", "cut", "file", "listed", "missing")]
    loaded, passed = found([path, alike[0].path, *wrong])
    assert len(loaded) == len(alike) + len(others) + 1  # each once, though named twice
    assert len(passed) == len(wrong) and all(str(place) in why for place, why in zip(wrong, passed, strict=True))
    assert "not finished" in passed[2] and "not a run" in passed[0]
    with pytest.raises(ConfigurationError, match="none of the 6 folders"):
        found(wrong)


def test_show_and_report_look_inside_and_go_on(cli, runs, tmp_path):
    path, alike, others = runs
    (tmp_path / "foreign").mkdir()
    code, out, errors = cli("show", path, "foreign")
    assert code == 0 and errors.count("\n") == 1 and "passed over: foreign" in errors
    assert out.count("average") == len(others) + 1 and "task-incremental" in out
    code, out, errors = cli("show", "foreign")
    assert (code, out, errors.count("\n")) == (2, "", 1) and "not a run" in errors
    assert cli("report", path, "foreign", "--output", "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text().count("<section ") == len(others) + 1
    lines = list(csv.DictReader(io.StringIO(cli("show", alike[0].path, alike[1].path, "--csv")[1])))
    assert {line["run"] for line in lines} == {str(run.path) for run in alike[:2]}
    assert csv_of(alike[:2]).count("accuracy") == 1


def test_runs_without_a_seed_in_common_are_shown_without_a_difference(runs, cli):
    path, alike, _ = runs
    other = made(path.parent / "seeds", seeds=(7, 8))
    code, out, _ = cli("show", alike[0].path, other.path)
    assert code == 0 and "seeds 7:9" in out and "2 seeds" in out


def test_a_run_that_an_earlier_version_wrote_is_grouped_by_its_words(runs, tmp_path):
    _, alike, _ = runs
    about = read_json(alike[0].path / "run.json")
    for name in ("resolved", "files"):
        del about[name]
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    for file in ("results.safetensors", "learner-0.safetensors"):
        (earlier / file).write_bytes((alike[0].path / file).read_bytes())
    (earlier / "run.json").write_text(json.dumps(about))
    assert len(groups_of([*alike, load(earlier)])) == 1


def test_memory_is_counted_in_one_place(cli):
    """What `explain` says, and what the line of `--paradigms` says, is what one function counts."""
    from lifelong.core.initialisation import Random
    from lifelong.core.loop import prepared_fleet

    request = replace(PLAIN, setting="task", strategy="Replay(size=1000)")
    learner, stream, _ = request.build()
    _, state = prepared_fleet(learner, stream, [0], Random())
    size = storage.stored(state.memory, stream.dataset)
    assert size.examples == 1000 * 20 * 4 and size.tensors == 1000 * (8 + 8) + 8 + 4
    out = cli("explain", "Replay(size=1000)", "--scenario", "split-blobs")[1]
    assert storage.in_bytes(size.total) in out and f"{storage.in_bytes(size.tensors)} in memory" in out
    asked = side_by_side.Asked(replace(request, strategy=""), ("Replay(size=1000)",), "continual")
    line = next(line for line in asked.comparison(lambda said: None).learn() if "Replay" in line.method)
    assert (line.stored, line.in_memory) == (size.total, size.tensors)
    cost = side_by_side.tables({"shots": [1, 5, 10]}, [line])[-1]
    assert storage.in_bytes(line.stored) in cost.rows[0]
    plain = storage.stored({"sum": stream.dataset.x}, stream.dataset)
    assert plain.examples == 0 and "in memory" not in plain.text()


def test_numbers_that_vary_are_rows_of_their_own(cli, tmp_path):
    """One fleet, two settings: each has its own row, summary and csv, and equals the run of that setting alone."""
    words = ["split-blobs", "--seeds", "2", "--iterations", "4"]
    assert cli("run", *words, "--strategy", "EWC(strength=vary(1.0, 10.0))", "--name", "both")[0] == 0
    code, out, errors = cli("run", *words, "--strategy", "EWC(strength=10.0)", "--name", "alone")
    assert code == 0, errors
    both, alone = (json.loads((tmp_path / f"runs/{name}/summary.json").read_text()) for name in ("both", "alone"))
    assert list(both["settings"]) == ["strength=1.0", "strength=10.0"] and "metrics" not in both
    assert both["settings"]["strength=10.0"] == alone["metrics"]
    code, out, errors = cli("show", "runs/both", "runs/alone")
    assert code == 0 and out.count("EWC(strength=10.0)") == 2 and out.count("EWC(strength=1.0)") >= 1, out
    assert cli("show", "runs/both", "--csv")[1].startswith("setting,seed,")
    views = load(tmp_path / "runs/both").by_setting()
    assert [view.result.accuracy.shape[0] for view in views] == [2, 2]


def test_settings_with_a_comma_stay_one_column(tmp_path):
    varied = made(tmp_path, strategy="EWC(strength=vary(1.0, 2.0))", optimiser="SGD(vary(0.1, 0.2))")
    head, *lines = csv.reader(io.StringIO(csv_of([varied, varied])))
    settings = {line[head.index("setting")] for line in lines}
    assert {len(line) for line in lines} == {len(head)} and settings == set(varied.result.settings)
    assert any("," in words for words in settings)
