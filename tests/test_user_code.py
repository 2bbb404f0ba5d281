"""A user's own files: which of them are executed, and what their errors say."""

from __future__ import annotations

import os
import py_compile
import shutil
import sys
import warnings
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch

from lifelong.core.files import load_tensors, read_json, save_tensors, write_json
from lifelong.core.strategy import Strategy
from lifelong.notation import registry
from lifelong.notation import user_code as own_code
from lifelong.notation.expression import ExpressionError, parse, read_call, vocabulary
from lifelong.notation.user_code import UserCodeError, load_file, misspelt_verbs, user_line
from lifelong.notation.varied import settings_of, vary
from scenarios.errors import ConfigurationError

QUICK = ["--seeds", "1", "--iterations", "3"]
EVIL = """from dataclasses import dataclass
from pathlib import Path
from lifelong import Strategy
from torch import nn

Path({marker!r}).write_text("executed")


@dataclass(frozen=True)
class X(Strategy):
    pass


class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.features, self.head = nn.Flatten(), nn.Linear(64, classes)


def stream(dataset, setting="class", budget=None):
    raise RuntimeError
"""


@pytest.fixture
def evil(tmp_path):
    """A file that nobody named, and the marker that it writes when it is executed."""
    marker, folder = tmp_path / "marker", tmp_path / "from the net".replace(" ", "_")
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    return folder / "evil.py", marker


@pytest.fixture(scope="module")
def runs(tmp_path_factory, nursery):
    """A finished run of our own words, and a start's file."""
    folder = tmp_path_factory.mktemp("finished")

    def command(*words: object) -> None:
        environment = {**os.environ, "LIFELONG_CONFIG": str(folder / "own")}
        assert nursery.begin(words, folder, environment, errors=str(folder / "errors")).wait() == 0, (
            folder / "errors"
        ).read_text()

    command("run", "split-blobs", *QUICK, "--model", "MLP(8)", "--name", "a")
    words = ["--init", "MAML(iterations=1, tasks=2)", "--output", "start.safetensors", "--episodes", "2"]
    command("pretrain", "sines", *words)
    return folder


@pytest.fixture
def finished(runs, tmp_path):
    shutil.copytree(runs / "runs/a", tmp_path / "runs/a")
    return tmp_path / "runs/a"


@pytest.fixture
def start(runs, tmp_path):
    return shutil.copy(runs / "start.safetensors", tmp_path / "start.safetensors")


def rewritten(folder: Path, listed: bool, **fields: str) -> None:
    """What a hostile sender writes into run.json."""
    about = read_json(folder / "run.json")
    about["request"] |= fields
    if listed:  # with the hash of the very file, which proves nothing
        path = next(iter(fields.values())).partition(".py:")[0] + ".py"
        about["plugins"] = {path: own_code.digest_of(path)[:16]}
        about["files"] = {path: {"path": path, "content": own_code.digest_of(path)[:16]}}
    write_json(folder / "run.json", about)


FIELDS = {
    "strategy": "X()",
    "model": "Net()",
    "scenario": "stream",
    "learner": "X()",
    "optimiser": "X()",
    "init": "X()",
}


@pytest.mark.parametrize("listed", [False, True], ids=["unlisted", "listed with its hash"])
@pytest.mark.parametrize("field, name", FIELDS.items(), ids=FIELDS.keys())
def test_a_saved_request_executes_no_file(finished, evil, monkeypatch, field, name, listed):
    """resume, distil, show, report and load come down to this: the request of a folder is built."""
    from lifelong.runs.folder import RunFolder, load

    file, marker = evil
    rewritten(finished, listed, **{field: f"{file}:{name}"})
    for build in (
        lambda: load(finished).request.build(),
        lambda: load(finished).sessions(),
        lambda: RunFolder.open(finished).request.build(),
    ):
        try:
            build()
        except ConfigurationError as error:
            assert "\n" not in str(error)
    assert not marker.exists()


@pytest.mark.parametrize(
    "words", [["resume", "--json"], ["distil", "--model", "MLP(5)"], ["show"], ["report"]], ids=" ".join
)
def test_no_command_executes_what_a_folder_names(cli, finished, evil, words):
    file, marker = evil
    rewritten(finished, True, strategy=f"{file}:X()")
    if words[0] == "resume":
        (finished / "results.safetensors").unlink()
        (finished / "learner-0.safetensors").unlink()
    code, _, errors = cli(words[0], finished, *words[1:])
    assert not marker.exists()
    if words[0] in ("resume", "distil"):
        assert code == 2 and errors.count("\n") == 1 and "evil.py" in errors and "lifelong check" in errors, errors


