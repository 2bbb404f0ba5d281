"""Text <-> object, in one notation: the repr of an object is the text that builds it. Nothing is ever evaluated."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

from torch import nn

from lifelong.notation.registry import KINDS, at_place, found
from lifelong.notation.user_code import CODE, FILES, PLACES, file_of, from_file, load_file, suggest, user_line
from lifelong.notation.varied import Varied, VariedError, is_number, made, varied_paths, vary
from scenarios.errors import ConfigurationError

__all__ = [
    "FILES",
    "PLACES",
    "ExpressionError",
    "from_file",
    "load_file",
    "make",
    "parse",
    "read_call",
    "suggest",
    "vocabulary",
]

LONGEST = 10_000  # characters of an expression
DEEPEST = 100  # brackets or sums inside one another
LARGEST = 2**63  # whole numbers from here on fit no tensor
GREATEST = 3.4e38  # beyond it float32 is infinite


class ExpressionError(ConfigurationError):
    """A text that names nothing that can be built; its message is one line and offers the nearest name."""


def vocabulary(kind: str) -> dict[str, Any]:
    """Everything that may be named: kind is a key of `lifelong.notation.registry.KINDS`."""
    return dict(found(kind))


def _shown(text: str) -> str:
    """A text as a message quotes it."""
    return repr(text if len(text) <= 200 else f"{text[:197]}...")


def _tree(text: str, plain: str, example: str) -> ast.expr:
    """The syntax tree of a text, once it is sure that it is neither endless nor nested without bound."""
    if len(text) > LONGEST:
        raise ExpressionError(f"{_shown(text)} has {len(text):,} characters, and at most {LONGEST:,} are read")
    try:
        tree = ast.parse(plain, mode="eval").body
    except (RecursionError, MemoryError):
        raise _too_deep(text) from None
    except (SyntaxError, ValueError) as error:
        words = str(getattr(error, "msg", error))
        if "nested" in words:
            raise _too_deep(text) from None
        raise ExpressionError(f"{_shown(text)} cannot be read ({words[:200]}): write it like {example}") from None
    level: list[ast.AST] = [tree]
    for _ in range(3 * DEEPEST):  # a bracket is up to three nodes deep: call, keyword, value
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree
    raise _too_deep(text)


def _too_deep(text: str) -> ExpressionError:
    return ExpressionError(
        f"{_shown(text)} is nested too deeply: at most {DEEPEST} brackets or sums inside one another"
    )


def parse(text: str, kind: str) -> Any:
    """The object that a text describes, as in `EWC(strength=100.0) + Replay(size=200)` or `my_idea.py:Anchor(2)`.

    A value may be varied, as in `EWC(strength=vary(1, 10, 100))`. Raises ExpressionError for unknown names and fields,
    and for anything that is not a call with plain values, and UserCodeError for a file that may not be executed.
    """
    files: dict[str, tuple[str, str]] = {}

    def replace(match: re.Match[str]) -> str:
        key = f"_file{len(files)}_"
        files[key] = (match[1], match[2])
        return key

    if len(text) > LONGEST:
        return _tree(text, text, "")  # refuses it
    plain = CODE.sub(replace, text.strip())
    return _build(_tree(text, plain, "EWC(strength=100.0)"), text, kind, files)


def listed(text: str) -> list[str]:
    """The expressions of a list like `DormantUnits(), my_probes.py:Norm(2)`: cut at the commas outside all brackets and quotes."""
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += 0 if quote else (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece.strip() for piece in pieces if piece.strip()]


def _build(node: ast.AST, text: str, kind: str, files: dict[str, tuple[str, str]]) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and kind == "strategies":
        left, right = (_build(side, text, kind, files) for side in (node.left, node.right))
        return left + right
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ExpressionError(
            f"{_shown(text)}: only names with plain values in brackets are read, as in EWC(strength=100.0)"
        )
    name = node.func.id
    known = vocabulary(kind)
    if name in files:
        maker = from_file(*files[name])
        shown = ":".join(files[name])
        if not inspect.isclass(maker):
            raise ExpressionError(
                f"{shown} is no class: write one, and name it as in {shown.partition(':')[0]}:MyClass()"
            )
    elif name in known:
        maker, shown = known[name], name
    else:
        raise ExpressionError(f"unknown {KINDS[kind].singular} {_shown(name)}: {suggest(name, known)}")
    wanted = _kinds_wanted(maker)
    positional = [
        _value(argument, text, files, kind) for argument, kind in zip_longest(node.args, wanted.values()) if argument
    ]
    named = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ExpressionError(f"{_shown(text)}: ** cannot be used here")
        named[keyword.arg] = _value(keyword.value, text, files, wanted.get(keyword.arg))
    return make(maker, shown, positional, named, kind)


def kind_named(text: str, kinds: Iterable[str]) -> str:
    """The first of some kinds that has the name that a text begins with, or the nearest, or fits the class of a user's file."""
    kinds, code = list(kinds), CODE.match(text.strip())
    if code:
        kind = _kind_of(from_file(code[1], code[2]))
        return kind if kind in kinds else kinds[0]
    known = {name: kind for kind in reversed(kinds) for name in vocabulary(kind)}
    name = re.split(r"\W", text.strip(), maxsplit=1)[0][:100]
    near = [name] if name in known else difflib.get_close_matches(name, known, 1, 0.7)
    return known[near[0]] if near else kinds[0]


