"""A run as words: what the command line says and what a run's folder remembers, and the objects it stands for."""

from __future__ import annotations

import ast
import functools
import itertools
import os
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lifelong.runs import user_files
from lifelong.runs.user_files import UserFile
from scenarios.errors import ConfigurationError
from scenarios.machine import LARGEST_SEED, MOST, most_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifelong.core.initialisation import Initialisation
    from lifelong.core.learner import AnyLearner
    from lifelong.core.probes import Probe
    from scenarios.stream import Seed, Stream

MOST_SEEDS = 100_000
BASELINES = ("joint", "isolate")
VARYING = ("strategy", "learner", "model", "optimiser")  # texts in which numbers may vary
_VARY = re.compile(r"\bvary\(([^()]*)\)")


class RequestError(ConfigurationError):
    """Words that no run can be made of."""


@dataclass(frozen=True)
class Request:
    """Every field as text or plain value, so that it survives in JSON and rebuilds the same run.

    Empty text and 0 mean: as the scenario's catalogue entry says. order_seed, start_seed, data_seed: where they are given,
    at least 0, every member has this seed for order, start or data, see `scenarios.stream.Seed`; -1: as `seeds` say.
    files: where the files that the words name lay when the run began; empty before that, when names are looked for from the
    present folder.
    """

    scenario: str
    setting: str = ""
    strategy: str = ""
    learner: str = ""
    baseline: str = ""
    model: str = ""
    optimiser: str = ""
    init: str = "Random()"
    trainable: str = ""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    order_seed: int = -1
    start_seed: int = -1
    data_seed: int = -1
    iterations: int = 0
    epochs: float = 0.0
    batch: int = 0
    repeats: int = 0
    eval_every: int = 0
    eval_rows: int = 1000
    few_shot: str = ""
    linear_probe: bool = False
    probe: str = ""
    memory: str = ""
    device: str = "auto"
    fleet: int = 0
    compile: bool = False
    threads: int = 1
    data_root: str = ""
    files: tuple[UserFile, ...] = field(default=(), repr=False)

    def build(self) -> tuple[AnyLearner, Stream, Initialisation]:
        """The learner, the stream and the initialisation. Raises a ConfigurationError for what cannot be built."""
        for file in self.files:  # before any of them is read or executed
            file.check()
        with user_files.in_place(self.files):
            return _built(self)

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields that may name files."""
        return (self.scenario, self.strategy, self.learner, self.model, self.optimiser, self.init, self.probe)

    def with_files(self) -> Request:
        """The request with the files that it names as they are now, so that it can be built from any folder."""
        folders = [self.data_root] if self.data_root else []
        return replace(self, files=user_files.recorded(self.texts, folders, self.files))

    def _place(self, name: str) -> str:
        """Where a file or folder of this name lies."""
        return next((file.path for file in self.files if file.name == name), name)

    def as_json(self) -> dict[str, Any]:
        """The words as they were typed; `files` are kept beside them."""
        return {name: value for name, value in asdict(self).items() if name != "files"}

    def resolved(self) -> dict[str, Any]:
        """What the words stand for, defaults filled in: data and their content, stream, learner, budget of a task."""
        _, stream, _ = self.build()
        entry, options = self._entry()
        dataset = stream.dataset
        return {
            "data": {
                "name": dataset.name,
                "content": dataset.content_hash(),
                "training rows": dataset.train_rows,
                "test rows": len(dataset.y) - dataset.train_rows,
                "classes": dataset.classes,
                **({"origin": dataset.origin} if dataset.origin else {}),
            },
            "scenario": _described(entry, options),
            "setting": stream.setting,
            "paradigm": stream.paradigm,
            "tasks": len(stream),
            **self.method_resolved(),
            "budget": asdict(stream.budget),
        }

    def method_resolved(self) -> dict[str, str]:
        """What learns, with every field: model, method, and the optimiser where there is one."""
        with user_files.in_place(self.files):
            learner = self._learner()
            learner = self._within_memory(learner, self._stream()) if self.memory else learner
        method = learner.strategy if learner.adapts_by_rule else learner
        optimiser = repr(learner.optimiser) if learner.adapts_by_rule else ""
        return {"model": repr(learner.model), "method": repr(method), "optimiser": optimiser}

    def probes(self) -> list[Probe]:
        """What else is measured, as objects. Raises a ConfigurationError for what is no probe."""
        from lifelong.notation.expression import listed, parse

        with user_files.in_place(self.files):
            return [parse(text, "probes") for text in listed(self.probe)]

    def expectations(self) -> list[str]:
        """What is to be expected of the method on its stream, as its parts say it."""
        learner, stream, _ = self.build()
        return list(dict.fromkeys(learner.notes(stream)))

    def settings(self) -> dict[str, Request]:
        """A request for each setting of the learner, by the words that tell it apart; itself as "" where nothing varies.

        Each says the number that it takes where this one says vary(...).
        """
        from lifelong.core.settings import fleets_of_settings

        alternatives = [_alternatives(getattr(self, name)) for name in VARYING]
        if all(len(texts) == 1 for texts in alternatives):
            return {"": self}
        chosen = [replace(self, **dict(zip(VARYING, texts, strict=True))) for texts in itertools.product(*alternatives)]
        with user_files.in_place(self.files):
            fleets = fleets_of_settings(self._learner())
            words = {setting.learner: setting.words for fleet in fleets for setting in fleet}
            return {words[request._learner()]: request for request in chosen}

    @property
    def members(self) -> list[int | Seed]:
        """A seed for each member of the fleet: a number, or order, start and data told apart where one of them is fixed.

        Raises RequestError where nothing is left that the seeds could tell apart, or a number is no seed.
        """
        from scenarios.stream import Seed

        fixed = (self.order_seed, self.start_seed, self.data_seed)
        if min(fixed) < -1 or max(fixed) > LARGEST_SEED:
            raise RequestError(
                "a seed is from 0 to 2**63 - 1; -1 for --order-seed, --start-seed or --data-seed means as --seeds say"
            )
        if fixed == (-1, -1, -1):
            return list(self.seeds)
        if -1 not in fixed and len(self.seeds) > 1:
            raise RequestError(
                f"order, start and data are all fixed, so {len(self.seeds)} seeds would run the same: ask for one, as in"
                " --seeds 1, or leave one of them free"
            )
        return [Seed(*(seed if word < 0 else word for word in fixed)) for seed in self.seeds]

    def _entry(self) -> tuple[Any, dict[str, Any]]:
        from lifelong.notation.expression import ExpressionError, from_file, read_call
        from scenarios.catalogue import CATALOGUE, Entry, find

        name, options = read_call(self.scenario)
        if "data" in options:
            options["data"] = self._place(str(options["data"]))
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
                return Entry(word, cast("Callable[..., Stream]", value), "digits"), options
            raise ExpressionError(
                f"{self.scenario}: {word} is neither a scenario entry nor a function that makes a stream"
            )
        return find(name), options

    def _budget(self, entry: Any) -> Any:
        budget = entry.budget
        if (
            self.threads < 1
            or min(self.iterations, self.epochs, self.batch, self.repeats, self.eval_every, self.fleet) < 0
            or self.eval_rows < 1
        ):
            raise RequestError(
                "iterations, epochs, batch, repeats, eval-every, eval-rows and fleet cannot be negative, and threads are"
                " at least 1"
            )
        for name in ("iterations", "batch", "repeats", "eval_every", "eval_rows", "fleet"):
            if getattr(self, name) > MOST:
                raise RequestError(
                    f"--{name.replace('_', '-')} {str(getattr(self, name))[:30]} is more than anybody waits for: ask for at"
                    f" most {MOST:,}"
                )
        if self.threads > most_threads():
            raise RequestError(
                f"--threads {self.threads} is more than this machine can use: take at most {most_threads()}"
            )
        if self.iterations and self.epochs:
            raise RequestError("a budget is given in iterations or in epochs, not in both")
        if self.iterations or self.epochs:
            budget = replace(budget, iterations=self.iterations, epochs=self.epochs)
        return replace(budget, batch=self.batch or budget.batch, repeats=self.repeats or budget.repeats)

    def _stream(self) -> Any:
        from lifelong.notation.expression import ExpressionError, make, read_call
        from scenarios.catalogue import build
        from scenarios.joint import isolate, joint

        entry, options = self._entry()
        stream = build(entry, options, self.setting or None, self._place(self.data_root) or None, self._budget(entry))
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
        from lifelong.core.learner import Learner
        from lifelong.notation.expression import parse

        entry, _ = self._entry()
        model = parse(self.model or entry.model, "models")
        if self.learner:
            if self.strategy:
                raise RequestError("a run has a strategy or a learner, not both")
            if self.trainable:
                raise RequestError(f"--trainable goes with a strategy, and {self.learner} is a learner of another kind")
            learner = parse(self.learner, "learners")
            takes = {field.name for field in fields(learner)}
            if "optimiser" in takes and (self.optimiser or "optimiser=" not in self.learner):
                learner = replace(learner, optimiser=parse(self.optimiser or entry.optimiser, "optimisers"))
            if "model" not in takes:
                if self.model:
                    raise RequestError(f"{learner!r} brings a network of its own: leave --model out")
                return learner
            return replace(learner, model=model) if self.model or "model=" not in self.learner else learner
        strategy = parse(self.strategy or "FineTuning()", "strategies")
        optimiser = parse(self.optimiser or entry.optimiser, "optimisers")
        return Learner(model, strategy, optimiser, self.trainable or "all")

    def _within_memory(self, learner: Any, stream: Any) -> Any:
        """The learner with as much memory as is asked for."""
        if not self.memory:
            return learner
        from lifelong.runs.memory_budget import fitted, read_bytes

        return fitted(learner, stream, read_bytes(self.memory))

    def _start(self, learner: Any, stream: Any) -> Any:
        from lifelong.meta.initialisation_learner import InitialisationLearner
        from lifelong.meta.learned import PendingInitialisation, distribution_of, load_learned
        from lifelong.notation.expression import parse
        from scenarios.datasets import load_dataset

        if self.init.endswith(".safetensors"):
            start = load_learned(Path(self._place(self.init))).fitting(learner.model, stream)
            start.check_apart(stream.dataset, self._place(self.data_root) or None)
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
        dataset = replace(
            load_dataset(self._place(data), self._place(self.data_root) or None), name=data
        )  # by which a start's file finds it again
        distribution = distribution_of(start, learner.model, dataset, stream.dataset)
        return PendingInitialisation(start, distribution, self.seeds if self.start_seed < 0 else (self.start_seed,))

    @property
    def data(self) -> str:
        """The data set that the scenario divides, as it was named; empty where the scenario brings its own."""
        entry, options = self._entry()
        return str(options.get("data", entry.data))

    @property
    def own_data(self) -> str:
        """What was found in data of the user's own, in words; "" for a data set that has a name."""
        from scenarios.datasets import DATASETS, describe

        return describe(self.build()[1].dataset) if self.data and self.data not in DATASETS else ""

    @property
    def method(self) -> str:
        """What learns, in a word or two."""
        method_words = self.learner or self.strategy
        return (
            f"{self.baseline}, {method_words}"
            if self.baseline and method_words
            else self.baseline or method_words or "FineTuning()"
        )

    @property
    def slug(self) -> str:
        """A folder's name: scenario, setting and method."""
        words = [self.scenario, self.setting, self.method]
        return "-".join(w for w in (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words) if w)[:80]

    @property
    def configuration(self) -> dict[str, Any]:
        """What was asked for beyond the defaults, by the names of the command line's options; seeds as text."""
        given = {name: getattr(self, name) for name, usual in Request.__dataclass_fields__.items() if name != "files"
                 and (name == "scenario" or getattr(self, name) != usual.default)}  # fmt: skip
        return {
            name.replace("_", "-"): seeds_text(value) if name == "seeds" else value for name, value in given.items()
        }

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        import shlex

        words = ["lifelong", "run", self.scenario]
        for name, value in self.configuration.items():
            if name != "scenario":
                words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return shlex.join(words)


