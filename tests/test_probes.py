"""Probes by words: they measure what a probe from Python measures, stand in the summary and in tables, and change nothing."""

import json

import pytest
import torch

from lifelong import Learner, Request, build, execute, metrics, run
from lifelong.commands.completion import names
from lifelong.core.loop import Result
from lifelong.notation.expression import listed, vocabulary
from lifelong.probes.plasticity import DormantUnits, EffectiveRank, WeightMagnitude
from lifelong.runs.execute import check, probes_of
from scenarios.errors import ConfigurationError

WORDS = "DormantUnits(threshold=0.1), EffectiveRank(rows=40)"
TINY = {"scenario": "split-blobs", "model": "MLP(8)", "seeds": (0, 1, 2), "iterations": 4, "batch": 8}


def test_a_list_is_cut_at_its_own_commas():
    assert listed("A(b=1, c=[2, 3]), my.py:D('x, y')") == ["A(b=1, c=[2, 3])", "my.py:D('x, y')"]
    assert listed("") == [] and listed("A(),") == ["A()"]


def test_words_are_the_probes_that_they_name():
    asked = Request(**TINY, probe=WORDS)
    assert probes_of(asked) == (DormantUnits(threshold=0.1), EffectiveRank(rows=40))
    assert "--probe" in asked.command and {"DormantUnits", "GradientConflict"} <= set(vocabulary("probes"))
    assert names("probes") == sorted(vocabulary("probes"))
    for words, reason in (
        ("EffectiveRank(), EffectiveRank(rows=3)", "name it once"),
        ("EffectiveRanks()", "did you mean 'EffectiveRank'"),
        ("EWC()", "unknown probe"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            check(Request(**TINY, probe=words))


def test_a_run_by_words_finds_what_a_run_from_python_finds(tmp_path):
    plain = execute(Request(**TINY), out=tmp_path, name="plain")
    asked = execute(Request(**TINY, probe=WORDS), out=tmp_path, name="probed")
    assert torch.equal(plain.accuracy, asked.accuracy)  # nothing that is learned was touched
    learner, stream, _ = Request(**TINY).build()
    inside = run(learner, stream, [0, 1, 2], probes=[DormantUnits(0.1), EffectiveRank(40)])
    assert set(inside.probes) == set(asked.probes) and all(
        torch.equal(inside.probes[n], asked.probes[n]) for n in inside.probes
    )
    held = json.loads((tmp_path / "probed" / "summary.json").read_text())["probes"]
    rank = inside.probes["effective rank"]
    assert held["effective rank"]["last"]["per_seed"] == pytest.approx(rank[:, -1].tolist(), abs=1e-12)
    assert held["effective rank"]["mean"]["mean"] == pytest.approx(rank.mean().item(), abs=1e-12)
    assert held["effective rank"]["moments"] == len(stream) == rank.shape[1]


def test_several_numbers_at_a_moment_and_missing_ones_are_told_apart():
    result = run(Learner(vocabulary("models")["MLP"](8)), build("split-blobs"), [0, 1], probes=[WeightMagnitude()])
    two = torch.tensor([[[1.0, torch.nan], [3.0, 4.0]], [[2.0, torch.nan], [5.0, 6.0]]], dtype=torch.float64)
    found = metrics.probed(replaced(result, {"pairs": two}))
    assert list(found) == ["pairs, 1", "pairs, 2"]
    assert (found["pairs, 1"].first.mean, found["pairs, 1"].last.mean, found["pairs, 1"].mean.mean) == (1.5, 4.0, 2.75)
    assert found["pairs, 2"].moments == 1 and found["pairs, 2"].first.per_seed == (4.0, 6.0)


def replaced(result: Result, probes: dict[str, torch.Tensor]) -> Result:
    import dataclasses

    return dataclasses.replace(result, probes=probes)


def test_tables_show_them_at_any_width(cli, tmp_path):
    words = [
        "split-blobs",
        "--seeds",
        "2",
        "--iterations",
        "4",
        "--model",
        "MLP(8)",
        "--out",
        str(tmp_path),
        "--probe",
        WORDS,
    ]
    code, out, errors = cli("run", *words)
    assert code == 0 and "dormant units at 0.1 (" in out and "effective rank (" in out, errors
    code, out, errors = cli("compare", *words, "--strategy", "FineTuning()", "--strategy", "L2Init()")
    assert code == 0 and "L2Init()" in out[out.index("probes") :], errors
    code, out, errors = cli("run", *words, "--learner", "NearestClassMean()")
    assert code == 2 and "trained by gradients" in errors and errors.count("\n") == 1
    assert len(list(tmp_path.glob("split-blobs-*"))) == 3  # nothing was begun
    code, out, errors = cli("compare", *words, "--paradigms", "all")
    assert code == 2 and errors.startswith("error: --probe does not go with --paradigms")


def test_the_page_has_them(tmp_path):
    from lifelong import load
    from lifelong.display.report.page import write_report
    from lifelong.display.tables import in_own_unit
    from lifelong.runs.groups import groups_of

    for name, strategy in {"plain": "FineTuning()", "anchored": "L2Init()"}.items():
        execute(Request(**TINY, strategy=strategy, probe=WORDS), out=tmp_path, name=name)
    runs = [load(tmp_path / name) for name in ("plain", "anchored")]
    write_report(groups_of(runs), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for run_ in runs:
        for found in metrics.probed(run_.result).values():
            assert all(f">{in_own_unit(each)}<" in page for each in (found.first, found.last, found.mean))
