"""Few-shot tests: the same episodes for every start, answered after each one's own way of adapting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.meta.stage import Meta, Source, Stage, StageError, Study
from lifelong.model import mixes_rows
from scenarios.episodes import Episode
from scenarios.stream import generator

TOGETHER = 10  # episodes that are answered together


@dataclass(frozen=True)
class Scored:
    """Scores of one start on E episodes [E]: accuracy as a fraction of 1, or in regression the mean square error.

    mode: "transductive" where a task's queries are normalised together, "inductive" where each is answered by itself.
    """

    scores: Tensor
    way: int
    shot: int
    query: int
    mode: str
    answered_by: str

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of the mean over episodes: 1.96 s / sqrt(E)."""
        return 1.96 * float(self.scores.std()) / len(self.scores) ** 0.5


def scored(
    stage: Stage,
    study: Study,
    meta: Meta,
    source: Source,
    *,
    way: int = 0,
    shot: int = -1,
    query: int = 15,
    episodes: int = 600,
    inductive: bool = False,
) -> Scored:
    """Answer E episodes of a source; way and shot default to those of the stage's own tests.

    Episodes are functions of (source, way, shot, query, number) alone, so that starts are compared on the same ones.
    inductive: where the network normalises rows together (batch norm), each query is normalised with the support only.
    """
    together = mixes_rows(study.model)
    way = way or stage.tests_way
    shot = shot if shot >= 0 else stage.tests_shot
    if not study.regression and hasattr(source, "count"):
        query = min(query, int(source.count.min()) - shot)  # type: ignore[union-attr]
    source.check(way, shot, query)
    if not (stage.any_way or study.regression) and way != stage.tests_way:
        raise StageError(
            f"{type(stage).__name__} answers with a head of {stage.tests_way} outputs: --way {stage.tests_way}, not {way}"
        )
    scores = []
    for first in range(0, episodes, TOGETHER):
        count = min(TOGETHER, episodes - first)
        words = ("test episodes", source.hash, way, shot, query, first)
        drawn = source.draw(count, way, shot, query, generator(*words))
        with torch.no_grad():
            scores.append(_scores(stage, study, meta, drawn, way, inductive and together))
    mode = "inductive" if inductive or not together else "transductive"
    return Scored(torch.cat(scores).cpu(), way, shot, query, mode, stage.answered_by)


def _scores(stage: Stage, study: Study, meta: Meta, drawn: Episode, way: int, apart: bool) -> Tensor:
    """Score of each episode [T]."""

    def one(task: Episode) -> Tensor:
        def answer(query: Tensor) -> Tensor:
            return stage.answers(study, meta, task.support_x, task.support_y, query, way)

        if apart:
            answers = torch.func.vmap(lambda x: answer(torch.cat([task.support_x, x[None]]))[-1])(task.query_x)
        else:
            answers = answer(task.query_x)
        if study.regression:
            return (answers - task.query_y).square().mean()
        return (answers.argmax(1) == task.query_y).to(torch.float64).mean()

    if apart:  # many forward passes in each episode: one episode at a time
        return torch.stack([one(Episode(*parts)) for parts in zip(*drawn, strict=True)])
    return torch.func.vmap(one)(drawn)
