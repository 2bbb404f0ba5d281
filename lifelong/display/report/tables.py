"""Tables of the page: methods as rows, and no table wider than paper; on a telephone each row becomes a card."""

from __future__ import annotations

import html
from collections.abc import Sequence

from lifelong import metrics
from lifelong.core.storage import in_bytes
from lifelong.display.report.colours import LIGHT
from lifelong.display.report.drawing import printable
from lifelong.display.report.measured import Measured, Method, bounded_tasks, text_of
from lifelong.display.tables import passes_of, step_of
from lifelong.metrics import NEEDS, estimate

MOST_COLUMNS = 5  # of numbers, that A4 holds beside the names


class Markup(str):
    """Text that is HTML already."""


def escaped(text: str) -> str:
    """Text as HTML: nothing in it is markup."""
    return text if isinstance(text, Markup) else html.escape(printable(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,), kind: str = "") -> Markup:
    """A table; words: columns of text, which stand at the left."""
    side = {i: " class=word" for i in words}
    top = "".join(f"<th{side.get(i, '')} scope=col>{escaped(name)}</th>" for i, name in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(
            f"<th scope=row>{escaped(cell)}</th>"
            if i == 0
            else f'<td{side.get(i, "")} data-of="{escaped(head[i])}">{escaped(cell)}</td>'
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return Markup(f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>')


def named(method: Method) -> Markup:
    """A method's name beside its mark, as in the figures."""
    return Markup(f"<span class=name data-m={method.number}>{mark(method)}{escaped(method.name)}</span>")


def mark(method: Method) -> Markup:
    """Its colour, as a dot; an open one of what the others are held against."""
    colour = next(name for name, value in LIGHT.items() if value == method.look.colour)
    return Markup(f'<i class="dot{" open" if method.reference else ""}" style="--c:var(--{colour})"></i>')


def chips(measured: Measured) -> Markup:
    """The methods with their colours: the legend of the figures below."""
    shown = [method for method in measured.ranked if method.look.marker != "."]
    rest = len(measured.methods) - len(shown)
    words = f"<span class=note>grey: the other {rest}; point at a mark or a line for its name</span>" if rest else ""
    return Markup(f"<p class=chips>{''.join(named(method) for method in shown)}{words}</p>")


def words_of(name: str) -> str:
    """A metric's name as words."""
    return name.replace("_", " ")


MAIN = ("average_accuracy", "forgetting", "learning_accuracy", "average_incremental_accuracy")
FAMILIES: dict[str, tuple[str, ...]] = {
    "accuracy": MAIN,
    "forgetting, as different papers count it": (
        "forgetting", "forgetting_avalanche", "forgetting_mammoth", "forgetting_pycil", "backward_transfer",
    ),
}  # fmt: skip


def main_table(measured: Measured) -> Markup:
    """The few numbers that most papers give."""
    return _of_metrics(measured, [name for name in MAIN if any(name in m.summary for m in measured.methods)])


def metric_tables(measured: Measured) -> Markup:
    """Every metric, a few to a table, by what they need; those that say the same for all methods named once."""
    given = [name for name in metrics.METRICS if any(name in method.summary for method in measured.methods)]
    kinds = {
        "order": "after each task",
        "curve": "along the way",
        "few_shot": "coming tasks",
        "probe": "head and trunk",
    }
    families = dict(FAMILIES)
    placed = {name for names in families.values() for name in names}
    for name in given:
        if name not in placed:
            families[kinds.get(NEEDS[name], "others")] = (*families.get(kinds.get(NEEDS[name], "others"), ()), name)
    parts = []
    for family, names in families.items():
        present = [name for name in names if name in given]
        different, same = _without_repeats(measured, present)
        for place in range(0, len(different), MOST_COLUMNS):
            parts.append(f"<h4>{escaped(family)}</h4>{_of_metrics(measured, different[place : place + MOST_COLUMNS])}")
        parts += [
            f"<p class=note>{escaped(words_of(a))}: in each cell as {escaped(words_of(b))}</p>" for a, b in same.items()
        ]
    return Markup("".join(parts))


def _without_repeats(measured: Measured, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Metrics whose columns differ, and those that repeat one of them."""
    columns: dict[tuple[str, ...], str] = {}
    same = {}
    for name in names:
        cells = tuple(_cell(method, name) for method in measured.methods)
        if cells in columns:
            same[name] = columns[cells]
        else:
            columns[cells] = name
    return list(columns.values()), same


def _cell(method: Method, name: str) -> str:
    if not method.seeds:
        return "diverged"
    return text_of(method.summary[name]) if name in method.summary else "–"


def _of_metrics(measured: Measured, names: Sequence[str]) -> Markup:
    rows = [[named(method), *(_cell(method, name) for name in names)] for method in measured.ranked]
    return table(["method", *map(words_of, names)], rows)


def task_table(measured: Measured) -> Markup:
    """Accuracy on each task at the end; of many tasks as running text, which breaks where there is no room."""
    tasks = bounded_tasks(measured.tasks, 100)
    cells = {method.number: _by_task(method, tasks) for method in measured.methods}
    heads = [f"task {task + 1}" for task in tasks]
    if len(tasks) <= MOST_COLUMNS:
        return table(["method", *heads], [[named(m), *cells[m.number]] for m in measured.ranked])
    rows = [[named(m), flow(zip(heads, cells[m.number], strict=True))] for m in measured.ranked]
    return table(["method", f"{measured.unit} on each task at the end, %"], rows, (0, 1))


def _by_task(method: Method, tasks: Sequence[int]) -> list[str]:
    if not method.seeds:
        return ["diverged"] * len(tasks)
    return [text_of(estimate(method.final[:, task])) for task in tasks]


def flow(pairs: object) -> Markup:
    """Words with their values, one after the other, as many in a line as there is room for."""
    items = "".join(f"<span class=pair><b>{escaped(word)}</b> {escaped(value)}</span> " for word, value in pairs)  # pyright: ignore[reportGeneralTypeIssues] # any pairs of text
    return Markup(f"<span class=flow>{items}</span>")


def seed_table(measured: Measured) -> Markup:
    """Average accuracy at the end of each seed."""
    rows = []
    for method in measured.ranked:
        each = method.score.per_seed or [None] * len(method.result.seeds)
        values = ["diverged" if value is None else f"{100 * value:.2f}" for value in each]
        rows.append([named(method), flow(zip((f"seed {seed}" for seed in method.result.seeds), values, strict=True))])
    return table(["method", f"{measured.measure}, %"], rows, (0, 1))


def cost_table(measured: Measured) -> Markup:
    """Seconds, bytes that are kept, passes of a step."""
    head = [
        "method",
        "seconds of training",
        "of evaluation",
        "kept beside the network, rows as images",
        "passes of a step",
        "step, fine-tuning = 1",
    ]
    return table(head, [[named(method), *_costs(method)] for method in measured.ranked])


def _costs(method: Method) -> list[str]:
    taken, cost = method.result.seconds, method.cost
    stored = "–" if cost.stored is None else in_bytes(cost.stored.total) if cost.stored.total else "nothing"
    if cost.stored is not None and cost.stored.examples:
        stored += f" ({in_bytes(cost.stored.tensors)} in memory)"
    passes = ("–", "–") if cost.method is None else (passes_of(cost.method), step_of(cost.method))
    passes = ("none", "–") if cost.method is not None and passes[0] == "–" else passes
    return [*(f"{taken[name]:.1f}" if name in taken else "–" for name in ("training", "evaluation")), stored, *passes]
