"""A seeded generator of command lines: what the command line itself says that it takes, filled with right and wrong words.

Commands and options are read from the typer application, names and fields from the registry and the catalogue: what is
added there is tried from then on.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from lifelong.commands.completion import WORDS
from lifelong.commands.group import loaded
from lifelong.notation.registry import KINDS, found
from scenarios.catalogue import CATALOGUE
from scenarios.datasets import DATASETS

NUMBERS = (
    "0", "-1", "1", "2", "3", "5", "-0", "007", "1.5", ".5", "5.", "1e3", "1e18", "1e20", "1e300", "-1e300", "1e999", "inf",
    "-inf", "nan", "1e-320", "1_000", "٣", "½", "0x10", "1/3", "2**63", "10**9", "1e", "--5", "+5", "1,2", "1:3", "3:1", "5:",
    ":", ",", "1 2", "True", "None", "9" * 10, "9" * 20, "9" * 30, "9" * 400, "9" * 5000, "-" + "9" * 400, "0." + "1" * 400,
    str(2**31), str(2**63 - 1), str(2**63), str(2**64), str(-(2**63) - 1), str(10**6), str(10**9), str(10**12), "100000",
)  # fmt: skip
TEXTS = (
    "", " ", "\t", "\n", "a\nb", "\r", "\0", "a\0b", "\x07", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\x7f",
    "[/]", "[/x]", "[bold]", "[link=a]b", ":smile:", "{}", "{0}", "%s", "%n", "é", "名前", "😀", "\u202eabc", "\u200b",
    "e\u0301", "\udcff", "a\udce9", "-", "--", "---", "-x", "--help", "--x=y", "=", "@file", "~", "$HOME", "*", "?", "'", '"',
    "'''", "\\", "`id`", ";", "|", "&&", "(", ")", "()", "((", "[]", "{", ",", ".", "..", "...", "#", "lambda: 0", "import os",
    "__import__('os').system('x')", "open('x')", "x.y.z", "a" * 300, "é" * 300, "a" * 9_990, "(" * 3000, "a" * 100_000,
    "EWC(" + "a" * 50_000, "(" * 3000 + "EWC()" + ")" * 3000, "+".join(["EWC()"] * 1000), "-" * 5000 + "1", "[" * 5000,
    "not " * 2000 + "1", "1" + "+1" * 4000, "1" + "**9" * 50, "a" + ".a" * 4000, "a," * 4000,
)  # fmt: skip
PATHS = (
    "runs/a", "runs/b", "runs", ".", "runs/none", "runs/half", "none", "none.py", "my_idea.py", "my_idea.py:MyIdea()", "odd_even.py",
    "odd_even.py:odd_even", "my_net.py", "my_net.py:Net()", "my_net.py:Net(width=3)", "exits.py", "exits.py:X()", "raises.py:X()",
    "broken.py:X()", "broken.json", "broken.npz", "my.npz", "start.safetensors", "broken.safetensors", "empty", "new/deep/er", "../up",
    "a" * 300, "a/" * 1000, "/proc/none/x", "runs/a/run.json", "runs/a/results.safetensors", "my_idea.py/x", "x.html",
)  # fmt: skip
FLAGS = (
    "-",
    "--",
    "-h",
    "-v",
    "--nothing",
    "--strategy=",
    "--seeds=3",
    "-5",
    "--no-json",
    "--json=1",
    "--é",
    "--" + "a" * 400,
)
TINY = {
    "--iterations": "2",
    "--seeds": "2",
    "--episodes": "2",
    "--steps": "2",
    "--runs": "1",
}  # where nothing else is said
SLOW = ("compile",)  # options that take a minute, as they say
LONG = ("reproduce", "check")  # what they do cannot be made tiny, so they come less often
INSERTED = "()[]{},.=+*-/'\"\\: \t\n0129aeZ_é\0\x1b#@"


class Lines:
    """Command lines of a seed, without end: each is a list of words."""

    def __init__(self, seed: int) -> None:
        from cli import app

        self.random = random.Random(seed)
        self.commands = dict(_commands(get_command(app)))

    def __iter__(self) -> Iterator[list[str]]:
        while True:
            yield self.line()

    def line(self) -> list[str]:
        """One command line; mostly sound in most of its words, so that it gets far."""
        draw = self.random
        path, command = draw.choice(list(self.commands.items()))
        if path[0] in LONG and draw.random() < 0.8:
            path, command = draw.choice(list(self.commands.items()))
        if draw.random() < 0.02:
            return [draw.choice([*TEXTS, *path, self._mutated(" ".join(path))]) for _ in range(draw.randint(0, 3))]
        if command.params and draw.random() < 0.4:
            return self._sound_but_for_one(path, command)
        daring = draw.choice([0.0, 0.03, 0.1, 0.4])  # how often a word is a wrong one
        words, share = list(path), draw.choice([0.0, 0.1, 0.2, 0.5])
        flags = {flag for parameter in command.params for flag in parameter.opts}
        for flag, value in TINY.items():
            words += [flag, value] if flag in flags else []
        for parameter in command.params:
            if parameter.name in SLOW:
                continue
            if parameter.required or draw.random() < share:
                words += self._words_of(parameter, daring)
        return self._shuffled(words, len(path), daring)

    def _sound_but_for_one(self, path: tuple[str, ...], command: Any) -> list[str]:
        """A line that would be done, but for one word that may be anything: so it gets to where the word is used."""
        draw, words = self.random, list(path)
        wrong = draw.choice([parameter for parameter in command.params if parameter.name not in SLOW])
        flags = {flag for parameter in command.params for flag in parameter.opts}
        for flag, value in TINY.items():
            words += [flag, value] if flag in flags else []
        for parameter in command.params:
            if parameter is wrong or (parameter.required and parameter.name not in SOUND):
                words += self._words_of(parameter, 0.7)
            elif parameter.required:
                value = SOUND[parameter.name]
                words += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
        return words

    def _words_of(self, parameter: Any, daring: float) -> list[str]:
        """A parameter's words: its flag and a value, or values where it takes several."""
        argument = parameter.param_type_name == "argument"
        times = (
            self.random.choice([1, 1, 2, 3]) if parameter.nargs == -1 or getattr(parameter, "multiple", False) else 1
        )
        words: list[str] = []
        for _ in range(times):
            flag = self.random.choice(parameter.opts)
            if getattr(parameter, "is_flag", False):
                words += [flag]
                continue
            value = self._value(parameter, daring)
            words += [value] if argument else [f"{flag}={value}"] if self.random.random() < 0.2 else [flag, value]
        return words

    def _value(self, parameter: Any, daring: float) -> str:
        """A value of a parameter: by what stands for it in the help, by its name, or a wrong one."""
        draw, name = self.random, parameter.name
        if draw.random() < daring:
            return draw.choice(draw.choice([NUMBERS, TEXTS, PATHS, TEXTS]))
        if parameter.metavar in ("N", "X", None):
            return draw.choice(NUMBERS if draw.random() < 0.3 else ["1", "2", "3", "5"])
        if name in ("seeds", "shots", "few_shot", "memory", "held_out"):
            return draw.choice(["1", "2", "1,3", "5:7", "500kB", "all", *NUMBERS])
        if name in KINDS_OF:
            return self.expression(KINDS_OF[name], daring)
        if name == "scenario":
            return self._written("", CATALOGUE, daring)
        if name == "kind":
            return draw.choice([*WORDS["kinds"], *WORDS["files"]])
        if name in ("data", "name") and draw.random() < 0.8:
            return draw.choice([*DATASETS, "my.npz", "blobs", "gaussian"])
        if name in WORDS_OF:
            return draw.choice(WORDS_OF[name])
        return draw.choice(PATHS)

    # --- expressions --------------------------------------------------------------------------------------------------

    def expression(self, kind: str, daring: float, depth: int = 0) -> str:
        """A text that names something of a kind, a sum now and then, wrong in a letter now and then."""
        text = self._written(kind, found(kind), daring, depth)
        while kind == "strategies" and self.random.random() < 0.25:
            text += self.random.choice([" + ", "+", " + ", " - ", "++"]) + self._written(
                kind, found(kind), daring, depth
            )
        if self.random.random() < 0.05:
            text = self.random.choice(PATHS)
        return self._mutated(text) if self.random.random() < daring else text

    def _written(self, kind: str, known: Any, daring: float, depth: int = 0) -> str:
        """A call of a name with some of its fields, where each has a value of its kind or a wrong one."""
        draw, name = self.random, self.random.choice(list(known))
        made = known[name].make if name in CATALOGUE else known[name]
        fields = [
            field for field in inspect.signature(made).parameters.values() if field.name not in ("dataset", "budget")
        ]
        if draw.random() < 0.3 or not fields:
            return draw.choice([name, f"{name}()"])
        values = [
            self._field(field, daring, depth) for field in draw.sample(fields, min(len(fields), draw.randint(1, 3)))
        ]
        return f"{name}({', '.join(values)})"

    def _field(self, field: inspect.Parameter, daring: float, depth: int) -> str:
        draw = self.random
        usual = "1" if field.default is inspect.Parameter.empty else repr(field.default)
        pool = [
            usual,
            usual,
            "1",
            "2",
            "0.5",
            "0",
            "-1",
            "True",
            "'a'",
            "vary(1, 2)",
            "vary(0.1, 10)",
            "(1, 2)",
            "None",
            "'my.npz'",
        ]
        if draw.random() < daring:
            pool = [
                *NUMBERS,
                *map(repr, NUMBERS[:6]),
                "vary()",
                "vary(1)",
                "vary(1, 1)",
                "{}",
                "{1: 2}",
                "b'a'",
                "1j",
                "...",
                "[[1]]",
            ]
            pool += [
                "'" + "a" * 300 + "'",
                f"vary({', '.join(map(str, range(200)))})",
                "*a",
                "**a",
                "x",
                "x=1",
                "f''",
                "-'a'",
                "{}()",
            ]
        if depth < 3 and draw.random() < 0.1:
            return f"{field.name}={self.expression(draw.choice(list(KINDS)), daring, depth + 1)}"
        value = draw.choice(pool)
        return value if draw.random() < 0.1 else f"{field.name}={value}"

    # --- wrong letters and words --------------------------------------------------------------------------------------

    def _mutated(self, text: str) -> str:
        """A text with a few letters lost, doubled, put in or changed, or wrapped in brackets."""
        draw = self.random
        for _ in range(draw.choice([1, 1, 2, 5])):
            at = draw.randint(0, len(text))
            text = draw.choice(
                [
                    text[:at] + text[at + 1 :],
                    text[:at] + text[at : at + 3] * draw.choice([2, 50]) + text[at:],
                    text[:at] + draw.choice(INSERTED) + text[at:],
                    text[:at] + draw.choice(INSERTED) + text[at + 1 :],
                    text[:at],
                    f"({text})" if len(text) < 300 else text[:at],
                ]
            )
        return text

    def _shuffled(self, words: list[str], first: int, daring: float) -> list[str]:
        """A line with a word lost, doubled, moved or put in."""
        draw = self.random
        if draw.random() < daring:
            at = draw.randint(first, len(words))
            words = draw.choice(
                [
                    words[:at] + words[at + 1 :],
                    words[:at] + words[at : at + 2] * 2 + words[at + 2 :],
                    [*words[:at], draw.choice([*FLAGS, *TEXTS]), *words[at:]],
                    words[:first] + draw.sample(words[first:], len(words) - first),
                    [*words, "--help"],
                ]
            )
        return words


