"""What each ingredient adds: learned starts, regularisation and replay in every combination, on the same seeds.

Every combination of a start (a random draw, or one that was meta-learned on the background classes) with each of some
strategies, present or absent, is a run of its own, beside each task alone, all tasks at once, and heads alone on each
frozen start. What an ingredient adds is the mean over all combinations of the others, paired over seeds.
"""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lifelong.adaptation.few_shot import read_shots
from lifelong.core.files import (
    RunError,
    check_writable,
    goes_on,
    held_alone,
    make_folder,
    read_json,
    remove_partials,
    write_json,
)
from lifelong.core.footprint import use_threads
from lifelong.core.stage import Stage, Tell, told_to_nobody
from lifelong.core.stopped import Stopped
from lifelong.meta.learned import PendingInitialisation
from lifelong.metrics import Estimate, average_accuracy, estimate, few_shot_curve, forgetting, holm, paired_p
from lifelong.runs import user_files
from lifelong.runs.configuration import write_configuration
from lifelong.runs.execute import check, execute, stopping
from lifelong.runs.folder import Loaded, RunFolder, load, refuse_unlisted, saved_request
from lifelong.runs.initialisation_files import Work
from lifelong.runs.labels import calls
from lifelong.runs.request import Request, RequestError, default_folder
from lifelong.studies.comparison import listed, with_files

RANDOM = "Random()"
STARTS = (
    "MAML(way=5, shot=1, query=5, tasks=8, iterations=1000)",
    "OML(iterations=1000, outer=Adam(0.001))",
)
PARTS = ("EWC(strength=100.0)", "Replay(size=200)")
SHOTS = "1,5"
LEVEL = 0.05
FILE = "ingredients.json"


@dataclass(frozen=True)
class Combination:
    """A run of the study: its start, as text, the strategies that it has, and what it is beside the combinations.

    beside: "" for a combination, else "scratch" (each task alone), "frozen" (heads alone) or "joint" (all at once).
    """

    start: str
    parts: tuple[str, ...] = ()
    beside: str = ""


@dataclass(frozen=True)
class Ingredients:
    """The words of the study: a run's request, what starts are learned by, and the strategies; each as text."""

    request: Request
    starts: tuple[str, ...] = STARTS
    parts: tuple[str, ...] = PARTS

    @cached_property
    def words(self) -> dict[str, str]:
        """Each start and strategy in a word: the names of its parts, and itself where another has the same."""
        texts = (RANDOM, *self.starts, *self.parts)
        short = {text: " + ".join(part.name for part in calls(text) or ()) or text for text in texts}
        return {text: text if list(short.values()).count(word) > 1 else word for text, word in short.items()}

    def name(self, combination: Combination) -> str:
        """A combination in a few words, which no other has."""
        if combination.beside in ("scratch", "joint"):
            return combination.beside
        parts = " + ".join(self.words[part] for part in combination.parts) or "nothing"
        return f"{self.words[combination.start]}, {combination.beside or parts}"

    @property
    def configuration(self) -> dict[str, Any]:
        """For run.toml."""
        return {**self.request.configuration, "ingredients": True, "meta": self.starts, "strategy": self.parts}

    @property
    def combinations(self) -> list[Combination]:
        """All runs, in the order of the table."""
        subsets = [
            subset for count in range(len(self.parts) + 1) for subset in itertools.combinations(self.parts, count)
        ]
        starts = (RANDOM, *self.starts)
        crossed = [Combination(start, subset) for start in starts for subset in subsets]
        frozen = [Combination(start, beside="frozen") for start in starts]
        return [*crossed, *frozen, Combination(RANDOM, beside="scratch"), Combination(RANDOM, beside="joint")]

    def request_of(self, combination: Combination, folder: Path) -> Request:
        """The run of a combination."""
        learned = {text: str(folder / "starts" / f"{i}.safetensors") for i, text in enumerate(self.starts)}
        baseline = {"scratch": "isolate", "joint": "joint"}.get(combination.beside, "")
        return replace(
            self.request,
            strategy=" + ".join(combination.parts),
            init=learned.get(combination.start, RANDOM),
            baseline=baseline,
            trainable="head" if combination.beside == "frozen" else "",
            few_shot="" if baseline else self.request.few_shot or SHOTS,
        )

    def check(self) -> None:
        """Raise a ConfigurationError for what cannot be run, before anything is learned."""
        if self.request.init != RANDOM or self.request.trainable:
            raise RequestError("--init and --trainable do not go with --ingredients: name starts with --meta")
        if len(self.request.seeds) < 2:
            raise RequestError("--ingredients pairs over seeds: ask for at least two, as in --seeds 5")
        for texts, kind in ((self.starts, "starts"), (self.parts, "strategies")):
            if len(set(texts)) < len(texts):
                raise RequestError(f"--ingredients names one of its {kind} twice: each is there once")
        varied = [text for text in self.texts if "vary(" in text]
        if varied:
            raise RequestError(
                f"--ingredients crosses methods, and {varied[0]!r} varies a number: name one for each value"
            )
        for text in self.starts:
            if not isinstance(self.request_of_start(text).build()[2], PendingInitialisation):
                raise RequestError(f"--meta {text!r} is nothing that learns: name a meta-learner, as in 'MAML()'")
        for combination in self.combinations:
            if combination.start == RANDOM:  # a start's own file is not there yet
                check(self.request_of(combination, Path()))

    def request_of_start(self, text: str) -> Request:
        """What a start is learned by: for the seeds that first weights are drawn by."""
        seed = self.request.start_seed
        return replace(self.request, init=text, strategy="", seeds=self.request.seeds if seed < 0 else (seed,))

    @property
    def texts(self) -> tuple[str, ...]:
        """What may name files."""
        return (*self.request.texts, *self.starts, *self.parts)

    def as_json(self) -> dict[str, Any]:
        """For ingredients.json."""
        words = {"request": self.request.as_json(), "starts": list(self.starts), "parts": list(self.parts)}
        return {**words, "files": user_files.as_json(self.request.files)}


