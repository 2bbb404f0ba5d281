"""What a person sees: tables fit narrow pages, and no figure is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lifelong.contracts.learners import tiny
from lifelong.core.learner import Learner
from lifelong.core.loop import run
from lifelong.display.tables import compare_table, difference
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse


@pytest.mark.parametrize("width", [80, 90, 120])
def test_a_comparison_fits(width):
    console = Console(width=width, file=io.StringIO())
    names = ("FineTuning()", "EWC(strength=1000.0) + Replay(size=200)", "Replay(size=20) from start.safetensors")
    strategies = [parse(name.partition(" from ")[0], "strategies") for name in names]
    results = {
        name: run(Learner(MLP(8), strategy), tiny(), range(3)) for name, strategy in zip(names, strategies, strict=True)
    }
    console.print(compare_table(results, width))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for name in names[1:]:
        assert difference(results[name], results[names[0]], 2 if width >= 110 else 1) in text, text
