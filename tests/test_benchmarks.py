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


def test_surgery_is_measured_on_rows_that_the_source_never_saw(benchmark, monkeypatch):
    import torch

    from scenarios.stream import Dataset

    surgical = benchmark("surgical")
    for name, value in {
        "SOURCE": 60,
        "ITERATIONS": 3,
        "SHOT": 2,
        "STEPS": 2,
        "VALIDATION": 10,
        "TEST": 15,
        "RATES": (1e-3, 1e-2),
    }.items():
        monkeypatch.setattr(surgical, name, value)
    y = torch.arange(240) % 10
    x = torch.randint(0, 256, (240, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0] = torch.arange(240)  # each row says which it is
    data = Dataset("noise", x, y, 200, 10)
    rows = surgical.shifted(data, "labels: y becomes 9 - y", [0, 1])
    for seed in (0, 1):
        shown, held, test = (
            (x[seed][:, 0, 0] * 255).round().long() for x, _ in (rows.shown, rows.validation, rows.test)
        )
        assert set(shown.tolist()) | set(held.tolist()) <= set(range(60, 200)) and not set(shown.tolist()) & set(
            held.tolist()
        )
        assert set(test.tolist()) <= set(range(200, 240))
        assert torch.equal(rows.shown[1][seed], 9 - y[shown]) and rows.shown[1][seed].bincount().tolist() == [2] * 10
    nets = surgical.source_nets(data, [0, 1])
    found = surgical.measured(data, nets, "input: inverted", [0, 1])
    assert set(found) == {"untuned", *surgical.WAYS} and all(len(value["accuracy"]) == 2 for value in found.values())
    assert any("layer0 − head" in line for line in surgical.lines({"input: inverted": found}))


def test_the_page_of_transfer_shows_what_was_measured(benchmark):
    transfer = benchmark("transfer")
    value = {"mean": 0.123, "half_width": 0.04, "per_seed": [0.1]}
    record = {"drift": {"task": {"FineTuning()": {"lost": value, "head_drift": value, "trunk_drift": value}}}}
    assert ("drift", "class") in list(transfer.missing(record, ["drift"]))
    assert ("drift", "task") not in list(transfer.missing(record, ["drift"]))
    page = transfer.page(record)
    assert "| task | `FineTuning()` | 12.3 ± 4.0 | 12.3 ± 4.0 | 12.3 ± 4.0 |" in page and "Which block" not in page
