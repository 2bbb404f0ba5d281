"""Faults of files, drawn from a seed: what a disk, an editor or a stranger does to any file that a command reads.

`Workbench` holds one sound file of every kind and the commands that read it. A `Fault` is drawn by its number alone; the
workbench is put back as it was, one file is harmed, a command reads it, and `complaint` says what is wrong with what it
did: a traceback, a long wait, a wrong exit code, a long message, something else that changed, a number that differs.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.processes import Nursery

LONGEST, SLOWEST = 300, 10.0  # characters of a message, seconds of a command
QUICK = ("--seeds", "2", "--iterations", "5", "--device", "cpu")
NET = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, shape, classes, width=6):
        super().__init__()
        self.features, self.head = nn.Sequential(nn.Linear(shape[0], width), nn.ReLU()), nn.Linear(width, classes)
"""
IDEA = """from dataclasses import dataclass
from lifelong import Strategy


@dataclass(frozen=True)
class Idea(Strategy):
    strength: float = 1.0
"""
TRUNK = """from torch import nn


def build():
    return nn.Linear(5, 3)
"""


@dataclass(frozen=True)
class Subject:
    """A file or folder of the workbench, its kind, and commands that read it."""

    file: str
    kind: str
    commands: tuple[tuple[str, ...], ...]


SHOWN = (("show", "a"), ("show", "a", "--csv"), ("report", "a"), ("resume", "a"))
TABLE = ("run", "split(data='table.npz', tasks=2)", *QUICK, "--name", "x")
FEATURES = ("features", "my.npz", "--model", "trunk.py:build", "--out", "new.npz", "--weights")
SUBJECTS = (
    Subject("a/run.json", "json", (*SHOWN, ("resume", "a", "--json"), ("distil", "a", "--iterations", "2"))),
    Subject("a/results.safetensors", "tensors", (*SHOWN, ("distil", "a", "--iterations", "2"))),
    Subject("a/learner-0.safetensors", "tensors", (("distil", "a", "--iterations", "2"),)),
    Subject("a/summary.json", "json", (("resume", "a", "--json"), ("show", "a"))),
    Subject("a", "folder", SHOWN),
    Subject("cut/run.json", "json", (("resume", "cut"), ("resume", "cut", "--json"))),
    Subject("cut/checkpoint.safetensors", "tensors", (("resume", "cut"),)),
    Subject("chunk/learner-0.safetensors", "tensors", (("resume", "chunk"),)),
    Subject("coded/run.json", "json", (("resume", "coded"), ("distil", "coded", "--iterations", "2"))),
    Subject(
        "idea.py",
        "text",
        (
            ("distil", "coded", "--iterations", "2"),
            ("run", "split-blobs", "--strategy", "idea.py:Idea()", *QUICK, "--name", "x"),
            ("check", "idea.py"),
        ),
    ),
    Subject("net.py", "text", (("run", "split-blobs", "--model", "net.py:Net()", *QUICK, "--name", "x"),)),
    Subject("trunk.py", "text", ((*FEATURES, "weights.safetensors"),)),
    Subject("own/trusted.txt", "text", (("distil", "coded", "--iterations", "2"),)),
    Subject("begun/start.checkpoint.safetensors", "tensors", (("resume", "begun"),)),
    Subject("begun/run.json", "json", (("resume", "begun"),)),
    Subject(
        "start.safetensors",
        "tensors",
        (
            ("meta-test", "start.safetensors", "--episodes", "2"),
            ("meta-test", "start.safetensors", "--episodes", "2", "--json"),
        ),
    ),
    Subject(
        "image-start.safetensors",
        "tensors",
        (
            (
                "run",
                "split(data='my.npz', tasks=2)",
                "--model",
                "MLP(6)",
                "--init",
                "image-start.safetensors",
                *QUICK,
                "--name",
                "x",
            ),
            ("features", "my.npz", "--model", "MLP(6)", "--weights", "image-start.safetensors", "--out", "new.npz"),
        ),
    ),
    Subject(
        "my.npz",
        "arrays",
        (
            ("run", "split(data='my.npz', tasks=2)", *QUICK, "--name", "x"),
            ("distil", "n", "--iterations", "2"),
            ("features", "my.npz", "--model", "MLP(6)", "--out", "new.npz"),
        ),
    ),
    Subject("table.npz", "table", (TABLE, ("features", "my.npz", "--model", "MLP(6)", "--out", "table.npz"))),
    Subject("pictures/ant/0.png", "image", (("run", "split(data='pictures', tasks=2)", *QUICK, "--name", "x"),)),
    Subject("pictures", "folder", (("run", "split(data='pictures', tasks=2)", *QUICK, "--name", "x"),)),
    Subject("weights.safetensors", "tensors", ((*FEATURES, "weights.safetensors"),)),
    Subject("weights.pt", "bytes", ((*FEATURES, "weights.pt"),)),
    Subject("paradigms/c/paradigms.json", "json", (("resume", "paradigms/c"), ("resume", "paradigms/c", "--json"))),
    Subject("ingredients/c/ingredients.json", "json", (("resume", "ingredients/c"),)),
    Subject("ingredients/c/runs/00/run.json", "json", (("resume", "ingredients/c"), ("show", "ingredients/c"))),
    Subject("ingredients/c/runs/00/results.safetensors", "tensors", (("resume", "ingredients/c"),)),
    Subject("ingredients/c/starts/0.safetensors", "tensors", (("resume", "ingredients/c"),)),
    Subject("record.json", "json", (("reproduce", "--table-only", "--record", "record.json", "--page", "page.md"),)),
)