def _described(entry: Any, options: dict[str, Any]) -> str:
    """A scenario with the options that are not its maker's defaults, in the order of their names."""
    import inspect

    usual = {name: field.default for name, field in inspect.signature(entry.make).parameters.items()}
    chosen = {k: v for k, v in {**entry.options, **options}.items() if k not in ("data", "setting")}
    words = [f"{name}={value!r}" for name, value in sorted(chosen.items()) if usual.get(name) != value]
    return f"{entry.name}({', '.join(words)})" if words else entry.name


@functools.lru_cache(maxsize=4)
def _built(request: Request) -> tuple[AnyLearner, Stream, Initialisation]:
    """Paradigm data can take long, and a run asks for its objects more than once."""
    learner, stream = request._learner(), request._stream()
    learner = request._within_memory(learner, stream)
    return learner, stream, request._start(learner, stream)


def _alternatives(text: str) -> list[str]:
    """A text with each combination of the numbers of its vary(...) in their places; itself where there is none."""
    pieces = _VARY.split(text)  # text, values, text, values ... text
    values = [[word.strip() for word in piece.split(",") if word.strip()] for piece in pieces[1::2]]
    return [
        pieces[0] + "".join(value + piece for value, piece in zip(chosen, pieces[2::2], strict=True))
        for chosen in itertools.product(*values)
    ]


