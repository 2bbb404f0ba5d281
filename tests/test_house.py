"""Rooms and floors: imports go down, what is heavy comes late, files stay small, variables are nouns."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [*ROOT.glob("lifelong/**/*.py"), *ROOT.glob("scenarios/**/*.py"), ROOT / "cli.py"]

# from the ground up; rooms of one floor know nothing of each other
FLOORS = (
    ("scenarios",),
    ("lifelong.notation",),
    ("lifelong.models", "lifelong.optimisers"),
    ("lifelong.core",),
    ("lifelong.memory", "lifelong.probes"),
    ("lifelong.strategies", "lifelong.learners"),
    ("lifelong.metrics", "lifelong.adaptation"),
    ("lifelong.meta",),
    ("lifelong.transfer", "lifelong.contracts"),
    ("lifelong.runs",),
    ("lifelong.studies",),
    ("lifelong.display",),
    ("lifelong.commands",),
    ("cli",),
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, inside functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    """The room that a module lies in: none for a package of others, and for `lifelong` itself."""
    return next((room for room in HEIGHT if module == room or module.startswith(f"{room}.")), None)


def test_every_file_lies_in_a_room():
    for path in FILES:
        assert room_of(module_of(path)) or module_of(path) in ("lifelong", "lifelong.__main__"), path


def test_imports_only_go_down():
    """Counted wherever they stand: at the top, inside a function, for types alone."""
    for path in FILES:
        room = room_of(module_of(path))
        if room is None:  # the public surface names what lies anywhere
            continue
        for module in imports(path):
            other = room_of(module)
            assert other or not module.startswith("lifelong"), f"{path}: {module} is for users; import it from its room"
            assert other in (None, room) or HEIGHT[other] < HEIGHT[room], f"{path} imports {module}"


ONLY_IN = {
    "typer": ("lifelong.commands", "cli"),
    "rich": ("lifelong.display", "lifelong.commands"),
    "avalanche": ("scenarios.avalanche", "lifelong.learners.avalanche"),
    "matplotlib": ("lifelong.display",),
}


def test_libraries_stay_in_their_places():
    for path in FILES:
        for module in imports(path):
            places = ONLY_IN.get(module.partition(".")[0])
            where = module_of(path)
            assert places is None or any(where == place or where.startswith(f"{place}.") for place in places), path


def test_every_room_says_what_may_live_in_it():
    for folder in {path.parent for path in FILES} - {ROOT}:
        init = folder / "__init__.py"  # a folder without one is not installed
        assert init.exists() and ast.get_docstring(ast.parse(init.read_text())), folder


def test_no_circles():
    names = {module_of(path) for path in FILES}
    graph = {
        module_of(path): {name if name in names else name.rpartition(".")[0] for name in imports(path)}
        for path in FILES
    }

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for after in graph.get(start, ()):
            if after == goal or (after not in seen and not seen.add(after) and reaches(after, goal, seen)):
                return True
        return False

    assert [name for name in graph if reaches(name, name, set())] == []


CORE = (
    "batch",
    "problem",
    "strategy",
    "learner",
    "fleet",
    "sampler",
    "loop",
    "evaluator",
    "probes",
    "settings",
    "row_gradients",
)
VALUES = {"Tensor", "Result", "str", "tuple", "Seed", "Done", "Evaluated", "TaskEnded", "Stepped", "Begun"}


def test_the_core_asks_nobody_for_a_class():
    """Of tensors, results and its own events it may; of learners, starts, sources and parts never."""
    for name in CORE:
        for node in ast.walk(ast.parse((ROOT / f"lifelong/core/{name}.py").read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            assert node.func.id != "hasattr", (name, node.lineno)
            assert node.func.id != "getattr" or len(node.args) == 2, (name, node.lineno)
            if node.func.id == "isinstance":
                asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                assert asked <= VALUES, (name, node.lineno, asked)


def test_help_does_not_wait_for_torch():
    code = "import sys, cli; sys.argv = ['lifelong', '--help']\ntry: cli.main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def code_lines(node: ast.AST) -> int:
    lines = {n.lineno for n in ast.walk(node) if hasattr(n, "lineno")}
    for n in ast.walk(node):
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str):
            lines -= set(range(n.lineno, (n.end_lineno or n.lineno) + 1))
    return len(lines)


def test_sizes():
    """Aims, printed; what fails is twice the aim."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        size = code_lines(tree)
        print(f"{size:5d} {path.relative_to(ROOT)}")
        assert size <= (120 if path.parent.name == "commands" or path.name == "cli.py" else 500), path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert code_lines(node) <= 80, (path, node.name)


PRONOUNS = {"one", "own", "what"}


def test_variables_are_nouns():
    """Variables, parameters, keywords, attributes, functions: the key in `params["own"]` is a string, and may stand."""
    files = [*FILES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    found = []
    for path in sorted(files):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant):
                continue
            names = [value for _, value in ast.iter_fields(node) if isinstance(value, str) and value in PRONOUNS]
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in names]
    assert not found, "a noun says what it is:\n" + "\n".join(found)