def _kinds_wanted(maker: Any) -> dict[str, str]:
    """The kind of thing that each field takes, "" where its declaration says nothing of it."""
    fields = inspect.signature(maker).parameters if callable(maker) else {}
    return {name: _FIELDS.get(_declared(field), "") for name, field in fields.items()}


def _declared(field: inspect.Parameter) -> str:
    """The name of what a field is declared to be."""
    return getattr(field.annotation, "__name__", str(field.annotation))


def _value(node: ast.AST, text: str, files: dict[str, tuple[str, str]], wanted: str | None = "") -> Any:
    """A plain value, values that are varied, or a nested call of a model, an optimiser, a strategy ...

    wanted: the kind of thing that stands here, where that is known.
    """
    if isinstance(node, ast.Tuple | ast.List) and any(not _is_literal(item) for item in node.elts):
        items = [_value(item, text, files) for item in node.elts]
        return tuple(items) if isinstance(node, ast.Tuple) else items
    if isinstance(node, ast.Call | ast.BinOp) and not _is_literal(node):
        first: Any = node
        while isinstance(first, ast.BinOp):
            first = first.left
        name = first.func.id if isinstance(first, ast.Call) and isinstance(first.func, ast.Name) else ""
        if name == "vary" and first is node:
            return _varied(node, text, files)
        if name in files:
            return _build(node, text, wanted or _kind_of(from_file(*files[name])), files)
        for kind in [wanted] if wanted else KINDS:
            if name in vocabulary(kind):
                return _build(node, text, kind, files)
        if name and wanted:
            raise ExpressionError(
                f"unknown {KINDS[wanted].singular} {_shown(name)}: {suggest(name, vocabulary(wanted))}"
            )
        if near := _near(name):
            raise ExpressionError(f"{_shown(text)}: unknown {_shown(name)}: {near}")
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ExpressionError(
            f"{_shown(text)}: {_shown(ast.unparse(node))} is not a plain value (number, text, tuple, True, False)"
        ) from None
    if any(isinstance(item, int) and abs(item) >= LARGEST for item in _items(value)):
        raise ExpressionError(f"{_shown(text)}: a number has too many digits: whole numbers stay below 2**63")
    if any(isinstance(item, float) and not abs(item) <= GREATEST for item in _items(value)):
        raise ExpressionError(f"{_shown(text)}: a number is not finite, or beyond what float32 holds, 3.4e38")
    return value


def _near(name: str) -> str:
    """The end of an error's sentence where something of any kind is called nearly so, or ""."""
    known = [known for kind in KINDS for known in vocabulary(kind)]
    return suggest(name, known) if difflib.get_close_matches(name[:100], known, 1, 0.7) else ""


def _items(value: Any) -> Iterator[Any]:
    """A plain value, or the values inside it."""
    if isinstance(value, dict):
        value = (*value.keys(), *value.values())
    if isinstance(value, tuple | list | set):
        for item in value:
            yield from _items(item)
    else:
        yield value


def _varied(node: Any, text: str, files: dict[str, tuple[str, str]]) -> Varied:
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise ExpressionError(f"{_shown(text)}: the values that are varied have no names: write vary(1, 10, 100)")
    return vary(*(_value(argument, text, files) for argument in node.args))


def _kind_of(maker: Any) -> str:
    """What a class of a user's file is, where it stands inside another call."""
    if inspect.isclass(maker) and issubclass(maker, nn.Module):
        return "models"
    return next((kind for kind, about in KINDS.items() if about.fits(maker)), "strategies")


