"""What a method says of itself, and the same bytes for every method."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lifelong.core.learner import Learner
from lifelong.core.loop import check_learner
from lifelong.display.tables import passes_of, step_of
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse, vocabulary
from lifelong.runs.memory_budget import BudgetError, fitted, kept, read_bytes
from lifelong.runs.request import Request
from lifelong.strategies.multitask.gradients import GradientSurgery
from scenarios.catalogue import build
from scenarios.errors import ConfigurationError

ROOT = Path(__file__).parent.parent
METHODS = {
    name: method
    for kind in ("strategies", "learners")
    for name, method in vocabulary(kind).items()
    if method.__module__.startswith("lifelong.") and name != "FineTuning"
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_names_its_witness_and_what_it_keeps(name):
    method = METHODS[name]
    assert method.keeps, f"{name}: say in `keeps` what it stores, in a few words"
    words, _, file = method.witness.partition(": ")
    assert words and file, f"{name}: say in `witness` what it was held against, and the test's file"
    assert name in (ROOT / file).read_text(), f"{file} does not test {name}"
    if name in vocabulary("strategies"):
        forward, backward = method().passes
        assert forward >= 0 and backward >= 0
        by_task = issubclass(method, GradientSurgery)
        assert (method.task_passes == (0.0, 1.0)) == by_task
        if by_task:  # a backward pass for each task: no number says it
            assert (step_of(method), passes_of(method)) == ("0.3 + 0.7 T", "1 + T")


def test_passes_are_told_as_they_are():
    replay = vocabulary("strategies")["Replay"]
    assert (step_of(replay), passes_of(replay)) == ("2.0", "2 + 2")
    gathered = vocabulary("strategies")["GDumb"]
    assert (step_of(gathered), passes_of(gathered)) == ("–", "–")


@pytest.fixture(scope="module")
def stream():
    return build("split-digits")


@pytest.mark.parametrize("text", ["Replay()", "Replay(memory=Ring())", "ClassReplay()", "DER()", "AGEM()", "SI() + DERPlusPlus()"])  # fmt: skip
def test_a_budget_is_filled_and_kept_to(stream, text):
    learner = Learner(MLP(20), parse(text, "strategies"))
    budget = 60_000
    found = fitted(learner, stream, budget)
    size = kept(found, stream).total
    assert size <= budget
    (place,) = [part for part in found.parts if part.sized_by]
    step = 10 if place.sized_by == "size" else 1  # a place for each class more
    more = replace(place, **{place.sized_by: getattr(place, place.sized_by) + step})
    parts = [more if part is place else part for part in found.parts]
    total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    assert kept(replace(found, strategy=total), stream).total > budget


@pytest.mark.parametrize(
    "text, words",
    [
        ("EWC()", "EWC(.*) keeps .* kB, more than --memory 5.0 kB"),
        ("Replay() + ClassReplay()", "both Replay.* and ClassReplay.* keep rows"),
        ("EWC() + Replay()", "with one row, more than"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(stream, text, words):
    with pytest.raises(BudgetError, match=words) as refused:
        fitted(Learner(MLP(20), parse(text, "strategies")), stream, 5_000)
    assert "\n" not in str(refused.value)


def test_bytes_are_read():
    assert [read_bytes(text) for text in ("784000", "500kB", "1.5 MB", "2gb", "7 b")] == [784_000, 500_000, 1_500_000, 2_000_000_000, 7]  # fmt: skip
    for text in ("much", "-5kB", "5 k", "1e3", "", "\u0663kB"):
        with pytest.raises(BudgetError, match="write bytes"):
            read_bytes(text)
    for text in ("0", "0.5", "9" * 30 + "GB", "9" * 400 + "GB"):
        with pytest.raises(BudgetError, match="from 1 byte"):
            read_bytes(text)


def test_more_bytes_than_the_stream_can_fill_make_no_more_room():
    stream = build("split-blobs")
    found = fitted(Learner(MLP(4), parse("Replay()", "strategies")), stream, 10**14)
    rows = sum(len(task.train) for task in stream.tasks_of(stream.seed))
    assert found.strategy.size == rows


def test_settings_share_a_size_and_a_size_that_varies_is_refused():
    request = Request("split-blobs", strategy="Replay(rows=vary(2, 4))", memory="5kB")
    sizes = {setting.build()[0].strategy.size for setting in request.settings().values()}
    assert sizes == {request.build()[0].strategy.size} and sizes != {1000}
    varied = Learner(MLP(4), parse("EWC(online=True) + Replay(size=vary(10, 20))", "strategies"))
    with pytest.raises(BudgetError, match=r"says the size of Replay\(size=vary\(10, 20\)"):
        fitted(varied, build("split-blobs"), 50_000)


def test_a_run_says_what_its_size_became():
    request = Request("split-blobs", strategy="Replay()", memory="5kB")
    size = request.build()[0].strategy.size
    assert 0 < size < 1000 and f"size={size}" in request.resolved()["method"]
    assert request.command.endswith("--memory 5kB")


def test_what_the_literature_expects_is_said_before_a_run(tmp_path, cli):
    code, _, errors = cli("run", "split-blobs", "--strategy", "EWC()", "--seeds", "1", "--out", str(tmp_path))
    assert code == 0 and "note: EWC in class-incremental streams: expect" in errors
    code, _, errors = cli("run", "split-blobs", "--strategy", "Replay()", "--seeds", "1", "--out", str(tmp_path))
    assert code == 0 and "note:" not in errors


BANDS = {
    **dict.fromkeys(
        ("EWC()", "SI()", "LwF()", "MAS()", "RWalk()", "L2Last()", "LFL()"), "EWC 20.64 %, SI 21.20, LwF 21.89"
    ),
    "AGEM()": "65.10 %",
}


@pytest.mark.parametrize("text", BANDS)
def test_a_note_names_the_band_and_who_found_it(text):
    strategy = parse(text, "strategies")
    (note,) = [note for note in strategy.notes(build("split-blobs")) if "class-incremental" in note]
    assert BANDS[text] in note and "van de Ven" in note and "2022" in note
    assert not any("class-incremental" in note for note in strategy.notes(build("split-blobs", setting="domain")))


@pytest.mark.parametrize(
    "text, setting, words",
    [
        ("ERACE(size=0)", "class", "ERACE.size=0. adds nothing to fine-tuning"),
        ("EWC(strength=0.0)", "task", "EWC.strength=0.0. adds nothing to fine-tuning"),
        ("CWRStar() + MAS()", "class", "CWRStar fixes all but the head .* so MAS has little or nothing left to hold"),
        *((f"{gates}() + {other}()", "task", f"{other} runs the network by itself, without the gates of {gates}")
          for gates in ("XdG", "HAT") for other in ("EWC", "MAS", "LwF")),
    ],
)  # fmt: skip
def test_what_a_part_does_not_do_is_said_before_a_run(text, setting, words):
    notes = Learner(MLP(4), parse(text, "strategies")).notes(build("split-blobs", setting=setting))
    assert sum(bool(re.search(words, note)) for note in notes) == 1 and "\n" not in "".join(notes), notes


@pytest.mark.parametrize("text", ["ERACE()", "CWRStar() + Replay()", "XdG() + SI()", "EWC() + Replay()", "HAT() + Replay()"])  # fmt: skip
def test_of_what_is_heard_nothing_is_said(text):
    setting = "task" if "XdG" in text or "HAT" in text else "class"
    notes = Learner(MLP(4), parse(text, "strategies")).notes(build("split-blobs", setting=setting))
    assert not any("turned off" in note or "by itself" in note or "left to hold" in note for note in notes)


@pytest.mark.parametrize("text", ["ShrinkAndPerturb()", "PackNet()"])
def test_what_moves_every_weight_is_refused_where_some_are_held_still(text):
    learner = Learner(MLP(4), parse(text, "strategies"), trainable="head")
    with pytest.raises(ConfigurationError, match="sets weights itself, those too that trainable='head' holds still"):
        check_learner(learner, build("split-blobs", setting="task"))
    check_learner(replace(learner, trainable="all"), build("split-blobs", setting="task"))


@pytest.mark.parametrize("text", ["GDumb() + EWC()", "SI() + GDumb()", "MER() + Replay()", "MER() + SI()", "AGEM() + MER()", "Replay() + LaMAML()", "LaMAML() + SI()"])  # fmt: skip
def test_a_sum_in_which_a_part_would_go_unheard_is_refused(text):
    with pytest.raises(ConfigurationError, match="would go unheard: leave one out") as refused:
        parse(text, "strategies")
    assert "\n" not in str(refused.value)


def test_a_projection_stands_after_the_part_that_computes_the_gradient():
    with pytest.raises(ConfigurationError, match="where it stands after it"):
        parse("AGEM() + CMAML()", "strategies")
    assert len(parse("CMAML() + AGEM()", "strategies").parts) == 2
    assert len(parse("L2SP() + MER()", "strategies").parts) == 2


@pytest.mark.parametrize("text", ["GDumb()", "MER()", "LaMAML()", "FineTuning() + MER()", "GDumb() + FineTuning()"])
def test_alone_it_is_heard(text):
    assert len(Learner(MLP(4), parse(text, "strategies")).parts.parts) == 1


def test_the_list_of_strategies_is_a_table(cli):
    code, out, _ = cli("list", "strategies")
    assert code == 0 and "held against" in out
    assert all(name in out for name in vocabulary("strategies"))
    assert "EWC" in out.split("regularisation")[1]
