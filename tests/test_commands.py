"""The command line as a room: options said once, commands imported when used, help that fits, words that complete."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from lifelong.commands import COMMANDS
from lifelong.commands.completion import names
from lifelong.commands.group import loaded
from lifelong.commands.options import Options, takes
from lifelong.runs.request import Request
from lifelong.studies import transfer as studies

ROOT = Path(__file__).parent.parent
FILES = ROOT / "lifelong/commands"
KINDS = get_type_hints(Options)
OTHER = {str: "3,4", int: 7, float: 2.5, bool: True}  # a value of each type that is nobody's default


def words_of(chosen: list[str]) -> list[str]:
    """Words that give each of these options a value that is not its default, and a scenario where it is among them."""
    words = []
    for name in chosen:
        value = OTHER[KINDS[name]]
        flag = f"--{name.replace('_', '-')}"
        words += [str(value)] if name == "scenario" else [flag] if value is True else [flag, str(value)]
    return words


class Asked(Exception):
    """What was asked for, instead of learning it."""


def asked(*given: Any, **_: Any) -> None:
    raise Asked(next(value for value in given if isinstance(value, Request)))


TAKEN = {
    "run": ([field.name for field in fields(Options)], ["--dry-run"]),
    "compare": ([field.name for field in fields(Options)], []),
    "transfer": (["scenario", "setting", "model", "optimiser", "seeds", "iterations", "epochs", "batch", "device",
                  "threads", "data_root"], []),
    "pretrain": (["scenario", "model", "seeds", "device", "threads", "data_root"], ["--init", "3,4", "--output", "a"]),
}  # fmt: skip


@pytest.mark.parametrize("command", TAKEN)
def test_every_option_reaches_the_request(command, monkeypatch):
    from lifelong.core import footprint
    from lifelong.runs import execute, initialisation_files

    monkeypatch.setattr(execute, "estimated", asked)
    monkeypatch.setattr(execute, "check", asked)
    monkeypatch.setattr(studies, "transfer", asked)
    monkeypatch.setattr(initialisation_files, "Work", asked)
    monkeypatch.setattr(footprint, "use_threads", lambda threads: None)
    chosen, more = TAKEN[command]
    with pytest.raises(Asked) as ended:
        loaded(command).main([*words_of(chosen), *more], standalone_mode=False)
    request = ended.value.args[0]
    for name in chosen:
        expected = (3, 4) if name == "seeds" else OTHER[KINDS[name]]
        assert getattr(request, name) == expected, name


def test_options_are_fields_of_the_request_with_its_defaults():
    left = {field.name for field in fields(Request)} - {field.name for field in fields(Options)}
    assert left == {"strategy", "learner", "baseline", "files"}
    defaults = {field.name: field.default for field in fields(Request) if field.default is not MISSING}
    for field in fields(Options):
        if field.name not in ("scenario", "seeds"):
            assert field.default == defaults[field.name], field.name
    assert Options("x").request() == Request("x")


def test_a_field_becomes_an_option_of_its_name():
    @takes("threads", "data_root", threads=3)
    def command(*, options: Options) -> None: ...

    with pytest.raises(TypeError):
        command(device="cpu")
    assert list(command.__annotations__) == ["threads", "data_root"]
    seen = []

    @takes("threads", threads=3)
    def other(*, options: Options) -> None:
        seen.append(options)

    other(threads=5)
    assert seen == [Options(threads=5)] and seen[0].given("threads", "fleet", "data_root") == ["--threads"]


def commands_of(group: Any, path: str = "") -> dict[str, Any]:
    """Commands by the words that call them, those of groups too; imported."""
    found = {}
    for name in group:
        command = loaded(name) if not path else group[name]
        below = getattr(command, "commands", {})
        found |= commands_of(below, f"{path}{name} ") if below else {f"{path}{name}": command}
    return found


ALL = commands_of(COMMANDS)


def test_the_table_is_what_the_files_say():
    """A file for each command, a sentence that its own help begins with; no command has twenty parameters of its own."""
    besides = {"__init__", "completion", "configuration", "group", "learning", "options"}
    assert {path.stem for path in FILES.glob("*.py")} - besides == {name.replace("-", "_") for name in COMMANDS}
    for name, (_, line) in COMMANDS.items():
        assert loaded(name).help.partition("\n")[0] == line, name
        assert len(line) <= 66, f"{name}: its sentence does not fit beside it on a page of 80"
    for path in FILES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert len(node.args.args) + len(node.args.kwonlyargs) <= 12, (path.name, node.name)


HEAVY = ("torch", "numpy", "rich", "scipy", "sklearn", "lifelong.runs", "lifelong.display", "lifelong.core.loop")
SEEN = f"""
import contextlib, io, json, sys
import cli
def seen(words):
    sys.argv = ["lifelong", *words]
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try: cli.main()
        except SystemExit as ended: assert ended.code == 0, words
    assert out.getvalue().startswith("Usage: lifelong"), out.getvalue()
    heavy = [name for name in sys.modules if name.startswith({HEAVY!r})]
    return sorted(name for name in set(sys.modules) - before if name.startswith("lifelong.commands.")), heavy
