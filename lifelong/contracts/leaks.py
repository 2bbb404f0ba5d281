"""What leaks into a meta-learner's answers that should not: other queries, the order of rows, labels by their place."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lifelong.contracts.case import Case, Finding, answers_of
from lifelong.contracts.initialisations import ROUNDING
from lifelong.meta.pretraining import pretrain
from scenarios.episodes import ClassPool, Episode
from scenarios.stream import generator

NOISE = 100  # episodes whose rows tell nothing
DRILL = 30  # iterations in which a method may learn what such episodes give away


def change(before: Tensor, after: Tensor) -> float:
    """The largest difference of two tensors of answers, over the largest answer."""
    return float((before - after).abs().max()) / max(float(before.abs().max()), 1e-12)


def right(answers: Tensor, y: Tensor) -> float:
    """Share of right answers: [T, Q, N] and int64 [T, Q]."""
    return float((answers.argmax(2) == y).to(torch.float64).mean())


def query_leak(case: Case) -> tuple[float, float, float]:
    """By how much answers change when each query is asked alone; accuracy together, and alone (NaN of numbers)."""
    asked = case.asked
    together = case.answers(asked.support, asked.query_x)
    alone = [case.answers(asked.support, asked.query_x[:, q : q + 1]) for q in range(asked.query_x.shape[1])]
    apart = torch.cat(alone, 1)
    if case.tasks.kind == "numbers":
        return change(together, apart), float("nan"), float("nan")
    return change(together, apart), right(together, asked.query_y), right(apart, asked.query_y)


def queries_that_help_each_other(case: Case) -> Finding:
    """The answer to a query is the same whatever is asked beside it."""
    name, (gap, together, alone) = "queries that help each other", query_leak(case)
    if gap <= ROUNDING:
        return Finding(name, "none")
    seen = f"answers move by {100 * gap:.1f} %"
    seen += f"; {100 * together:.0f} % right together, {100 * alone:.0f} % alone" if together == together else ""
    if case.tasks.model.mixes_rows:
        return Finding(name, f"{seen}; expected, the network normalises rows together")
    if case.method.transductive:
        return Finding(name, f"{seen}; declared")
    return Finding(name, seen, "Use the support's rows alone; a transductive method declares `transductive = True`.")


def queries_in_another_order(case: Case) -> Finding:
    """Permuted queries give permuted answers."""
    asked = case.asked
    order = torch.randperm(asked.query_x.shape[1], generator=generator("diagnosis", "order"))
    straight = case.answers(asked.support, asked.query_x)[:, order]
    gap = change(straight, case.answers(asked.support, asked.query_x[:, order]))
    mend = "Answer a query by what it is, not by where it stands."
    return _moved("queries in another order", gap, mend)


def support_in_another_order(case: Case) -> Finding:
    """The support's order does not matter, unless that is declared."""
    asked = case.asked
    order = torch.randperm(asked.support_x.shape[1], generator=generator("diagnosis", "order"))
    rows = [tree_map(lambda leaf: leaf[:, order], part) for part in asked.support[:3]]
    permuted = asked.support._replace(x=rows[0], y=rows[1], weight=rows[2])
    gap = change(case.answers(asked.support, asked.query_x), case.answers(permuted, asked.query_x))
    mend = (
        ""
        if case.method.ordered
        else "Take means or sums over the support; a sequence learner declares `ordered = True`."
    )
    return _moved("support in another order", gap, mend, "; declared" if case.method.ordered else "")


def _moved(name: str, gap: float, mend: str, more: str = "") -> Finding:
    if gap <= ROUNDING:
        return Finding(name, "same answers")
    return Finding(name, f"answers move by {100 * gap:.1f} %{more}", mend)


def right_by_order(case: Case) -> dict[str, tuple[float, float]]:
    """Accuracy where rows are noise, after learning from such, and what luck alone may reach, for each way to draw them:
    "at random", as tasks are drawn; "class by class", sorted by label; "as it draws them" by its own `draw`."""
    pool = case.tasks.train
    assert isinstance(pool, ClassPool)
    x = torch.randn(pool.dataset.x.shape, generator=generator("diagnosis", "noise"), dtype=case.tasks.dtype)
    noise = replace(pool, dataset=replace(pool.dataset, x=x))
    tasks, method = replace(case.tasks, train=noise, validation=noise), replace(case.method, iterations=DRILL)
    meta = pretrain(method, tasks, (0,), episodes=0).of(0)
    drawn = noise.draw(NOISE, method.tests_way, max(method.tests_shot, 2), 4, generator("diagnosis", "rows"))
    ways = {"at random": drawn, "class by class": class_by_class(drawn)}
    if method.episodic and "tasks" in {field.name for field in fields(method)}:
        seen = replace(method, tasks=NOISE).draw(tasks, generator("diagnosis", "its rows"))
        if isinstance(seen, Episode) and seen.classes.shape[1] == method.tests_way:
            ways["as it draws them"] = seen
    chance, found = 1 / method.tests_way, {}
    for words, episode in ways.items():
        limit = chance + 5 * (chance * (1 - chance) / episode.query_y.numel()) ** 0.5
        found[words] = (
            right(answers_of(method, tasks, meta, episode.support, episode.query_x), episode.query_y),
            limit,
        )
    return found


def class_by_class(episode: Episode) -> Episode:
    """The same episode, its support and its queries sorted by label, as a sampler that shuffles nothing leaves them."""
    place = torch.arange(len(episode.query_y))[:, None]
    parts = {}
    for part in ("support", "query"):
        order = torch.sort(getattr(episode, f"{part}_y"), dim=1, stable=True).indices
        for name in (f"{part}_x", f"{part}_y", f"{part}_weight"):
            parts[name] = tree_map(lambda leaf, order=order: leaf[place, order], getattr(episode, name))
    return episode._replace(**parts)


def labels_told_by_order(case: Case) -> Finding:
    """Where rows are noise, nobody is right more often than by luck, whatever the order of the rows."""
    name = "labels told by order"
    if not isinstance(case.tasks.train, ClassPool):
        return Finding(name, "not compared: its tasks are not drawn from classes of rows")
    found = right_by_order(case)
    words, (accuracy, limit) = max(found.items(), key=lambda item: item[1][0] - item[1][1])
    seen = f"{100 * accuracy:.0f} % right of noise, {words}; by luck {100 / case.method.tests_way:.0f} %"
    mend = "A row's place says which class it is of: shuffle the rows in `draw`, and answer by rows and labels alone."
    return Finding(name, seen, mend if accuracy > limit else "")
