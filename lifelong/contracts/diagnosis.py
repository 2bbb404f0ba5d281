"""What `lifelong check` says of a meta-learner beside its contract: where its gradient comes from, and what leaks.

A diagnosis is a function of a `Case`, a method on the contract's small tasks, and gives a `Finding`. The contract says
whether a promise holds; a finding says how much, and is given also where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_leaves, tree_map, tree_unflatten

from lifelong.contracts.initialisations import POINTS, ROUNDING, STEP, tasks_for
from lifelong.contracts.learners import classes_of
from lifelong.contracts.peak_memory import peak_bytes
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationLearner, Meta
from lifelong.meta.pretraining import pretrain
from lifelong.notation.user_code import file_of, user_line, words_of
from scenarios.brief import in_brief
from scenarios.episodes import ClassPool, Episode, Support
from scenarios.errors import ConfigurationError
from scenarios.stream import generator

ASKED = 20  # episodes that are answered
NOISE = 100  # episodes whose rows tell nothing
DRILL = 30  # iterations in which a method may learn what such episodes give away
WRONG = 1e-5  # of a gradient's largest entry: from here on a gap is no rounding of differences
ROUNDED = 1e-15  # of a loss: what its last digits are worth
NOTHING = 1e-12  # of the largest gradient


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: what was looked at, what was seen, how to mend it ("" where nothing is wrong)."""

    name: str
    seen: str
    mend: str = ""


@dataclass(frozen=True)
class Case:
    """A meta-learner in a small size, the tasks that it is tried on, what it learned of them, and some episodes.

    meta: after a few iterations, so that what starts at 0 has moved.
    """

    method: InitialisationLearner
    tasks: TaskDistribution
    meta: Meta
    __repr__ = in_brief

    @cached_property
    def drawn(self) -> Any:
        """What an iteration learns from."""
        return self.method.draw(self.tasks, generator("diagnosis", "drawn"))

    @property
    def halfway(self) -> Tensor:
        """The outer loop's progress."""
        return torch.tensor(0.5, dtype=self.tasks.dtype, device=self.tasks.device)

    def loss(self, meta: Meta) -> Tensor:
        """What an iteration minimises."""
        return self.method.loss(self.tasks, meta, self.drawn, self.halfway)

    @cached_property
    def gradient(self) -> Meta:
        """Its gradient, as the method takes it."""
        return self.gradient_by(self.method)

    def gradient_by(self, method: InitialisationLearner) -> Meta:
        """The gradient on the same episodes by another setting of the method."""
        return method.gradient(self.tasks, self.meta, self.drawn, self.halfway)[1]

    @cached_property
    def error(self) -> tuple[float, str]:
        """How far its gradient is from its loss's, by differences, and where: see `gradient_error`."""
        return gradient_error(self)

    @cached_property
    def asked(self) -> Episode:
        """Episodes as it is tested on them."""
        method = self.method
        shot = max(method.tests_shot, 2)
        return self.tasks.validation.draw(ASKED, method.tests_way, shot, 3, generator("diagnosis", "asked"))

    def answers(self, support: Support, query: Tensor) -> Tensor:
        """Scores [T, Q, N] of the queries of T tasks."""
        return answers_of(self.method, self.tasks, self.meta, support, query)


def answers_of(
    method: InitialisationLearner, tasks: TaskDistribution, meta: Meta, support: Support, query: Tensor
) -> Tensor:
    """Scores [T, Q, N] of the queries of T tasks."""

    def of_task(support: Support, query: Tensor) -> Tensor:
        return method.predict(tasks, meta, support, query, method.tests_way)

    with torch.no_grad():  # some tasks at a time: a method may hold all pairs of rows of each
        pieces = [
            tree_map(lambda leaf, i=i: leaf[i : i + ASKED], (support, query)) for i in range(0, len(query), ASKED)
        ]
        return torch.cat([torch.func.vmap(of_task)(*piece) for piece in pieces])


def case_of(subject: InitialisationLearner, tasks: TaskDistribution | None = None) -> Case:
    """A method in its small size, after a few iterations on the contract's tasks or on others."""
    tasks, small = tasks or tasks_for(subject), subject.small()
    return Case(small, tasks, pretrain(small, tasks, (0,), episodes=0).of(0))


# --- the gradient -----------------------------------------------------------------------------------------------------


