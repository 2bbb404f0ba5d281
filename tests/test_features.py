"""Tables of features: their key, their file, how they are read, and that what is said of them stays with them."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lifelong.core.loop import run
from lifelong.learners.nearest_class_mean import NearestClassMean
from lifelong.meta.learned import load_learned
from lifelong.models import outside
from lifelong.models.convolutional import Conv4
from lifelong.models.outside import load_weights, outside_network, read_weights, weights_hash
from lifelong.notation.user_code import name_files
from lifelong.runs.feature_tables import Asked, Transform, feature_table
from scenarios.catalogue import build
from scenarios.datasets import load_dataset
from scenarios.errors import ConfigurationError
from scenarios.split import split
from scenarios.stream import Budget, Seed
from scenarios.tables import about_table, mapped, origin_of, write_table

NET = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5))

def broken():
    raise OSError("no such disk")

def words():
    return "a text"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIFELONG_CONFIG", str(tmp_path / "config"))
    random = np.random.default_rng(0)
    x = random.integers(0, 255, (40, 4, 4), dtype=np.uint8)
    np.savez("small.npz", x=x, y=np.arange(40) % 4 + 3)
    Path("net.py").write_text(NET)
    name_files(["net.py:build"])
    torch.manual_seed(3)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).state_dict(), "net.pt")
    return tmp_path


@pytest.fixture
def command(place, monkeypatch, capsys):
    """The command line in this process: exit code, standard output, standard error."""
    from cli import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["lifelong", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, errors = capsys.readouterr()
        return ended.value.code, out, errors

    return call


def asked(**changes):
    return Asked(**{"data": "small.npz", "model": "net.py:build", "weights": "net.pt", **changes})


def refused(match, call, *arguments, **named):
    with pytest.raises(ConfigurationError, match=match) as refusal:
        call(*arguments, **named)
    assert "\n" not in str(refusal.value)


# --- what a table holds -------------------------------------------------------------------------------------------


def test_a_table_is_the_networks_answers_row_by_row(place):
    table = feature_table(asked(batch=7))
    module, dataset = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), load_dataset("small.npz")
    module.load_state_dict(torch.load("net.pt", weights_only=True))
    made = load_dataset(str(table.path))
    torch.testing.assert_close(made.x, module(dataset.x / 255).detach(), rtol=0, atol=1e-6)
    assert torch.equal(made.y, dataset.y) and made.train_rows == dataset.train_rows and made.labels == (3, 4, 5, 6)
    assert made.x.dtype == torch.float32 and made.shape == (5,)
    with np.load(table.path, allow_pickle=False) as arrays:
        assert {"x", "y", "train_rows"} <= set(arrays.files) and arrays["x"].shape == (40, 5)


def test_learning_from_a_table_is_learning_from_the_frozen_network(place):
    """Accuracies of the means of a random network's features: looked up, and computed in every step."""
    feature_table(Asked("digits", "Conv4(8, 2)"), Path("digits-table.npz"))
    budget, seeds = Budget(epochs=1, batch=32), [Seed(s, 0, s) for s in (0, 1)]
    table = split(load_dataset("digits-table.npz"), 5, budget=budget)
    there = run(NearestClassMean(), table, seeds)
    here = run(NearestClassMean("net", model=Conv4(8, 2)), build("split-digits", budget=budget), seeds)
    assert torch.allclose(there.accuracy, here.accuracy, atol=0.005) and float(here.accuracy[:, -1].mean()) > 0.5


def test_a_starts_file_gives_the_weights_and_says_what_it_learned_from(place, command):
    random = np.random.default_rng(1)
    np.savez("many.npz", x=random.integers(0, 255, (400, 4, 4), dtype=np.uint8), y=np.arange(400) % 20)
    method = "Pretrained(iterations=3, data='many.npz', allow_overlap=True)"
    words = ("pretrain", "split(data='small.npz', tasks=2)", "--model", "MLP(6)", "--init", method)
    code, _, errors = command(*words, "--output", "start.safetensors")
    assert code == 0, errors
    words = ("features", "small.npz", "--model", "MLP(6)", "--weights", "start.safetensors")
    about = json.loads(command(*words, "--json")[1])
    assert about["pretrained on"].startswith("many.npz, by Pretrained(") and about["made now"]
    start = load_learned(Path("start.safetensors")).meta["net"]
    assert about["weights"] == weights_hash({name: value[0] for name, value in start.items() if "head" not in name})
    refused("is for MLP", feature_table, Asked("small.npz", "MLP(7)", "start.safetensors"))


