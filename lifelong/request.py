"""A run as words: what the command line says and what a run's folder remembers, and the objects it stands for."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scenarios.refusal import Refusal

BASELINES = ("joint", "isolate")


class RequestError(Refusal):
    """Words that no run can be made of."""


@dataclass(frozen=True)
class Request:
    """Every field as text or plain value, so that it survives in JSON and rebuilds the same run.

    Empty text and 0 mean: as the scenario's catalogue entry says.
    """

    scenario: str
    setting: str = ""
    strategy: str = ""
    learner: str = ""
    baseline: str = ""
    model: str = ""
    optimiser: str = ""
    init: str = "Random()"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    iterations: int = 0
    epochs: float = 0.0
    batch: int = 0
    eval_every: int = 0
    eval_rows: int = 1000
    few_shot: str = ""
    device: str = "auto"
    fleet: int = 0
    compile: bool = False
    threads: int = 1
    data_root: str = ""

    def build(self) -> tuple[Any, Any, Any]:
        """The learner, the stream and the initialisation. Raises a Refusal for what cannot be built."""
        return _built(self)

    def _entry(self) -> tuple[Any, dict[str, Any]]:
        from lifelong.expression import ExpressionError, from_file, read_call
        from scenarios.catalogue import CATALOGUE, Entry, find

        name, options = read_call(self.scenario)
        if name.startswith("avalanche:"):
            from scenarios.avalanche import entry_of

            return entry_of(name.partition(":")[2], options), {}
        if ".py:" in name:
            path, _, word = name.rpartition(":")
            value = from_file(path, word.replace("-", "_"))
            if isinstance(value, Entry):
                return value, options
            if word.replace("_", "-") in CATALOGUE:
                return find(word), options
            if callable(value):
                return Entry(word, value, "digits"), options
            raise ExpressionError(
                f"{self.scenario}: {word} is neither a scenario entry nor a function that makes a stream"
            )
        return find(name), options

    def _budget(self, entry: Any) -> Any:
        budget = entry.budget
        if (
            self.threads < 1
            or min(self.iterations, self.epochs, self.batch, self.eval_every, self.fleet) < 0
            or self.eval_rows < 1
        ):
            raise RequestError(
                "iterations, epochs, batch, eval-every, eval-rows and fleet cannot be negative, and threads are at least 1"
            )
        if self.iterations and self.epochs:
            raise RequestError("a budget is given in iterations or in epochs, not in both")
        if self.iterations or self.epochs:
            budget = replace(budget, iterations=self.iterations, epochs=self.epochs)
        return replace(budget, batch=self.batch) if self.batch else budget

    def _stream(self) -> Any:
        from lifelong.expression import ExpressionError, make, read_call
        from scenarios.baselines import isolate, joint
        from scenarios.catalogue import build

        entry, options = self._entry()
        stream = build(entry, options, self.setting or None, self.data_root or None, self._budget(entry))
        if not self.baseline:
            return stream
        try:
            name, chosen = read_call(self.baseline)
        except ExpressionError:
            words = f"the baseline {self.baseline!r} cannot be read"
            raise RequestError(f"{words}: write joint, isolate or joint(sampling='uniform')") from None
        if name not in BASELINES:
            raise RequestError(f"unknown baseline {name!r}: it is {' or '.join(BASELINES)}")
        return make(functools.partial({"joint": joint, "isolate": isolate}[name], stream), name, [], chosen)

    def _learner(self) -> Any:
        from lifelong.expression import parse
        from lifelong.learner import Learner

        entry, _ = self._entry()
        model = parse(self.model or entry.model, "models")
        if self.learner:
            if self.strategy:
                raise RequestError("a run has a strategy or a learner, not both")
            learner = parse(self.learner, "learners")
            return replace(learner, model=model) if self.model or "model=" not in self.learner else learner
        strategy = parse(self.strategy or "FineTuning()", "strategies")
        return Learner(model, strategy, parse(self.optimiser or entry.optimiser, "optimisers"))

    def _start(self, learner: Any, stream: Any) -> Any:
        from lifelong.expression import parse
        from lifelong.meta.initialisation_learner import InitialisationLearner
        from lifelong.meta.learned import PendingInitialisation, distribution_of, load_learned
        from scenarios.datasets import load_table

        if self.init.endswith(".safetensors"):
            start = load_learned(Path(self.init)).fitting(learner.model, stream)
            start.check_apart(stream.table, self.data_root or None)
            return start
        start = parse(self.init, "initialisations")
        if not isinstance(start, InitialisationLearner):
            return start
        data = start.data or self._entry()[0].background
        if not data:
            raise RequestError(
                f"{self.scenario} declares no background classes: name what the start learns from, as in"
                f" {type(start).__name__}(data='fashion-mnist')"
            )
        table = replace(load_table(data, self.data_root or None), name=data)  # by which a start's file finds it again
        distribution = distribution_of(start, learner.model, table, stream.table)
        return PendingInitialisation(start, distribution, self.seeds)

    @property
    def data(self) -> str:
        """The data set that the scenario divides, as it was named; empty where the scenario brings its own."""
        entry, options = self._entry()
        return str(options.get("data", entry.data))

    @property
    def method(self) -> str:
        """What learns, in a word or two."""
        what = self.learner or self.strategy
        return f"{self.baseline}, {what}" if self.baseline and what else self.baseline or what or "FineTuning()"

    @property
    def slug(self) -> str:
        """A folder's name: scenario, setting and method."""
        words = [self.scenario, self.setting, self.method]
        return "-".join(w for w in (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words) if w)[:80]

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        import shlex

        words = ["lifelong", "run", self.scenario]
        for name, default in Request.__dataclass_fields__.items():
            value = getattr(self, name)
            if name == "scenario" or value == default.default:
                continue
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, seeds_text(value) if name == "seeds" else str(value)]
        return shlex.join(words)


