"""What a comparison of runs establishes: every two paired over seeds, corrected for their number, and said in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from lifelong.core.result import Result
from lifelong.metrics import Estimate, Metric, NotMeasured, average_accuracy, holm, paired, paired_p
from lifelong.studies.findings import LEVEL

FEWEST = 3  # seeds: from two an interval is so wide (12.7 standard errors) that it says nothing
ROUNDING = 1e-12  # far below a row of any test data, far above what rounding does to a mean
NAMED = 6  # methods that a sentence names one by one; of more the closest, and how far the rest is


class Name(str):
    """A method's name in a sentence."""


Sentence = tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another: mean over the seeds of both; p after Holm's correction.

    p is None where they share too few seeds to say.
    """

    better: str
    worse: str
    value: Estimate
    p: float | None = None

    @property
    def seeds(self) -> int:
        """That both have, and neither lost."""
        return sum(each is not None for each in self.value.per_seed)

    @property
    def established(self) -> bool:
        """Whether chance alone would seldom give it, in all that was looked at."""
        return self.p is not None and self.p < LEVEL

    @property
    def points(self) -> str:
        """As in "74.3 ± 1.6", with as many digits as the mean needs not to read as nothing; too few seeds: the mean alone."""
        digits = next((n for n in (1, 2) if not 0 < 200 * abs(self.value.mean) < 10**-n), 3)
        return (self.value if self.seeds >= FEWEST else Estimate(self.value.mean, None, ())).text(digits)


def differences(results: Mapping[str, Result], metric: Metric = average_accuracy) -> list[Difference]:
    """Each two of some runs in a metric, paired over the seeds that both have; Holm's correction over all of them.

    Over all, as the best is known only from what was measured. Runs without a common seed, or without the metric, have none.
    """
    found = []
    for a, b in combinations(results, 2):
        try:
            value = _without_rounding(paired(metric, results[a], results[b]))
        except NotMeasured:
            continue
        if value.mean == value.mean:
            found.append(Difference(a, b, value) if value.mean >= 0 else Difference(b, a, _turned(value)))
    tested = [difference for difference in found if difference.seeds >= FEWEST]
    gaps = [torch.tensor([each for each in d.value.per_seed if each is not None], dtype=torch.float64) for d in tested]
    corrected = dict(zip(map(id, tested), holm([paired_p(gap) for gap in gaps]), strict=True))
    return [Difference(d.better, d.worse, d.value, corrected.get(id(d))) for d in found]


def _without_rounding(value: Estimate) -> Estimate:
    """Nothing where all seeds differ by what the order of a sum does to its last bit."""
    if all(each is None or abs(each) < ROUNDING for each in value.per_seed):
        none = tuple(None if each is None else 0.0 for each in value.per_seed)
        return Estimate(0 * value.mean, value.half_width and 0.0, none)
    return value


def _turned(value: Estimate) -> Estimate:
    """The difference seen from the other side."""
    return Estimate(-value.mean, value.half_width, tuple(None if each is None else -each for each in value.per_seed))


@dataclass(frozen=True)
class Answer:
    """Sentences in the order of what a reader asks, and how they were found."""

    sentences: tuple[Sentence, ...]
    how: str


def answer(
    found: Sequence[Difference],
    ranked: Sequence[str],
    references: Mapping[str, str],
    plain: str,
    measure: str,
    seeds: int,
) -> Answer:
    """The best against the others, the others against plain fine-tuning, and the best against the references.

    ranked: those that are compared, the best first. references: the paradigm of each. plain: fine-tuning's name, "" where
    it is not among them. seeds: of a run, at most.
    """
    between = {frozenset((d.better, d.worse)): d for d in found}
    best, others = ranked[0], ranked[1:]
    against = [between[frozenset((best, other))] for other in others if frozenset((best, other)) in between]
    if not any(d.p is not None for d in found):
        return Answer((), _too_few(seeds))
    if not any(d.established for d in found):
        return Answer(tuple(_nothing(best, against)), _how(found))
    said = _beats(best, against, measure)
    if plain and plain != best:
        second = [between[pair] for other in others if (pair := frozenset((other, plain))) in between]
        said += _beats_plain(plain, second, any(d.established and d.worse == plain for d in against))
    for other, paradigm in references.items():
        if frozenset((best, other)) in between:
            said.append(_held_against(best, between[frozenset((best, other))], paradigm))
    return Answer(tuple(said), _how(found))


def _too_few(seeds: int) -> str:
    if seeds < FEWEST:
        return f"{seeds} seed{'s are' if seeds != 1 else ' is'} too few to say which is better: run at least {FEWEST}, as in --seeds 5"
    return f"no two methods share {FEWEST} seeds, so that nothing was tested"


UNSURE = ", which is not established"
SHARED = "On the seeds that both have, "  # where fewer than all: there the best of all may be the lesser of two


def _nothing(best: str, against: Sequence[Difference]) -> list[Sentence]:
    """Where nothing is established: which measured highest, and by how little."""
    wins, ties, losses = _sides(best, against)
    if not wins and not ties:
        return [("Nothing is established",), *_below(best, losses)]
    words: list[Sentence] = []
    if wins:
        words.append(("above ", *_each(wins, " points", "worse")))
    if ties:
        words.append(("level with ", *_listed([(Name(_other(best, d)),) for d in ties])))
    return [("Nothing is established. ", Name(best), " measured highest, ", *_listed(words)), *_below(best, losses)]


def _sides(best: str, against: Sequence[Difference]) -> tuple[list[Difference], list[Difference], list[Difference]]:
    """Differences in which the best is above, level, below: the last where runs lack seeds of one another."""
    ties = [d for d in against if d.value.mean == 0]
    rest = [d for d in against if d.value.mean != 0]
    return [d for d in rest if d.better == best], ties, [d for d in rest if d.worse == best]


def _other(best: str, d: Difference) -> str:
    return d.worse if d.better == best else d.better


def _below(best: str, losses: Sequence[Difference]) -> list[Sentence]:
    return [(SHARED, Name(best), " is below ", *_each(losses, " points", "better"), UNSURE)] if losses else []


def _beats(best: str, against: Sequence[Difference], measure: str) -> list[Sentence]:
    """The best and those that it is better than; then those that it is not known to be better than."""
    sure_wins, _, sure_losses = _sides(best, [d for d in against if d.established])
    wins, ties, losses = _sides(best, [d for d in against if not d.established])
    unit = f" points of {measure}"
    lines: list[Sentence] = []
    if sure_wins:
        lines.append((Name(best), " beats ", *_each(sure_wins, unit, "worse")))
    if sure_losses:
        lines.append((SHARED, Name(best), " is beaten by ", *_each(sure_losses, unit, "better")))
    if wins:
        lines.append((Name(best), " is above ", *_each(wins, " points", "worse"), UNSURE))
    if ties:
        lines.append((Name(best), " is level with ", *_listed([(Name(_other(best, d)),) for d in ties])))
    return lines + _below(best, losses)


def _beats_plain(plain: str, second: Sequence[Difference], too: bool) -> list[Sentence]:
    """Which others are better than fine-tuning, or worse, and of which that is not known; too: the best is better."""
    up = [d for d in second if d.established and d.worse == plain]
    down = [d for d in second if d.established and d.better == plain]
    lines: list[Sentence] = []
    if up:
        lines.append((Name(plain), " is also beaten by " if too else " is beaten by ", *_each(up, " points", "better")))
    if down:
        lines.append((Name(plain), " beats ", *_each(down, " points", "worse")))
    rest = [d.better if d.worse == plain else d.worse for d in second if not d.established]
    if rest:
        names = _listed([(Name(name),) for name in rest]) if len(rest) < NAMED else (f"{len(rest)} others",)
        lines.append(("No difference from ", Name(plain), " is established of ", *names))
    return lines


def _held_against(best: str, d: Difference, paradigm: str) -> Sentence:
    other = Name(d.worse if d.better == best else d.better)
    if d.value.mean == 0:
        return (other, " is level with ", Name(best))
    kind = {"joint": ", all tasks at once,", "isolate": ", each task alone,"}.get(paradigm, "")
    side = "above" if d.better == other else "below"
    return (other, f"{kind} is {d.points} points {side} ", Name(best), "" if d.established else UNSURE)


def _each(found: Sequence[Difference], unit: str, side: str) -> Sentence:
    """Names with their differences; of many the closest, and the range of the rest."""
    ordered = sorted(found, key=lambda d: d.value.mean)
    named = ordered if len(ordered) <= NAMED else ordered[: NAMED - 1]
    parts: list[Sentence] = [(Name(getattr(d, side)), f" by {d.points}") for d in named]
    rest = [f"{100 * d.value.mean:.1f}" for d in ordered[len(named) :]]
    if rest:
        parts.append((f"{len(rest)} others by {rest[0]} to {rest[-1]}",))
    return (*_listed(parts), unit)


def _listed(parts: Sequence[Sentence]) -> Sentence:
    """As in "a, b and c"."""
    words: list[str] = []
    for i, part in enumerate(parts):
        words += [" and " if i == len(parts) - 1 else ", "] if i else []
        words += part
    return tuple(words)


def _how(found: Sequence[Difference]) -> str:
    """What was paired and corrected, and how much of it is established."""
    tested = [d for d in found if d.p is not None]
    sure = sum(d.established for d in tested)
    seeds = sorted({d.seeds for d in tested})
    over = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    all_of_them = f"all {len(tested)} comparisons" if len(tested) > 1 else "the one comparison"
    are = f"{sure} of them {'are' if sure != 1 else 'is'} established" if len(tested) > 1 and sure else ""
    words = [
        f"paired over {over}, ± half-width of the 95 % interval",
        f"established: p < {LEVEL} after Holm's correction over {all_of_them}",
        are,
        f"{len(found) - len(tested)} more share fewer than {FEWEST} seeds" if len(found) > len(tested) else "",
    ]
    return "; ".join(filter(None, words))