def gradient_error(case: Case) -> tuple[float, str]:
    """The largest gap between gradient and central differences of the loss, over the leaf's largest entry; and its leaf.

    Some random places of each leaf are tried, and that of the largest entry. At a kink, where the slopes to both sides
    differ, any number between them is right.
    """
    slopes, loss = tree_leaves(case.gradient), abs(float(case.loss(case.meta)))
    least = ROUNDED * loss / (STEP * WRONG) or 1.0  # what differences of such a loss cannot tell from 0
    random, worst = generator("diagnosis", "coordinates"), (0.0, "")
    for place, (slope, name) in enumerate(zip(slopes, names(case.meta), strict=True)):
        points = torch.randint(slope.numel(), (POINTS,), generator=random).tolist()
        size = max(float(slope.abs().max()), least)
        for at in {*points, int(slope.abs().argmax())}:
            exact = float(slope.flatten()[at])
            below, above = one_sided(case, place, at, STEP)
            gap = abs((below + above) / 2 - exact) / size
            if gap > WRONG:  # unless a kink lies in between: nearer still, or at the very point
                near = [sorted((below, above)), sorted(one_sided(case, place, at, STEP / 10))]
                gap = min(max(low - exact, exact - high, 0.0) for low, high in near) / size
            worst = max(worst, (gap, name))
    return worst


def one_sided(case: Case, place: int, at: int, step: float) -> tuple[float, float]:
    """The loss's slopes below and above the value of one entry of one leaf."""
    leaves, spec = tree_flatten(case.meta)
    shift = torch.zeros_like(leaves[place]).flatten()
    shift[at] = step
    moved = [
        [*leaves[:place], leaves[place] + sign * shift.view(leaves[place].shape), *leaves[place + 1 :]]
        for sign in (-1, 0, 1)
    ]
    low, middle, high = (float(case.loss(tree_unflatten(ends, spec))) for ends in moved)
    return (middle - low) / step, (high - middle) / step


def names(meta: Meta) -> list[str]:
    """What each tensor of a tree is called, as in net.layer0.weight."""
    found = [keystr(path) for path, _ in tree_flatten_with_path(meta)[0]]
    return [
        path.replace("']['", ".").replace("['", "").replace("']", "").replace("[", ".").replace("]", "")
        for path in found
    ]


def states_a_loss(case: Case) -> bool:
    """Whether the method says what it minimises; one that differentiates nothing may leave a loss that it never calls."""
    try:
        case.loss(case.meta)
    except Exception as error:
        if isinstance(error, NotImplementedError) or not case.method.differentiates:
            return False
        raise
    return True


def gradient_against_differences(case: Case) -> Finding:
    """Its gradient is that of its loss, by central differences in float64."""
    name = "gradient against differences"
    if not states_a_loss(case):
        return Finding(name, "not compared: it states no loss")
    gap, place = case.error
    size = f"{gap:.1e}" if gap < 0.01 else f"{100 * gap:.0f} %"
    seen = f"off by {size} of the largest entry" + (f", at {place}" if gap > WRONG else "")
    if not case.method.differentiates:
        return Finding(name, f"{seen}; it declares another gradient than its loss's")
    mend = "Something cuts the gradient: look for detach, create_graph=False, no_grad, argmax or .item()."
    return Finding(name, seen, mend if gap > WRONG else "")


@contextmanager
def inner_gradients_as_constants() -> Iterator[list[int]]:
    """Every gradient that is taken meanwhile, by torch.func or torch.autograd, is a constant to what surrounds it.

    The functions of torch.func take theirs by torch.autograd.grad; the outermost loses nothing by it. Gives a list that
    grows by one entry with each.
    """
    derive, taken = torch.autograd.grad, []

    def constant(*inputs: Any, **options: Any) -> Any:
        taken.append(1)
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, derive(*inputs, **options))

    torch.autograd.grad = constant
    try:
        yield taken
    finally:
        torch.autograd.grad = derive


def takes_inner_gradients(case: Case) -> bool:
    """Whether its loss, evaluated and not differentiated, takes gradients."""
    with inner_gradients_as_constants() as taken:
        case.loss(case.meta)
    return bool(taken)


def first_order_gradient(case: Case) -> Meta:
    """The gradient with inner gradients as constants: by the method's own `order`, else by cutting every inner one."""
    known = {field.name for field in fields(case.method)}
    if "order" in known:
        return case.gradient_by(replace(case.method, order=1))
    plain = replace(case.method, cached=False) if "cached" in known else case.method  # a shortcut takes no gradients
    with inner_gradients_as_constants():
        return case.gradient_by(plain)


