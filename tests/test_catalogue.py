"""What a method says of itself, and the same bytes for every method."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

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
from scenarios.errors import LONGEST, ConfigurationError

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
    sizes = (method.sized_by, "rows")  # of what is kept and replayed: the user's, or the stream's
    numbers = [f.name for f in fields(method) if type(f.default) in (int, float) and f.name not in sizes]
    words = f"{name}: say in `defaults` whose {', '.join(numbers)} are, as in 'published' or 'ours'"
    assert method.defaults or not numbers, words
    for named in re.findall(r"but for (\w+)", method.defaults):
        assert named in numbers, f"{name}: `defaults` speaks of {named!r}, which is no number of its fields"
    if name in vocabulary("strategies"):
        forward, backward = method().passes
        assert forward >= 0 and backward >= 0
        assert method().passes_at(10) == (forward, backward)  # the batches of those that say them for batches
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


@cache
def record() -> dict[str, Any]:
    """What was measured of every method: docs/methods.json."""
    return json.loads((ROOT / "docs/methods.json").read_text())


def percent(cell: dict[str, Any]) -> float:
    """Mean accuracy over seeds."""
    return 100 * sum(cell["accuracy"]) / len(cell["accuracy"])


def notes_of(text: str, setting: str) -> list[str]:
    """What a strategy or another learner says of a stream of this setting."""
    kind = "learners" if text.partition("(")[0] in vocabulary("learners") else "strategies"
    return parse(text, kind).notes(build("split-blobs", setting=setting))


VAN_DE_VEN = r"van de Ven.*2022"
BANDS = {  # by setting: the band, and who found it
    "class": {
        **dict.fromkeys(
            ("EWC()", "SI()", "LwF()", "MAS()", "RWalk()", "L2Last()", "LFL()"),
            ("EWC 20.64 %, SI 21.20, LwF 21.89", VAN_DE_VEN),
        ),
        "AGEM()": ("65.10 %", VAN_DE_VEN),
    },
    "domain": dict.fromkeys(
        ("EWC()", "SI()", "MAS()", "RWalk()", "L2Last()"),
        ("EWC 63.03 %, SI 66.94, fine-tuning 60.13", VAN_DE_VEN),
    ),
}
PLASTIC = ("L2Init()", "L2SP()", "ShrinkAndPerturb()", "ContinualBackprop()")
# what no published table that we know of has: of these the band is our own record's, and a test holds it against that
OWN_BANDS = [
    (place, text, rivals)
    for place, texts in {
        "split-mnist, class-incremental, 500 iterations a task": {
            **dict.fromkeys((*PLASTIC, "CWR()", "CWRStar()"), ("FineTuning",)),
            "GPM()": ("the same bytes",),
        },
        "split-digits, class-incremental": {"OGD()": ("FineTuning",), "GSS()": ("Replay",)},
        "permuted-digits, domain-incremental": {
            **dict.fromkeys(PLASTIC, ("FineTuning", "Replay")),
            "GSS()": ("Replay",),
            "GenerativeClassifier()": ("FineTuning",),
        },
    }.items()
    for text, rivals in texts.items()
]  # fmt: skip


@pytest.mark.parametrize("setting, text", [(setting, text) for setting, texts in BANDS.items() for text in texts])
def test_a_note_names_the_band_and_who_found_it(setting, text):
    band, source = BANDS[setting][text]
    (note,) = notes_of(text, setting)
    assert band in note and re.search(source, note) and f"{setting}-incremental" in note
    assert not notes_of(text, "task")


@pytest.mark.parametrize("place, text, rivals", OWN_BANDS)
def test_a_band_of_our_own_is_the_records(place, text, rivals):
    here, name = record()[place], text.removesuffix("()")
    (note,) = notes_of(text, "domain" if "domain" in place else "class")
    assert "our own table, docs/methods.md" in note and place.partition(",")[0] in note.lower()
    keys = [here[name]["replay"] if rival == "the same bytes" else rival for rival in rivals]
    near = "within 1 point" in note
    assert all(f"{percent(here[key]):.1f}" in note for key in (*keys, *(() if near else (name,)))), note
    assert not near or abs(percent(here[name]) - percent(here["FineTuning"])) <= 1


NEAR = 5  # points above fine-tuning


def no_better() -> list[str]:
    """What the record holds no better than fine-tuning in class-incremental streams of a few classes a task."""
    return sorted(
        {
            name
            for place, here in record().items()
            if place.startswith("split-") and "class-incremental" in place
            for name, cell in here.items()
            if name in METHODS and "accuracy" in cell and percent(cell) < percent(here["FineTuning"]) + NEAR
        }
    )


@pytest.mark.parametrize("name", no_better())
def test_what_we_saw_fail_says_so_before_a_run(name):
    notes = [note for note in notes_of(f"{name}()", "class") if "class-incremental" in note]
    assert len(notes) == 1, f"{name}: say in `notes` what to expect of it, see lifelong/strategies/expectations.py"
    assert "van de Ven et al., 2022" in notes[0] or "our own table, docs/methods.md" in notes[0]


def test_the_record_has_methods_that_fail():
    assert {"EWC", "OGD", "L2Init", "CWR"} <= set(no_better()) and "Replay" not in no_better()


@pytest.mark.parametrize("name", METHODS)
def test_what_is_expected_is_said_in_a_line(name):
    for setting in ("task", "domain", "class"):
        for note in notes_of(f"{name}()", setting):
            assert "\n" not in note and len(note) <= LONGEST and "{" not in note, note


def test_a_generator_that_has_no_time_to_learn_says_so():
    stream = build("split-blobs")
    long = replace(stream, budget=replace(stream.budget, iterations=2000))
    said = [Learner(MLP(4), parse("GenerativeReplay()", "strategies")).notes(some) for some in (stream, long)]
    assert [any("2,000 iterations a task" in note for note in notes) for notes in said] == [True, False]


def test_nothing_of_classes_is_said_where_numbers_are_asked_for():
    numbers = build("regression-digits", setting="domain")
    assert numbers.asks_numbers and not Learner(MLP(4), parse("L2Init()", "strategies")).notes(numbers)


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