class Workbench:
    """A folder with one sound file of each kind; `reset` puts everything back."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self.folder, self.kept, self.nursery = folder / "bench", folder / "kept", nursery
        self.said = folder / "said"
        self.said.mkdir(parents=True)
        self.folder.mkdir()
        self.environment = {**os.environ, "LIFELONG_CONFIG": str(self.folder / "own"), "COLUMNS": "100"}
        self.sound: dict[tuple[str, ...], tuple[int, str]] = {}
        with chdir(self.folder):
            before = os.environ.get("LIFELONG_CONFIG")
            os.environ["LIFELONG_CONFIG"] = self.environment["LIFELONG_CONFIG"]
            try:
                _fill(self)
            finally:
                os.environ.pop("LIFELONG_CONFIG") if before is None else os.environ.update(LIFELONG_CONFIG=before)
        shutil.copytree(self.folder, self.kept, symlinks=True)

    def reset(self) -> None:
        """Everything as it was."""
        subprocess.run(["chmod", "-R", "u+rwX", self.folder], check=False, capture_output=True)
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder, symlinks=True)

    def run(self, words: tuple[object, ...], timeout: float = 3 * SLOWEST, **limits: Any) -> Ended:
        """A command on the workbench."""
        output, errors = self.said / "output", self.said / "errors"
        for file in (output, errors):
            file.unlink(missing_ok=True)
        began = time.monotonic()
        child = self.nursery.begin(words, self.folder, self.environment, str(output), str(errors), **limits)
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            code = -9
        text = [file.read_text(errors="backslashreplace") if file.exists() else "" for file in (output, errors)]
        return Ended(code, *text, time.monotonic() - began)

    def answer(self, words: tuple[str, ...], ended: Ended) -> tuple[int, str]:
        """What a command answered, without the clock: its exit code, what it printed, the numbers that it saved."""
        printed = re.sub(r'"(seconds|training|evaluation)": [\d.e-]+', "", ended.output)
        printed = re.sub(r"(?m)^.*\bseconds\b.*$", "", printed)
        place = {"run": "runs/x", "resume": words[1]}.get(words[0])
        if place and os.path.exists(self.folder / place / "results.safetensors"):
            from lifelong.runs.folder import load_result

            result = load_result(self.folder / place)
            printed = repr(
                (result.accuracy.nan_to_num(-1).tolist(), result.losses.nan_to_num(-1).tolist(), result.seeds)
            )
        return ended.code, printed

    def sound_answer(self, words: tuple[str, ...]) -> tuple[int, str]:
        """What a command answers where nothing is harmed."""
        if words not in self.sound:
            self.reset()
            ended = self.run(words, 120)
            assert ended.code == 0, (words, ended)
            self.sound[words] = self.answer(words, ended)
        return self.sound[words]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str
    seconds: float


def _fill(bench: Workbench) -> None:
    """One file of each kind, in the present folder."""
    from PIL import Image
    from safetensors.torch import save_file

    generator = np.random.default_rng(0)
    y = np.repeat((3, 7, 9, 12), 12)
    np.savez("my.npz", x=(generator.normal(size=(48, 5)) + np.arange(5) * (y[:, None] % 5)).astype(np.float32), y=y)
    np.savez("other.npz", x=generator.normal(size=(60, 5)).astype(np.float32) + 9, y=np.arange(60) % 6)
    for name in ("ant", "bee"):
        Path("pictures", name).mkdir(parents=True)
        for i in range(4):
            pixels = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("pictures", name, f"{i}.png"))
    for name, text in (("net.py", NET), ("idea.py", IDEA), ("trunk.py", TRUNK)):
        Path(name).write_text(text)
    torch.manual_seed(0)
    weights = torch.nn.Linear(5, 3).state_dict()
    save_file(weights, "weights.safetensors")
    torch.save(weights, "weights.pt")
    Path("record.json").write_text(
        json.dumps([{"setting": "task", "method": "ewc", "seeds": [0], "accuracy": [0.9], "seconds": 3.0}])
    )
    for words in (
        (
            "pretrain",
            "sines",
            "--init",
            "MAML(iterations=1, tasks=2)",
            "--output",
            "start.safetensors",
            "--episodes",
            "2",
        ),
        (
            "pretrain",
            "split(data='my.npz', tasks=2)",
            "--init",
            "ProtoNet(way=2, query=2, iterations=2, data='other.npz')",
            "--model",
            "MLP(6)",
            "--output",
            "image-start.safetensors",
            "--episodes",
            "2",
        ),
        ("features", "my.npz", "--model", "MLP(6)", "--out", "table.npz"),
    ):
        ended = bench.run(words)
        assert ended.code == 0, (words, ended)
    _runs()
    _comparisons()


def _runs() -> None:
    from lifelong.core.stopped import Stopped
    from lifelong.runs.execute import execute, new_folder
    from lifelong.runs.request import Request

    plain = Request("split-blobs", model="MLP(6)", seeds=(0, 1), iterations=5, device="cpu")
    execute(plain, out=".", name="a")
    execute(replace(plain, scenario="split(data='my.npz', tasks=2)"), out=".", name="n")
    execute(replace(plain, strategy="idea.py:Idea()"), out=".", name="coded")
    execute(replace(plain, fleet=1), out=".", name="chunk")
    for file in ("chunk/results.safetensors", "chunk/learner-1.safetensors", "chunk/summary.json"):
        Path(file).unlink()
    start = "ProtoNet(way=2, query=2, iterations=4, data='other.npz')"
    for name, request, at in (
        ("cut", plain, 2),
        ("begun", replace(plain, scenario="split(data='my.npz', tasks=2)", init=start), 0),
    ):
        folder = new_folder(request, ".", name)

        def stop(progress: Any, folder: Any = folder, at: int = at) -> None:
            folder.stop_asked = getattr(progress, "task", at) >= at

        try:
            execute(folder, watch=stop, watch_start=stop)
        except Stopped:
            continue
        raise AssertionError(f"{name} was not stopped")


def _comparisons() -> None:
    from lifelong.runs.request import Request
    from lifelong.studies.comparison import Asked, compare_paradigms
    from lifelong.studies.ingredients import Ingredients, mix

    few = Request("split-blobs", setting="task", model="MLP(6)", seeds=(0, 1), iterations=4, device="cpu", few_shot="1")
    _, _, folder = compare_paradigms(Asked(few, (), "multi-task"), Path("paradigms"))
    folder.rename("paradigms/c")
    few = replace(few, scenario="split(data='my.npz', tasks=2)", batch=4)
    start = "MAML(data='other.npz', iterations=1, tasks=2, way=2, query=2, shot=1)"
    asked = Ingredients(few, (start,), ("Replay(size=4)",))
    from lifelong.studies import ingredients

    kept = ingredients.default_folder
    ingredients.default_folder = lambda *_: Path("ingredients/c")  # its runs name their starts by their path
    try:
        mix(asked, Path("ingredients"))
    finally:
        ingredients.default_folder = kept


# --- what happens to files ------------------------------------------------------------------------------------------

Harm = Callable[[Path, random.Random], str]


def flip(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} flipped"


def truncate(path: Path, chance: random.Random) -> str:
    content = path.read_bytes()
    length = chance.choice([0, 1, 7, 8, 9, chance.randrange(len(content)), len(content) - 1])
    path.write_bytes(content[:length])
    return f"cut to {length} bytes"


def lengthen(path: Path, chance: random.Random) -> str:
    with open(path, "ab") as file:
        file.write(chance.choice([b"\0", b"x", b"{}", chance.randbytes(1000)]))
    return "longer"


def zero(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    first = chance.randrange(len(content))
    last = min(len(content), first + chance.choice([8, 64, 4096]))
    content[first:last] = bytes(last - first)
    path.write_bytes(content)
    return f"bytes {first} to {last} are 0"


def noise(path: Path, chance: random.Random) -> str:
    path.write_bytes(
        chance.choice(
            [b"\xff\xfe", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x80\x04K*.", b"\x00" * 9, "ä\n".encode("utf-16")]
        )
        + chance.randbytes(chance.choice([0, 8, 3000]))
    )
    return "noise"


def gone(path: Path, chance: random.Random) -> str:
    _remove(path)
    return "gone"


def to_folder(path: Path, chance: random.Random) -> str:
    _remove(path)
    path.mkdir()
    return "a folder"


def to_loop(path: Path, chance: random.Random) -> str:
    _remove(path)
    path.symlink_to(path.name)
    return "a link to itself"


def to_pipe(path: Path, chance: random.Random) -> str:
    _remove(path)
    os.mkfifo(path)
    return "a pipe that nobody writes to"


def to_device(path: Path, chance: random.Random) -> str:
    _remove(path)
    path.symlink_to(chance.choice(["/dev/zero", "/dev/null", "/dev/random", "/proc/self/mem"]))
    return f"a link to {os.readlink(path)}"


def to_long_link(path: Path, chance: random.Random) -> str:
    _remove(path)
    path.symlink_to("x" * 300)
    return "a link to a name of 300 letters"


def endless(path: Path, chance: random.Random) -> str:
    os.truncate(path, 2**40)  # a hole of a terabyte
    return "a terabyte long"


def to_file(path: Path, chance: random.Random) -> str:
    _remove(path)
    path.write_bytes(chance.randbytes(20))
    return "a file"


def emptied(path: Path, chance: random.Random) -> str:
    for inside in path.iterdir():
        _remove(inside)
    return "empty"


def odd_inside(path: Path, chance: random.Random) -> str:
    where = chance.choice([path, *[place for place in path.iterdir() if os.path.isdir(place)]])
    for i in range(2):
        place = where / f"[bold]\x1b[31m{i}.png"
        chance.choice([lambda p=place: os.mkfifo(p), lambda p=place: p.mkdir(), lambda p=place: p.symlink_to(p.name)])()
    (where / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"\x89PNG")
    return "odd files inside"


def _remove(path: Path) -> None:
    shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else path.unlink(missing_ok=True)


BYTES: tuple[Harm, ...] = (flip, flip, flip, truncate, truncate, lengthen, zero, noise)
NODES: tuple[Harm, ...] = (gone, to_folder, to_loop, to_pipe, to_device, to_long_link, endless)


def deep(levels: int) -> list[Any]:
    inside: list[Any] = []
    for _ in range(levels):
        inside = [inside]
    return inside


ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1.5,
    1e308,
    -1e308,
    10**30,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "[/bold]\x1b[31m[x]",
    "\ud800",
    "../../up",
    "a\nb\0c",
    "<script>alert(1)</script>",
    "x" * 100_000,
    "/proc/self/mem",
    [],
    {},
    [[]],
    [0],
    ["x"],
    {"a": None},
    [None] * 3,
    list(range(100_000)),
    deep(500),
)


def odd_value(path: Path, chance: random.Random) -> str:
    """One value of a JSON file is of another kind, or missing; what it says of its own digest is left out, as by hand."""
    held = json.loads(path.read_text())
    words = changed(held, chance)
    if isinstance(held, dict):
        held.pop("digest", None)
    path.write_text(json.dumps(held))
    return words


def changed(held: Any, chance: random.Random) -> str:
    """Change one value of a tree; what was done, in words."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inside in items:
            places.append((value, key))
            walk(inside)

    walk(held)
    tree, key = chance.choice(places)
    if chance.random() < 0.2:
        del tree[key]
        return f"{key!r} is missing"
    tree[key] = chance.choice(ODD)
    return f"{key!r} is {str(tree[key])[:40]!r}"