# --- its key --------------------------------------------------------------------------------------------------------


def test_the_same_request_finds_the_table_again_and_computes_nothing(place, monkeypatch):
    first = feature_table(asked(), Path("t.npz"))
    before = first.path.stat().st_mtime_ns, first.path.read_bytes()
    monkeypatch.setattr("lifelong.runs.feature_tables.features_of", None)  # whoever asks for features now fails
    again = feature_table(asked(batch=3), Path("t.npz"))
    assert first.is_new and not again.is_new and (first.path.stat().st_mtime_ns, first.path.read_bytes()) == before


def test_the_key_changes_with_a_weight_a_pixel_the_transform_and_the_code(place):
    keys = {"as it is": feature_table(asked()).about["key"]}
    weights = torch.load("net.pt", weights_only=True)
    weights["1.weight"][2, 3] += 1e-6
    torch.save(weights, "other.pt")
    keys["a weight"] = feature_table(asked(weights="other.pt")).about["key"]
    with np.load("small.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    x[7, 2, 1] ^= 1
    np.savez("pixel.npz", x=x, y=y)
    keys["a pixel"] = feature_table(asked(data="pixel.npz")).about["key"]
    keys["the transform"] = feature_table(asked(transform=Transform(normalise="half"))).about["key"]
    keys["what it learned from"] = feature_table(asked(pretrained_on="flowers")).about["key"]
    Path("net.py").write_text(
        NET.replace("nn.Flatten(), ", "nn.Flatten(), nn.Identity(), ").replace("Identity", "Flatten")
    )
    torch.save(
        {name.replace("1.", "2."): value for name, value in torch.load("net.pt", weights_only=True).items()}, "two.pt"
    )
    name_files(["net.py:build"])
    keys["the code"] = feature_table(asked(weights="two.pt")).about["key"]
    assert len(set(keys.values())) == len(keys), keys


def test_a_pixel_alone_changes_the_key_under_the_same_name(place):
    first = feature_table(asked())
    with np.load("small.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    x[0, 0, 0] ^= 1
    np.savez("small.npz", x=x, y=y)
    second = feature_table(asked())
    assert second.is_new and second.path != first.path and first.path.exists()


def test_a_file_that_holds_something_else_stays(place):
    feature_table(asked(), Path("t.npz"))
    content = Path("t.npz").read_bytes()
    refused("holds something else", feature_table, asked(transform=Transform(normalise="half")), Path("t.npz"))
    refused("holds something else", feature_table, asked(), Path("small.npz"))
    refused("ends with .npz", feature_table, asked(), Path("t.bin"))
    assert Path("t.npz").read_bytes() == content


def test_random_weights_are_drawn_from_the_seed_and_said_to_be_random(place):
    keys = [outside_network("net.py:build", seed) for seed in (0, 0, 1)]
    hashes = [weights_hash(dict(module.state_dict())) for module in keys]
    assert hashes[0] == hashes[1] != hashes[2]
    table = feature_table(Asked("small.npz", "MLP(6)"))
    assert table.about["pretrained on"] == "nothing: random weights, seed 0"
    refused("trained on nothing", feature_table, Asked("small.npz", "MLP(6)", pretrained_on="flowers"))


def test_nothing_half_is_left_where_features_are_not_finite(place):
    Path("net.py").write_text(NET.replace("nn.Linear(16, 5)", "nn.Linear(16, 5), nn.Threshold(1e9, float('nan'))"))
    name_files(["net.py:build"])
    refused("NaN or infinite", feature_table, asked(weights=""), Path("t.npz"))
    assert not list(place.glob("t.npz*"))


# --- how it is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_a_seed_that_is_none_is_one_line(cli, seed):
    code, out, errors = cli("features", "digits", "--model", "MLP(4)", "--seed", seed)
    assert (code, out, errors.count("\n")) == (2, "", 1) and f"--seed {seed}: a " in errors, errors


def big_table(path: Path, rows: int, width: int) -> None:
    pieces = (np.full((1000, width), i, np.float32) for i in range(rows // 1000))
    write_table(path, pieces, (width,), np.arange(rows) % 4, rows // 2, {"model": "none", "data": "none"})


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts pages as Linux does")
def test_a_table_is_mapped_and_not_read(place):
    """96 MB of rows, loaded, hashed and looked up in a process whose own memory grows by less than a quarter of that."""
    big_table(Path("big.npz"), 24_000, 1000)
    code = """
import torch
from scenarios.datasets import load_dataset
def kept():
    return next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith("RssAnon"))
load_dataset("small.npz").content_hash()
before = kept()
dataset = load_dataset("big.npz")
dataset.content_hash()
assert dataset.x[torch.tensor([0, 23_999])].mean(1).tolist() == [0.0, 23.0]
print(kept() - before, any("big.npz" in line for line in open("/proc/self/maps")))
"""
    root = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": root})
    grown, is_mapped = done.stdout.split() or (done.stderr, "")
    assert float(grown) < 24 and is_mapped == "True", (grown, done.stderr)


def test_what_is_written_into_a_mapped_table_does_not_reach_its_file(place):
    big_table(Path("t.npz"), 4000, 3)
    content = Path("t.npz").read_bytes()
    dataset = load_dataset("t.npz")
    dataset.x[0] += 1
    assert Path("t.npz").read_bytes() == content and float(load_dataset("t.npz").x[0, 0]) == 0


def test_more_than_memory_is_refused_only_where_it_would_be_read(place, monkeypatch):
    big_table(Path("t.npz"), 4000, 100)
    with np.load("t.npz") as arrays:
        held = {name: arrays[name] for name in ("x", "y", "train_rows")}
    np.savez_compressed("packed.npz", **held)
    monkeypatch.setattr("scenarios.datasets.free_memory", lambda: 1_000_000)
    assert len(load_dataset("t.npz").x) == 4000
    refused("there is not as much memory", load_dataset, "packed.npz")


def test_a_table_that_cannot_be_mapped_is_read(place):
    big_table(Path("t.npz"), 4000, 3)
    with np.load("t.npz") as arrays:
        held = {name: arrays[name] for name in ("x", "y", "train_rows")}
    np.savez_compressed("packed.npz", **held)
    np.savez("double.npz", **{**held, "x": held["x"].astype(np.float64)})
    mine = load_dataset("t.npz")
    for name in ("packed.npz", "double.npz"):
        assert mapped(Path(name)) is None
        other = load_dataset(name)
        assert torch.equal(other.x, mine.x) and torch.equal(other.y, mine.y) and other.train_rows == mine.train_rows
        assert other.content_hash() == mine.content_hash()


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_hostile_tables_are_refused_and_execute_nothing(place):
    """Pickled arrays, one in place of each member; lies about sizes; words that are no object."""
    good = {"x": np.zeros((8, 2), np.float32), "y": np.arange(8) % 2, "train_rows": np.array(4)}
    evil = np.array([Evil()], dtype=object)
    for name in good:
        np.savez("evil.npz", **{**good, name: evil})
        refused("evil.npz", load_dataset, "evil.npz")
    for changed in (
        {"train_rows": np.array(0)}, {"train_rows": np.array(8)}, {"train_rows": np.array([4])}, {"train_rows": np.array(4.0)},
        {"y": np.arange(7) % 2}, {"y": np.arange(8) - 1}, {"y": np.arange(8)}, {"x": np.full((8, 2), np.nan, np.float32)},
    ):  # fmt: skip
        np.savez("wrong.npz", **{**good, **changed})
        refused("wrong", load_dataset, "wrong.npz")
    big_table(Path("t.npz"), 4000, 3)
    content = Path("t.npz").read_bytes()
    Path("lies.npz").write_bytes(content.replace(b"(4000, 3)", b"(9999, 3)"))
    refused("lies.npz", load_dataset, "lies.npz")
    Path("short.npz").write_bytes(content[:20_000])
    refused("short.npz", load_dataset, "short.npz")
    with zipfile.ZipFile("about.npz", "w") as archive:
        for name, value in good.items():
            stream = io.BytesIO()
            np.save(stream, value)
            archive.writestr(f"{name}.npy", stream.getvalue())
        archive.writestr("about.json", "[1, 2]")
    refused("holds no object", load_dataset, "about.npz")
    assert not Path("executed").exists()


def test_weights_are_read_as_tensors_and_nothing_else(place):
    Path("evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"1.weight": Evil()}, "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        refused("cannot be read as weights", read_weights, Path(name))
    Path("torn.safetensors").write_bytes(b"12345678")
    refused("cannot be read as weights", read_weights, Path("torn.safetensors"))
    refused("no such file", read_weights, Path("none.pt"))
    torch.save([1], "list.pt")
    refused("tensors by name", read_weights, Path("list.pt"))
    assert not Path("executed").exists()
    module = outside_network("net.py:build")
    torch.save({"state_dict": {f"module.{name}": value for name, value in module.state_dict().items()}}, "wrapped.pt")
    assert load_weights(module, Path("wrapped.pt")) == 2
    for changed, match in (
        ({"1.weight": torch.zeros(5, 17)}, "of shape"), ({"2.bias": torch.zeros(5)}, "has 2.bias"), ({"1.bias": None}, "has no 1.bias"),
    ):  # fmt: skip
        held = {name: value for name, value in {**module.state_dict(), **changed}.items() if value is not None}
        torch.save(held, "other.pt")
        refused(match, load_weights, module, Path("other.pt"))


# --- networks from elsewhere --------------------------------------------------------------------------------------


def test_torchvision_by_name_and_its_near_miss(place):
    pytest.importorskip("torchvision")
    made = feature_table(
        Asked("small.npz", "torchvision:squeezenet1_1", transform=Transform(32, 3, "imagenet"), batch=20)
    )
    assert load_dataset(str(made.path)).shape[0] > 100 and made.about["code"]
    refused("did you mean 'resnet18'", outside_network, "torchvision:resnet81")
    refused("see --size, --channels", feature_table, Asked("small.npz", "torchvision:resnet18"))


def test_resnets_features_are_those_before_its_head(place):
    models = pytest.importorskip("torchvision.models")
    trunk = outside_network("torchvision:resnet18", 4)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        whole = models.resnet18().eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(whole.fc(outside.features_of(trunk, x)), whole(x))
    torch.save(whole.state_dict(), "resnet.pt")  # with its head, which features need not
    assert load_weights(outside_network("torchvision:resnet18"), Path("resnet.pt")) > 100


def test_packages_that_are_missing_and_weights_that_cannot_be_had(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    refused(
        "timm:resnet18 needs the package timm, which is not installed: pip install timm",
        outside_network,
        "timm:resnet18",
    )

    def offline(*arguments, **named):
        raise OSError("Name or service not known")

    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr(models, "get_model", offline)
    refused("give --weights FILE", outside_network, "torchvision:resnet18", 0, True)


def test_timm_and_transformers_are_asked_in_their_own_ways(place, monkeypatch):
    """With stand-ins for both: what is asked of them, and that code from a model's folder is never trusted."""
    seen = []
    timm = types.SimpleNamespace(
        __version__="1", list_models=lambda: ["tiny"],
        create_model=lambda name, **named: seen.append((name, named)) or nn.Sequential(nn.Flatten(), nn.Linear(16, 2)),
    )  # fmt: skip

    class Tokens(nn.Module):
        def forward(self, x):
            return types.SimpleNamespace(last_hidden_state=x.flatten(1).view(len(x), 4, 4), pooler_output=None)

    def take(kind):
        return lambda *arguments, **named: (
            seen.append((kind, named)) or (Tokens() if "model" in kind else "configuration")
        )

    transformers = types.SimpleNamespace(
        __version__="2",
        AutoConfig=types.SimpleNamespace(from_pretrained=take("config")),
        AutoModel=types.SimpleNamespace(from_pretrained=take("pretrained model"), from_config=take("model")),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    assert load_dataset(str(feature_table(Asked("small.npz", "timm:tiny")).path)).shape == (2,)
    assert seen == [("tiny", {"pretrained": False, "num_classes": 0})]
    refused("did you mean 'tiny'", outside_network, "timm:tinny")
    tokens = load_dataset(str(feature_table(Asked("small.npz", "transformers:some/net")).path))
    raw = load_dataset("small.npz").x.float() / 255
    torch.testing.assert_close(tokens.x, raw.mean(1))
    outside_network("transformers:some/net", pretrained=True)
    assert [named["trust_remote_code"] for kind, named in seen[1:]] == [False] * 3
    assert seen[1][1]["local_files_only"] and seen[-1][1]["use_safetensors"]


def test_what_a_users_function_does_wrong_is_a_line(place):
    refused("net.py:9: OSError: no such disk", outside_network, "net.py:broken")
    refused("made a str", outside_network, "net.py:words")
    refused("has no 'bild'", outside_network, "net.py:bild")
    refused("do not fit the network", feature_table, asked(data="digits"))
    refused("--weights and --pretrained", feature_table, asked(pretrained=True))


def test_a_file_that_the_user_did_not_name_is_not_executed(place):
    Path("alien.py").write_text("open('executed', 'w')\ndef build():\n    pass\n")
    refused("is not code that you ran here", outside_network, "alien.py:build")
    assert not Path("executed").exists()


@pytest.mark.parametrize("transform, match", [
    (Transform(channels=3, normalise="half"), "are no images"), (Transform(normalise="imagenet"), "are no images"),
])  # fmt: skip
def test_a_transform_that_does_not_fit_is_a_line(place, transform, match):
    np.savez("flat.npz", x=np.zeros((8, 3), np.float32), y=np.arange(8) % 2)
    refused(match, feature_table, Asked("flat.npz", "MLP(4)", transform=transform))
    refused("of 3 channels, and images have 1", feature_table, asked(transform=Transform(normalise="imagenet")))
    refused("imagenet, half", Transform, normalise="mnist")


def test_a_transform_by_hand():
    x = torch.arange(4.0).view(1, 2, 2) / 3
    seen = Transform(channels=3, normalise="imagenet")(x)
    assert float(seen[0, 1, 1, 0]) == pytest.approx((2 / 3 - 0.456) / 0.224, rel=1e-6)
    assert Transform(size=6)(x).shape == (1, 1, 6, 6) and torch.equal(Transform()(x), x)


# --- what is said of it -------------------------------------------------------------------------------------------


def test_the_command_line_from_the_network_to_the_page(place, command):
    """One line in every table and page that uses it."""
    words = (
        "features",
        "small.npz",
        "--model",
        "net.py:build",
        "--weights",
        "net.pt",
        "--pretrained-on",
        "four flowers",
    )
    code, out, errors = command(*words, "--out", "t.npz")
    assert code == 0 and "four flowers" in out and "saved in t.npz" in errors
    code, _, errors = command(*words, "--out", "t.npz")
    assert code == 0 and "nothing was done" in errors
    line = "features of small.npz by net.py:build, pre-trained on: four flowers, weights "
    assert line in origin_of(about_table(Path("t.npz"))) and line in load_dataset("t.npz").origin
    run_words = ("split(data='t.npz', tasks=2)", "--iterations", "2", "--seeds", "2", "--model", "MLP(4)")
    code, out, errors = command("run", *run_words, "--learner", "FeCAM()", "--name", "a")
    assert code == 0 and line in " ".join(out.split()), errors
    code, out, _ = command("compare", *run_words, "--learner", "NearestClassMean()", "--report", "page.html")
    assert code == 0 and line in " ".join(out.split()) and line in Path("page.html").read_text()
    assert line in " ".join(command("show", "runs/a")[1].split())
    assert line in json.loads(Path("runs/a/run.json").read_text())["resolved"]["data"]["origin"]
    code, out, _ = command("run", "split(data='small.npz', tasks=2)", *run_words[1:], "--name", "b")
    assert code == 0 and "pre-trained on" not in out


@pytest.mark.parametrize("words, match", [
    (("nothing", "--model", "MLP(3)"), "unknown data set"), (("small.npz", "--model", "MPL(3)"), "did you mean 'MLP'"),
    (("small.npz", "--model", "net.py:build", "--weights", "none.pt"), "no such file"), (("small.npz", "--model", "MLP(3)", "--size", "-1"), "at least 1"),
    (("small.npz", "--model", "MLP(3)", "--pretrained"), "no weights that could be fetched"), (("small.npz",), "model"),
    (("small.npz", "--model", "MLP(3)", "--batch", "0"), "--batch"), (("small.npz", "--model", "MLP(3)", "--device", "tpu9"), "device"),
])  # fmt: skip
def test_refusals_are_a_line_and_exit_code_2(place, command, words, match):
    code, _, errors = command("features", *words)
    assert code == 2 and match in errors and errors.count("\n") == 1 and "Traceback" not in errors


def test_a_network_that_varies_is_refused_in_one_line(tmp_path, cli):
    code, _, errors = cli("features", "digits", "--model", "MLP(vary(4, 5))", "--out", str(tmp_path / "v.npz"))
    assert code == 2 and "varies, and a table is of one network" in errors and len(errors.strip().splitlines()) == 1


def test_rows_that_no_memory_holds_are_refused_in_one_line(tmp_path, cli):
    words = ("features", "digits", "--model", "MLP(5)", "--size", "1000000", "--out", str(tmp_path / "big.npz"))
    code, _, errors = cli(*words)
    assert code == 2 and "--batch" in errors and len(errors.strip().splitlines()) == 1
