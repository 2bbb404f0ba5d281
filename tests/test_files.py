"""Files that we write: known again to the bit, read by kinds, held by one process, whole or not there."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.core import files
from lifelong.core.files import RunError, held_alone, load_tensors, read_json, save_tensors, write_json
from lifelong.core.stopped import Stopped
from lifelong.meta.learned import load_learned
from lifelong.runs.execute import execute, new_folder
from lifelong.runs.folder import RunFolder, load
from lifelong.runs.request import Request
from scenarios import datasets
from scenarios.datasets import read_npz
from scenarios.disk import is_intact
from scenarios.errors import ConfigurationError
from scenarios.tables import about_table, write_table
from scenarios.typed import TypedError, check

PLAIN = Request("split-blobs", model="MLP(6)", seeds=(0, 1), iterations=5, device="cpu")
FLIPS = int(os.environ.get("LIFELONG_FLIPS", "25"))
ROWS, LABELS = np.arange(96.0, dtype=np.float32).reshape(24, 4), np.arange(24) % 3


def stopped(folder: Path) -> RunFolder:
    made = new_folder(PLAIN, folder, "cut")
    made.stop_asked = True
    with pytest.raises(Stopped):
        execute(made)
    return made


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One file of every kind that we write, and what reads it."""
    folder = tmp_path_factory.mktemp("saved")
    execute(PLAIN, out=folder, name="a")
    cut = stopped(folder)
    start = folder / "start.safetensors"
    net = {"layer.weight": torch.ones(1, 3, 2)}
    from lifelong.meta.learned import save_learned

    about = {
        "made by": "MAML()",
        "model": "MLP(6)",
        "shape": [2],
        "data": "x",
        "starts": "one",
        "overlap allowed": False,
    }
    save_learned(start, {"net": net}, {**about, "seeds": [0]})
    table = folder / "table.npz"
    write_table(table, iter([ROWS]), (4,), LABELS, 18, {"model": "m", "data": "d", "key": "k"})

    def sessions() -> object:
        return load(folder / "a").sessions()

    return {
        "results": (folder / "a/results.safetensors", lambda: load(folder / "a")),
        "learner": (folder / "a/learner-0.safetensors", sessions),
        "words of a run": (folder / "a/run.json", lambda: load(folder / "a")),
        "checkpoint": (cut.path / "checkpoint.safetensors", lambda: execute(RunFolder.open(cut.path))),
        "start": (start, lambda: load_learned(start)),
        "table": (table, lambda: read_npz(table)),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["results", "learner", "words of a run", "checkpoint", "start", "table"])
def test_a_flipped_bit_is_refused_wherever_it_is(saved, kind):
    """25 of each kind; LIFELONG_FLIPS=200 takes as many."""
    path, read = saved[kind]
    sound, chance = path.read_bytes(), random.Random(kind)
    accepted = []
    try:
        for _ in range(FLIPS):
            place, bit = chance.randrange(len(sound)), chance.randrange(8)
            content = bytearray(sound)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            try:
                read()
            except ConfigurationError as error:
                assert "\n" not in str(error) and len(str(error)) < 300
            else:
                accepted.append((place, bit, sound[max(0, place - 20) : place + 20]))
    finally:
        path.write_bytes(sound)
    assert not accepted, accepted
    if kind != "checkpoint":
        read()


