"""Pages made of what the registry finds: each strategy, learner, memory, model, optimiser, meta-learner, adaptation.

Nothing is listed here: a file that is put into a room is on its page when the pages are next built. What stands on them
comes from docstrings, fields and declarations of the records, and from the tables of docs/methods.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

from formulas import is_formula
from prose import (
    cell,
    code,
    default_of,
    escaped,
    fenced,
    fields_said,
    first_line,
    paragraphs,
    sentences,
    settings_in,
    table,
)

from lifelong.display.tables import family_of, passes_of, settings_of, step_of
from lifelong.notation.registry import found

ROOT = Path(__file__).parents[2]
FAMILIES = {  # what a family's page says first; a family without words has its page, too
    "architecture": "Each task has a part of the network to itself: weights, units or a head.",
    "distillation": "The network before the task is kept, and asked what it would have answered.",
    "lookahead": "A few steps are tried first, and the losses met on the way say how to step.",
    "multitask": "Tasks learned together: their losses are weighed, or their gradients changed where they disagree.",
    "plasticity": "Against the loss of the ability to learn, rather than against forgetting.",
    "projection": "What a gradient would do to old tasks is taken out of it.",
    "regularisation": "Weights are held near earlier values, each as firmly as it matters.",
    "replay": "Rows of the past, kept or made, are learned again.",
}
ROOMS = {  # kind: title of its page, and what it says first
    "learners": ("Learners without gradient descent", "Closed forms and others: a state goes in, and a new one comes out."),
    "memories": (
        "Memories of rows",
        "Which rows are kept is a choice of its own: any method that keeps rows takes `memory=`, as in "
        '`Replay(size=200, memory=Ring())`. M rows are kept, of G groups.',
    ),
    "models": ("Networks", "As `--model` takes them; [your own](../own-model.md) as `my_net.py:Net(width=32)`."),
    "optimisers": ("Optimisers", "As `--optimiser` takes them, as in `Adam(0.001)`."),
    "initialisations": (
        "Starts: meta-learners and pre-training",
        "As `--init` takes them, for `lifelong pretrain`, and for `lifelong run`, which then learns the start first.",
    ),
    "adaptations": (
        "Methods of adaptation",
        "How a finished network is taken to a task: `lifelong transfer --adaptation`. Few rows, some steps, a rule.",
    ),
    "probes": (
        "Probes",
        "What is measured besides accuracy, without touching what is learned: `--probe`; see [results](../results.md).",
    ),
}  # fmt: skip


def families() -> dict[str, dict[str, Any]]:
    """Strategies by family, in alphabetical order; FineTuning, which is no family's, is left out."""
    by_family: dict[str, dict[str, Any]] = {}
    for name, method in sorted(found("strategies").items()):
        if family_of(method):
            by_family.setdefault(family_of(method), {})[name] = method
    return dict(sorted(by_family.items()))


def pages() -> dict[str, str]:
    """Every page by its name under docs/catalogue, as Markdown."""
    made = {"strategies": strategies_page()}
    for family, methods in families().items():
        about = FAMILIES.get(family, "")
        parts = [f"# {title_of(family)}", about, overview("strategies", methods)]
        made[f"strategies-{family}"] = (
            "\n\n".join(filter(None, [*parts, *map(method_section, methods.values())])) + "\n"
        )
    for kind, (title, about) in ROOMS.items():
        things = dict(sorted(found(kind).items(), key=lambda item: item[0] != "Random"))
        parts = [f"# {title}", about, overview(kind, things)]
        made[kind] = "\n\n".join([*parts, *(method_section(thing, kind) for thing in things.values())]) + "\n"
    return made


def title_of(family: str) -> str:
    """A family's name as a heading."""
    return {"multitask": "Multi-task weights and surgery", "lookahead": "Look-ahead"}.get(family, family.capitalize())


def strategies_page() -> str:
    """The families, and all their methods in one line each."""
    parts = [
        "# All strategies",
        "One file each in `lifelong/strategies`; they add up with `+`. In words: [strategies](../strategies.md).",
    ]
    pages = ["```{toctree}", ":maxdepth: 1", "", *(f"strategies-{family}" for family in families()), "```"]
    parts.append("\n".join(pages))
    for family, methods in families().items():
        parts += [f"## {title_of(family)}", FAMILIES.get(family, ""), overview("strategies", methods, family)]
    return "\n\n".join(filter(None, parts)) + "\n"