def edited(path: Path, chance: random.Random) -> str:
    """A digit or a word of a JSON file is another one, and nobody said so."""
    text = path.read_text()
    digits = [found.start() for found in re.finditer(r"\d", text)]
    place = chance.choice(digits)
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    return f"the digit at {place} is another"


FOREIGN = (
    b"",
    b"[]",
    b"{}",
    b"null",
    b"3",
    b'"x"',
    b"{",
    b"[" * 100_000,
    b"[" * 500 + b"]" * 500,
    b'{"a":' * 100_000,
    b"\xef\xbb\xbf{}",
    b'{"format": 3, "request": []}',
    b'{"request": {"scenario": 3}}',
    b"1" * 5000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b"\xff\xfe{\x00}\x00",
    b'{"lines": 3}',
    b'[{"setting": []}]',
    b"[null]",
    b"[1, 2]",
    b'[{"seeds": 3, "setting": "task", "method": "ewc"}]',
)


def foreign(path: Path, chance: random.Random) -> str:
    content = chance.choice(FOREIGN)
    path.write_bytes(content)
    return f"it holds {content[:30]!r}"


def header(path: Path, chance: random.Random) -> str:
    """The header of a file of tensors says what is not so."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    held = json.loads(content[8 : 8 + length])
    if chance.random() < 0.1:
        path.write_bytes(chance.choice([2**63, 2**40, 10**8, 0, 1]).to_bytes(8, "little") + content[8:])
        return "its header says another length"
    names = [name for name in held if name != "__metadata__"]
    name = chance.choice(names)
    kind = chance.choice(["dtype", "shape", "offsets", "gone", "about", "name"])
    if kind == "dtype":
        held[name]["dtype"] = chance.choice(["F64", "I64", "BOOL", "F16", "X9", 3, None])
    elif kind == "shape":
        held[name]["shape"] = chance.choice([[10**15], [2**62, 4], [-1], [], [0], ["x"], None, [1] * 100])
    elif kind == "offsets":
        held[name]["data_offsets"] = chance.choice([[0, 10**15], [0, 0], [8, 0], [-1, 4], None, [0]])
    elif kind == "gone":
        del held[name]
    elif kind == "name":
        held["[/bold]\x1b[31m"] = held.pop(name)
    else:
        held["__metadata__"] = chance.choice(
            [{}, None, {"about": "{"}, {"about": "[]"}, {"about": "null"}, {"about": 3}, {"about": "[" * 100_000}]
        )
    text = json.dumps(held).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return f"header: {kind} of {name}"


def resaved(path: Path, chance: random.Random) -> str:
    """A file of tensors as we write them, with something else in it: what a digest cannot tell."""
    from lifelong.core.files import load_tensors, save_tensors

    try:
        tensors, about = load_tensors(path)
    except ValueError:  # not a file of ours
        return header(path, chance)
    if chance.random() < 0.5 and about:
        words = changed(about, chance)
    else:
        name = chance.choice(list(tensors))
        value = tensors[name]
        choices = {
            "left out": None,
            "NaN": torch.full(value.shape, torch.nan),
            "a number": torch.zeros(()),
            "empty": value[:0] if value.ndim else torch.zeros(0),
            "of other numbers": value.to(torch.float16),
            "of whole numbers": torch.ones(value.shape, dtype=torch.int32),
            "of one axis more": value[None],
            "infinite": torch.full(value.shape, torch.inf, dtype=torch.float64),
            "huge": torch.full(value.shape, 2**62, dtype=torch.int64),
            "negative": torch.full(value.shape, -7, dtype=value.dtype) if value.dtype != torch.bool else value,
        }
        kind = chance.choice(list(choices))
        tensors.pop(name) if choices[kind] is None else tensors.update({name: choices[kind]})
        words = f"{name} is {kind}"
    save_tensors(path, tensors, about)
    return f"saved with {words}"


def rearranged(path: Path, chance: random.Random) -> str:
    """A `.npz` file with other arrays in it."""
    with np.load(path) as arrays:
        held: dict[str, Any] = dict(arrays.items())
    key = chance.choice(["x", "y"])
    value = held[key]
    odd = {
        "0-d": np.array(3.0),
        "none": np.zeros((0, 5)),
        "one axis more": value[None],
        "text": np.array(["a"] * len(value)),
        "dates": np.zeros(len(value), dtype="M8[D]"),
        "records": np.zeros(len(value), dtype=[("a", "i4")]),
        "complex": value + 1j,
        "objects": np.array([{}] * len(value), dtype=object),
        "NaN": np.full(value.shape, np.nan),
        "negative": -1 - np.abs(value),
        "huge": np.full(value.shape, 1e300),
        "longdouble": value.astype(np.longdouble) * 1.5,
        "half": value[: len(value) // 2],
        "no features": np.zeros((len(value), 0)),
        "2**63": np.full(value.shape, 2**63, dtype=np.uint64),
        "bytes": np.zeros(value.shape, "S3"),
    }
    kind = chance.choice(
        [*odd, "gone", "x_test alone", "a class that only the test part has", "a bomb", "no array", "no zip"]
    )
    if kind in odd:
        held[key] = odd[kind]
    elif kind == "gone":
        del held[key]
    elif kind == "x_test alone":
        held["x_test"] = held["x"]
    elif kind.startswith("a class"):
        held |= {"x_test": held["x"][:2], "y_test": np.array([3, 99])}
    if kind == "no zip":
        np.save(path.with_suffix(".npy"), value)
        path.with_suffix(".npy").replace(path)
        return "a single array"
    np.savez(path, **held)
    if kind == "a bomb":
        _bomb(path, key)
    elif kind == "no array":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"no array")
            archive.writestr("y.npy", b"no array")
    return f"{key}: {kind}"


def _bomb(path: Path, key: str) -> None:
    """A gigabyte of zeros in a megabyte, behind a header that says how large it is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{key}.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
        for _ in range(64):
            member.write(bytes(2**20))


