"""A working strategy with every verb: three are filled in, the others stand ready, as the code of `Strategy` has them."""

from __future__ import annotations

import inspect
import textwrap

from lifelong.core.strategy import VERBS, Strategy

DECLARED = ("draws", "task_draws", "prepare_draws", "notes")
HEAD = '''"""Hold the weights near where the last task left them.

Every verb is here, in the order in which they are called; those that are comments do nothing until you take the # away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong import Batch, FinishedTask, Memory, Outputs, Params, Problem, Requirements, Step, Strategy, Stream


@dataclass(frozen=True)
class {name}(Strategy):
    """penalty = strength / 2 x sum (p - anchor)^2, once a task is over."""

    strength: float = 0.1

    requires = Requirements(task_ends=True)  # what it needs of a run: settings, task ends, classes alone ...
'''
BODIES = {  # what works
    "init": 'return params, {"anchor": params["net"], "on": problem.zeros()}',
    "penalty": """gaps = [(p - memory["anchor"][name]).square().sum() for name, p in params["net"].items()]
return memory["on"] * self.strength / 2 * torch.stack(gaps).sum()""",
    "after_task": 'return params, {"anchor": params["net"], "on": torch.ones_like(memory["on"])}',
}


def strategy_with_every_verb(name: str) -> str:
    """The text of a file whose class has this name."""
    verbs = [_definition(verb) if verb in BODIES else _commented(_definition(verb)) for verb in (*DECLARED, *VERBS)]
    return "\n".join([HEAD.format(name=name), *(textwrap.indent(verb, "    ") for verb in verbs)])


def _definition(verb: str) -> str:
    """A verb with its signature, its one line and a body: what works, or what it does by default."""
    function = getattr(Strategy, verb)
    signature = inspect.signature(function)
    words = str(signature).replace("'", "").replace("Shapes", "dict[str, tuple[int, ...]]")
    handed = ", ".join(list(signature.parameters)[1:])
    body = BODIES.get(verb, f"return super().{verb}({handed})")
    line = (inspect.getdoc(function) or "").partition("\n")[0]
    return f'def {verb}{words}:\n    """{line}"""\n{textwrap.indent(body, "    ")}\n'


def _commented(code: str) -> str:
    """Code as comments, that a reader's editor takes away again."""
    return "".join(f"# {line}\n" for line in code.splitlines())
