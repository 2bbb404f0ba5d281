"""A user's own networks: torch modules and records, sound ones and those that break in every way that we met."""

from __future__ import annotations

import re

import pytest
import torch

from lifelong.contracts.learners import tiny
from lifelong.contracts.models import MODEL_CHECKS, check_model, is_model
from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.notation.expression import parse
from lifelong.notation.user_code import load_file, name_files
from lifelong.notation.varied import settings_of
from lifelong.strategies.replay.replay import Replay
from scenarios.errors import ConfigurationError

HEAD = """import math
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F
from lifelong.models.base import apply_linear, linear
"""
MODULE = (
    HEAD
    + """

class Net(nn.Module):
    def __init__(self, shape, classes, width=8):
        super().__init__()
        self.inside = nn.Linear(math.prod(shape), width)
        self.head = nn.Linear(width, classes)

    def features(self, x):
        x = x.flatten(1)
        {line}
        return self.inside(x).relu()
"""
)
LINE = MODULE[: MODULE.index("{line}")].count("\n") + 1
PLAIN = MODULE.replace("{line}", "pass")
METHODS = (
    PLAIN.replace("self.head = ", "self.last = ")
    + "\n    def head(self, features):\n        return self.last(features)\n"
)
BUFFER = PLAIN.replace("pass", "x = x * self.scale").replace(
    "        self.inside", "        self.register_buffer('scale', torch.full((), 2.0))\n        self.inside", 1
)
RECORD = (
    HEAD
    + """

@dataclass(frozen=True)
class Net:
    width: int = 8

    def init(self, shape, classes, generator):
        net = {}
        linear(net, "inside", math.prod(shape), self.width, generator)
        linear(net, "head", self.width, classes, generator)
        return net

    def features(self, net, x):
        x = x.flatten(1)
        pass
        return apply_linear(net, "inside", x).relu()

    def head(self, net, features):
        return apply_linear(net, "head", features)
"""
)
SOUND = {"module": PLAIN, "methods": METHODS, "buffer": BUFFER, "record": RECORD}