def test_a_file_that_the_shell_named_is_not_named_by_the_user(cli, finished, evil, tmp_path, monkeypatch):
    file, marker = evil
    monkeypatch.chdir(tmp_path)
    trap = tmp_path / "runs" / "evil.py:X()"
    (tmp_path / "runs/evil.py").write_text(file.read_text())
    trap.mkdir()
    rewritten(finished, True, strategy="runs/evil.py:X()")
    cli("distil", finished, "--model", "MLP(5)")
    own_code.name_files([str(trap)])
    assert not marker.exists() and not own_code.is_named(str(tmp_path / "runs/evil.py"))


@pytest.mark.parametrize("field", ["made by", "model"])
def test_a_start_file_never_loads_code(cli, start, evil, field, tmp_path):
    file, marker = evil
    tensors, about = load_tensors(start)
    save_tensors(start, tensors, about | {field: f"{file}:X()"})
    code, _, errors = cli("meta-test", start, "--episodes", "2")
    assert (code, errors.count("\n")) == (2, 1) and "never loads code" in errors, errors
    cli("run", "split-blobs", *QUICK, "--init", start)
    own_code.trust(own_code.digest_of(str(file)), str(file))  # not even one that the user ran before
    assert cli("meta-test", start, "--episodes", "2").returncode == 2
    assert not marker.exists()


OWN = """from dataclasses import dataclass
from os import system
from lifelong import Strategy


@dataclass(frozen=True)
class Idea(Strategy):
    strength: float = 1.0


def function(command):
    raise SystemExit("called")
"""


def test_what_the_user_ran_goes_on_by_its_bytes(cli, tmp_path):
    idea = tmp_path / "idea.py"
    idea.write_text(OWN)
    assert cli("run", "split-blobs", *QUICK, "--strategy", "idea.py:Idea()", "--name", "a")[0] == 0
    for file in ("results", "learner-0"):
        (tmp_path / f"runs/a/{file}.safetensors").unlink()
    code, _, errors = cli("resume", "runs/a")
    assert code == 0, errors
    for file in ("results", "learner-0"):
        (tmp_path / f"runs/a/{file}.safetensors").unlink()
    idea.write_text(OWN + "\nraise RuntimeError('executed')\n")
    code, _, errors = cli("resume", "runs/a")
    assert (code, errors.count("\n")) == (2, 1) and "changed since" in errors and "executed" not in errors, errors


def test_exactly_the_bytes_that_were_hashed_are_executed(tmp_path, monkeypatch):
    """A compiled file beside it, as Python's own loader would take, is not looked at."""
    idea = tmp_path / "idea.py"
    idea.write_text("value = 2")
    py_compile.compile(str(idea))
    cached = next(tmp_path.rglob("*.pyc"))
    bad = tmp_path / "bad.py"
    bad.write_text("value = 9")
    py_compile.compile(str(bad), cfile=str(tmp_path / "bad.pyc"))
    cached.write_bytes(cached.read_bytes()[:16] + (tmp_path / "bad.pyc").read_bytes()[16:])
    assert load_file(str(idea), named_by_user=True).value == 2


def test_a_trusted_file_is_no_way_to_other_code(tmp_path):
    idea = tmp_path / "idea.py"
    idea.write_text(OWN)
    load_file(str(idea), named_by_user=True)
    for name, hint in (("system('true')", "imported"), ("function('x')", "no class"), ("Strategy()", "imported")):
        with pytest.raises(ConfigurationError, match=hint):
            parse(f"{idea}:{name}", "strategies")


