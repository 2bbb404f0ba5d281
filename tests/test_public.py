"""The public surface: whole, lazy, the same for type checkers and when it runs, and used by nobody inside."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lifelong.notation.registry import KINDS, found
from scenarios.public import typed_names
from tests.test_house import FILES, imports, module_of

ROOT = Path(__file__).parent.parent
ROOMS = {  # the kind of thing that lies in a room's files, and is found there
    "lifelong.strategies": "strategies",
    "lifelong.models": "models",
    "lifelong.optimisers": "optimisers",
    "lifelong.learners": "learners",
    "lifelong.memory": "memories",
    "lifelong.probes": "probes",
    "lifelong.meta": "initialisations",
    "lifelong.adaptation": "adaptations",
}
LAZY = ["lifelong", "scenarios", *ROOMS]
EAGER = ["lifelong.metrics"]


def ours(kind: str) -> dict[str, str]:
    """What is found of a kind in our own files, and the module of each."""
    return {name: value.__module__ for name, value in found(kind).items() if value.__module__.startswith("lifelong.")}


def test_every_kind_of_thing_has_a_room():
    assert set(ROOMS.values()) == set(KINDS)


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_is_there_and_is_what_type_checkers_see(package):
    module, typed = importlib.import_module(package), typed_names(package)
    for name, source in typed.items():
        room = source == package  # a room of the package, such as lifelong.strategies
        seen = importlib.import_module(f"{source}.{name}") if room else vars(importlib.import_module(source))[name]
        assert getattr(module, name) is seen
    hidden = {"annotations", "TYPE_CHECKING", "offered", "partial", "found"}
    assert set(typed) <= set(dir(module)) and not hidden & set(dir(module))
    assert dir(module) == sorted(module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        module.Nothing  # noqa: B018


@pytest.mark.parametrize("package", ROOMS)
def test_type_checkers_see_all_that_is_found(package):
    place = f"{package.replace('.', '/')}/__init__.py, under TYPE_CHECKING"
    typed = typed_names(package)
    for name, module in ours(ROOMS[package]).items():
        assert typed.get(name) == module, f"add to {place}:\n    from {module} import {name} as {name}"


def test_type_checkers_take_the_names_for_public():
    """In a package with a py.typed, `import X` is its own business, and `import X as X` is offered."""
    for package in LAZY:
        path = Path(importlib.import_module(package).__file__ or "")
        block = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
        for node in ast.walk(block):
            if isinstance(node, ast.ImportFrom) and node.module != "scenarios.public":
                for alias in node.names:
                    assert alias.asname == alias.name, f"{path}: write `import {alias.name} as {alias.name}`"


@pytest.mark.parametrize("package", EAGER)
def test_public_names_of_small_rooms_are_whole(package):
    """All public classes and functions of their files, but what the files alone need."""
    module = importlib.import_module(package)
    inner = {"accuracy_matrix", "accuracy_curve", "curve_areas", "diagonal_of", "accuracy_alone"}
    for path in sorted(Path(module.__file__ or "").parent.glob("*.py")):
        if path.name == "__init__.py":
            continue
        file = f"{package}.{path.stem}"
        for name, value in vars(importlib.import_module(file)).items():
            definition = (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == file
            if definition and not name.startswith("_") and name not in inner:
                assert getattr(module, name, None) is value, f"add to {package}: from {file} import {name}"
                assert name in module.__all__, f"add {name!r} to {package}.__all__"
    assert dir(module) == sorted(module.__all__)


def test_nobody_inside_goes_by_the_public_names():
    """A name is imported from where it is defined; `lifelong` itself is watched over by `test_imports_only_go_down`."""
    typed = ((package, name, source) for package in LAZY for name, source in typed_names(package).items())
    names = {f"{package}.{name}": source for package, name, source in typed if source != package}
    for path in FILES:
        if module_of(path) not in LAZY:
            for module in imports(path):
                assert module not in names, f"{path}: import {module.rpartition('.')[2]} from {names[module]}"


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    code = """
import sys, lifelong, scenarios
assert "MLP" in dir(lifelong) and "build" in dir(scenarios) and lifelong.__version__
assert "torch" not in sys.modules, "the names alone need no torch"
from lifelong import ConfigurationError
assert "torch" not in sys.modules, "an error needs no torch"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_dropped_into_a_room_is_offered_at_once(tmp_path):
    """With no line elsewhere: to Python, to tab, to `*`, and to the command line's words."""
    for package in ("lifelong", "scenarios"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "lifelong/strategies/regularisation/dropped.py").write_text(
        '"""A new method."""\n\nfrom dataclasses import dataclass\n\nfrom lifelong.core.strategy import Strategy\n\n\n'
        '@dataclass(frozen=True)\nclass Dropped(Strategy):\n    """Nothing yet."""\n\n    strength: float = 1.0\n'
    )
    code = """
import lifelong
from lifelong.strategies import Dropped
assert "Dropped" in dir(lifelong.strategies) and "Dropped" in lifelong.strategies.__all__
from lifelong.notation.expression import parse
assert parse("Dropped(2.0)", "strategies") == Dropped(strength=2.0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_types_are_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"] == {"*": ["py.typed"]}
    for package in ("lifelong", "scenarios"):
        assert (ROOT / package / "py.typed").exists()