@pytest.fixture
def net(tmp_path, monkeypatch):
    """Writes my_net.py and reads an expression of it, as a user's command line does."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, call: str = "Net()"):
        (tmp_path / "my_net.py").write_text(text)
        name_files([f"my_net.py:{call}"])
        return parse(f"my_net.py:{call}", "models")

    return read


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND.keys())
def test_a_sound_network_keeps_the_contract(net, text):
    model = net(text, "Net(width=5)")
    assert [row for row in check_model(model) if row[1]] == []
    assert repr(model) == "my_net.py:Net(width=5)" and model == net(text, "Net(5)") != net(text, "Net(6)")


OURS = ("MLP()", "MLP(8, 5)", "Conv4(8, 2)", "Conv4(8, 2, halving='stride')", "Conv4(8, 2, norm='batch')",
        "Conditioned(MLP(8))", "Conditioned(MLP(8, 4), by='concatenation', place='all')", "Conditioned(MLP(8), by='gates')",
        "Conditioned(Conv4(8, 2), place='all')", "Conditioned(Conv4(8, 2, halving='stride'), by='concatenation')",
        "SharedLayers(MLP(8, 5))", "SharedLayers(MLP(8, 5), depth=-1)", "SharedLayers(Conv4(8, 2), depth=0, alike=False)",
        "CrossStitch(MLP(8, 5))", "CrossStitch(Conv4(8, 2))", "MMoE(MLP(8), 3)", "MMoE(Conv4(8, 2), 2)",
        "Gated(MLP(8), MLP(3))")  # fmt: skip


@pytest.mark.parametrize("text", OURS)
@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.name.replace(" ", "-"))
def test_our_own_networks_keep_the_contract(text, check):
    check.holds(parse(text, "models"))


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND.keys())
def test_a_fleet_learns_with_it(net, text):
    model = net(text)
    learner = Learner(model, Replay(10))
    together = run(learner, tiny(), [0, 1])
    alone = run(learner, tiny(), [1])
    assert torch.equal(together.accuracy[1:], alone.accuracy)
    model.init((6,), 6, torch.Generator())
    assert {"head"} == {name.partition(".")[0] for name in model.init((6,), 6, torch.Generator())} - {"inside"}
    again = [model.init((6,), 6, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert all(torch.equal(again[0][name], again[1][name]) for name in again[0])


def test_a_width_may_be_varied(net):
    for text in (PLAIN, RECORD):
        settings = settings_of(net(text, "Net(width=vary(3, 5))"))
        assert [repr(model) for model in settings] == ["my_net.py:Net(width=3)", "my_net.py:Net(width=5)"]
        rows = [model.head_rows(model.init((6,), 4, torch.Generator())) for model in settings]
        assert [tuple(row.shape) for row in rows] == [(4, 3), (4, 5)]


def test_a_hook_sees_the_layers_of_a_module(net):
    for text, last in ((PLAIN, "head"), (METHODS, "head.last")):
        model = net(text)
        params = model.init((6,), 4, torch.Generator())
        seen = {}

        def at(name, entering, leaving, seen=seen):
            seen[name] = (tuple(entering.shape), tuple(leaving.shape))
            return leaving * 0

        scores = model.head(params, model.features(params, torch.rand(3, 6), at), at)
        assert seen == {"inside": ((3, 6), (3, 8)), last: ((3, 8), (3, 4))} and not scores.any()
        assert all(f"{name}.weight" in params for name in seen)


# --- those that break -------------------------------------------------------------------------------------------------

LINES = {
    "data-dependent if": ("if x.sum() > 0: x = x + 1", "torch.where"),
    "item": ("x = x * x.sum().item()", "item"),
    "random": ("x = x + torch.randn_like(x)", "random"),
    "in place": ("x.add_(1)", "writes into its input"),
    "raises": ("{}['key']", "KeyError"),
    "mixes rows": ("x = x - x.mean(0)", "mixes_rows"),
    "sizes": ("x = x[:, :-1]", "sizes of neighbouring layers"),
    "none": ("return None", "must return a tensor"),
    "rows": ("x = x[:1]", "3 x F"),
    "state": ("self.count = getattr(self, 'count', 0) + 1; x = x + self.count", "second time"),
}


@pytest.mark.parametrize("line, hint", LINES.values(), ids=LINES.keys())
@pytest.mark.parametrize("text", [PLAIN, METHODS, RECORD], ids=["module", "methods", "record"])
def test_what_a_network_raises_is_one_line_with_its_place(net, text, line, hint):
    """Before anything learns: when its first parameters are drawn."""
    if "self.count" in line and text is RECORD:
        line = "object.__setattr__(self, 'count', getattr(self, 'count', 0) + 1); x = x + self.count"
    model = net(re.sub(r"\bpass\b", lambda _: line, text))
    with pytest.raises(ConfigurationError, match=re.escape(hint)) as error:
        run(Learner(model), tiny(), [0, 1])
    words = str(error.value)
    assert "\n" not in words and re.match(r"my_net\.py:\d+: ", words), words
    number = int(words.split(":")[1])
    place = (tmp := text.splitlines()).index(next(row for row in tmp if "def features" in row)) + 1
    assert place <= number <= place + 4, words
    failed = [row[0] for row in check_model(model) if row[1]]
    assert failed, "the contract sees it too"


CLASSES = {
    "wrong head": (PLAIN.replace("nn.Linear(width, classes)", "nn.Linear(width, 3)"), "3 x 6"),
    "no head": (PLAIN.replace("self.head", "self.tail"), "no `head`"),
    "no features": (PLAIN.replace("def features", "def feature"), "no `features`"),
    "wrong size": (PLAIN.replace("nn.Linear(width, classes)", "nn.Linear(width + 1, classes)"), "neighbouring layers"),
    "init raises": (PLAIN.replace("super()", "1 / 0; super()"), "ZeroDivisionError"),
    "no super": (PLAIN.replace("super().__init__()", "pass"), "AttributeError"),
    "no classes": (PLAIN.replace("shape, classes, width=8", "width=8"), "self, shape, classes"),
    "defaults": (PLAIN.replace("shape, classes, width=8", "shape=(8,), classes=2"), "self, shape, classes"),
    "any words": (PLAIN.replace("width=8", "**words"), "self, shape, classes"),
    "running statistics": (PLAIN.replace("nn.Linear(width, classes)", "nn.BatchNorm1d(width)"), "group norm"),
    "dropout": (PLAIN.replace("nn.Linear(width, classes)", "nn.Dropout(0.5)"), "dropout"),
    "lazy": (PLAIN.replace("nn.Linear(width, classes)", "nn.LazyLinear(classes)"), "lazy"),
    "nothing to learn": (PLAIN.replace("nn.Linear(width, classes)", "nn.ReLU()").replace("nn.Linear(math.prod(shape), width)", "nn.ReLU()"), "nothing to learn"),
    "function": (HEAD + "def Net(shape, classes):\n    return None\n", "is no class"),
    "no model": (HEAD + "class Net:\n    pass\n", "is no model"),
    "tensor": (HEAD + "Net = torch.zeros(3)\n", "is no class"),
    "not frozen": (RECORD.replace("@dataclass(frozen=True)\n", ""), "dataclass"),
    "record init": (RECORD.replace("return net\n", "return 3\n", 1), "dict of tensors"),
    "record init raises": (RECORD.replace("net = {}", "net = {}['a']"), "KeyError"),
    "record head": (RECORD.replace('return apply_linear(net, "head", features)', "return features"), "3 x 6"),
    "record refuses": (RECORD.replace("width: int = 8", "width: int = 8\n\n    def __post_init__(self):\n        raise RuntimeError('no')"), "RuntimeError: no"),
}  # fmt: skip


@pytest.mark.parametrize("text, hint", CLASSES.values(), ids=CLASSES.keys())
def test_a_class_that_is_no_model_is_one_line(net, text, hint):
    with pytest.raises(ConfigurationError, match=re.escape(hint)) as error:
        run(Learner(net(text)), tiny(), [0, 1])
    assert "\n" not in str(error.value) and str(error.value).startswith("my_net.py:"), error.value


@pytest.mark.parametrize(
    "call, hint",
    [("Net(widht=3)", "'width'"), ("Net(1, 2)", "at most 1"), ("Net(width='a')", "width must be int"),
     ("Net(classes=3)", "no field 'classes'"), ("Net(8, width=9)", "width")],
)  # fmt: skip
def test_a_wrong_field_is_one_line(net, call, hint):
    with pytest.raises(ConfigurationError, match=hint) as error:
        net(PLAIN.replace("width=8", "width: int = 8"), call)
    assert "\n" not in str(error.value)


def test_helpers_in_the_file_are_no_models(tmp_path):
    file = tmp_path / "my_net.py"
    file.write_text(PLAIN + "\nclass Part(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n")
    module = load_file(str(file), named_by_user=True)
    assert is_model(module.Net) and not is_model(module.Part) and not is_model(module.math)


def test_declared_mixing_is_refused_by_a_stream_in_one_line(net):
    text = PLAIN.replace("pass", "x = x - x.mean(0)").replace(
        "class Net(nn.Module):", "class Net(nn.Module):\n    mixes_rows = True\n"
    )
    model = net(text)
    assert [row for row in check_model(model) if row[1]] == []
    with pytest.raises(ConfigurationError, match="beside them"):
        run(Learner(model), tiny(), [0])


def test_new_model_and_check(cli, tmp_path):
    code, out, _ = cli("new", "model", "my_net.py")
    assert code == 0 and "my_net.py:MyNet(width=64)" in out
    code, out, errors = cli("check", "my_net.py")
    assert code == 0 and "fails" not in out and "MyNet" in out, (out, errors)
    words = ["--seeds", "1", "--iterations", "3", "--model", "my_net.py:MyNet(width=7)"]
    assert cli("run", "split-digits", *words)[0] == 0
    (tmp_path / "bad.py").write_text(PLAIN.replace("pass", "x = x * x.sum().item()"))
    code, out, errors = cli("run", "split-digits", *words[:-1], "bad.py:Net()")
    assert (code, errors.count("\n")) == (2, 1) and f"bad.py:{LINE}" in errors, errors
    assert not (tmp_path / "runs").exists() or len(list((tmp_path / "runs").iterdir())) == 1