@dataclass(frozen=True)
class Effect:
    """What an ingredient adds to a measure, mean over the combinations of the others; p after Holm's correction.

    word: what the ingredient is called beside the others.
    """

    ingredient: str
    measure: str
    added: Estimate
    p: float
    word: str

    @property
    def established(self) -> bool:
        """Whether chance alone would seldom give it, in all that was looked at."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Mixed:
    """The study's runs, by combination."""

    ingredients: Ingredients
    runs: dict[Combination, Loaded]

    @property
    def shots(self) -> tuple[int, ...]:
        """Rows of each class in the measures of forward transfer."""
        return read_shots(self.ingredients.request.few_shot or SHOTS)

    def measures(self, combination: Combination) -> dict[str, Tensor]:
        """Accuracy, forgetting and forward transfer after k rows of each class, [S] each, as far as the run has them."""
        result = self.runs[combination].result
        measures = {"accuracy": average_accuracy(result)}
        if result.paradigm == "continual":
            measures["forgetting"] = forgetting(result)
            measures |= {
                f"{k}-shot transfer": curve for k, curve in zip(self.shots, few_shot_curve(result).T, strict=True)
            }
        return {name: torch.where(result.kept, values, torch.nan) for name, values in measures.items()}

    def effects(self) -> list[Effect]:
        """Of every start against a random draw, and of every strategy against its absence; Holm within a measure."""
        crossed = {c: self.measures(c) for c in self.runs if not c.beside}
        found: list[Effect] = []
        for measure in next(iter(crossed.values())):
            values = {c: measures[measure] for c, measures in crossed.items()}
            added = {start: self._of_start(values, start) for start in self.ingredients.starts}
            added |= {part: self._of_part(values, part) for part in self.ingredients.parts}
            kept = {name: gap[gap.isfinite()] for name, gap in added.items()}
            corrected = holm([paired_p(gap) for gap in kept.values()])
            found += [
                Effect(name, measure, estimate(gap), p, self.ingredients.words[name])
                for (name, gap), p in zip(kept.items(), corrected, strict=True)
            ]
        return found

    def as_json(self) -> dict[str, Any]:
        """Every combination's measures, seed by seed, and every effect; null where seeds diverged: JSON has no NaN."""
        measured = {self.ingredients.name(c): {k: listed(v) for k, v in self.measures(c).items()} for c in self.runs}
        added = [
            {"ingredient": e.ingredient, "measure": e.measure, "added": None if e.added.mean != e.added.mean else e.added.mean,
             "±": e.added.half_width, "p": e.p}
            for e in self.effects()
        ]  # fmt: skip
        return {"combinations": measured, "added": added}

    @staticmethod
    def _of_start(values: dict[Combination, Tensor], start: str) -> Tensor:
        gaps = [values[c] - values[replace(c, start=RANDOM)] for c in values if c.start == start]
        return torch.stack(gaps).mean(0)

    @staticmethod
    def _of_part(values: dict[Combination, Tensor], part: str) -> Tensor:
        without = {c: replace(c, parts=tuple(p for p in c.parts if p != part)) for c in values if part in c.parts}
        return torch.stack([values[c] - values[other] for c, other in without.items()]).mean(0)


