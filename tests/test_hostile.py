"""Files from a stranger: whatever they hold, no command executes anything, writes anywhere else or steers the terminal.

Every payload would write a canary; after every command that reads the file, there must be none.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.core.files import load_tensors, read_json, save_tensors, write_json
from lifelong.notation.user_code import digest_of
from tests.faults import QUICK, Workbench
from tests.test_user_code import EVIL

EVERY_READER = (
    ("show", "a"), ("report", "a", "--output", "page.html"), ("resume", "a"), ("distil", "a", "--iterations", "2"),
)  # fmt: skip


def test_the_payloads_work(place, tmp_path):
    """Where they are executed, they leave a canary: else this file would prove nothing."""
    _, evil, canary = place
    exec(compile(evil.read_text(), str(evil), "exec"), {"__name__": "evil"})
    assert canary.exists()
    canary.unlink()
    pickle.loads(pickle.dumps(Payload(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


class Payload:
    """What an unpickler would call."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture(scope="module")
def place(bench):
    """The workbench, with a hostile file beside it and the canary that it would write."""
    folder = bench.folder.parent / "from_the_net"
    folder.mkdir(exist_ok=True)
    canary = bench.folder.parent / "canary"
    (folder / "evil.py").write_text(EVIL.format(marker=str(canary)))
    return bench, folder / "evil.py", canary


def words_of_run(file: Path, evil: Path, listed: bool, **fields: str) -> None:
    """A run.json that asks for code, and where it is listed says what is in it."""
    about = read_json(file)
    about["request"] |= fields
    if listed:
        about["files"] = {str(evil): {"path": str(evil), "content": digest_of(str(evil))[:16]}}
    write_json(file, about)


def asks_for(name: str, **fields: str) -> Callable[[Path, Path], None]:
    """A run's folder whose words name the hostile file."""

    def harm(folder: Path, evil: Path) -> None:
        words_of_run(
            folder / name / "run.json", evil, True, **{key: f"{evil}:{value}" for key, value in fields.items()}
        )

    return harm


def comparison(name: str, change: Callable[[dict, str], None]) -> Callable[[Path, Path], None]:
    def harm(folder: Path, evil: Path) -> None:
        file = folder / name
        about = read_json(file)
        about["files"] = {str(evil): {"path": str(evil), "content": digest_of(str(evil))[:16]}}
        change(about, str(evil))
        write_json(file, about)

    return harm


def start(name: str, field: str) -> Callable[[Path, Path], None]:
    def harm(folder: Path, evil: Path) -> None:
        tensors, about = load_tensors(folder / name)
        save_tensors(folder / name, tensors, {**about, field: f"{evil}:Net()"})

    return harm


def pickled(name: str) -> Callable[[Path, Path], None]:
    """A pickle under the name of another file, plain, as an array of objects, and as torch would write it."""

    def harm(folder: Path, evil: Path) -> None:
        payload = Payload(evil.parent.parent / "canary")
        path = folder / name
        if name.endswith(".npz"):
            np.savez(
                path, x=np.array([payload], dtype=object), y=np.array([payload], dtype=object), train_rows=np.array(1)
            )
        elif name.endswith(".pt"):
            torch.save({"weight": payload}, path)
        else:
            path.write_bytes(pickle.dumps(payload))

    return harm


def table_of_code(folder: Path, evil: Path) -> None:
    """A table of features that says it was made by the hostile file."""
    with np.load(folder / "table.npz") as arrays:
        held = dict(arrays)
    np.savez(folder / "table.npz", **held)
    with zipfile.ZipFile(folder / "table.npz", "a") as archive:
        about = {
            "model": f"{evil}:build",
            "code": "x",
            "key": "k",
            "data": "\x1b[31m<script>",
            "pretrained on": "[/bold]",
        }
        archive.writestr("about.json", json.dumps(about))


def change_resolved(folder: Path, evil: Path) -> None:
    """Words that would be markup on a page or in a terminal, and a name that leads elsewhere."""
    about = read_json(folder / "a/run.json")
    about["resolved"] |= {
        "method": "<script>alert(1)</script>[/bold]",
        "model": "<img src=x onerror=alert(1)>",
        "scenario": "../../up",
    }
    about["resolved"]["data"] |= {"name": "<b>[/red]</b>"}
    about["command"] = "lifelong run '<script>alert(2)</script>'"
    write_json(folder / "a/run.json", about)