def test_a_damaged_cache_is_decoded_again(tmp_path):
    decoded = []

    def read(root: Path):
        decoded.append(1)
        return datasets.dataset_from_arrays("mine", ROWS, LABELS * 10)

    source, cache = datasets.DatasetSource(read, "", "", ""), tmp_path / "datasets/mine.safetensors"
    first = datasets._cached("mine", source, tmp_path)
    sound, chance = cache.read_bytes(), random.Random(0)
    assert is_intact(cache)
    for count in range(FLIPS):
        content = bytearray(sound)
        content[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        cache.write_bytes(content)
        again = datasets._cached("mine", source, tmp_path)
        assert len(decoded) == count + 2
        assert torch.equal(again.x, first.x) and torch.equal(again.y, first.y) and again.labels == first.labels
    assert len(decoded) == FLIPS + 1 and [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_what_was_written_before_there_were_digests_is_read(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "old.safetensors"
    save_file({"x": torch.ones(2)}, path, {"about": json.dumps({"chunk": 0})})
    tensors, about = load_tensors(path)
    assert is_intact(path) is None and about == {"chunk": 0} and torch.equal(tensors["x"], torch.ones(2))
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "old.json") == {"a": 1}
    np.savez(tmp_path / "old.npz", x=ROWS, y=LABELS, train_rows=np.array(18))
    assert read_npz(tmp_path / "old.npz").train_rows == 18


def test_a_changed_word_is_refused_and_says_what_to_do(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"seeds": [0, 1], "rate": 0.1})
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(RunError, match='delete its line "digest"'):
        read_json(path)
    held = json.loads(path.read_text())
    del held["digest"]
    path.write_text(json.dumps(held))
    assert read_json(path) == {"seeds": [0, 1], "rate": 0.2}


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ({"a": "x"}, {"a": int}, "a is text, and must be a whole number"),
        ({"a": {"b": [1, None]}}, {"a": {"b": list[int]}}, r"a.b\[1\] is null"),
        ({}, {"a": int}, "a is missing"),
        ({"a": True}, {"a": int}, "true or false"),
        ({"a": 2**63}, {"a": int}, "no number that can be used"),
        ({"a": float("nan")}, {"a": float}, "no number that can be used"),
        ({"a": 10**400}, {"a": float}, "no number that can be used"),
        ({"a": "\x1b[31m"}, {"a": str}, "steer the terminal"),
        ({"a": "\ud800"}, {"a": str}, "steer the terminal"),
        ({"a": "x" * 30_000}, {"a": str}, "longer than"),
        ({"a": "z"}, {"a": ("x", "y")}, "one of 'x', 'y'"),
        ({"a": []}, {"a": ("x", "y")}, "one of 'x', 'y'"),
        ([], {"a": int}, "it is a list, and must be an object"),
        ({"\x1b": {"x": 3}}, dict[str, dict[str, str]], "steer the terminal"),
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_said_with_its_key(value, kind, said):
    with pytest.raises(TypedError, match=said):
        check(value, kind)


def test_values_of_their_kinds_pass():
    check({"a": 1, "b": None, "c": [1, [2]], "d": {"x": 0.5}}, {"a": float, "b": int | None, "c": list[int | list[int]], "d": dict[str, float], "e?": str})  # fmt: skip


# --- what is no plain file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "long link"])
def test_what_is_no_plain_file_is_neither_waited_for_nor_read(tmp_path, kind):
    path = tmp_path / "odd.safetensors"
    links = {"device": "/dev/zero", "loop": path.name, "long link": "x" * 300}
    os.mkfifo(path) if kind == "pipe" else path.mkdir() if kind == "folder" else path.symlink_to(links[kind])
    odd = path.with_suffix(".npz")
    odd.symlink_to(path.name)
    for read in (lambda: read_json(path), lambda: load_tensors(path), lambda: files.digest(path), lambda: load_learned(path), lambda: read_npz(odd), lambda: about_table(odd)):  # fmt: skip
        with pytest.raises(ConfigurationError) as error:
            read()
        assert "\n" not in str(error.value)


# --- one process at a time ------------------------------------------------------------------------------------------


def test_a_lock_says_who_holds_it_and_is_gone_afterwards(tmp_path, cli):
    folder = new_folder(PLAIN, tmp_path, "run")
    with held_alone(folder.path):
        code, out, errors = cli("resume", folder.path)
        assert (code, out, errors.count("\n")) == (2, "", 1)
        assert f"another process, {os.getpid()}, since 20" in errors
    assert not (folder.path / ".lock").exists()
    (folder.path / ".lock").write_text("1 1700000000\n")  # of a process that is no more: nobody holds it
    assert execute(folder).accuracy.shape[0] == 2 and not (folder.path / ".lock").exists()


def test_a_lock_is_taken_once_by_many(tmp_path):
    """Threads that all want it, again and again: no two hold it at a time, though its file is removed each time."""
    inside, most, taken = [0], [0], [0]

    def want() -> None:
        for _ in range(40):
            try:
                with held_alone(tmp_path):
                    inside[0] += 1
                    most[0], taken[0] = max(most[0], inside[0]), taken[0] + 1
                    time.sleep(0.0005)
                    inside[0] -= 1
            except RunError:
                time.sleep(0.0005)

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and taken[0] > 10 and not list(tmp_path.iterdir())


# --- what fails while it works --------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_is_a_failure_and_not_a_bad_request(tmp_path, nursery):
    """Exit code 1, what goes on, and nothing half-made; with more room it ends as one that nobody disturbed."""
    whole = execute(PLAIN, out=tmp_path / "runs", name="whole")
    words = [
        "run",
        "split-blobs",
        "--model",
        "MLP(6)",
        "--seeds",
        "2",
        "--iterations",
        "5",
        "--device",
        "cpu",
        "--name",
        "x",
    ]
    errors = tmp_path / "errors"
    code = nursery.begin(words, tmp_path, errors=str(errors), file_size=6000).wait()
    said = [line for line in errors.read_text().splitlines() if line.startswith("error: ")]
    assert code == 1 and len(said) == 1 and "`lifelong resume runs/x` goes on" in said[0], errors.read_text()
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob(".lock"))
    assert nursery.begin(["resume", "runs/x"], tmp_path, errors=str(errors)).wait() == 0, errors.read_text()
    assert torch.equal(load(tmp_path / "runs/x").result.accuracy, whole.accuracy)


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path, nursery):
    words = ["run", "split-blobs", "--model", "MLP(6)", "--seeds", "1", "--iterations", "2", "--name", "x"]
    errors = tmp_path / "errors"
    code = nursery.begin(words, tmp_path, errors=str(errors), file_size=100).wait()
    assert code == 2 and not list(tmp_path.glob("runs/*")) and not list(tmp_path.glob("runs/.*"))
    assert nursery.begin(words, tmp_path, errors=str(errors)).wait() == 0, errors.read_text()