def test_the_trust_list_lies_outside_and_holds_hashes(tmp_path, monkeypatch):
    monkeypatch.delenv("LIFELONG_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    assert own_code.trust_list() == tmp_path / "own/lifelong/trusted.txt"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_code.trust_list() == tmp_path / ".config/lifelong/trusted.txt"
    monkeypatch.setenv("LIFELONG_CONFIG", str(tmp_path / "x"))
    own_code.trust("0" * 64, "a\n" + "1" * 64 + "  b.py")
    assert own_code.is_trusted("0" * 64) and not own_code.is_trusted("1" * 64) and not own_code.is_trusted("")
    assert (tmp_path / "x/trusted.txt").stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIFELONG_CONFIG", str(tmp_path / "file"))
    with pytest.warns(own_code.TrustWarning, match="LIFELONG_CONFIG"):
        own_code.trust("2" * 64, "c.py")


@pytest.mark.parametrize(
    "text, hint",
    [("raise SystemExit(0)\n", "ends the program"), ("import sys\n\nsys.exit()\n", "idea.py:3"), ("1 / 0", "idea.py:1: Zero"),
     ("def f(:\n", "line 1"), ("x = '\0'", "null"), ("import nowhere_at_all", "idea.py:1")],
)  # fmt: skip
def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path, text, hint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("idea.py").write_text(text)
    with pytest.raises(UserCodeError, match=hint) as error:
        load_file("idea.py", named_by_user=True)
    assert "\n" not in str(error.value)


def test_user_line_is_the_last_of_the_users_own(tmp_path):
    idea = tmp_path / "idea.py"
    idea.write_text("import torch\n\ndef f(x):\n    return g(x)\n\ndef g(x):\n    return torch.zeros(3) @ x\n")
    module = load_file(str(idea), named_by_user=True)
    with pytest.raises(RuntimeError) as error:
        module.f(torch.zeros(4))
    assert user_line(error.value, str(idea)).startswith(f"{idea}:7: RuntimeError: ")
    assert user_line(ValueError("a\nb"), str(idea)) == f"{idea}: ValueError: a"


MEMORY = """from dataclasses import dataclass
from lifelong.memory.base import RowMemory

@dataclass(frozen=True)
class Plain:
    size: int = 0

@dataclass(frozen=True)
class Nothing(RowMemory):
    pass

@dataclass(frozen=True)
class Misspelt(RowMemory):
    def insrt(self, problem, state, batch, draws, **extra):
        return state

@dataclass(frozen=True)
class Silent(RowMemory):
    def insert(self, problem, state, batch, draws, **extra):
        return state
"""


@pytest.mark.parametrize(
    "memory, words",
    [
        ("Rng()", "unknown memory 'Rng': did you mean 'Ring'"), ("SGD(0.1)", "unknown memory 'SGD': there are ClassBalanced"),
        ("3", "memory takes one of ClassBalanced"), ("'Ring'", "memory takes one of ClassBalanced"),
        ("own.py:Plain()", "own.py:Plain is no memory: .* make it a RowMemory"),
        ("own.py:Nothing()", "it keeps no row: fill in insert or insert_task"),
        ("own.py:Misspelt()", "fill in insert or insert_task .'insrt' looks like 'insert'.$"),
        ("own.py:Silent()", "which places hold a row: fill in filled"),
    ],
)  # fmt: skip
def test_what_is_no_memory_is_one_line(tmp_path, monkeypatch, memory, words):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(MEMORY)
    load_file("own.py", named_by_user=True)
    for text in (f"Replay(memory={memory})", f"Replay(10, 0, True, 'tasks', {memory})"):
        with pytest.raises(ConfigurationError, match=words) as error:
            parse(text, "strategies")
        assert "\n" not in str(error.value)


def test_a_misspelt_name_inside_another_is_told_the_nearest():
    with pytest.raises(ExpressionError, match="unknown 'Reservor': did you mean 'Reservoir'"):
        parse("LwF(temperature=Reservor())", "strategies")


def test_misspelt_verbs():
    class Idea(Strategy):
        def penality(self): ...
        def after_tasks(self): ...
        def objective(self): ...
        def objectives(self): ...
        def distance(self): ...
        def _penalty(self): ...

    verbs = ["init", "extend", "objective", "penalty", "grads", "after_step", "after_task", "prepare", "predict"]
    assert misspelt_verbs(Idea, verbs) == [("penality", "penalty"), ("after_tasks", "after_task")]


# --- the registry -----------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Entry points of packages that are installed: one works, the others are broken in their ways."""
    (tmp_path / "plug_good.py").write_text(OWN)
    (tmp_path / "plug_raises.py").write_text("raise RuntimeError('broken inside')")
    (tmp_path / "plug_ends.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint(name, value, f"lifelong.{kind}")
        for name, value, kind in (
            ("Good", "plug_good:Idea", "strategies"), ("Raises", "plug_raises:X", "strategies"),
            ("Ends", "plug_ends:X", "models"), ("Missing", "plug_good:Nothing", "learners"),
            ("Wrong", "plug_good:function", "optimisers"), ("EWC", "plug_good:Idea", "strategies"),
        )
    ]  # fmt: skip
    calls = []
    monkeypatch.setattr(registry, "entry_points", lambda: calls.append(1) or EntryPoints(points))
    registry.found.cache_clear(), registry._points.cache_clear()
    yield calls
    registry.found.cache_clear(), registry._points.cache_clear()


def test_a_broken_plug_in_is_a_warning_with_its_name(installed):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = {kind: vocabulary(kind) for kind in registry.KINDS}
        again = {kind: vocabulary(kind) for kind in registry.KINDS}
    words = [str(warning.message) for warning in seen if warning.category is registry.PlugInWarning]
    assert found == again and len(installed) == 1, "entry points are read once"
    assert "Good" in found["strategies"] and found["strategies"]["EWC"].__module__.startswith("lifelong")
    assert sorted(word.split()[2] for word in words) == ["Ends", "Missing", "Raises", "Wrong"], words
    assert parse("Good(strength=2.0)", "strategies").strength == 2.0


def test_everything_that_can_be_named_is_discovered():
    assert {"EWC", "Replay", "FineTuning", "PCGrad"} <= set(vocabulary("strategies"))
    assert {"MLP", "Conv4", "Conditioned"} <= set(vocabulary("models"))
    assert {"SGD", "Adam", "AdamW"} == set(vocabulary("optimisers"))
    assert "NearestClassMean" in vocabulary("learners") and "Learner" not in vocabulary("learners")
    assert {"Random", "MAML", "ProtoNet"} <= set(vocabulary("initialisations"))
    assert {"Scratch", "LinearProbe", "L2SP"} <= set(vocabulary("adaptations"))
    vocabulary("models").clear()
    assert vocabulary("models")


def test_a_module_of_a_package_is_found_without_being_listed(tmp_path, monkeypatch):
    import lifelong.strategies

    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh/__init__.py").write_text("")
    (tmp_path / "fresh/idea.py").write_text(OWN.replace("Idea", "Fresh"))
    monkeypatch.setattr(lifelong.strategies, "__path__", [*lifelong.strategies.__path__, str(tmp_path)])
    registry.found.cache_clear()
    assert "Fresh" in vocabulary("strategies")
    registry.found.cache_clear()
    for name in [name for name in sys.modules if name.startswith("lifelong.strategies.fresh")]:
        del sys.modules[name]


def test_packages_are_found_for_the_wheel():
    import tomllib

    import setuptools

    root = Path(__file__).parent.parent
    find = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = set(setuptools.find_packages(str(root), include=find["include"]))
    folders = {
        str(p.parent.relative_to(root)).replace("/", ".")
        for top in ("lifelong", "scenarios")
        for p in (root / top).rglob("__init__.py")
    }
    assert packages == folders


# --- expressions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["EWC(" + "a" * 100_000, "a" * 100_000 + ".py:X()", "(" * 5_000, "EWC(" * 3_000, "+".join(["EWC()"] * 1_000),
     "EWC(strength=" + "-" * 9_000 + "1)", "EWC(strength=" + "9" * 400 + ")", "Replay(size=9223372036854775808)",
     "EWC(" + "(" * 150 + ")" * 150 + ")", "Replay(size=" + "[" * 4_000, "x" * 9_999, "EWC() " + " " * 9_000 + "x", "EWC(\0)",
     "EWC(strength=vary(1))", "EWC(strength=vary(1, 'a'))", "EWC(strength=vary(a=1))", "Replay(size=vary(1, 2.5))",
     "Replay(size=vary(-1, 2))", "EWC(strength=" + "vary(1, " * 40 + ")" * 41, "TaskWeights((1, **x))"],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_long_and_deep_expressions_are_one_short_line(text):
    import time

    began = time.process_time()
    for read in (lambda: parse(text, "strategies"), lambda: read_call(text)):
        try:
            read()
        except ConfigurationError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
        else:
            assert read_call(text)[0] == text, "only a plain name is read"
    assert time.process_time() - began < 2