def odd_picture(path: Path, chance: random.Random) -> str:
    """A picture that is none, or claims to be larger than any."""
    from PIL import Image

    kind = chance.choice(["bomb", "text", "huge header", "grey", "one pixel"])
    if kind == "bomb":
        Image.new("1", (15_000, 15_000)).save(path)
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "huge header":
        content = bytearray(path.read_bytes())
        content[16:24] = b"\x7f\xff\xff\xff\x7f\xff\xff\xff"
        path.write_bytes(content)
    else:
        Image.new("L", (9, 9) if kind == "grey" else (1, 1)).save(path)
    return kind


def broken_code(path: Path, chance: random.Random) -> str:
    """A user's file that raises, ends the program, or is no Python at all."""
    text = chance.choice(
        [
            "raise SystemExit(0)",
            "import sys\nsys.exit(0)",
            "raise KeyError('x')",
            "1/0",
            "def f(:",
            "\0",
            "raise BaseException",
            "x = " + "(" * 500,
            "import no_such_module",
            "raise Exception('a\\nb' * 1000)",
            "class Idea: pass\nclass Net: pass\ndef build(): return 3",
            "Idea = Net = build = 3",
            "def Idea(): pass\nNet = Idea\nbuild = Idea",
            "def __getattr__(name): raise ValueError(name)",
            "from lifelong import Strategy as Idea\nfrom torch.nn import Linear as Net\nbuild = Net",
            "raise RuntimeError('\\x1b[31m[/bold]')",
            "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
            "import os\nos.kill(os.getpid(), 9) if 0 else exec('raise Warning')",
            "def f(): return f()\nf()",
            "#" * 1_000_000,
            "\ud800" if 0 else "x = '\\ud800'\nraise ValueError(x)",
        ]
    )
    path.write_text(text)
    return f"it holds {text[:40]!r}"


