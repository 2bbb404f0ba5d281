"""docs/speed.md and the records beside it: each benchmark writes its own sections, and keeps those of the others."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch


def write_section(page: Path, name: str, lines: list[str]) -> None:
    """Put lines between the page's markers of this name, at its end where it has none; the rest stays."""
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text() if page.exists() else "# Speed\n"
    before, found, rest = text.partition(first)
    after = rest.partition(last)[2] if found else "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join([before.rstrip() + "\n", first, "", *lines, "", last]) + after)


def record(title: str, note: str, figures: dict[str, float], output: Path) -> None:
    """Print a section, and put it with its machine into the record and its page; sections of other runs stay."""
    print(title, flush=True)
    figures = {name: round(value, 3) for name, value in figures.items()}
    for name, value in figures.items():
        print(f"  {name}: {value}", flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": 1,
        "torch": torch.__version__.split("+")[0],
        "load": round(os.getloadavg()[0], 2),
    }
    found = json.loads(output.read_text()) if output.exists() else {}
    found[title] = {"machine": machine, "note": note, "figures": figures}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    write_section(output.with_suffix(".md"), "processor", _lines(found))


def _lines(found: dict) -> list[str]:
    """The record as a page shows it."""
    lines = []
    for name, section in found.items():
        machine = ", ".join(f"{word} {value}" for word, value in section["machine"].items())
        lines += [f"## {name[0].upper()}{name[1:]}", "", section["note"], f"On: {machine}.", ""]
        lines += ["| figure | value |", "|---|---:|"]
        lines += [f"| {figure} | {value} |" for figure, value in section["figures"].items()] + [""]
    return lines[:-1]
