"""Few-shot tests: the same episodes for every start, answered after each one's own way of adapting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.episodic import in_chunks
from lifelong.meta.initialisation_learner import InitialisationError, InitialisationLearner, Meta
from lifelong.metrics import estimate
from scenarios.brief import in_brief
from scenarios.episodes import Episode, TaskSource
from scenarios.stream import generator

DRAWN = 10  # episodes that are drawn together
# images that pass through a network together, more would not fit a processor's cache and take up to twice as long: in
# all, and where each query is answered beside a support of its own
TOGETHER, APART = 512, 128
MOST_EPISODES = 1_000_000  # intervals shrink no further that anybody could see
Tell = Callable[[int, int], None]  # episodes that were answered, and how many there will be


@dataclass(frozen=True)
class Scored:
    """Scores of one start on E episodes [E]: accuracy as a fraction of 1, or the mean square error of numbers.

    mode: "transductive" where a task's queries are normalised together, "inductive" where each is answered by itself.
    """

    scores: Tensor
    way: int
    shot: int
    query: int
    mode: str
    answered_by: str
    __repr__ = in_brief

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean over episodes; none of one episode."""
        return estimate(self.scores).half_width


def scored(
    method: InitialisationLearner,
    distribution: TaskDistribution,
    meta: Meta,
    source: TaskSource,
    *,
    way: int = 0,
    shot: int = -1,
    query: int = 15,
    episodes: int = 600,
    inductive: bool = False,
    tell: Tell = lambda done, wanted: None,
) -> Scored:
    """Answer E episodes of a source; way and shot default to those of the method's own tests.

    Episodes are functions of (source, way, shot, query, number) alone, so that starts are compared on the same ones.
    inductive: where the network normalises rows together (batch norm), each query is normalised with the support only,
    whose rows count once, whether the method passes them beside the queries (`together`) or not.
    """
    if not 1 <= episodes <= MOST_EPISODES:
        raise InitialisationError(f"episodes={episodes}: a test takes 1 to {MOST_EPISODES:,} episodes")
    together = distribution.model.mixes_rows
    way = way or method.tests_way
    if shot > 0 and method.described and not method.tests_shot:
        raise InitialisationError(f"{type(method).__name__} looks at no support: --shot 0, not {shot}")
    shot = shot if shot >= 0 else method.tests_shot
    if way < 2:
        raise InitialisationError(f"way={way}: a test tells at least 2 classes apart")
    query = source.queries(shot, query)
    source.check(way, shot, query)
    if not method.any_way and source.outputs(way) != source.outputs(method.tests_way):
        name, outputs = type(method).__name__, method.tests_way
        raise InitialisationError(f"{name} answers with a head of {outputs} outputs: --way {outputs}, not {way}")
    scores, answer = [], _apart if inductive and together else _together
    tell(0, episodes)
    for first in range(0, episodes, DRAWN):
        count = min(DRAWN, episodes - first)
        words = ("test episodes", source.hash, way, shot, query, first)
        drawn = source.draw(count, way, shot, query, generator(*words))
        with torch.no_grad():
            for piece in answer(method, distribution, meta, drawn, way):
                scores.append(piece.cpu())
                tell(sum(map(len, scores)), episodes)
    mode = "inductive" if inductive or not together else "transductive"
    return Scored(torch.cat(scores), way, shot, query, mode, method.answered_by)


def _together(
    method: InitialisationLearner, distribution: TaskDistribution, meta: Meta, drawn: Episode, way: int
) -> Iterator[Tensor]:
    """The scores [T] of some tasks at a time, all queries of each answered together."""

    def of_task(task: Episode) -> Tensor:
        answers = method.predict(distribution, meta, task.support, task.query_x, way)
        return distribution.score(answers, task.query_y, task.query_weight)

    for piece in in_chunks(drawn, max(1, TOGETHER // (drawn.support_x.shape[1] + drawn.query_x.shape[1]))):
        yield torch.func.vmap(of_task)(piece)


def _apart(
    method: InitialisationLearner, distribution: TaskDistribution, meta: Meta, drawn: Episode, way: int
) -> Iterator[Tensor]:
    """The score [1] of one task after another, each query answered beside the support alone.

    The support is adapted to once. Queries pass in pieces that fit a processor's cache: all of a 20-way task at once
    would be thousands of images.
    """
    for place in range(len(drawn.support_x)):
        task = drawn.task(place)
        support = task.support
        adapted = method.adapt(distribution, meta, support, way)

        def answer(row: Tensor, support=support, adapted=adapted) -> Tensor:
            queries = row[None] if method.together else torch.cat([support.x, row[None]])
            return method.query_scores(distribution, adapted, support, queries, way)[-1]

        size = max(1, APART // (len(support.y) + 1))
        answers = torch.cat([torch.func.vmap(answer)(piece) for piece in task.query_x.split(size)])
        yield distribution.score(answers, task.query_y, task.query_weight)[None]