SOUND = {
    "scenario": "split-blobs", "init": "ProtoNet(way=2, query=2, iterations=2, data='my.npz')", "output": "x.safetensors",
    "data": "digits", "model": "MLP(5)", "expression": "EWC()", "run": "runs/a", "runs": "runs/b", "starts": "start.safetensors",
    "path": "runs/a", "name": "digits", "target": "my_idea.py",
}  # fmt: skip
KINDS_OF = {
    "strategy": "strategies", "learner": "learners", "model": "models", "optimiser": "optimisers", "init": "initialisations",
    "meta": "initialisations", "adaptation": "adaptations", "adapt": "optimisers", "expression": "strategies",
    "target": "strategies",
}  # fmt: skip
WORDS_OF = {
    "setting": ("task", "domain", "class"),
    "device": ("auto", "cpu", "cuda", "cuda:99", "mps", "meta", "xla", "vulkan", "cpu:5"),
    "trainable": ("all", "head", "trunk", "*", "head.*", "none", "[", "a,b", ",", "*.weight,head"),
    "baseline": ("joint", "isolate", "joint(sampling='uniform')", "joint(sampling=1)", "none"),
    "baselines": ("joint", "joint,isolate", "joint(sampling='uniform'),isolate", "joint(", ",", "1"),
    "paradigms": ("all", "multi-task,meta", "continual", "none", ","),
    "normalise": ("imagenet", "half", "none"),
    "pretrained_on": ("images", ""),
}


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command by the words that call it, imported."""
    for name, command in group.commands.items():
        command = loaded(name) if not path else command
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command