def test_varied_values_are_read_checked_and_printed():
    both = parse("EWC(strength=vary(1, 10)) + Replay(size=vary(5, 6, 7))", "strategies")
    assert parse(repr(both), "strategies") == both and len(settings_of(both)) == 6
    assert settings_of(both)[1].parts[0].strength == 1 and settings_of(both)[1].parts[1].size == 6
    assert parse("Adam(vary(0.1, 0.01))", "optimisers").rate == vary(0.1, 0.01)
    assert settings_of(parse("MLP(20, vary(5, 10))", "models")) == [
        parse("MLP(20, 5)", "models"),
        parse("MLP(20, 10)", "models"),
    ]
    nested = parse("Conditioned(MLP(vary(5, 10)), by='film')", "models")
    assert [record.trunk.widths for record in settings_of(nested)] == [(5,), (10,)]
    weights = parse("TaskWeights((1.0, vary(2, 3)))", "strategies")
    assert [record.weights for record in settings_of(weights)] == [(1.0, 2), (1.0, 3)]
    with pytest.raises(ConfigurationError, match="at least 0"):
        parse("Replay(size=vary(-1, 2))", "strategies")
    with pytest.raises(ExpressionError, match="size must be int"):
        parse("Replay(size=vary(1, 2.5))", "strategies")
    with pytest.raises(ExpressionError, match="belongs to the data"):
        read_call("split-digits(tasks=vary(2, 5))")
