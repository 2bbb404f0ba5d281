"""Starts: learned, kept in files, put under runs; and every kind of request that cannot be honoured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten

from lifelong.core.files import named, save_tensors
from lifelong.meta.files import load_tree, save_tree
from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.learned import load_learned
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.runs import initialisation_files
from lifelong.runs.folder import load
from scenarios.catalogue import build, find
from scenarios.errors import ConfigurationError

MODEL = ("--model", "MLP(12)")
STAGE = "ProtoNet(way=2, query=2, iterations=6, data='{}')"


@pytest.fixture
def arrays(tmp_path):
    """Background classes that are no digits: noise of the same shape."""
    path, random = tmp_path / "noise.npz", np.random.default_rng(0)
    np.savez(path, x=random.integers(0, 256, (120, 8, 8), dtype=np.uint8), y=np.arange(120) % 6)
    return path


def test_learned_kept_and_put_under_a_run(cli, arrays, tmp_path):
    file = tmp_path / "start.safetensors"
    made = cli("pretrain", "split-digits", "--init", STAGE.format(arrays), *MODEL, "--output", str(file), "--json")
    about = json.loads(made.stdout)
    assert made.returncode == 0 and about["classes"] == 6 and about["class split"] and about["validation"]
    start = load_learned(file)
    done = cli("run", "split-digits", *MODEL, "--init", str(file), "--iterations", "1", "--seeds", "2",
               "--optimiser", "SGD(1e-30)", "--name", "a", "--out", str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    params = load(tmp_path / "a").params
    for seed in range(2):  # a rate of nothing leaves the trunk where the start put it
        torch.testing.assert_close(params["net.layer0.weight"][seed], start.meta_of_seed["net"]["layer0.weight"])
    assert not torch.equal(*params["net.head.weight"])
    assert json.loads((tmp_path / "a" / "run.json").read_text())["start"]["made by"].startswith("ProtoNet(")


def test_a_stage_in_the_run_is_the_same_as_its_file(cli, arrays, tmp_path):
    common = ("split-digits", *MODEL, "--iterations", "3", "--seeds", "2", "--out", str(tmp_path))
    cli("pretrain", "split-digits", "--init", STAGE.format(arrays), *MODEL, "--output", str(tmp_path / "s.safetensors"))
    cli("run", *common, "--name", "file", "--init", str(tmp_path / "s.safetensors"))
    cli("run", *common, "--name", "stage", "--init", STAGE.format(arrays))
    file_params, stage_params = (load(tmp_path / name).params for name in ("file", "stage"))
    assert all(torch.equal(file_params[name], stage_params[name]) for name in file_params)


def test_a_file_that_saw_the_streams_rows_is_refused_whatever_the_data_is_called(cli, arrays, tmp_path):
    file = str(tmp_path / "start.safetensors")
    cli("pretrain", "split-digits", "--init", STAGE.format(arrays), *MODEL, "--output", file)
    run = ("run", f"split(data='{arrays}', tasks=2)", *MODEL, "--iterations", "1", "--out", str(tmp_path / "runs"))
    done = cli(*run, "--init", file)
    assert done.returncode == 2 and "share 120 rows" in done.stderr and not (tmp_path / "runs").exists()
    arrays.unlink()
    done = cli("run", "split-digits", *MODEL, "--iterations", "1", "--init", file, "--out", str(tmp_path / "runs"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_one_start_for_each_seed(cli, arrays, tmp_path):
    text = STAGE.format(arrays).replace(")", ", per_seed=True)")
    done = cli("run", "split-digits", *MODEL, "--init", text, "--iterations", "1", "--seeds", "2",
               "--name", "a", "--out", str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    start = load_learned(tmp_path / "a" / "start.safetensors")
    assert start.about["starts"].startswith("one for each") and start.seeds == (0, 1)
    assert not torch.equal(*start.meta["net"]["layer0.weight"])


def test_meta_test_pairs_only_what_was_asked_the_same(cli, arrays, tmp_path):
    """Differences stand on the same episodes, and a head of two outputs is not asked three ways."""
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    common = ("--init", f"MAML(way=2, query=2, iterations=2, data='{arrays}')", *MODEL)
    cli("pretrain", "split-digits", *common, "--output", files[0])
    np.savez(tmp_path / "other.npz", x=255 - np.load(arrays)["x"], y=np.load(arrays)["y"])
    cli("pretrain", f"split(data='{tmp_path / 'other.npz'}', tasks=2)", *common, "--output", files[1])
    rows = json.loads(cli("meta-test", *files, "--episodes", "10", "--json").stdout)
    assert [row["data"] for row in rows] == ["digits", "other"] and "difference" not in rows[1]
    (tmp_path / "namesake").mkdir()
    np.savez(tmp_path / "namesake" / "other.npz", x=np.load(arrays)["x"] // 2, y=np.load(arrays)["y"])
    namesake = str(tmp_path / "c.safetensors")
    cli("pretrain", f"split(data='{tmp_path / 'namesake' / 'other.npz'}', tasks=2)", *common, "--output", namesake)
    rows = json.loads(cli("meta-test", files[1], namesake, "--episodes", "10", "--json").stdout)
    assert [row["data"] for row in rows] == ["other", "other"] and "difference" not in rows[1]
    refused = cli("meta-test", files[0], "--way", "3")
    assert refused.returncode == 2 and "--way 2, not 3" in refused.stderr and refused.stderr.count("\n") == 1
    refused = cli("meta-test", files[0], "--online", "4", "--optimiser", "AdamW()")
    assert refused.returncode == 2 and "AdamW(weight_decay=0.0)" in refused.stderr


def test_the_crossover_of_a_start_and_fine_tuning(cli, arrays, tmp_path):
    """Both ways of answering beside random networks; the figure; and what is refused."""
    file, figure = str(tmp_path / "a.safetensors"), tmp_path / "curves.svg"
    common = ("--init", f"ProtoNet(way=2, query=2, iterations=2, data='{arrays}')", *MODEL)
    cli("pretrain", "split-digits", *common, "--output", file)
    words = ("crossover", file, "--shots", "1,3", "--episodes", "4", "--steps", "2", "--figure", str(figure))
    found = json.loads(cli(*words, "--json").stdout)
    assert set(found["accuracy"]) == {"a, its own way", "random, fine-tuned", "a, fine-tuned"}
    assert (found["data"], found["way"], found["query"], found["episodes"]) == ("digits", 5, 15, 4)
    assert found["interval over"] == "episodes" and [len(curve) for curve in found["accuracy"].values()] == [2] * 3
    assert set(found["crossing"]) == {"random, fine-tuned over a, its own way", "a, fine-tuned over a, its own way"}
    assert figure.read_text().startswith("<?xml")
    shown = cli(*words)
    assert shown.returncode == 0 and "k = 3" in shown.stdout
    assert "random, fine-tuned over a, its own way: " in " ".join(shown.stdout.split())
    (tmp_path / "folder.pdf").mkdir()
    for more, said in {
        ("--shots", "5"): "at least 2 numbers", ("--shots", "1,many"): "cannot be read", ("--way", "9"): "18 are needed",
        ("--figure", "a.gif"): "--figure 'gif'", ("--shots", "1,100000"): "images of each class", ("--steps", "0"): "steps=0",
        ("--figure", "nowhere/a.pdf"): "there is no folder nowhere", (file,): "named twice", ("--shots", ""): "at least 2 numbers",
        ("--way", "1"): "at least 2 classes apart", ("--figure", f"{tmp_path}/folder.pdf"): "is a folder",
    }.items():  # fmt: skip
        refused = cli(*words, *more)
        assert refused.returncode == 2 and said in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr


def test_a_start_is_opened_where_its_tasks_lie(cli, arrays, tmp_path, monkeypatch):
    """On an accelerator, too; torch's device without numbers stands for it."""
    words = ("--init", f"MAML(way=2, query=2, iterations=2, data='{arrays}')", *MODEL)
    for scenario, more in (("split-digits", words), ("sines", ("--init", "MAML(iterations=1)"))):
        file = tmp_path / f"{scenario}.safetensors"
        assert cli("pretrain", scenario, *more, "--output", str(file)).returncode == 0
        with monkeypatch.context() as changed:
            changed.setattr(initialisation_files, "device_of", torch.device)
            start, _, distribution = initialisation_files.opened(file, "", "", "meta")
        assert distribution.device.type == "meta"
        assert {leaf.device.type for leaf in tree_flatten(start.meta_of_seed)[0]} == {"meta"}