def second_order_shares(case: Case) -> dict[str, float]:
    """|g - g_first| / |g| of each layer, g the gradient through the inner steps and g_first with their own as constants.

    A method that says order=1 is differentiated in full for it.
    """
    ordered = "order" in {field.name for field in fields(case.method)}
    full = case.gradient_by(replace(case.method, order=2)) if ordered else case.gradient
    squares: dict[str, list[float]] = {}
    for name, g, first in zip(names(full), tree_leaves(full), tree_leaves(first_order_gradient(case)), strict=True):
        layer = name.removeprefix("net.").rpartition(".")[0] or name
        sums = squares.setdefault(layer, [0.0, 0.0])
        sums[0] += float((g - first).square().sum())
        sums[1] += float(g.square().sum())
    largest = max(total for _, total in squares.values())
    return {layer: (part / total) ** 0.5 for layer, (part, total) in squares.items() if total > NOTHING**2 * largest}


def second_order_share(case: Case) -> Finding:
    """How much of the gradient comes through the inner steps; nothing, though they are there, is a missing graph."""
    name = "second order's share"
    if not states_a_loss(case):
        return Finding(name, "not compared: it states no loss")
    shares = second_order_shares(case)
    if max(shares.values(), default=0.0) > ROUNDING:
        declared = "" if case.method.differentiates else "; it goes without"
        return Finding(name, ", ".join(f"{layer} {100 * s:.0f} %" for layer, s in shares.items()) + declared)
    if not takes_inner_gradients(case):
        return Finding(name, "none: it takes no inner gradients")
    if case.method.differentiates and case.error[0] > WRONG:
        seen = "none, and its loss has one: the graph through the inner steps is missing"
        mend = "Keep the graph (create_graph=True, no detach), or declare it: `differentiates` is False."
        return Finding(name, seen, mend)
    return Finding(name, "none: nothing of its inner steps reaches the loss twice")


def unreached(case: Case) -> list[str]:
    """The tensors of what is learned whose gradient is 0 everywhere."""
    sizes = [float(slope.abs().max()) for slope in tree_leaves(case.gradient)]
    return [name for name, size in zip(names(case.meta), sizes, strict=True) if size <= NOTHING * max(sizes)]


def parameters_without_gradient(case: Case) -> Finding:
    """Every tensor that is learned is reached by the loss."""
    name, found = "parameters without gradient", unreached(case)
    if found and all(place.startswith("net.head.") for place in found):
        return Finding(name, f"{', '.join(found)}: it answers without the network's head")
    mend = "Nothing learns them: use them in the loss, leave them out of `init`, or look for detach before them."
    return Finding(name, ", ".join(found) or "none", mend if found else "")


# --- what leaks -------------------------------------------------------------------------------------------------------


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


# --- memory -----------------------------------------------------------------------------------------------------------


def bytes_of_inner_step(case: Case) -> int:
    """Bytes that one more inner step adds to the peak of a meta-gradient; for methods with a field `steps`."""
    tasks = case.tasks.to("meta")
    peaks = []
    for steps in (2, 4):
        method = replace(case.method, steps=steps)
        meta, drawn = tree_map(lambda leaf: leaf.to("meta"), (case.meta, method.draw(case.tasks, generator("step"))))
        peaks.append(peak_bytes(lambda m=method, p=meta, d=drawn: m.gradient(tasks, p, d, case.halfway.to("meta"))))
    return (peaks[1] - peaks[0]) // 2


def memory_of_inner_step(case: Case) -> Finding:
    """What one more inner step costs."""
    name = "memory of one more inner step"
    if "steps" not in {field.name for field in fields(case.method)}:
        return Finding(name, "not compared: it has no `steps`")
    size, weights = bytes_of_inner_step(case), sum(leaf.nbytes for leaf in tree_leaves(case.meta))
    return Finding(name, f"{size:,} bytes, {size / weights:.1f} times what is learned" if size > 0 else "none")


DIAGNOSES: tuple[Callable[[Case], Finding], ...] = (
    gradient_against_differences,
    second_order_share,
    parameters_without_gradient,
    queries_that_help_each_other,
    queries_in_another_order,
    support_in_another_order,
    labels_told_by_order,
    memory_of_inner_step,
)


def diagnose(subject: InitialisationLearner, tasks: TaskDistribution | None = None) -> Iterator[Finding]:
    """Every diagnosis of a method, one after another; one that breaks says how."""
    try:
        case = case_of(subject, tasks)
    except Exception as error:  # a user's method may raise anything; its contract says the same
        yield Finding("it learns at all", _broken(error, subject), "Mend what the contract says first.")
        return
    for look in DIAGNOSES:
        try:
            yield look(case)
        except Exception as error:
            yield Finding(
                look.__name__.replace("_", " "), _broken(error, subject), "It breaks on the contract's tasks."
            )


def _broken(error: Exception, subject: InitialisationLearner) -> str:
    if isinstance(error, ConfigurationError):
        return str(error)
    path = next(filter(None, map(file_of, classes_of(subject))), "")
    return (user_line(error, path) if path else words_of(error))[:300]
