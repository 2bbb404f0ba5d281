"""The benchmarks are run small: whether they report what they say, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_the_gpu_report_fills_every_part_and_a_failure_of_one_is_told(benchmark, tmp_path, monkeypatch, capsys):
    gpu = benchmark("gpu")
    record, page = tmp_path / "speed-gpu.json", tmp_path / "speed.md"
    page.write_text("# Speed\n\nkept before\n\n<!-- gpu: begin -->\nold\n<!-- gpu: end -->\n\nkept after\n")
    broken = gpu.PARTS[1].title

    def fails(bench):
        yield from gpu.agreement(bench)
        raise ValueError("planted")

    parts = [replace(part, measure=fails) if part.title == broken else part for part in gpu.PARTS]
    monkeypatch.setattr(gpu, "PARTS", parts)
    words = ["--device", "cpu", "--tiny", "--output", str(record), "--page", str(page), "--data-root", str(tmp_path)]
    assert gpu.main(words) == 1
    found = json.loads(record.read_text())
    assert set(found["machine"]) == {"device", "torch", "Python", "date"}
    assert [title for title, part in found["parts"].items() if part["error"]] == [broken]
    assert found["parts"][broken]["error"] == "ValueError: planted"
    for title, part in found["parts"].items():
        numbers = [value for row in part["rows"].values() for value in row.values() if isinstance(value, float | int)]
        assert numbers and all(map(math.isfinite, numbers)), title
        assert part["peak"] and not part["left out"], title
    text = page.read_text()
    assert all(title in text for title in found["parts"])
    assert "kept before" in text and "kept after" in text and "old" not in text.splitlines()
    assert "planted" in text and f"failed: {broken}" in capsys.readouterr().out


def test_what_does_not_hold_fails_its_part_and_what_there_is_no_time_for_is_named(benchmark):
    import time

    import torch

    gpu = benchmark("gpu")
    bench = gpu.Bench(torch.device("cpu"), True, Path(), time.monotonic() - 1)

    def measure(bench):
        yield "method", "gap", bench.close("method", torch.tensor([1.0 + 1e-6]), torch.tensor([1.0]))
        yield "method", "seconds", float(bench.late("the rest"))
        time.sleep(60)

    part = gpu.run_part(gpu.Part("title", 1.0, measure, "note"), bench, 0.2)
    assert "OutOfTime" in part["error"] and part["left out"] == ["the rest"]
    assert bench.broken and part["rows"]["method"]["gap"] > 1e-7
    quick = gpu.run_part(gpu.Part("title", 1.0, lambda bench: iter(()), "note"), bench, 10)
    assert "above" in quick["error"]
    assert gpu.main(["--device", "gpu9"]) == 2


def test_steps_are_counted_within_tasks_alone(benchmark):
    from lifelong.core.learner import Learner
    from lifelong.core.loop import Session
    from lifelong.models.perceptron import MLP
    from scenarios.split import split
    from scenarios.stream import Budget
    from scenarios.synthetic import blobs

    timing = benchmark("timing")
    stream = split(blobs(6, 5, 20), 3, "class", budget=Budget(iterations=8, batch=2))
    steps = timing.Steps(Session(Learner(MLP(3)), stream, [0]), after=1)
    assert (steps.state.task, steps.state.iteration) == (1, timing.WARM)
    assert steps.seconds(5) > 0 and (steps.state.task, steps.state.iteration) == (1, 8)
    assert steps.seconds(2) > 0 and (steps.state.task, steps.state.iteration) == (2, 2)  # beyond the task's end
    assert steps.seconds(6) > 0 and steps.seconds(4) > 0 and steps.state.task == 1  # beyond the stream's
    with pytest.raises(ValueError, match="no task has as many"):
        steps.seconds(9)


def test_a_commit_is_asked_for_a_case_and_compared_with_both_parts_of_the_floor(benchmark):
    server, beside = benchmark("step_server"), benchmark("old_and_new")
    case = beside.Case("replay", "Replay(size=20)", (784, 4, 4, 10), 5, 2, 3)
    assert server.prepared(case.request(1)).seconds(3) > 0
    found = beside.figures(case, {"old": 0.4, "new": 0.2, "products": 0.05, "traffic": 0.05})
    assert list(found.values()) == pytest.approx([100.0, 0.5, 4.0, 2.0])
    assert case.rows == 10 and "replay, 784-4-4, batch 5, 2 seeds: new / old" in found
    for place in server.PLACES:
        assert server.found(place)


def test_sections_of_the_page_keep_each_other(benchmark, tmp_path):
    page = benchmark("page")
    place = tmp_path / "speed.md"
    page.write_section(place, "gpu", ["first"])
    page.record("new", "A note.", {"figure": 1.23456}, tmp_path / "speed.json")
    before = place.read_text()
    page.write_section(place, "gpu", ["second"])
    assert "second" in place.read_text() and "first" not in place.read_text()
    assert "| figure | 1.235 |" in place.read_text() and "A note." in place.read_text()
    page.write_section(place, "gpu", ["first"])
    assert place.read_text() == before


def test_the_study_of_tasks_learned_together_resumes_and_says_where_there_is_no_gain(benchmark, tmp_path, monkeypatch):
    study = benchmark("multitask")
    monkeypatch.setattr(study, "methods", lambda: ["RLW()", "PCGrad()"])
    monkeypatch.setattr(study, "COSTS", (study.EQUAL, "RLW()"))
    monkeypatch.setattr(study, "SHARING", dict(list(study.SHARING.items())[:2]))
    place = study.Place("Digits", "multi-digits", "MLP(4)", "Adam(0.01)", 2, sharing=("SoftSharing(0.1) on SharedLayers(MLP(4), 0)",))  # fmt: skip
    words = ["--tiny", "--output", str(tmp_path / "multitask.json"), "--seeds", "2", "--draws", "2"]
    study.main(words, (place,))
    record, page = tmp_path / "multitask.json", tmp_path / "multitask.md"
    cells, text = json.loads(record.read_text()), page.read_text()
    assert set(cells["Digits"]) == {study.ALONE, study.EQUAL, "RLW()", "PCGrad()", *place.sharing}
    assert len(cells["correlation"]) == 2 * len(study.CORRELATIONS) and len(cells["cost"]) == 2 * 2
    for words_ in ("## Digits", "How much is shared", "no measurable gain", "mixture of experts", "What a step costs"):
        assert words_ in text, words_
    monkeypatch.setattr(study, "run", None)  # whatever is there is not run again
    study.main(words, (place,))
    assert page.read_text() == text


def test_the_study_calls_better_only_what_is_better_after_holm(benchmark):
    study = benchmark("multitask")

    def cell(*scores):
        return {"by_task": [[s, s] for s in scores], "gain": [], "seconds": 1.0}

    here = {
        study.ALONE: cell(0.5, 0.5, 0.5, 0.5),
        study.EQUAL: cell(0.50, 0.51, 0.52, 0.53),
        "Up()": cell(0.60, 0.61, 0.62, 0.631),
        "Down()": cell(0.40, 0.41, 0.42, 0.431),
        "Luck()": cell(0.55, 0.50, 0.53, 0.52),
        "Same()": cell(0.50, 0.51, 0.52, 0.53),
    }
    lines = study.section("Weights", here, ["Up()", "Down()", "Luck()", "Same()"])
    assert lines[-2].startswith("Measurably better than equal weights: `Up()`; measurably worse: `Down()`. All others")
    assert "`Up()`" in lines[4], "best first"
