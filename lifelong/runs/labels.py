"""What a row of a table is called: the method as it was typed, with whatever else tells it from the rows beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lifelong.runs.request import Request, seeds_text

_CODE_CALL = re.compile(r"([^\s()+,'\"=]+\.py):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Call:
    """One part of a sum, as in `EWC(strength=10)`: its name and its fields as text; `None` names one without a keyword."""

    name: str
    fields: tuple[tuple[str | None, str], ...]

    def named(self, order: Sequence[str]) -> dict[str, str]:
        """Fields by name, those without a keyword by their place in the order."""
        return {name or order[i]: value for i, (name, value) in enumerate(self.fields) if name or i < len(order)}


def calls(text: str) -> list[Call] | None:
    """The parts of a sum, read as text alone: nothing is looked up or executed. None where it cannot be read."""
    files: list[str] = []

    def hide(match: re.Match[str]) -> str:
        files.append(match[0])
        return f"_file{len(files) - 1}_"

    try:
        node = ast.parse(_CODE_CALL.sub(hide, text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found: list[Call] = []
    for part in _parts(node):
        if isinstance(part, ast.Name):
            part = ast.Call(part, [], [])
        if not (isinstance(part, ast.Call) and isinstance(part.func, ast.Name)):
            return None
        name = re.sub(r"^_file(\d+)_$", lambda match: files[int(match[1])], part.func.id)
        fields = [(None, ast.unparse(value)) for value in part.args]
        fields += [(keyword.arg, ast.unparse(keyword.value)) for keyword in part.keywords]
        found.append(Call(name, tuple(fields)))
    return found


def _parts(node: ast.expr) -> list[ast.expr]:
    parts: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts.insert(0, node.right)
        node = node.left
    return [node, *parts]


def method_labels(typed: Sequence[str], full: Sequence[str]) -> list[str]:
    """Methods as typed; where methods of the same parts differ in a field that was not typed, its value is added.

    full: the same methods with every field, as their repr says them.
    """
    read = [(calls(words), calls(whole)) for words, whole in zip(typed, full, strict=True)]
    kinds = [tuple(part.name.rpartition(":")[2] for part in whole) if whole else None for _, whole in read]
    labels = []
    for i, (words, whole) in enumerate(read):
        alike = [other for kind, (_, other) in zip(kinds, read, strict=True) if other and kind == kinds[i]]
        if words is None or whole is None or len(words) != len(whole):
            labels.append(typed[i])
        else:
            labels.append(_filled(typed[i], words, whole, alike))
    return labels


def _filled(typed: str, words: list[Call], whole: list[Call], alike: list[list[Call]]) -> str:
    """One method as typed, or with the fields in which it differs from those alike written out."""
    parts, complete = [], True
    for place, (written, made) in enumerate(zip(words, whole, strict=True)):
        everything = {name: value for name, value in made.fields if name}
        given = written.named(list(everything))
        differing = [name for name in everything if len({other[place].named([]).get(name) for other in alike}) > 1]
        complete &= all(name in given for name in differing)
        shown = [
            f"{name}={given.get(name, value)}" for name, value in everything.items() if name in [*given, *differing]
        ]
        parts.append(f"{written.name}({', '.join(shown)})" if everything else f"{written.name}()")
    return typed if complete else " + ".join(parts)


# what else a request says that may tell two rows of one group apart, in words
_DETAILS = {
    "order_seed": lambda request: f"order {request.order_seed}" if request.order_seed >= 0 else "",
    "start_seed": lambda request: f"start {request.start_seed}" if request.start_seed >= 0 else "",
    "data_seed": lambda request: f"data order {request.data_seed}" if request.data_seed >= 0 else "",
    "few_shot": lambda request: f"{request.few_shot or 'no'} shots",
    "linear_probe": lambda request: "heads fitted anew" if request.linear_probe else "no linear probe",
    "probe": lambda request: f"probed by {request.probe}" if request.probe else "no probe",
    "eval_every": lambda request: (
        f"evaluated every {request.eval_every}" if request.eval_every else "evaluated at ends"
    ),
    "eval_rows": lambda request: f"{request.eval_rows} rows evaluated",
    "fleet": lambda request: f"fleet {request.fleet}" if request.fleet else "one fleet",
    "device": lambda request: f"device {request.device}",
    "threads": lambda request: f"{request.threads} threads",
    "compile": lambda request: "compiled" if request.compile else "not compiled",
}


@dataclass(frozen=True)
class Described:
    """What is known of a row: its request as typed, its method and optimiser in full, where it starts, its folder."""

    request: Request
    method: str
    optimiser: str
    origin: str = ""
    folder: str = ""


def seeds_label(seeds: tuple[int, ...]) -> str:
    """Seeds in words: `5 seeds` from 0, `seeds 3,4,9`, `seeds 7:12`."""
    text = seeds_text(seeds)
    return f"{text} seed{'s' * (len(seeds) != 1)}" if text.isdigit() else f"seeds {text}"


def row_labels(rows: Sequence[Described]) -> list[str]:
    """A label for each row that no other row has: what was typed, and in what rows differ.

    Seeds and optimisers are named wherever some rows differ in them, other words of the request where rows would be
    called the same without them, and the folder where nothing else is left.
    """
    typed = [row.request.strategy or row.request.learner or "FineTuning()" for row in rows]
    methods = method_labels(typed, [row.method for row in rows])
    labels = []
    for row, method in zip(rows, methods, strict=True):
        plain = not (row.request.strategy or row.request.learner) and row.request.baseline
        words = row.request.baseline if plain else method
        labels.append(
            (f"{row.request.baseline}, {words}" if row.request.baseline and not plain else words) + row.origin
        )
    labels = [
        f"{text}, {row.request.trainable} trained" if row.request.trainable else text
        for text, row in zip(labels, rows, strict=True)
    ]
    optimisers = {row.optimiser for row in rows if row.optimiser}
    if len(optimisers) > 1:
        labels = [f"{text}, {row.optimiser}" if row.optimiser else text for text, row in zip(labels, rows, strict=True)]
    if len({row.request.seeds for row in rows}) > 1:
        labels = [f"{text}, {seeds_label(row.request.seeds)}" for text, row in zip(labels, rows, strict=True)]
    for words_of in _DETAILS.values():
        labels = _told_apart(labels, [words_of(row.request) for row in rows])
    return _told_apart(labels, [row.folder for row in rows])


def _told_apart(labels: list[str], words: list[str]) -> list[str]:
    """Labels with a word more where several are the same and this word differs among them."""
    result = []
    for label, word in zip(labels, words, strict=True):
        same = {other for text, other in zip(labels, words, strict=True) if text == label}
        result.append(f"{label}, {word}" if len(same) > 1 and word else label)
    return result
