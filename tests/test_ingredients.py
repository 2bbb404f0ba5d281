"""What each ingredient adds: the combinations, effects by hand, and a study that was stopped."""

from __future__ import annotations

import html
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import ttest_1samp

from lifelong.commands.report import report
from lifelong.core.stopped import Stopped
from lifelong.meta.learned import load_learned
from lifelong.metrics import holm
from lifelong.models.perceptron import MLP
from lifelong.notation.user_code import name_files
from lifelong.runs.request import Request
from lifelong.studies.ingredients import RANDOM, Combination, Effect, Ingredients, Mixed, mix, sentences
from scenarios.errors import ConfigurationError
from scenarios.stream import Seed, generator

REQUEST = Request("split-digits(tasks=2)", setting="task", model="MLP(6)", seeds=(0, 1), iterations=4, batch=4, device="cpu", few_shot="1,2")  # fmt: skip
NUMBERS = "regression-digits(tasks=2)"
START = "MAML(data='digits', allow_overlap=True, iterations=1, tasks=2, way=2)"


def test_every_combination_is_a_run_and_three_kinds_stand_beside():
    asked = Ingredients(REQUEST, ("MAML()", "OML()"), ("EWC()", "Replay()"))
    crossed = [c for c in asked.combinations if not c.beside]
    assert len(crossed) == len(set(crossed)) == 3 * 4
    assert {(c.start, c.beside) for c in asked.combinations if c.beside} == {
        (RANDOM, "frozen"), ("MAML()", "frozen"), ("OML()", "frozen"), (RANDOM, "scratch"), (RANDOM, "joint"),
    }  # fmt: skip


class Fixed(Mixed):
    """Runs whose measures are given."""

    def measures(self, combination):
        return {"accuracy": self.runs[combination]}


def test_effects_are_means_over_the_others_paired_and_corrected():
    asked = Ingredients(REQUEST, ("A()",), ("P()", "Q()"))
    generator = torch.Generator().manual_seed(3)
    runs = {
        c: torch.randn(6, generator=generator, dtype=torch.float64) + 2 * ("P()" in c.parts) for c in asked.combinations
    }
    effects = Fixed(asked, runs).effects()
    crossed = {(c.start, c.parts): v for c, v in runs.items() if not c.beside}
    subsets = [(), ("P()",), ("Q()",), ("P()", "Q()")]
    gaps = {
        "A()": sum(crossed["A()", s] - crossed[RANDOM, s] for s in subsets) / 4,
        "P()": sum(
            crossed[s, ("P()",)] - crossed[s, ()] + crossed[s, ("P()", "Q()")] - crossed[s, ("Q()",)]
            for s in (RANDOM, "A()")
        )
        / 4,
        "Q()": sum(
            crossed[s, ("Q()",)] - crossed[s, ()] + crossed[s, ("P()", "Q()")] - crossed[s, ("P()",)]
            for s in (RANDOM, "A()")
        )
        / 4,
    }
    assert [e.ingredient for e in effects] == list(gaps)
    assert [e.added.mean for e in effects] == pytest.approx([float(g.mean()) for g in gaps.values()])
    plain = holm([float(ttest_1samp(g.numpy(), 0).pvalue) for g in gaps.values()])
    assert [e.p for e in effects] == pytest.approx(plain, rel=1e-9)
    (said,) = sentences(effects)
    assert said.startswith("accuracy") and "P +" in said.split("not:")[0]


def moved(run, start=None):
    """Which parameters ended where they did not begin: a trunk as its start's file has it, a head as its seed draws."""
    stream = run.request.build()[1]
    ended = {name: [] for name in ("layer0.weight", "layer0.bias", "head.weight", "head.bias")}
    for member, seed in enumerate(REQUEST.seeds):
        first = MLP(6).init(stream.dataset.shape, stream.classes, generator(seed, "model"))
        trunk = start.of(seed).meta_of_seed["net"] if start else {}
        for name, elsewhere in ended.items():
            begun = first[name] if name.startswith("head.") else trunk.get(name, first[name])
            elsewhere.append(not torch.equal(run.params[f"net.{name}"][member], begun))
    assert all(len(set(elsewhere)) == 1 for elsewhere in ended.values()), f"in some members only: {ended}"
    return {name for name, elsewhere in ended.items() if all(elsewhere)}