def test_a_crossover_names_starts_so_that_nothing_is_mistaken(cli, arrays, tmp_path):
    """A start called random stands beside random networks; one that may have seen the tested classes says so."""
    common = ("pretrain", "split-digits", *MODEL, "--output")
    method = "ProtoNet(way=2, query=2, iterations=2, data='{}')"
    cli(*common, "random.safetensors", "--init", method.format(arrays))
    cli(*common, "seen.safetensors", "--init", method.format("digits").replace(")", ", allow_overlap=True)"))
    words = ("crossover", "--shots", "1,3", "--episodes", "2", "--steps", "1", "--json")
    arms = set(json.loads(cli(*words, "random.safetensors", "seen.safetensors").stdout)["accuracy"])
    starts = ("random.safetensors", "seen.safetensors (overlap allowed)")
    assert arms == {f"{s}, {way}" for s in starts for way in ("its own way", "fine-tuned")} | {"random, fine-tuned"}


def test_meta_test_pairs_starts(cli, arrays, tmp_path):
    for name, iterations in (("a", 6), ("b", 0)):
        text = STAGE.format(arrays).replace("iterations=6", f"iterations={iterations}")
        cli("pretrain", "split-digits", "--init", text, *MODEL, "--output", str(tmp_path / f"{name}.safetensors"))
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    found = cli("meta-test", *files, "--episodes", "20", "--json")
    rows = json.loads(found.stdout)
    assert (
        [row["mode"] for row in rows] == ["inductive"] * 2
        and {"difference", "difference_half_width"} <= set(rows[1])
        and rows[0]["episodes"] == 20
    )
    shown = cli("meta-test", *files, "--episodes", "10").stdout
    assert "difference: to the first start" in " ".join(shown.split())
    assert (
        sum(line.startswith(("a.safetensors: ", "b.safetensors: ")) for line in shown.splitlines()) == 2
    )  # a line each
    online = json.loads(cli("meta-test", files[0], "--online", "4", "--runs", "3", "--json").stdout)
    assert {row["method"] for row in online} >= {"FineTuning()"} and all(0 <= row["mean"] <= 1 for row in online)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "split-digits", "--init", "MAML()"), "declares no background classes"),
        (("run", "split-digits", "--init", "MAML(data='digits')"), "share"),
        (("run", "split-digits", "--init", "MAML(way=1)"), "at least 2"),
        (("run", "split-digits", "--init", "MAMML()"), "did you mean 'MAML'"),
        (("run", "split-digits", "--init", "nowhere.safetensors"), "no such file"),
        (("run", "split-digits", "--init", "MAML(shot=50, data='{arrays}')"), "shot=50"),
        (("run", "split-digits", "--init", "MAML(way=9, data='{arrays}')"), "9-way"),
        (("run", "split-digits", "--init", "OML(data='{arrays}', remember=9)"), "OML"),
        (("pretrain", "split-digits", "--init", "Random()", "--output", "{tmp}/x.safetensors"), "nothing that learns"),
        (("pretrain", "split-digits", "--init", "MAML(data='{arrays}')", "--output", "{tmp}/x.txt"), ".safetensors"),
        (("pretrain", "sines", "--init", "ProtoNet()", "--output", "{tmp}/x.safetensors"), "regression"),
        (("meta-test", "{tmp}/nothing.safetensors"), "no such file"),
        (("meta-test", "{tmp}/nothing.safetensors", "--online", "4", "--way", "3"), "--way does not go with --online"),
        (("meta-test", "{tmp}/nothing.safetensors", "--runs", "3"), "--runs goes with --online"),
        (("run", "split-digits", "--model", "Conv4(norm='batch')"), "norm='group'"),
        (("compare", "split-digits", "--paradigms", "all", "--learner", "NearestClassMean()"), "--learner does not go"),
        (("compare", "split-digits", "--paradigms", "all", "--init", "MAML()"), "--init does not go"),
        (("compare", "split-digits", "--meta", "MAML()"), "goes with --paradigms"),
        (("compare", "split-digits", "--paradigms", "meta,transfr"), "did you mean 'transfer'"),
        (("compare", "split-digits", "--paradigms", "all", "--setting", "class"), "--setting task"),
        (
            ("compare", "split-digits(tasks=3)", "--paradigms", "all"),
            "2 held-out tasks and 1 to choose rates on leave 0 of 3",
        ),
        (("compare", "split-digits", "--paradigms", "all", "--held-out", "4"), "leave 0 of 5 to train on"),
        (("compare", "split-digits", "--held-out", "2"), "goes with --paradigms"),
        (("compare", "split-digits", "--paradigms", "all", "--meta", "Random()"), "nothing that learns"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, tuple) else "",
)
def test_refused_in_one_line(cli, arrays, tmp_path, words, said):
    words = [word.format(arrays=arrays, tmp=tmp_path) for word in words]
    done = cli(*words, *(("--out", str(tmp_path / "runs")) if words[0] in ("run", "compare") else ()))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_start_for_another_network_is_refused(cli, arrays, tmp_path):
    file = tmp_path / "start.safetensors"
    cli("pretrain", "split-digits", "--init", STAGE.format(arrays), *MODEL, "--output", str(file))
    done = cli("run", "split-digits", "--model", "MLP(13)", "--init", str(file), "--out", str(tmp_path / "runs"))
    assert done.returncode == 2 and "another network" in done.stderr and done.stderr.count("\n") == 1
    about = load_learned(file).about | {"model": "Conv4()"}
    with pytest.raises(InitialisationError, match="another network"):
        replace(load_learned(file), about=about).fitting(MLP(12), build(find("split-digits")))
    again = cli("pretrain", "split-digits", "--init", STAGE.format(arrays), *MODEL, "--output", str(file))
    assert again.returncode == 2 and "exists already" in again.stderr