def overview(kind: str, things: dict[str, Any], family: str = "") -> str:
    """A table of things with a link to each and its one line."""
    page = f"strategies-{family}.md" if family else ""
    rows = [[f"[{code(name)}]({page}#{anchor(name)})", cell(first_line(thing))] for name, thing in things.items()]
    return table(["name", "in a line"], rows)


def anchor(name: str) -> str:
    """The place of a name on its page, as MyST makes it of a heading."""
    return name.lower()


def method_section(thing: Any, kind: str = "strategies") -> str:
    """All that is known of one thing: line, formula, words, fields, what it keeps, witness, source, command, rows."""
    names = [field.name for field in fields_of(thing)]
    left, said = settings_in(inspect.getdoc(thing) or "", names)[1], fields_said(thing, names)
    line, *words = left or [first_line(thing)]
    opening, *more = sentences(line)
    parts = [f"## {thing.__name__}", f"**{escaped(opening)}**", escaped(" ".join(more)), *map(shown, words)]
    parts += [signature_table(thing, said), facts(thing, kind), tried(thing, kind), measured(thing.__name__)]
    return "\n\n".join(filter(None, parts))


def shown(paragraph: str) -> str:
    """A paragraph as Markdown; a formula that begins it stands in a block of its own."""
    if paragraph.startswith("    "):
        return fenced(paragraph)
    first, *rest = sentences(paragraph)
    if not is_formula(first):
        return escaped(paragraph)
    return "\n\n".join(filter(None, [f"```{{formula}}\n{first}\n```", escaped(" ".join(rest))]))


def fields_of(thing: Any) -> list[dataclasses.Field]:
    """The fields that can be set."""
    return [field for field in dataclasses.fields(thing) if field.init] if dataclasses.is_dataclass(thing) else []


def signature_table(thing: Any, said: dict[str, str]) -> str:
    """Fields with defaults, and what the docstring says of each."""
    rows = []
    for field in fields_of(thing):
        default = default_of(field)
        rows.append([code(field.name), code(default) if default else "–", cell(said.get(field.name, ""))])
    if not any(row[2] for row in rows):
        rows = [row[:2] for row in rows]
    return table(["setting", "default", "meaning"][: len(rows[0])], rows) if rows else ""


def facts(thing: Any, kind: str) -> str:
    """What it keeps, what a step takes, whose its numbers are, what it was held against, where it comes from and lies."""
    module = inspect.getmodule(thing)
    lines = []
    if kind in ("strategies", "learners"):
        lines.append(
            f"Settings: {settings_of(thing)}. Step: {passes_of(thing)} passes, {step_of(thing)} of fine-tuning's."
        )
        lines.append(f"Keeps: {escaped(thing.keeps or 'nothing')}.")
        lines += [f"Numbers: {escaped(thing.defaults)}."] if thing.defaults else []
        words, _, file = thing.witness.partition(": ")
        lines += [f"Held against: {escaped(words)}, in `{file}`."] if file else []
    source = (paragraphs(getattr(module, "__doc__", "") or "") or [""])[0]
    lines.append(f"From: {escaped(source)}")
    lines.append(f"File: `{thing.__module__.replace('.', '/')}.py`.")
    return "\n".join(f"- {line}" for line in lines)


def command_for(thing: Any, kind: str) -> str:
    """A command that tries it, in a setting that it is meant for; "" where its fields have no defaults."""
    if any(not default_of(field) for field in fields_of(thing)) and not inspect.isabstract(thing):
        return ""
    name = f"{thing.__name__}()"
    if kind == "initialisations":
        return f'lifelong pretrain split-omniglot --init "{name}" --output start.safetensors'
    if kind == "adaptations":
        return f'lifelong transfer split-digits --adaptation "{name}"'
    options = {
        "memories": f'--strategy "Replay(size=200, memory={name})"',
        "models": f'--model "{name}"',
        "optimisers": f'--optimiser "{name}"',
        "learners": f'--learner "{name}"',
        "strategies": f'--strategy "{name}"',
        "probes": f'--probe "{name}"',
    }[kind]
    return f"lifelong run {scenario_for(thing, kind)} {options}"