def test_a_study_goes_on_and_learns_no_run_again(tmp_path):
    asked = Ingredients(REQUEST, (START,), ("Replay(size=4)",))
    learned = []

    def learn(folder, place):
        from lifelong.runs.execute import execute

        if len(learned) == 3 and not stopped:
            stopped.append(place)
            raise KeyboardInterrupt
        learned.extend([] if folder.finished else [folder.path.name])
        execute(folder)

    stopped = []
    with pytest.raises(Stopped, match=r"ingredients-\w+` goes on"):  # the study, not the run that it was at
        mix(asked, tmp_path, learn=learn)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(ConfigurationError, match=r"runs of .* are not finished: `lifelong resume"):
        report([folder], tmp_path / "page.html")
    (folder / "runs" / "04").mkdir()  # as a process leaves it that is killed before it wrote what it was to run
    (folder / "runs" / "04" / "run.json.partial").touch()
    mixed, again = mix(folder, learn=learn)
    assert again == folder and mixed.ingredients == asked
    assert learned == [f"{i:02d}" for i in range(len(asked.combinations))]
    start = load_learned(folder / "starts" / "0.safetensors")
    frozen, plain = mixed.runs[Combination(START, beside="frozen")], mixed.runs[Combination(START)]
    assert moved(frozen, start) == {"head.weight", "head.bias"}, "heads alone, on the trunk of the file to the bit"
    assert moved(plain, start) == {"layer0.weight", "layer0.bias", "head.weight", "head.bias"}
    off = replace(start, meta={"net": {name: value * 1.001 for name, value in start.meta["net"].items()}})
    assert {"layer0.weight", "layer0.bias"} <= moved(frozen, off), "a start that is off by a thousandth is seen"
    random = mixed.runs[Combination(RANDOM, beside="frozen")]
    assert moved(random) == {"head.weight", "head.bias"} and "layer0.weight" in moved(random, start)
    assert set(mixed.measures(Combination(START))) == {"accuracy", "forgetting", "1-shot transfer", "2-shot transfer"}
    assert set(mixed.measures(Combination(RANDOM, beside="joint"))) == {"accuracy"}
    assert all(isinstance(effect, Effect) for effect in mixed.effects()) and len(mixed.effects()) == 2 * 4
    report([folder], tmp_path / "page.html", figures=tmp_path / "figures", kind="svg")
    page = (tmp_path / "page.html").read_text()
    assert all(html.escape(sentence) in page for sentence in sentences(mixed.effects()))
    assert all(html.escape(mixed.ingredients.name(combination)) in page for combination in mixed.runs)
    for effect in mixed.effects():
        assert (
            f"<title>{effect.word}: {effect.added.text(1)} points of {effect.measure}, p = {effect.p:.2g}</title>"
            in page
        )
    assert len(list((tmp_path / "figures").iterdir())) == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Ingredients(replace(REQUEST, seeds=(0,)), (START,)), "at least two"),
        (Ingredients(replace(REQUEST, init="MAML()"), (START,)), "--init and --trainable"),
        (Ingredients(REQUEST, (START, START)), "twice"),
        (Ingredients(REQUEST, (START,), ("EWC()", "Repaly()")), "did you mean 'Replay'"),
        (Ingredients(REQUEST, ("MAML(data='omniglott')",)), "omniglott"),
        (Ingredients(REQUEST, (RANDOM,)), "nothing that learns"),
        (Ingredients(REQUEST, (START,), ("Replay(size=vary(4, 8))",)), "varies a number"),
        (Ingredients(replace(REQUEST, few_shot="", scenario=NUMBERS), (START,)), "asks for numbers"),
    ],
)
def test_what_cannot_be_mixed_is_refused_before_anything_is_learned(tmp_path, asked, said):
    with pytest.raises(ConfigurationError, match=said):
        mix(asked, tmp_path, learn=lambda folder, place: pytest.fail("it learned"))
    assert not list(tmp_path.iterdir())


def test_a_study_with_files_of_the_user_goes_on_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("mine.py").write_text("from lifelong.meta.maml import MAML\n\n\nclass Mine(MAML):\n    pass\n")
    name_files(["mine.py:Mine()"])
    asked = Ingredients(replace(REQUEST, few_shot="1"), (START.replace("MAML", "mine.py:Mine"),), ())
    _, folder = mix(asked, Path("out with space"))
    folder = folder.absolute()
    shutil.rmtree(folder / "runs" / "05")
    (folder / "starts" / "0.safetensors").unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    mixed, _ = mix(folder)
    assert len(mixed.runs) == 6 and mixed.ingredients.request.files[0].path == str(tmp_path / "here" / "mine.py")
    (tmp_path / "here" / "mine.py").write_text("raise AssertionError('it was executed')")
    with pytest.raises(ConfigurationError, match="changed since"):
        mix(folder)


def test_first_weights_of_one_seed_have_a_start_of_this_seed(tmp_path):
    mixed, folder = mix(Ingredients(replace(REQUEST, start_seed=7, few_shot="1"), (START,), ()), tmp_path)
    assert load_learned(folder / "starts" / "0.safetensors").seeds == (7,)
    assert all(isinstance(seed, Seed) and seed.start == 7 for seed in mixed.runs[Combination(START)].request.members)


def test_no_two_combinations_share_a_name():
    """Neither in the table nor as keys of JSON."""
    asked = Ingredients(REQUEST, (START, START.replace("tasks=2", "tasks=3")), ("Replay(size=4)", "Replay(size=8)"))
    assert len({asked.name(c) for c in asked.combinations}) == len(asked.combinations)
    plain = Ingredients(REQUEST, (START,), ("EWC() + Replay(size=4)", "LwF()"))
    assert plain.name(Combination(START, plain.parts)) == "MAML, EWC + Replay + LwF"


def test_seeds_that_diverge_are_null_in_json(tmp_path):
    mixed, _ = mix(Ingredients(replace(REQUEST, optimiser="SGD(1e30)", few_shot="1"), (START,), ()), tmp_path)
    about = json.loads(json.dumps(mixed.as_json(), allow_nan=False))
    assert about["combinations"]["MAML, nothing"]["accuracy"] == [None, None]
    assert about["added"][0]["added"] is None and not any(effect.established for effect in mixed.effects())


def test_a_damaged_study_is_one_line(tmp_path):
    (tmp_path / "ingredients.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="damaged"):
        mix(tmp_path)
