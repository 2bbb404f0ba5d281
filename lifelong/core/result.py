"""What a run measured: one tensor of accuracies, and what is needed to read it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lifelong.core.files import RunError, fitting
from scenarios.brief import cut
from scenarios.stream import SETTINGS, Seed
from scenarios.typed import TypedError, check, damaged

BY_MEMBER = ("accuracy", "untrained", "losses", "diverged")
PROBE = "probe "
KINDS = {  # of what is said beside the tensors
    "seeds": list[int | list[int]],
    "paradigm": ("continual", "joint", "isolate"),
    "setting": SETTINGS,
    "open": ("all", "seen", "current"),
    "seconds": dict[str, float],
    "settings": list[str],
    "numbers?": list[int],
}
CSV = ["seed", "evaluation", "task_learned", "iteration", "task_end", "task", "accuracy"]
FEW_SHOT = "few-shot accuracy at "


@dataclass(frozen=True)
class Result:
    """S seeds, E evaluations, T tasks.

    accuracy: fractions of 1, float64 [S, E, T], NaN from where a seed diverged. when: int64 [E, 4]: tasks finished
    or, along the way, being learned (from 0); iteration in it; 1 at a task's end; rows scored of each seed. The first
    evaluation is before learning. untrained [S, T]: of a random draw of the network, whatever the start.
    losses [S, T, P]: training loss, means over P equal stretches of each task. diverged: int64 [S, 2]: task and
    iteration where a seed's loss stopped being finite, -1 where it never did. seconds: "training", "evaluation".
    numbers: the tasks that ask for numbers: their accuracy is 1 - mean square error / variance, which may fall below 0.
    probes: what else was measured, by name, each [S, moments, ...]. settings: of each member, in words, where numbers
    of the learner varied; S is then seeds x settings.
    """

    accuracy: Tensor
    when: Tensor
    untrained: Tensor
    losses: Tensor
    diverged: Tensor
    seeds: tuple[int | Seed, ...]
    paradigm: str = "continual"
    setting: str = "class"
    open: str = "all"
    numbers: tuple[int, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    probes: dict[str, Tensor] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return cut(f"Result({self.in_words})")

    @property
    def in_words(self) -> str:
        """What it is of and how well it went, in a few words; the metrics say the rest."""
        paradigm = "" if self.paradigm == "continual" else f"{self.paradigm}, "
        words = f"{paradigm}{self.setting}-incremental, {self.tasks} tasks, {_seeds_in_words(self.seeds)}"
        lost = len(self.seeds) - int(self.kept.sum())
        return ", ".join(filter(None, [words, self.accuracy_in_words, f"{lost} diverged" if lost else ""]))

    @property
    def accuracy_in_words(self) -> str:
        """Average accuracy after the last task, the mean over seeds and their range; nothing where there is no mean."""
        if len(set(self.settings)) > 1:
            return f"{len(set(self.settings))} settings: see by_setting()"
        if not bool(self.kept.any()) or not len(self.at_task_ends[0]) or 0 < len(self.numbers) < self.tasks:
            return ""
        each = 100 * self.at_task_ends[self.kept, -1].mean(1)
        spread = f" ({each.min():.1f} ... {each.max():.1f})" if len(each) > 1 else ""
        return f"average accuracy {each.mean():.1f} %{spread}"

    @property
    def tasks(self) -> int:
        """T."""
        return self.accuracy.shape[2]

    @property
    def shots(self) -> tuple[int, ...]:
        """Numbers of rows of each class at which few-shot accuracy was measured; none where it was not."""
        names = [name for name in self.probes if name.startswith(FEW_SHOT)]
        return tuple(int(word) for word in names[0].removeprefix(FEW_SHOT).split(",")) if names else ()

    @property
    def few_shot(self) -> Tensor:
        """Few-shot accuracy before each task [S, 2, T, K]: from the state before it, and from a random draw."""
        names = [name for name in self.probes if name.startswith(FEW_SHOT)]
        return self.probes[names[0]].transpose(1, 2) if names else torch.empty(0, dtype=torch.float64)

    @property
    def kept(self) -> Tensor:
        """Which seeds never diverged, bool [S]."""
        return self.diverged[:, 0] < 0

    @property
    def at_task_ends(self) -> Tensor:
        """Accuracy on every task after each task, [S, T, T]: row t, column j = task j after task t."""
        return self.accuracy[:, self.when[:, 2] == 1]

    @property
    def before(self) -> Tensor:
        """Accuracy before learning, [S, T]."""
        return self.accuracy[:, 0]

    def by_setting(self) -> dict[str, Result]:
        """The members of each setting as a result of their own, by its words."""
        words = self.settings or ("",) * len(self.seeds)
        return {
            name: self.members([i for i, word in enumerate(words) if word == name]) for name in dict.fromkeys(words)
        }

    def members(self, places: list[int]) -> Result:
        """Some of the members; seconds are their share of all."""
        share = len(places) / len(self.seeds)
        return replace(
            self,
            **{name: getattr(self, name)[places] for name in BY_MEMBER},
            probes={name: value[places] for name, value in self.probes.items()},
            seeds=tuple(self.seeds[i] for i in places),
            settings=tuple(self.settings[i] for i in places) if self.settings else (),
            seconds={name: share * value for name, value in self.seconds.items()},
        )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, for a file; a probe's name bears the word probe."""
        held = {name: getattr(self, name).contiguous() for name in (*BY_MEMBER, "when")}
        return held | {PROBE + name: value.contiguous() for name, value in self.probes.items()}

    def about(self) -> dict[str, Any]:
        """The rest, as plain values for a file."""
        names = ("paradigm", "setting", "open", "seconds")
        seeds = [list(seed) if isinstance(seed, Seed) else seed for seed in self.seeds]
        lists = {"seeds": seeds, "settings": list(self.settings), "numbers": list(self.numbers)}
        return {name: getattr(self, name) for name in names} | lists

    @classmethod
    def of(cls, tensors: dict[str, Tensor], about: dict[str, Any], where: Path = Path("the result")) -> Result:
        """What `tensors` and `about` gave. Raises RunError, with the file `where` they are from, for anything else."""
        try:
            check(about, KINDS)
        except TypedError as error:
            raise RunError(damaged(where, error)) from None
        _check_tensors(tensors, about, where)
        seeds = tuple(Seed(*seed) if isinstance(seed, list) else seed for seed in about["seeds"])
        probes = {name[len(PROBE) :]: value for name, value in tensors.items() if name.startswith(PROBE)}
        held = {name: tensors[name] for name in (*BY_MEMBER, "when")}
        words = {name: about[name] for name in ("paradigm", "setting", "open", "seconds")}
        settings, numbers = tuple(about["settings"]), tuple(about.get("numbers", ()))
        return cls(**held, **words, seeds=seeds, probes=probes, settings=settings, numbers=numbers)

    def to_csv(self) -> str:
        """One line for each member, evaluation and task; with its setting where numbers varied."""
        text = io.StringIO()
        write = csv.writer(text, lineterminator="\n").writerow
        varied = any(self.settings)
        write((["setting"] if varied else []) + CSV)
        for s, seed in enumerate(self.seeds):
            for e, (learned, iteration, end, _) in enumerate(self.when.tolist()):
                for t in range(self.tasks):
                    line = [seed, e, learned, iteration, end, t, f"{self.accuracy[s, e, t].item():.6g}"]
                    write([self.settings[s], *line] if varied else line)
        return text.getvalue()