LearnRun = Callable[[RunFolder, str], object]


def mix(
    asked: Ingredients | Path,
    out: Path = Path("runs"),
    tell: Tell = told_to_nobody,
    learn: LearnRun = lambda folder, place: execute(folder),
) -> tuple[Mixed, Path]:
    """Learn every combination in a new folder, or go on in one: starts and runs that are finished are not learned again.

    learn: what learns the run of a folder, told its place among the others, as in "2 of 17".
    """
    if isinstance(asked, Path):
        folder, asked = asked, asked_of(asked)
        use_threads(asked.request.threads)
        asked.check()
    else:
        asked = replace(asked, request=with_files(asked.request, asked.texts))
        use_threads(asked.request.threads)
        asked.check()
        folder = default_folder(out, replace(asked.request, strategy="ingredients"))
        check_writable(folder)
    with held_alone(folder), goes_on(folder, f"`lifelong resume {shlex.quote(str(folder))}`"):
        for place in (folder, folder / "starts"):
            remove_partials(place)
        try:
            write_json(folder / FILE, asked.as_json())
            write_configuration(folder, "compare", asked.configuration)
            make_folder(folder / "starts")
            for number, text in enumerate(asked.starts):
                _learn_start(asked, text, folder / "starts" / f"{number}.safetensors", tell)
            runs = {}
            for number, combination in enumerate(asked.combinations):
                place, path = f"{number + 1} of {len(asked.combinations)}", folder / "runs" / f"{number:02d}"
                tell(Stage(number + 1, len(asked.combinations), asked.name(combination)))
                learn(_run_of(asked, combination, path, folder), place)
                runs[combination] = load(path)
        except (KeyboardInterrupt, Stopped):
            raise Stopped(f"`lifelong resume {shlex.quote(str(folder))}` goes on") from None
    return Mixed(asked, runs), folder


def load_mixed(folder: Path) -> Mixed:
    """A finished study from its folder; nothing is learned, and no code of a file is executed.

    Raises RunError where it cannot be read, or some of its runs are not finished.
    """
    asked = asked_of(folder)
    paths = {combination: folder / "runs" / f"{number:02d}" for number, combination in enumerate(asked.combinations)}
    missing = sum(not (path / "results.safetensors").exists() for path in paths.values())
    if missing:
        raise RunError(
            f"{missing} of {len(paths)} runs of {folder} are not finished: `lifelong resume {shlex.quote(str(folder))}` goes on"
        )
    return Mixed(asked, {combination: load(path) for combination, path in paths.items()})


def _run_of(asked: Ingredients, combination: Combination, path: Path, folder: Path) -> RunFolder:
    """The run of a combination; a new one where a process was killed before it wrote what it was to run."""
    if not os.path.lexists(path / "run.json"):
        remove_partials(path)
        with suppress(OSError):  # it is not there, or holds what is not ours: then it is refused
            path.rmdir()
        return RunFolder.create(path, asked.request_of(combination, folder))
    return RunFolder.open(path)


def _learn_start(asked: Ingredients, text: str, path: Path, tell: Tell) -> None:
    """One start for each seed, from the scenario's background classes, unless its file is there."""
    if os.path.lexists(path):
        return
    tell(f"learning starts by {text}")
    work = Work(asked.request_of_start(text), path, 0, 100, 60.0)
    with stopping(work.checkpointer):
        work.learn(None)


def asked_of(folder: Path) -> Ingredients:
    """What a folder's study was asked for. Raises RunError where it cannot be read."""
    file = folder / FILE
    about = read_json(file, {"starts": list[str], "parts": list[str]})
    asked = Ingredients(saved_request(about, file), tuple(about["starts"]), tuple(about["parts"]))
    refuse_unlisted(asked.texts, asked.request, file)
    return asked


def sentences(effects: Sequence[Effect]) -> list[str]:
    """What each ingredient adds, in a sentence a measure: established first, the rest named."""
    lines = []
    for measure in dict.fromkeys(effect.measure for effect in effects):
        here = [effect for effect in effects if effect.measure == measure]
        sure = [f"{e.word} {_signed(e.added)}" for e in here if e.established]
        rest = [f"{e.word} {_signed(e.added)}" for e in here if not e.established]
        said = f"established: {', '.join(sure)}" if sure else "nothing is established"
        lines.append(
            f"{measure}, points added, mean over the others: {said}" + (f"; not: {', '.join(rest)}" if rest else "")
        )
    return lines


def _signed(value: Estimate) -> str:
    text = value.text(1)
    return text if text.startswith(("-", "–")) else f"+{text}"