print(json.dumps({{" ".join(words): seen(words) for words in [["--help"], *([name, "--help"] for name in {list(COMMANDS)!r})]}}))
"""


def test_a_command_is_imported_when_it_is_used():
    """In one process after another: the overview imports no command, a command's help its own file; nothing heavy."""
    done = subprocess.run([sys.executable, "-c", SEEN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    shared = {f"lifelong.commands.{name}" for name in ("options", "completion")}
    assert found.pop("--help") == [[], []]
    for words, (modules, heavy) in found.items():
        command_module = f"lifelong.commands.{words.removesuffix(' --help').replace('-', '_')}"
        assert set(modules) - shared == {command_module} and not heavy, (words, modules, heavy)


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("module", ["cli", "lifelong"])
def test_version_and_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lifelong {version()}\n", "")


def shown(command: Any, width: int, monkeypatch, name: str = "x") -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    with command.make_context(name, ["--help"], resilient_parsing=True, max_content_width=120) as context:
        return re.sub(r"\x1b\[\d*m", "", command.get_help(context))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ALL)
def test_help_fits_and_nothing_is_broken(name, width, monkeypatch):
    """No line beyond the page; each help text, default and example stands there in full, no word of it in two lines."""
    text = shown(ALL[name], width, monkeypatch, name)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for parameter in ALL[name].params:
        if not getattr(parameter, "hidden", False):
            assert parameter.help and " ".join(parameter.help.split()) in flat, parameter.name
    assert not re.search(r"\[default[^\]]*$", text, re.MULTILINE)
    example = ALL[name].help.partition("Example: ")[2].strip()
    assert example and f"  {example}" in text.splitlines() and example.startswith(f"lifelong {name}"), example


@pytest.mark.parametrize("name", ALL)
def test_options_stand_under_headings(name):
    for parameter in ALL[name].params:
        if parameter.param_type_name == "option" and not parameter.hidden and name != "explain":
            assert parameter.rich_help_panel, parameter.name


@pytest.mark.parametrize("width", [80, 120])
def test_the_overview_names_every_command_with_its_sentence(cli, width, monkeypatch):
    from typer.main import get_command

    from cli import app

    text = shown(get_command(app), width, monkeypatch, "lifelong")
    assert max(map(len, text.splitlines())) <= width
    for name, (_, line) in COMMANDS.items():
        assert any(row.split(maxsplit=1) == [name, line] for row in text.splitlines()), name
    assert "--version" in text and "--install-completion" in text


@pytest.mark.parametrize("words", [(), ("data",)])
def test_no_words_ask_for_help(cli, words):
    done = cli(*words)
    assert done.returncode == 0 and done.stdout.startswith("Usage: lifelong") and not done.stderr


WRONG = {
    "command": (["rum"], "did you mean 'run'?"),
    "command of a group": (["data", "lst"], "did you mean 'list'?"),
    "option": (["run", "split-blobs", "--optimizer", "SGD()"], "--optimiser"),
    "no scenario": (["run"], "SCENARIO"),
    "number": (["run", "split-blobs", "--batch", "many"], "--batch"),
    "paradigms and seeds": (["compare", "split-blobs", "--paradigms", "all", "--order-seed", "3"], "--order-seed does not go"),
    "paradigms and learners": (["compare", "split-blobs", "--paradigms", "all", "--learner", "X()"], "--learner does not go"),
    "meta alone": (["compare", "split-blobs", "--meta", "MAML()"], "goes with --paradigms"),
    "a path for a name": (["run", "split-blobs", "--name", "../up"], "--out"),
    "a long name": (["run", "split-blobs", "--name", "a" * 300], "too long"),
    "shots beyond all rows": (["run", "split-blobs", "--few-shot", "9" * 30], "training rows"),
    "a number beyond floats": (["run", "split-blobs", "--strategy", "EWC(strength=1e300)"], "float32"),
    "a device that is not built": (["run", "split-blobs", "--device", "privateuseone"], "try auto or cpu"),
    "a record that is a folder": (["reproduce", "sines", "--table-only", "--record", "."], "cannot be read"),
    "online words": (["meta-test", "a.safetensors", "--runs", "3"], "--runs goes with --online"),
}  # fmt: skip


@pytest.mark.parametrize("words, said", WRONG.values(), ids=WRONG.keys())
def test_wrong_words_are_one_line_with_the_nearest_name(cli, words, said):
    code, out, errors = cli(*words)
    assert (code, out, errors.count("\n")) == (2, "", 1) and said in errors, errors


@pytest.mark.parametrize("kind", ["strategies", "learners", "models", "optimisers"])
def test_names_that_complete_are_those_that_can_be_named(kind):
    from lifelong.notation.registry import found

    assert names(kind) == sorted(found(kind))


def test_scenarios_that_complete_are_those_of_the_catalogue():
    """In a process of its own: another test may have registered a scenario of a user's file."""
    code = "from scenarios.catalogue import CATALOGUE; from lifelong.commands.completion import names; assert names('scenarios') == list(CATALOGUE)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


COMPLETED = {
    "commands": ("lifelong re", {"resume", "report", "reproduce"}),
    "commands of a group": ("lifelong data g", {"get"}),
    "scenarios": ("lifelong run split-d", {"split-digits"}),
    "strategies": ("lifelong compare split-digits --strategy DER", {"DER", "DERPlusPlus"}),
    "models": ("lifelong distil runs/a --model ML", {"MLP"}),
    "options": ("lifelong run x --order", {"--order-seed"}),
    "kinds": ("lifelong list mod", {"models"}),
}


@pytest.mark.parametrize("typed, expected", COMPLETED.values(), ids=COMPLETED.keys())
def test_a_shell_completes(typed, expected):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_LIFELONG_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli"],
        cwd=ROOT,
        env={**os.environ, **words},
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == expected, done.stderr[-300:]
    assert "| torch" not in done.stderr and "lifelong.commands.group" in done.stderr  # a key press does not wait


def test_a_pretraining_that_is_stopped_says_the_command_that_goes_on(tmp_path, monkeypatch, capsys):
    import cli

    random = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", x=random.integers(0, 256, (120, 8, 8), dtype=np.uint8), y=np.arange(120) % 6)
    init = "ProtoNet(way=2, query=2, iterations=100000, data='noise.npz')"
    words = ["pretrain", "split-digits", "--init", init, "--model", "MLP(12)", "--output", "start.safetensors"]
    monkeypatch.chdir(tmp_path)

    def interrupted() -> str:
        """What is said by a pretraining that is interrupted when it has saved something new."""
        checkpoint = tmp_path / "start.checkpoint.safetensors"
        before, deadline = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0, time.monotonic() + 60

        def interrupt() -> None:
            while time.monotonic() < deadline and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(sys, "argv", ["lifelong", *words, "--checkpoint-every", "0.01"])
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        thread.join()
        assert ended.value.code == 1
        return capsys.readouterr().err

    first = interrupted()
    said = re.search(r"^stopped, and saved: `(lifelong .*)` goes on$", first, re.MULTILINE)
    assert said and shlex.split(said[1]) == ["lifelong", *words, "--checkpoint-every", "0.01"], first
    assert "going on after" not in first and "going on after" in interrupted()


def test_what_a_check_says_is_shown_as_it_is(monkeypatch, capsys):
    """Brackets and colons in a user's own words are no markup and no pictures; what breaks several checks is said once."""
    from lifelong.contracts import check

    rows = [
        ("its name", "", ""),
        ("its loss", "[/x] :smile: no", "[bold]Mend it"),
        ("its rank", "[/x] :smile: no", "Sort"),
    ]
    monkeypatch.setattr(check, "subjects_of", lambda target: [("Idea", None)])
    monkeypatch.setattr(check, "check_subject", lambda subject: rows)
    assert loaded("check").main(["idea.py"], standalone_mode=False) == 2
    out, errors = capsys.readouterr()
    seen = [
        "holds  Idea: its name",
        "fails  Idea: its loss: [/x] :smile: no. [bold]Mend it",
        "fails  Idea: its rank: the same",
    ]
    assert out.splitlines() == seen
    assert errors == "error: 2 of the contract's checks failed\n"