DEEP = '''"""Learns beside the network a tree of its own: deep, with tuples, lists and numbers without a dimension."""

from dataclasses import dataclass

import torch

from lifelong.meta.protonet import ProtoNet


@dataclass(frozen=True)
class Deep(ProtoNet):
    """ProtoNet whose scores are multiplied by a number from deep within what it learns."""

    def init(self, distribution, generator):
        number = {shape}
        tree = {{"first": {{"second": {{"third": [number, (number + 1, {{"fourth": number + 2}})]}}}}, "none": ()}}
        return {{**super().init(distribution, generator), "own": tree}}

    def query_scores(self, distribution, meta, support, query, way):
        scale = meta["own"]["first"]["second"]["third"][1][1]["fourth"].sum()
        return super().query_scores(distribution, meta, support, query, way) * scale
'''


def test_what_is_learned_beside_the_network_is_kept_at_any_depth(cli, arrays, tmp_path):
    """Learned, written, tested, put under a run, and resumed from a checkpoint: a tree five levels deep."""
    (tmp_path / "deep.py").write_text(DEEP.format(shape="torch.ones(())"))
    init, file = f"deep.py:Deep(way=2, query=2, iterations=4, data='{arrays}')", tmp_path / "deep.safetensors"
    made = cli("pretrain", "split-digits", "--init", init, *MODEL, "--output", str(file), "--checkpoint-every", "0")
    assert made.returncode == 0, made.stderr
    tree = load_learned(file).meta["own"]
    assert isinstance(tree["first"]["second"]["third"], list) and tree["none"] == ()
    number, (after, deepest) = tree["first"]["second"]["third"]
    assert number.shape == after.shape == deepest["fourth"].shape == (1,)
    tested = cli("meta-test", str(file), "--episodes", "5")  # a start file never loads code
    assert tested.returncode == 2 and "deep.py" in tested.stderr and tested.stderr.count("\n") == 1
    done = cli("run", "split-digits", *MODEL, "--init", str(file), "--iterations", "1", "--seeds", "1")
    assert done.returncode == 0, done.stderr


