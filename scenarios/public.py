"""A package's public names: what its `__init__` imports under TYPE_CHECKING, brought in when it is first asked for (PEP 562).

So each name is written once, type checkers see it, and `import lifelong` does not wait for torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import Any


def offered(
    package: str, found: Callable[[], Mapping[str, Any]] = dict
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`; `__all__` and `__version__` are answered by them too.

    found: gives what it offers besides, by name, such as the strategies that lie in its files; called only when a name is
    asked for that is not imported there, or all of them.
    """

    def names() -> list[str]:
        return sorted({*typed_names(package), *found()})

    def get(name: str) -> Any:
        if name in answers:
            return answers[name]()
        typed = {} if name.startswith("_") else typed_names(package)
        if typed.get(name) == package:  # a room of it
            value = importlib.import_module(f"{package}.{name}")
        elif name in typed:
            value = getattr(importlib.import_module(typed[name]), name)
        elif not name.startswith("_") and name in found():
            value = found()[name]
        else:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package]
            )  # with both, Python itself says what was meant
        vars(sys.modules[package])[name] = value  # from now on it is there
        return value

    answers = {"__all__": names, "__version__": version}
    return get, names


@functools.cache
def typed_names(package: str) -> dict[str, str]:
    """The names that a package's `__init__` imports under TYPE_CHECKING, and the module that each comes from."""
    source = pkgutil.get_data(package, "__init__.py")  # wherever it lies, in an archive too
    tree = ast.parse(source or b"")
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def version() -> str:
    """The version that is installed; "0+unknown" for files that are only looked at."""
    from importlib import metadata

    try:
        return metadata.version("lifelong")
    except metadata.PackageNotFoundError:
        return "0+unknown"
