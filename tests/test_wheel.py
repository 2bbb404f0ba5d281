"""A wheel is built from what is tracked, installed where this checkout is not, and used from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("lifelong", "scenarios", "cli.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by the project's own build backend, from copies: a build leaves folders behind."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    words = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(made),
        str(source),
    ]
    subprocess.run([sys.executable, *words], check=True, timeout=300)
    return next(made.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel, and with the libraries of this one; gives what runs its `lifelong`."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=300)
    packages = next(place.glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(
        sysconfig.get_paths()["purelib"]
    )  # whose own .pth, to this checkout, is not read
    python = str(place / "bin" / "python")
    folder = tmp_path_factory.mktemp("elsewhere")
    # a checkout on the path would be what pip takes for installed, and what is then run
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(words, check=True, timeout=300, env=environment)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(place / "bin" / words[0]), *words[1:]]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    return call, folder


def test_it_has_what_is_needed_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"lifelong", "scenarios", "cli.py"}
    assert {"lifelong/py.typed", "scenarios/py.typed"} <= set(names)
    ours = {
        str(path.relative_to(ROOT)) for folder in ("lifelong", "scenarios") for path in (ROOT / folder).rglob("*.py")
    }
    assert ours <= set(names), "a folder without __init__.py is left out"


def test_it_works_from_another_folder(installed):
    call, folder = installed
    where = call(
        "python", "-c", "import lifelong, scenarios, cli; print(lifelong.__file__, scenarios.__file__, cli.__file__)"
    )
    assert where.returncode == 0 and str(ROOT) not in where.stdout, where.stderr
    ran = call("lifelong", "run", "split-digits", "--seeds", "2", "--iterations", "5", "--name", "first", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["seeds"] == [0, 1], ran.stderr
    page = call("lifelong", "report", "runs/first", "--output", "page.html")
    assert page.returncode == 0 and (folder / "page.html").stat().st_size > 10_000, page.stderr
    made = call("lifelong", "new", "strategy", "own.py")
    assert made.returncode == 0 and (folder / "own.py").exists(), made.stderr
    told = call("lifelong", "explain", "own.py:Own()")
    assert told.returncode == 0 and "Own" in told.stdout, told.stderr