HARMS: dict[str, tuple[Harm, ...]] = {
    "json": (*BYTES, *NODES, *[odd_value] * 10, edited, edited, foreign, foreign, foreign),
    "tensors": (*BYTES, *NODES, *[header] * 5, *[resaved] * 8),
    "arrays": (*BYTES, *NODES, *[rearranged] * 8),
    "table": (*BYTES, *NODES, *[rearranged] * 4),
    "image": (*BYTES, *NODES, *[odd_picture] * 4),
    "text": (*BYTES, *NODES, *[broken_code] * 6),
    "bytes": (*BYTES, *NODES),
    "folder": (gone, to_loop, to_pipe, to_device, to_file, emptied, odd_inside, odd_inside),
}
EXACT = (flip, edited)  # where whatever is answered must be what was answered before
NOT_OURS = ("arrays", "image", "text", "bytes")  # kinds of files that we did not write, and do not know again


@dataclass(frozen=True)
class Fault:
    """One fault: which file, what happens to it, and the command that reads it."""

    number: int
    subject: Subject
    harm: Harm
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"fault {self.number}: {self.subject.file} {self.harm.__name__}, then {' '.join(self.command)}"


def fault(number: int, seed: int = 0) -> Fault:
    """The fault of a number."""
    chance = random.Random(f"{seed}/{number}")
    subject = SUBJECTS[number % len(SUBJECTS)]
    return Fault(number, subject, chance.choice(HARMS[subject.kind]), chance.choice(subject.commands))


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file in a folder and below, as it is; of what is no plain file its kind."""
    found: dict[str, bytes | str] = {}
    for place, _, files in os.walk(folder):
        for file in files:
            path = Path(place, file)
            plain = os.path.isfile(path) and not path.is_symlink() and path.stat().st_size < 2**30
            found[os.fspath(path.relative_to(folder))] = path.read_bytes() if plain else "special"
    return found


def complaint(bench: Workbench, drawn: Fault, thorough: bool = False) -> tuple[str, str]:
    """What is wrong with how a command bears a fault, "" where nothing is; and what happened, in words."""
    sound = bench.sound_answer(drawn.command)
    bench.reset()
    words = drawn.harm(bench.folder / drawn.subject.file, random.Random(drawn.number))
    before = contents(bench.folder)
    ended = bench.run(drawn.command)
    happened = f"{drawn}: {words}\n  {ended.code} in {ended.seconds:.1f} s: {ended.errors[-700:].strip()}"
    found = _wrong(bench, drawn, ended, before, sound)
    if not found and thorough:
        _restore(bench, drawn.subject.file)
        again = bench.run(drawn.command)
        if drawn.command[0] not in ("run", "features") and again.code != 0:
            found = "lost: with the file put back, the command fails"
            happened += f"\n  put back: {again.code}: {again.errors[-300:]}"
    return found, happened


def _restore(bench: Workbench, file: str) -> None:
    _remove(bench.folder / file)
    source = bench.kept / file
    shutil.copytree(source, bench.folder / file) if source.is_dir() else shutil.copy(source, bench.folder / file)


def _wrong(bench: Workbench, drawn: Fault, ended: Ended, before: dict[str, Any], sound: tuple[int, str]) -> str:
    if "Traceback" in ended.errors or "Traceback" in ended.output:
        return "traceback"
    if ended.seconds > SLOWEST:
        return f"slow: {ended.seconds:.0f} s"
    if (
        ended.code not in (0, 2)
        and not (ended.code == 1 and "diverged" in ended.errors and drawn.harm is resaved)
        and not (ended.code == 1 and "cannot be written" in ended.errors)
    ):
        return f"exit code {ended.code}"
    long = [line for line in ended.errors.splitlines() if len(line) > LONGEST]
    if long:
        return f"message of {max(map(len, long))} characters"
    said = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    if (
        ended.code and len(said) != 1 and not (said and all("diverged" in line for line in said))
    ):  # a line for each seed
        return "no single line says what is wrong"
    if "\x1b" in ended.output + ended.errors:
        return "escape codes reach the terminal"
    after = contents(bench.folder)
    if any(name.endswith(".partial") for name in after):
        return "a stray file is left"
    if ended.code == 2:
        lost = [
            name
            for name, value in before.items()
            if after.get(name) != value and not name.endswith((".lock", "/run.json", "page.md", "trusted.txt"))
        ]
        if lost:
            return f"lost: {lost[0]} is not as it was"
        new = [name for name in set(after) - set(before) if not name.endswith((".lock", "page.md", "trusted.txt"))]
        return f"left behind: {sorted(new)[0]}" if new else ""
    said = "passed over: " in ended.errors
    if (
        not said
        and drawn.harm in EXACT
        and drawn.subject.kind not in NOT_OURS
        and bench.answer(drawn.command, ended) != sound
    ):
        return "silent: another answer, and no word"
    return ""
