"""Names for shell completion, as they stand in the source: a key press does not wait for torch.

Installed plug-ins are named by their entry points. The test of this module compares with what is found by importing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = re.compile(
    r"^@(?:dataclasses\.)?dataclass.*\nclass ([A-Za-z]\w*)(.*):(?:  #.*)?\n((?:\n|    .*\n)*)", re.MULTILINE
)
VERB = re.compile(r"^    def (\w+)", re.MULTILINE)
ENTRY = re.compile(r'\bEntry\(\s*"([\w-]+)"')
WORDS = {
    "settings": ("task", "domain", "class"),
    "devices": ("auto", "cpu", "cuda", "mps"),
    "files": ("strategy", "scenario", "model", "learner", "meta"),
    "trackers": ("tensorboard", "wandb"),
    "formats": ("csv", "json", "parquet", "npz", "latex"),
    "tables": ("metrics", "accuracy", "losses", "probes"),
    "kinds": (
        "scenarios", "strategies", "learners", "models", "memories", "optimisers", "initialisations", "adaptations", "probes",
        "metrics", "data",
    ),
}  # fmt: skip


def complete(kind: str) -> Callable[[str], list[str]]:
    """What completes a word that names something of a kind."""
    return lambda incomplete: [name for name in names(kind) if name.startswith(incomplete)]


def names(kind: str) -> list[str]:
    """What can be named of a kind: scenarios, strategies, learners, models, optimisers, and the kinds of `WORDS`."""
    if kind in WORDS:
        return list(WORDS[kind])
    if kind == "scenarios":
        return ENTRY.findall((ROOT / "scenarios/catalogue.py").read_text())
    from lifelong.notation.registry import KINDS, installed_names

    about = KINDS[kind]
    ours = {
        name
        for source in _sources(about.sources)
        for name, bases, body in RECORD.findall(source)
        if "@abstractmethod" not in body and (bases or set(about.verbs) <= set(VERB.findall(body)))
    }
    return sorted((ours - set(about.without)) | set(installed_names(kind)))


def _sources(modules: tuple[str, ...]) -> Iterator[str]:
    """The text of modules, and of all modules of packages."""
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            yield file.read_text()