@functools.lru_cache(maxsize=4)
def _built(request: Request) -> tuple[Any, Any, Any]:
    """Reading data can take long, and a run asks for its objects more than once."""
    learner, stream = request._learner(), request._stream()
    return learner, stream, request._start(learner, stream)


def read_baselines(text: str) -> list[str]:
    """The baselines of a list like `joint, joint(sampling='uniform'), isolate`."""
    try:
        listed = ast.parse(f"[{text}]", mode="eval").body
    except SyntaxError:
        raise RequestError(f"--baselines {text!r} cannot be read: write joint,joint(sampling='uniform')") from None
    return [ast.unparse(one) for one in getattr(listed, "elts", [listed])]


def method_of(strategy: str) -> dict[str, str]:
    """A strategy among others: one that needs tasks learned together brings the joint reading with it."""
    from lifelong.expression import parse

    together = any(part.requires.paradigm == "joint" for part in parse(strategy, "strategies").parts)
    return {"strategy": strategy} | ({"baseline": "joint"} if together else {})


def read_seeds(text: str) -> tuple[int, ...]:
    """`5` is 0 ... 4, `3,4,9` are those, `7:12` is 7 ... 11."""
    try:
        if "," in text:
            seeds = tuple(int(word) for word in text.split(",") if word.strip())
        elif ":" in text:
            first, last = text.split(":")
            seeds = tuple(range(int(first), int(last)))
        else:
            seeds = tuple(range(int(text)))
    except ValueError:
        raise RequestError(f"--seeds {text!r} cannot be read: write 5 (for 0 ... 4), 3,4,9 or 7:12") from None
    if not seeds or min(seeds) < 0:
        raise RequestError(f"--seeds {text!r} names no seed: ask for at least one, as in --seeds 5")
    return seeds


def seeds_text(seeds: tuple[int, ...]) -> str:
    """The shortest text that `read_seeds` reads back."""
    if seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return str(len(seeds)) if seeds[0] == 0 else f"{seeds[0]}:{seeds[0] + len(seeds)}"
    return ",".join(map(str, seeds))


def default_folder(out: Path, request: Request) -> Path:
    """A folder that is not there yet: the run's own name with a hash of its words, then -2, -3, ..."""
    import hashlib

    base = f"{request.slug}-{hashlib.sha256(repr(request).encode()).hexdigest()[:6]}"
    number, path = 1, out / base
    while path.exists():
        number += 1
        path = out / f"{base}-{number}"
    return path