def test_a_folder_that_is_removed_meanwhile_is_a_failure(tmp_path):
    import shutil

    folder = new_folder(replace(PLAIN, eval_every=1), tmp_path, "run", every=0)

    def remove(progress: object) -> None:
        shutil.rmtree(folder.path, ignore_errors=True)

    with pytest.raises(files.FailedError, match="cannot be written") as error:
        execute(folder, watch=remove)
    assert error.value.exit_code == 1 and "goes on" not in str(error.value)


def test_a_folder_is_there_with_its_words_or_not_at_all(tmp_path, monkeypatch):
    """A process killed before run.json is written leaves nothing under the run's name; the next one clears up after it."""
    left = tmp_path / ".999999999-partial-abc"
    left.mkdir()
    (left / "run.json.partial").write_text("{")
    mine = tmp_path / f".{os.getpid()}-partial-abc"  # of a process that is alive
    mine.mkdir()
    folder = new_folder(PLAIN, tmp_path, "run")
    assert {path.name for path in tmp_path.iterdir()} == {"run", mine.name}
    assert (folder.path.stat().st_mode & 0o777) == 0o777 & ~_mask()
    with pytest.raises(RunError, match="exists already"):
        new_folder(PLAIN, tmp_path, "run")


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- user code ------------------------------------------------------------------------------------------------------

LATE = """from dataclasses import dataclass
import torch
from lifelong import Strategy


@dataclass(frozen=True)
class Late(Strategy):
    def after_task(self, problem, params, memory, task):
        if LIMIT():
            {line}
        return params, memory


COUNT = [0]


def LIMIT():
    COUNT[0] += 1
    return COUNT[0] > {calls}
"""


@pytest.mark.parametrize("line", ["raise KeyError('late')", "raise SystemExit(0)", "1 / 0"])
def test_what_users_code_raises_while_it_works_is_one_line_and_exit_code_1(cli, tmp_path, line):
    (tmp_path / "late.py").write_text(LATE.format(line=line, calls=9))
    words = ["--seeds", "1", "--iterations", "2", "--device", "cpu", "--model", "MLP(6)", "--name", "x"]
    code, _, errors = cli("run", "split-blobs", "--strategy", "late.py:Late()", *words)
    said = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert code in (1, 2) and len(said) == 1 and "late.py:10" in said[0] and "Traceback" not in errors, errors


def test_a_file_that_ends_the_program_or_hides_its_words_is_one_line(tmp_path, monkeypatch):
    from lifelong.notation.user_code import UserCodeError, load_file

    monkeypatch.chdir(tmp_path)
    for text in (
        "import sys\nsys.exit(0)",
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "raise BaseException('x')",
    ):
        Path("odd.py").write_text(text)
        with pytest.raises(UserCodeError, match=r"odd.py:\d") as error:
            load_file("odd.py", named_by_user=True)
        assert "\n" not in str(error.value)


def test_a_signal_while_nothing_is_written_loses_no_lock(tmp_path, nursery):
    """A process that is killed lets go of its lock; the next says nothing of it, and removes it."""
    words = [
        "run",
        "split-blobs",
        "--seeds",
        "1",
        "--iterations",
        "1000",  # so that it is at work whenever this process looks
        "--device",
        "cpu",
        "--name",
        "x",
        "--checkpoint-every",
        "0.01",
    ]
    process = nursery.begin(words, tmp_path)
    while not (tmp_path / "runs/x/checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "runs/x/.lock").exists()
    assert nursery.begin(["resume", "runs/x"], tmp_path).wait() == 0
    assert not (tmp_path / "runs/x/.lock").exists()


def test_tensors_come_back_to_the_bit(tmp_path):
    tensors = {
        "a": torch.randn(3, 4),
        "empty": torch.zeros(0),
        "one": torch.tensor(3.5, dtype=torch.float64),
        "x" * 200: torch.ones(1),
    }
    path = tmp_path / "t.safetensors"
    save_tensors(
        path, tensors, {"digest of another": "0" * 64 + "x", "nested": {"digest": "1"}, "words": 'a "digest": "b'}
    )
    found, about = load_tensors(path)
    assert about == {"digest of another": "0" * 64 + "x", "nested": {"digest": "1"}, "words": 'a "digest": "b'}
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_transfer_in_which_a_seed_diverged_says_so(cli):
    words = [
        "split-blobs(tasks=2)",
        "--seeds",
        "2",
        "--iterations",
        "3",
        "--device",
        "cpu",
        "--model",
        "MLP(6)",
        "--shots",
        "1",
        "--steps",
        "1",
    ]
    code, out, errors = cli("transfer", *words, "--optimiser", "SGD(1e30)", "--adaptation", "Scratch()")
    assert code == 1 and out and "diverged" in errors.splitlines()[-1], errors