def test_what_no_file_could_give_back_is_refused_before_it_is_learned(cli, arrays, tmp_path):
    (tmp_path / "named.py").write_text(DEEP.format(shape="torch.ones(1)").replace('"none": ()', '"none": {1: number}'))
    init = f"named.py:Deep(way=2, query=2, iterations=100000000, data='{arrays}')"
    made = cli("pretrain", "split-digits", "--init", init, *MODEL, "--output", str(tmp_path / "x.safetensors"))
    assert made.returncode == 2 and "a key is 1" in made.stderr and made.stderr.count("\n") == 1, made.stderr


def test_trees_come_back_to_the_bit(tmp_path):
    """Every kind of container and tensor, numbers without a dimension among them; a file of other things is refused."""
    tree = {
        "net": {"a.b": torch.rand(2, 3), "c'd]": torch.tensor(1.5, dtype=torch.float64)},
        "own": [torch.tensor(3), (torch.zeros(0, 2), {"x": {"y": (torch.tensor([True]),)}}), {}, ()],
    }
    save_tree(tmp_path / "tree.safetensors", tree, {"made by": "x"})
    again, about = load_tree(tmp_path / "tree.safetensors")
    assert about == {"made by": "x"}
    (before, spec), (after, other) = tree_flatten(tree), tree_flatten(again)
    assert spec == other
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(before, after, strict=True))
    save_tensors(tmp_path / "other.safetensors", named(tree), {})
    with pytest.raises(ConfigurationError, match="not a start"):
        load_learned(tmp_path / "other.safetensors")


