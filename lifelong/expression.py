"""Text <-> object, in one notation: the repr of an object is the text that builds it. Nothing is ever evaluated."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from scenarios.refusal import Refusal

STRATEGIES = ("lifelong.strategies", "lifelong.multitask")  # packages whose strategies can be named
FILES: dict[str, str] = {}  # path of each plug-in file -> hash of the content that was loaded
_MODULES: dict[tuple[str, str], Any] = {}


class ExpressionError(Refusal):
    """A text that names nothing that can be built; its message is one line and offers the nearest name."""


def vocabulary(kind: str) -> dict[str, Any]:
    """Everything that may be named: kind is "strategies", "models", "optimisers", "learners", "initialisations" or "rules"."""
    from lifelong import learner, model, optimisers
    from lifelong.strategy import FineTuning, Strategy

    if kind == "models":
        from lifelong.multitask.conditioning import Conditioned

        return {"MLP": model.MLP, "Conv4": model.Conv4, "Conditioned": Conditioned}
    if kind == "optimisers":
        return {"SGD": optimisers.SGD, "Adam": optimisers.Adam, "AdamW": optimisers.AdamW}
    if kind == "learners":
        return {"NearestClassMean": learner.NearestClassMean}
    if kind == "initialisations":
        from lifelong.meta.initialisation import Initialisation

        return {"Random": _random, **_discovered("lifelong.meta", Initialisation)}
    if kind == "rules":
        from lifelong.adaptation.rules import RULES

        return {rule.__name__: rule for rule in RULES}
    found: dict[str, Any] = {"FineTuning": FineTuning}
    for package in STRATEGIES:
        found |= _discovered(package, Strategy)
    for point in entry_points(group="lifelong.strategies"):
        found.setdefault(point.name, point.load())
    return found


def _discovered(package: str, base: type) -> dict[str, Any]:
    """The public classes of a package's modules that derive from a base, and can be made."""
    found = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for name, value in vars(module).items():
            own = inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
            if own and value is not base and not name.startswith("_") and not inspect.isabstract(value):
                found[name] = value
    return found


def _random() -> Any:
    """The network's own random draw."""
    from lifelong.fleet import random_start

    return random_start


def suggest(name: str, known: Any) -> str:
    """The end of an error's sentence: the nearest valid name, or all of them."""
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"