def _is_literal(node: ast.AST) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def make(maker: Any, shown: str, positional: list[Any], named: dict[str, Any], kind: str = "") -> Any:
    """Call a maker, turning a wrong field, a wrong type or a refused value into one line.

    Where values are varied, every setting is made first, so that each is checked.
    """
    path = file_of(maker)
    wrap = _itself
    if inspect.isclass(maker) and kind in KINDS and KINDS[kind].maker:
        maker, wrap = at_place(KINDS[kind].maker)(maker, shown, path)
    if not callable(maker):
        raise ExpressionError(f"{shown} is not something that can be made: it is a {type(maker).__name__}")
    fields = inspect.signature(maker).parameters
    variable = any(field.kind in (field.VAR_POSITIONAL, field.VAR_KEYWORD) for field in fields.values())
    for name in named:
        if name not in fields and not variable:
            raise ExpressionError(f"{shown} has no field {name!r}: {suggest(name, fields)}")
    if not variable and len(positional) > len(fields):
        raise ExpressionError(f"{shown} takes at most {len(fields)} values, and {len(positional)} were given")
    for name, value in [*zip(fields, positional, strict=False), *named.items()]:
        _check_type(shown, name, fields.get(name), value)
    try:
        return _fitting(wrap(made(maker, *positional, **named)), shown, kind)
    except VariedError as error:
        raise ExpressionError(f"{shown}: {error}") from None
    except ConfigurationError:
        raise
    except Exception as error:
        if path:  # a user's class may raise anything at all
            raise ExpressionError(user_line(error, path)) from None
        if not isinstance(error, TypeError | ValueError | ArithmeticError):
            raise
        raise ExpressionError(str(error).splitlines()[0]) from None


def _itself(value: Any) -> Any:
    return value


def _fitting(value: Any, shown: str, kind: str) -> Any:
    """What was made, once it has the verbs of its kind."""
    verbs = KINDS[kind].verbs if kind in ("strategies", "models", "memories") else ()
    missing = [verb for verb in verbs if verb not in dir(type(value))]
    if missing:
        like = ": make it a RowMemory that fills in insert or insert_task, and filled" if kind == "memories" else ""
        raise ExpressionError(f"{shown} is no {KINDS[kind].singular}: it has no {' and no '.join(missing)}{like}")
    return value


_FIELDS = {"RowMemory": "memories", "Optimiser": "optimisers", "Model": "models", "MLP | Conv4": "models"}
_PLAIN = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "str | float": (str, int, float)}
_WORDS = {(int, float): "a number", (str, int, float): "text or a number"}
_TUPLES = ("tuple[int, int, int]", "tuple[float, ...]")


def _check_type(shown: str, name: str, field: inspect.Parameter | None, value: Any) -> None:
    """Annotations are held to, so that `size="many"` is a sentence and not a traceback; each of varied values is."""
    if field is None or field.kind in (field.VAR_POSITIONAL, field.VAR_KEYWORD):
        return
    declared = _declared(field).removeprefix("InitVar[").removesuffix("]" * ("InitVar" in _declared(field)))
    written = _shown(str(value)) if isinstance(value, str) else repr(value)[:80]
    kind = _FIELDS.get(declared, "")
    if kind and not set(KINDS[kind].verbs) <= set(dir(value)):
        examples = ", ".join(f"{each}()" for each in sorted(vocabulary(kind)))
        raise ExpressionError(f"{shown}({name}={written}): {name} takes one of {examples}")
    if declared in _TUPLES and not (isinstance(value, tuple) and all(map(_is_number_or_varied, value))):
        raise ExpressionError(f"{shown}({name}={written}): {name} must be numbers in brackets, as in (1, 2, 3)")
    expected = _PLAIN.get(declared)
    if expected is None:
        return
    for plain in value.values if isinstance(value, Varied) else (value,):
        if not isinstance(plain, expected) or (isinstance(plain, bool) and bool not in expected):
            words = _WORDS.get(expected, expected[0].__name__)
            raise ExpressionError(
                f"{shown}({name}={_shown(str(plain)) if isinstance(plain, str) else repr(plain)[:80]}): {name} must be {words}"
            )


def _is_number_or_varied(value: Any) -> bool:
    return all(map(is_number, value.values)) if isinstance(value, Varied) else is_number(value)


_SCENARIO = re.compile(r"((?:[^()\s]+\.py:|avalanche:)?[A-Za-z_][\w-]*)(?:\s*(\(.*\)))?", re.DOTALL)


def read_call(text: str) -> tuple[str, dict[str, Any]]:
    """A scenario's name and options, from a text like `split-digits(tasks=5)`; the name may hold hyphens and a file."""
    if len(text) > LONGEST:
        _tree(text, text, "")  # refuses it
    match = _SCENARIO.fullmatch(text.strip())
    if not match:
        raise ExpressionError(
            f"{_shown(text)} cannot be read: write a scenario like split-digits or split-digits(tasks=5)"
        )
    call = _tree(text, f"scenario{match[2] or '()'}", "split-digits(tasks=5)")
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ExpressionError(f"{_shown(text)}: name each option, as in split-digits(tasks=5)")
    options = {str(keyword.arg): _value(keyword.value, text, {}) for keyword in call.keywords}
    for name, value in options.items():
        if varied_paths(value):
            raise ExpressionError(
                f"{_shown(text)}: {name} belongs to the data, and only a learner's numbers can be varied"
            )
    return match[1], options