def read_baselines(text: str) -> list[str]:
    """The baselines of a list like `joint, joint(sampling='uniform'), isolate`."""
    try:
        listed = ast.parse(f"[{text}]", mode="eval").body
    except SyntaxError:
        raise RequestError(f"--baselines {text!r} cannot be read: write joint,joint(sampling='uniform')") from None
    return [ast.unparse(element) for element in getattr(listed, "elts", [listed])]


def method_of(strategy: str) -> dict[str, str]:
    """A strategy among others: one that needs tasks learned together brings the joint paradigm with it."""
    from lifelong.notation.expression import parse

    together = any(part.requires.paradigm == "joint" for part in parse(strategy, "strategies").parts)
    return {"strategy": strategy} | ({"baseline": "joint"} if together else {})


def read_seeds(text: str) -> tuple[int, ...]:
    """`5` is 0 ... 4, `3,4,9` are those, `7:12` is 7 ... 11."""
    try:
        if "," in text:
            seeds = tuple(int(word) for word in text.split(",") if word.strip())
        else:
            first, last = text.split(":") if ":" in text else ("0", text)
            count = int(last) - int(first)
            if count > MOST_SEEDS:
                raise RequestError(
                    f"--seeds {text[:40]} names {count:,} seeds"[:200] + f": at most {MOST_SEEDS:,} are run"
                )
            seeds = tuple(range(int(first), int(last)))
    except RequestError:
        raise
    except ValueError:
        raise RequestError(f"--seeds {text!r} cannot be read: write 5 (for 0 ... 4), 3,4,9 or 7:12") from None
    if not seeds or min(seeds) < 0:
        raise RequestError(f"--seeds {text!r} names no seed: ask for at least one, as in --seeds 5")
    if max(seeds) > LARGEST_SEED or len(seeds) > MOST_SEEDS:
        raise RequestError(f"--seeds {text!r}: seeds are below 2**63, and at most {MOST_SEEDS:,} are run")
    return seeds


def seeds_text(seeds: tuple[int, ...]) -> str:
    """The shortest text that `read_seeds` reads back."""
    if seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return str(len(seeds)) if seeds[0] == 0 else f"{seeds[0]}:{seeds[0] + len(seeds)}"
    return ",".join(map(str, seeds))


def seed_text(seed: int | Seed) -> int | str:
    """A seed, or order, start and data apart, as in "0/0/3"."""
    return seed if isinstance(seed, int) else "/".join(map(str, seed))


def default_folder(out: Path, request: Request) -> Path:
    """A folder that is not there yet: the run's own name with a hash of its words, then -2, -3, ..."""
    import hashlib

    base = f"{request.slug}-{hashlib.sha256(repr(request).encode()).hexdigest()[:6]}"
    number, path = 1, out / base
    while os.path.exists(path):
        number += 1
        path = out / f"{base}-{number}"
    return path