def test_texts_of_earlier_versions_are_still_read():
    """What the committed record and older start files say made them; words that never said anything are dropped."""
    record = json.loads((Path(__file__).parent.parent / "docs" / "reference.json").read_text())
    texts = {cell["stage"] for cell in record if "stage" in cell}
    assert len(texts) > 5
    for text in texts:
        method = parse(text, "initialisations")
        assert repr(method).startswith(text.partition("(")[0]) and parse(repr(method), "initialisations") == method
    old = next(text for text in sorted(texts) if text.startswith("Pretrained") and "way=" in text)  # a stale cell's
    assert "way=" in old and "way=" not in repr(parse(old, "initialisations"))
    assert parse("MAML(5, 1)", "initialisations") == parse("MAML(way=5, shot=1)", "initialisations")
    with pytest.raises(ConfigurationError, match="MultiTask"):
        parse("Pretrained(groups=3)", "initialisations")


def test_a_test_says_how_far_it_is(cli, arrays, tmp_path):
    file = str(tmp_path / "start.safetensors")
    made = cli("pretrain", "split-digits", "--init", STAGE.format(arrays), *MODEL, "--output", file)
    assert "ProtoNet: 6 iterations" in made.stderr and made.stderr.count("validation") == 6
    tested = cli("meta-test", file, "--episodes", "4", "--json")
    assert "start.safetensors, digits, inductive: 0 of 4 episodes" in tested.stderr
    row = json.loads(tested.stdout)[0]
    assert row["half_width"] > 0 and not any("half width" in key for key in row)