def scenario_for(thing: Any, kind: str) -> str:
    """The scenario and its options that a thing can be tried on, by what it requires."""
    if kind == "models":
        return "split-digits" + (" --setting task" if thing().task_embedding else "")
    if kind not in ("strategies", "learners"):
        return "split-digits"
    needs = [thing().requires] if kind == "strategies" else [need for _, need in thing().requirements]
    scenario = "'split-digits(validation=0.1)'" if any(need.validation for need in needs) else "split-digits"
    if any(need.paradigm == "joint" for need in needs):
        return f"{scenario} --setting task --baseline joint"
    told = any(need.task_id or "class" not in need.settings for need in needs)
    return f"{scenario} --setting task" if told else scenario


def tried(thing: Any, kind: str) -> str:
    """The command in a block."""
    command = command_for(thing, kind)
    return fenced(command, "shell") if command else ""


@cache
def _methods_tables() -> tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...]:
    """The tables of docs/methods.md that measure: (stream, heads, rows), cells as they stand there."""
    tables = []
    for section in re.split(r"^### ", (ROOT / "docs/methods.md").read_text(), flags=re.MULTILINE)[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
        if len(cells) > 2:
            tables.append((section.partition("\n")[0].strip(), cells[0], tuple(cells[2:])))
    return tuple(tables)


def measured(name: str) -> str:
    """The rows that docs/methods.md has of a method, one a stream."""
    rows, heads = [], ("method",)
    for stream, columns, lines in _methods_tables():
        for line in lines:
            if line[0].startswith((f"`{name}(", f"`{name}`")):
                heads, rows = columns, [*rows, [stream, *line]]
    if not rows:
        return ""
    words = "As [the table of methods](../methods.md) has it, beside fine-tuning and a replay of the same bytes; mean ± half-width of the 95 % interval:"
    return f"{words}\n\n" + table(["stream", *heads], rows, right=range(2, len(heads)))


def families_table() -> str:
    """Families, what each does, and its methods, linked."""
    rows = []
    for family, methods in families().items():
        page = f"catalogue/strategies-{family}.md"
        links = ", ".join(f"[{name}]({page}#{anchor(name)})" for name in methods)
        rows.append([f"[{title_of(family)}]({page})", FAMILIES.get(family, ""), links])
    return table(["family", "what it does", "methods"], rows)


def scenarios_table() -> str:
    """Scenarios with what each is, its setting, network and budget."""
    from scenarios.catalogue import CATALOGUE

    rows = []
    for name, entry in CATALOGUE.items():
        budget = entry.budget
        length = f"{budget.epochs:g} epoch" if budget.epochs else f"{budget.iterations:,} x {budget.batch}"
        options = ", ".join(f"{key}={value!r}" for key, value in entry.options.items())
        rows.append(
            [code(name), cell(entry.about), entry.setting, code(options) if options else "", code(entry.model), length]
        )
    return table(["scenario", "what it is", "setting", "options", "network", "iterations x batch"], rows, right=[5])


def data_table() -> str:
    """Data sets that have names."""
    from scenarios.datasets import DATASETS

    rows = [
        [code(name), cell(source.about), code(source.files) if source.files else "none"]
        for name, source in DATASETS.items()
    ]
    return table(["data", "what it is", "files that it needs"], rows)


def metrics_table() -> str:
    """Metrics with their formulas, and what each needs of a run."""
    from lifelong.metrics import METRICS, NEEDS

    needs = {
        "": "a finished run",
        "order": "tasks learned one after another",
        "curve": "`--eval-every N`",
        "few_shot": "`--few-shot 1,5`",
        "probe": "`--linear-probe`",
    }
    rows = [
        [code(name), cell(first_line(metric)), needs.get(NEEDS[name], NEEDS[name])] for name, metric in METRICS.items()
    ]
    return table(["metric", "what it is", "needs"], rows)


INSERTED = {"families": families_table, "scenarios": scenarios_table, "data": data_table, "metrics": metrics_table}