def _check_tensors(tensors: dict[str, Tensor], about: dict[str, Any], where: Path) -> None:
    """Raise RunError where tensors do not fit one another, or hold what no run measures."""
    seeds = len(about["seeds"])
    accuracy = fitting(where, tensors, "accuracy", (seeds, -1, -1))
    evaluations, tasks = accuracy.shape[1:]
    untrained = fitting(where, tensors, "untrained", (seeds, tasks))
    losses = fitting(where, tensors, "losses", (seeds, tasks, -1))
    when = fitting(where, tensors, "when", (evaluations, 4), torch.int64)
    diverged = fitting(where, tensors, "diverged", (seeds, 2), torch.int64)
    probes = {name: value for name, value in tensors.items() if name.startswith(PROBE)}
    sound = {
        "seeds": min(seeds, evaluations, tasks) > 0,
        "settings": len(about["settings"]) in (0, seeds),
        "numbers": all(0 <= task < tasks for task in about.get("numbers", ())),
        "accuracy": not (accuracy.isinf() | (accuracy > 1 + 1e-6)).any(),
        "untrained": not (untrained.isinf() | (untrained > 1 + 1e-6)).any(),
        "when": bool(((when[:, 0] >= 0) & (when[:, 0] < tasks) & (when[:, 1:] >= 0).all(1) & (when[:, 2] <= 1)).all()),
        "diverged": bool((diverged >= -1).all() and (diverged[:, 0] < tasks).all()),
        "losses": losses.shape[2] > 0,
        "seconds": {"training", "evaluation"} <= set(about["seconds"]),
        **{name: _is_of_a_probe(name, value, seeds) for name, value in probes.items()},
    }
    for name, right in sound.items():
        if not right:
            raise RunError(damaged(where, f"its {name[:60]!r} cannot be of a run"))


def _is_of_a_probe(name: str, value: Tensor, seeds: int) -> bool:
    """Whether a tensor is [S, moments, ...]; of few-shot accuracy [S, T, 2, K], of as many k as its name says."""
    if value.ndim < 2 or len(value) != seeds or not value.is_floating_point():
        return False
    if not name.startswith(PROBE + FEW_SHOT):
        return True
    words = name.removeprefix(PROBE + FEW_SHOT).split(",")
    return all(word.isdecimal() and len(word) < 10 for word in words) and value.shape[2:] == (2, len(words))


def _seeds_in_words(seeds: tuple[int | Seed, ...]) -> str:
    """As in "seed 3", "seeds 0 ... 4" or "20 members", where a seed is learned in several settings."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    plain = [seed for seed in seeds if isinstance(seed, int)]
    if plain == list(range(plain[0], plain[0] + len(seeds))) if plain else False:
        return f"seeds {seeds[0]} ... {seeds[-1]}"
    return f"{len(seeds)} {'seeds' if len(set(seeds)) == len(seeds) else 'members'}"


def concatenate(results: list[Result]) -> Result:
    """One result of several chunks of members."""
    first = results[0]
    return replace(
        first,
        **{name: torch.cat([getattr(result, name) for result in results]) for name in BY_MEMBER},
        probes={name: torch.cat([result.probes[name] for result in results]) for name in first.probes},
        seeds=tuple(seed for result in results for seed in result.seeds),
        settings=tuple(words for result in results for words in result.settings),
        seconds={name: sum(result.seconds[name] for result in results) for name in first.seconds},
    )