ATTACKS: dict[str, tuple[Callable[[Path, Path], None], tuple[tuple[str, ...], ...]]] = {
    "strategy of a finished run": (asks_for("a", strategy="X()"), EVERY_READER),
    "model and scenario of a finished run": (asks_for("a", model="Net()", scenario="stream"), EVERY_READER[2:]),
    "optimiser and start of a stopped run": (asks_for("cut", optimiser="X()", init="X()"), (("resume", "cut"),)),
    "learner of a stopped run": (asks_for("cut", learner="X()"), (("resume", "cut"),)),
    "meta-learner of a comparison": (comparison("paradigms/c/paradigms.json", lambda about, evil: about["asked"].update(meta=[f"{evil}:X()"])), (("resume", "paradigms/c"),)),
    "strategy of a comparison": (comparison("paradigms/c/paradigms.json", lambda about, evil: about["asked"].update(strategies=[f"{evil}:X()"])), (("resume", "paradigms/c"),)),
    "part of ingredients": (comparison("ingredients/c/ingredients.json", lambda about, evil: about.update(parts=[f"{evil}:X()"])), (("resume", "ingredients/c"),)),
    "what made a start": (start("image-start.safetensors", "made by"), (("meta-test", "image-start.safetensors", "--data", "my.npz"), ("run", "split(data='my.npz', tasks=2)", "--model", "MLP(6)", "--init", "image-start.safetensors", *QUICK, "--name", "x"))),
    "model of a start": (start("start.safetensors", "model"), (("meta-test", "start.safetensors", "--episodes", "2"),)),
    "who made a table": (table_of_code, (("run", "split(data='table.npz', tasks=2)", *QUICK, "--name", "x"), ("features", "my.npz", "--model", "MLP(6)", "--out", "table.npz"))),
    "a pickle as arrays": (pickled("my.npz"), (("run", "split(data='my.npz', tasks=2)", *QUICK, "--name", "x"),)),
    "a pickle as weights": (pickled("weights.pt"), (("features", "my.npz", "--model", "trunk.py:build", "--weights", "weights.pt", "--out", "w.npz"),)),
    "a pickle as a start": (pickled("start.safetensors"), (("meta-test", "start.safetensors", "--episodes", "2"),)),
    "a pickle as results": (pickled("a/results.safetensors"), EVERY_READER[:1]),
    "a pickle as a checkpoint": (pickled("cut/checkpoint.safetensors"), (("resume", "cut"),)),
    "a pickle as words": (pickled("a/run.json"), EVERY_READER[:1]),
    "markup in what was recorded": (change_resolved, (("show", "a", "chunk"), ("show", "a", "coded"), *EVERY_READER[:2])),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_a_file_is_executed(place, name):
    bench, evil, canary = place
    harm, readers = ATTACKS[name]
    for words in readers:
        bench.reset()
        harm(bench.folder, evil)
        ended = bench.run(words)
        said = ended.output + ended.errors
        assert not canary.exists(), (words, ended)
        assert "Traceback" not in said and "\x1b" not in said and ended.code in (0, 2), (words, ended)
        if words[0] == "report" and ended.code == 0:
            page = (bench.folder / "page.html").read_text()
            assert "<script>alert" not in page and "<img src=x" not in page


def test_python_reads_a_hostile_folder_and_executes_nothing(place, monkeypatch):
    from lifelong.runs.folder import load
    from scenarios.errors import ConfigurationError

    bench, evil, canary = place
    bench.reset()
    monkeypatch.chdir(bench.folder)
    ATTACKS["strategy of a finished run"][0](bench.folder, evil)
    run = load("a")
    for attempt in (
        lambda: run.predict(np.zeros((2, 20))),
        run.sessions,
        lambda: run.labels,
        lambda: run.request.build(),
    ):
        with pytest.raises(ConfigurationError) as error:
            attempt()
        assert "\n" not in str(error.value)
    assert run.params and not canary.exists()


@pytest.mark.parametrize("name", ["../up", "/tmp/up", "a/../../up", "..", "x" * 300, "a\nb", "\x1b[31m"])
def test_a_name_leads_nowhere_else(bench: Workbench, name):
    bench.reset()
    before = set(bench.folder.parent.iterdir())
    ended = bench.run(("run", "split-blobs", *QUICK, "--name", name))
    assert set(bench.folder.parent.iterdir()) == before
    assert "Traceback" not in ended.errors and "\x1b" not in ended.errors and ended.code in (0, 2), ended
    assert all(len(line) <= 300 for line in ended.errors.splitlines()), ended


def test_json_that_unfolds_without_end_is_one_line(tmp_path):
    from lifelong.core.files import RunError

    file = tmp_path / "run.json"
    for text in (
        b"[" * 10**6,
        b'{"a":' * 10**5 + b"1" + b"}" * 10**5,
        b'{"a": "' + b"x" * 2**27 + b'"}',
        b'{"a": ' + b"9" * 10**6 + b"}",
    ):
        file.write_bytes(text)
        with pytest.raises(RunError) as error:
            read_json(file)
        assert "\n" not in str(error.value) and len(str(error.value)) < 300
