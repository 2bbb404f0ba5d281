"""The benchmarks are run small: whether they report what they say, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from lifelong.meta.distribution import TaskDistribution
from lifelong.models.perceptron import MLP
from scenarios.episodes import class_pool
from scenarios.synthetic import blobs

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


def test_what_is_dear_or_grows_is_explained(benchmark):
    cost = benchmark("cost")
    flat = {f"{kind}, {tasks} tasks": 1.0 for kind in ("step", "bytes") for tasks in cost.TASKS[1:]}
    found = {
        "steps": {
            "EWC": {"measured": 1.2},
            "OGD": {"measured": 2.0},
            "CAGrad": {"measured": 11 / 3},  # 1 + 5 passes against 1 + 1
            "HAT": {"measured": 1.9},
            "FeCAM": {"measured": 9.0},
            "RanDumb": {},
        },
        "growth": {
            "EWC": flat,
            "OGD": flat | {"step, 100 tasks": 20.0},
            "CAGrad": flat | {"step, 100 tasks": 18.0},
            "HAT": flat | {"step, 20 tasks": 1.4},
            "DWA": flat | {"bytes, 20 tasks": 4.0},
        },
        "why": {"OGD": "a gradient for each kept row, by definition"},
    }
    text, growing = cost.page(found).split("## As tasks grow")
    assert "| `CAGrad` | 3.67 | 3.67 | 1.00 |" in text and "| `FeCAM` | 9.00 | 0.00 | – |" in text
    assert "- `OGD`: a gradient for each kept row" in text and "- `HAT`: not explained yet" in text
    assert "in one piece: `RanDumb`." in text
    assert not any(f"- `{name}`" in text for name in ("EWC", "FeCAM", "CAGrad"))
    assert "- `OGD`: a gradient" in growing and "- `HAT`: not explained yet" in growing and "- `EWC`" not in growing
    assert "- `CAGrad`: a backward pass for each task" in growing and "- `DWA`: it keeps" in growing


def test_whose_numbers_a_row_has_is_said(benchmark):
    methods = benchmark("methods")
    made = {"accuracy": [0.5, 0.6], "bytes": 0, "seconds": 0.1}
    plain = "its defaults"
    said = {
        "FineTuning": ("FineTuning()", None, "has none"),
        "Replay": ("Replay(size=200)", plain, "has none"),
        "CWRStar": ("CWRStar()", plain, "has none"),
        "HAT": ("HAT()", plain, "published"),
        "PackNet": ("PackNet()", plain, "published, but for share"),
        "EWC": ("EWC(100)", "best of 6 on held-out rows", "best of 6 on held-out rows"),
        "CMAML": ("CMAML(inner=0.03)", "as chosen on split-digits", "as chosen on split-digits"),
    }
    here = {key: {**made, "text": text} | ({"chosen": by} if by else {}) for key, (text, by, _) in said.items()}
    page = methods.page({"a stream": here})
    for text, _, words in said.values():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{text}` ")]
        assert line.endswith(f"| {words} |")
    assert (
        "`CWR`, `CWRStar`; `CMAML`, `LaMAML`, `SyncLaMAML`;" in page and "of `GSS` and `MIR` with batches of 10" in page
    )


def test_every_episodic_method_is_timed_beside_maml(benchmark, monkeypatch):
    """Those that are found, a user's too; each as a share of MAML's own time."""
    meta_speed = benchmark("meta_speed")
    dataset = blobs(12, 6, 30)
    found = meta_speed.episodic_methods()
    assert {"MAML", "ProtoNet", "Reptile", "R2D2", "CAVIA"} <= set(found) and "OML" not in found
    study = TaskDistribution(MLP(4), *[class_pool(dataset)] * 2)
    for method in found.values():
        method.check(study)  # none would stop the others: one that needs descriptors once did
    few = {name: found[name] for name in ("MAML", "ProtoNet")}
    monkeypatch.setattr(meta_speed, "episodic_methods", lambda: few)
    figures = meta_speed.beside_maml(class_pool(dataset), MLP(4), repeats=1)
    assert list(figures) == ["MAML, ms", "ProtoNet"] and all(value > 0 for value in figures.values())
    beside = meta_speed.beside_encoder(class_pool(blobs(24, 8, 30)), MLP(4), repeats=1)
    assert len(beside) == 9 and all(value > 0 for value in beside.values())


def test_the_families_are_found_measured_once_and_put_on_a_page(benchmark, tmp_path, monkeypatch, capsys):
    import torch

    from lifelong.meta.maml import MAML
    from lifelong.meta.protonet import ProtoNet
    from scenarios.episodes import class_pool
    from scenarios.stream import Dataset

    families = benchmark("families")
    found = families.methods()
    assert {"MAML", "ProtoNet", "R2D2", "Reptile", families.NOTHING, "Pretrained"} <= set(found)
    assert not {"OML", "ANML", "MultiTask", "Random"} & set(found)  # no episodes, or no start at all
    x = torch.rand(24, 1, 14, 14, generator=torch.Generator().manual_seed(0)).repeat_interleave(20, 1).flatten(0, 1)
    dataset = Dataset("patterns", (255 * x).to(torch.uint8), torch.arange(480) // 20, 480, 24)
    places = dict.fromkeys(("all", "unseen", families.OTHER), class_pool(dataset))
    monkeypatch.setattr(families, "pools", lambda root: {**places, "tenth": class_pool(dataset, tuple(range(20)))})

    class Broken(ProtoNet):
        def query_scores(self, *given):
            raise ValueError("planted")

    few = {"ProtoNet": ProtoNet(), "MAML": MAML(tasks=2), "Wide": ProtoNet(way=30), "Broken": Broken()}
    monkeypatch.setattr(families, "methods", lambda: few)
    record, sheet = tmp_path / "families.json", tmp_path / "families.md"
    words = ["--output", str(record), "--page", str(sheet), "--images", "600", "--seeds", "2", "--episodes", "4"]
    words += ["--model", "MLP(8)"]
    families.main(words)
    said = capsys.readouterr().out
    assert "Broken: all 0: ValueError: planted" in said and "Wide" in json.loads(record.read_text())
    cells = json.loads(record.read_text())
    assert set(cells["MAML"]) == {"all 0", "all 1", "tenth 0", "tenth 1", "cost"} and "30" in cells["Wide"]["refused"]
    assert cells["MAML"]["all 0"]["iterations"] == 600 // 30 and "10-way 1-shot" not in cells["MAML"]["all 0"]
    assert cells["ProtoNet"]["all 0"]["5-way 1-shot"] > 0.9  # every image of a class is the same
    assert cells["ProtoNet"]["cost"]["memory"] == 1.0 and 0.2 < cells["ProtoNet"]["cost"]["time"] < 5
    protocol = families.Protocol(model="MLP(8)")
    assert families.cost(MAML(steps=5), "", protocol)["memory"] > cells["MAML"]["cost"]["memory"]
    page = sheet.read_text()
    assert page.count("| `MAML` |") == 2 and page.count("| `ProtoNet` |") == 2 and "- `Wide`: " in page
    assert "not run yet" not in page
    monkeypatch.setattr(families, "methods", lambda: {**few, "Later": ProtoNet()})
    assert "Found, and not run yet: `Broken`, `Later`." in families.page(cells)
    monkeypatch.setattr(families, "methods", lambda: few)
    record.write_text(json.dumps({**cells, "Broken": {"refused": "as planted"}}))
    families.main(words)  # resumed: there is nothing left to run
    assert capsys.readouterr().out == "" and sheet.read_text().count("| `MAML` |") == 2
    with pytest.raises(SystemExit, match="another protocol"):
        families.main([*words, "--images", "700"])


def test_a_start_that_diverged_leaves_the_others_their_row(benchmark):
    families = benchmark("families")
    cell = {"iterations": 1234, "answered by": "5 steps of Adam(rate=0.1)", families.FIRST: 0.5, families.MANY: 0.6}
    cells = {
        "protocol": vars(families.Protocol()),
        "Some": {"all 0": {"diverged": "its loss"}, "all 1": cell, "all 2": {**cell, families.MANY: 0.4}},
        "None": {"all 0": {"diverged": "its loss"}},
    }
    rows = [line for line in families.page(cells).splitlines() if line.startswith(("| `Some`", "- `None`"))]
    assert rows[0] == "| `Some` | 50.0 ± 0.0 | – | 50.0 ± 127.1 | – | – | 5 steps of Adam |"
    assert rows[1] == "| `Some` | – | – | +0.0 ± 127.1 | – | – | 1,234 |" and len(rows) == 3


def test_the_families_are_asked_small_images(benchmark):
    import torch

    from scenarios.stream import Dataset

    families = benchmark("families")
    x = torch.arange(28 * 28).view(1, 28, 28) % 200

    def small(x):
        halved = families.halved(
            Dataset("images", x.to(torch.uint8), torch.zeros(len(x), dtype=torch.int64), len(x), 1)
        )
        assert halved.name == "images" and halved.x.shape == (len(x), 14, 14) and halved.x.dtype == torch.uint8
        return halved.x

    assert float(small(x)[0, 0, 0]) == round(float((0 + 1 + 28 + 29) / 4))
    assert small(torch.full((2, 8, 8), 7)).unique().tolist() == [7]
    assert families.shown([]) == "–" and families.shown([50.0, 52.0]).startswith("51.0 ± 12.7")


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
    assert list(cells["conflict"]) == ["Digits"] and "are in conflict" in text
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


@pytest.mark.parametrize("name", ["SI", "StreamingLDA"])  # the second takes no step, but a task's rows in one piece
def test_growth_is_the_methods_own_and_not_the_heads(benchmark, monkeypatch, name):
    cost = benchmark("cost")
    monkeypatch.setattr(cost, "TASKS", (2, 3, 4))
    found = cost.growth([name])[name]
    assert found["bytes, 3 tasks"] == found["bytes, 4 tasks"] == 1.0
    assert 0.1 < found["step, 3 tasks"] < 10


def test_what_passes_beside_a_batch_is_held_against_the_batch_that_is_timed(benchmark):
    cost = benchmark("cost")
    assert cost.by_passes("MIR") == pytest.approx((1 + 3 * 50 / 128 + 2 * (1 + 50 / 128)) / 3)
    assert cost.by_passes("GSS") == pytest.approx(3 + 10 / 128) and cost.by_passes("Replay") == 2
    assert cost.dear("MIR", 2.2) and not cost.dear("MIR", 2.1) and cost.dear("GSS", 4.1)