def load_file(path: str) -> Any:
    """The module in a user's file, loaded once for each content. Raises ExpressionError where it cannot be."""
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ExpressionError(f"{path}: cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(content).hexdigest()[:16]
    FILES[path] = digest
    if (path, digest) not in _MODULES:
        name = f"lifelong_plugin_{digest}"
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ExpressionError(f"{path}: is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            raise ExpressionError(f"{path}: line {error.lineno}: {error.msg}") from None
        except Exception as error:  # a user's file may raise anything at all
            raise ExpressionError(f"{path}: cannot be loaded ({type(error).__name__}: {error})") from None
        _MODULES[path, digest] = module
    return _MODULES[path, digest]


def from_file(path: str, name: str) -> Any:
    """What a user's file calls `name`; a class bears the path in its repr from now on."""
    module = load_file(path)
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise ExpressionError(f"{path}: has no {name!r}: {suggest(name, public)}")
    value = getattr(module, name)
    if inspect.isclass(value):
        value.__qualname__ = f"{path}:{name}"
    return value


_FILE = re.compile(r"([^\s()+,'\"=]+\.py):([A-Za-z_]\w*)")


def parse(text: str, kind: str) -> Any:
    """The object that a text describes, as in `EWC(strength=100.0) + Replay(size=200)` or `my_idea.py:Anchor(2)`.

    Raises ExpressionError for unknown names and fields, and for anything that is not a call with plain values.
    """
    files: dict[str, tuple[str, str]] = {}

    def replace(match: re.Match[str]) -> str:
        key = f"_file{len(files)}_"
        files[key] = (match[1], match[2])
        return key

    plain = _FILE.sub(replace, text.strip())
    try:
        tree = ast.parse(plain, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ExpressionError(
            f"{text!r} cannot be read ({getattr(error, 'msg', error)}): write it like EWC(strength=100.0)"
        ) from None
    return _build(tree, text, kind, files)


def _build(node: ast.AST, text: str, kind: str, files: dict[str, tuple[str, str]]) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and kind == "strategies":
        left, right = (_build(side, text, kind, files) for side in (node.left, node.right))
        return left + right
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ExpressionError(f"{text!r}: only names with plain values in brackets are read, as in EWC(strength=100.0)")
    name = node.func.id
    known = vocabulary(kind)
    if name in files:
        maker = from_file(*files[name])
        shown = ":".join(files[name])
    elif name in known:
        maker, shown = known[name], name
    else:
        raise ExpressionError(
            f"unknown {kind[:-1] if kind != 'strategies' else 'strategy'} {name!r}: {suggest(name, known)}"
        )
    positional = [_value(argument, text, files) for argument in node.args]
    named = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ExpressionError(f"{text!r}: ** cannot be used here")
        named[keyword.arg] = _value(keyword.value, text, files)
    return make(maker, shown, positional, named, kind)


def _value(node: ast.AST, text: str, files: dict[str, tuple[str, str]]) -> Any:
    """A plain value, or a nested call of a model, an optimiser or a strategy."""
    if isinstance(node, ast.Call | ast.BinOp) and not _is_number(node):
        for kind in ("models", "optimisers", "strategies"):
            first: Any = node
            while isinstance(first, ast.BinOp):
                first = first.left
            if (
                isinstance(first, ast.Call)
                and isinstance(first.func, ast.Name)
                and (first.func.id in vocabulary(kind) or (first.func.id in files and kind == "strategies"))
            ):
                return _build(node, text, kind, files)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise ExpressionError(
            f"{text!r}: {ast.unparse(node)!r} is not a plain value (number, text, tuple, True, False)"
        ) from None


def _is_number(node: ast.AST) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True


def make(maker: Any, shown: str, positional: list[Any], named: dict[str, Any], kind: str = "") -> Any:
    """Call a maker, turning a wrong field, a wrong type or a refused value into one line."""
    from torch import nn

    from lifelong.model import Module

    if kind == "models" and inspect.isclass(maker) and issubclass(maker, nn.Module):
        arguments = ", ".join([*map(repr, positional), *(f"{k}={v!r}" for k, v in named.items())])
        return Module(
            lambda shape, classes: partial(maker, shape, classes)(*positional, **named), f"{shown}({arguments})"
        )
    if not callable(maker):
        raise ExpressionError(f"{shown} is not something that can be made: it is a {type(maker).__name__}")
    fields = inspect.signature(maker).parameters
    variable = any(field.kind in (field.VAR_POSITIONAL, field.VAR_KEYWORD) for field in fields.values())
    for name in named:
        if name not in fields and not variable:
            raise ExpressionError(
                f"{shown} has no field {name!r}: {suggest(name, fields) if fields else 'it has none'}"
            )
    if not variable and len(positional) > len(fields):
        raise ExpressionError(f"{shown} takes at most {len(fields)} values, and {len(positional)} were given")
    for name, value in [*zip(fields, positional, strict=False), *named.items()]:
        _check_type(shown, name, fields.get(name), value)
    try:
        return maker(*positional, **named)
    except (TypeError, ValueError) as error:
        raise ExpressionError(str(error).splitlines()[0]) from None


_PLAIN = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _check_type(shown: str, name: str, field: inspect.Parameter | None, value: Any) -> None:
    """Plain annotations are held to, so that `size="many"` is a sentence and not a traceback."""
    expected = _PLAIN.get(getattr(field.annotation, "__name__", str(field.annotation))) if field else None
    wrong = expected is not None and (
        not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)
    )
    if wrong and field is not None and field.kind is not field.VAR_POSITIONAL:
        assert expected
        raise ExpressionError(
            f"{shown}({name}={value!r}): {name} must be {expected[0].__name__ if len(expected) == 1 else 'a number'}"
        )  # type: ignore[index]


def read_call(text: str) -> tuple[str, dict[str, Any]]:
    """A scenario's name and options, from a text like `split-digits(tasks=5)`; the name may hold hyphens and a file."""
    match = re.fullmatch(r"\s*((?:[^()\s]+\.py:|avalanche:)?[A-Za-z_][\w-]*)\s*(\(.*\))?\s*", text, re.DOTALL)
    if not match:
        raise ExpressionError(f"{text!r} cannot be read: write a scenario like split-digits or split-digits(tasks=5)")
    try:
        call = ast.parse(f"scenario{match[2] or '()'}", mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(f"{text!r} cannot be read ({error.msg})") from None
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ExpressionError(f"{text!r}: name each option, as in split-digits(tasks=5)")
    return match[1], {str(keyword.arg): _value(keyword.value, text, {}) for keyword in call.keywords}
