"""The contract of initialisations and of task sources: what each must pass, ours and yours."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lifelong.contracts.learners import Check, CheckFailed, equal, outcome
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.files import load_tree, save_tree
from lifelong.meta.initialisation_learner import InitialisationLearner, Meta
from lifelong.meta.pretraining import pretrain
from lifelong.models.base import Model, Net
from lifelong.notation import expression
from scenarios.descriptors import described_blobs
from scenarios.episodes import Episode, Sines, TaskSource, class_pool
from scenarios.stream import generator
from scenarios.synthetic import blobs

DOUBLE = torch.float64
ROUNDING = 1e-9  # by which sums over rows in another order may differ, of scores around 1
STEP = 1e-5  # of central differences
POINTS = 6  # coordinates that are differentiated


def tasks_for(subject: InitialisationLearner) -> TaskDistribution:
    """A distribution of milliseconds that the subject takes: Gaussian clouds to tell apart, or sine waves."""
    if "classes" not in subject.kinds:
        return TaskDistribution(subject.checked_with, Sines(), Sines(), DOUBLE)
    if subject.described:
        pool = described_blobs(18, 6, 4)
        return TaskDistribution(subject.checked_with, pool.some(0, 12), pool.some(12, 18), DOUBLE)
    dataset = blobs(12, 6, 30)
    return TaskDistribution(
        subject.checked_with, class_pool(dataset, part="train"), class_pool(dataset, part="test"), DOUBLE
    )


def _started(subject: InitialisationLearner) -> tuple[InitialisationLearner, TaskDistribution, Meta]:
    """A subject of small size, its tasks, and what it learned in a few iterations."""
    small, tasks = subject.small(), tasks_for(subject)
    return small, tasks, pretrain(small, tasks, (0,), episodes=0).of(0)


def _asked(small: InitialisationLearner, tasks: TaskDistribution) -> tuple[Episode, int]:
    """An episode of the size that it is tested on."""
    way, shot = small.tests_way, max(small.tests_shot, 2)
    return tasks.validation.draw(1, way, shot, 2, generator("contract", "asked")).task(0), way


def repr_round_trips(subject: InitialisationLearner) -> None:
    """Its repr is the text that builds it."""
    if expression.parse(repr(subject), "initialisations") != subject:
        raise CheckFailed(f"{subject!r} does not come back from its own text")


def state_is_kept(subject: InitialisationLearner) -> None:
    """What it learns comes back from a file as it was: the same tree, the same types, the same bits."""
    small, tasks = subject.small(), tasks_for(subject)
    for meta in (pretrain(replace(small, iterations=1), tasks, (0, 1), episodes=0).meta, _begun(small, tasks)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "start.safetensors"
            save_tree(path, meta, {})
            again, _ = load_tree(path)
        before, after = tree_flatten(meta), tree_flatten(again)
        if before[1] != after[1]:
            raise CheckFailed("what is learned comes back from its file as another tree")
        if [leaf.dtype for leaf in before[0]] != [leaf.dtype for leaf in after[0]]:
            raise CheckFailed("what is learned comes back from its file with other dtypes")
        equal(meta, again, "what is learned and what comes back from its file")


def _begun(small: InitialisationLearner, tasks: TaskDistribution) -> Meta:
    return small.init(tasks, generator("contract", "start"))


def queries_in_any_order(subject: InitialisationLearner) -> None:
    """Permuted queries give permuted answers."""
    small, tasks, meta = _started(subject)
    episode, way = _asked(small, tasks)
    order = torch.randperm(len(episode.query_y), generator=generator("contract", "order"))
    with torch.no_grad():
        straight = small.predict(tasks, meta, episode.support, episode.query_x, way)
        permuted = small.predict(tasks, meta, episode.support, episode.query_x[order], way)
    equal(straight[order], permuted, "answers to queries in another order", ROUNDING * _size(straight))


def support_in_any_order(subject: InitialisationLearner) -> None:
    """Unless declared, answers do not depend on the order of the support."""
    if subject.ordered:
        return
    small, tasks, meta = _started(subject)
    episode, way = _asked(small, tasks)
    order = torch.randperm(len(episode.support_y), generator=generator("contract", "order"))
    support = episode.support._replace(x=episode.support_x[order], y=episode.support_y[order])
    with torch.no_grad():
        straight = small.predict(tasks, meta, episode.support, episode.query_x, way)
        permuted = small.predict(tasks, meta, support, episode.query_x, way)
    equal(straight, permuted, "answers after a support in another order", ROUNDING * _size(straight))


def queries_do_not_help_each_other(subject: InitialisationLearner) -> None:
    """Unless declared, the answer to a query is the same whatever is asked beside it."""
    if subject.transductive:
        return
    small, tasks, meta = _started(subject)
    episode, way = _asked(small, tasks)
    with torch.no_grad():
        together = small.predict(tasks, meta, episode.support, episode.query_x, way)
        alone = [small.predict(tasks, meta, episode.support, row[None], way) for row in episode.query_x]
    equal(together, torch.cat(alone), "answers to queries together and alone", ROUNDING * _size(together))


class _Counting:
    """A network that notes how many rows each pass has."""

    def __init__(self, model: Model) -> None:
        self.model, self.rows = model, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def features(self, net: Net, x: Tensor, *words: Any, **named: Any) -> Tensor:
        """The network's own."""
        self.rows.append(len(x))
        return self.model.features(net, x, *words, **named)


def support_passes_as_declared(subject: InitialisationLearner) -> None:
    """The support passes through the network beside the queries, in one batch, where that is declared, and only there."""
    small, tasks, meta = _started(subject)
    if tasks.kind != "classes":
        return
    episode, way = _asked(small, tasks)
    counting = _Counting(tasks.model)
    with torch.no_grad():
        adapted = small.adapt(tasks, meta, episode.support, way)
        small.query_scores(replace(tasks, model=counting), adapted, episode.support, episode.query_x, way)
    beside = len(episode.support_y) + len(episode.query_y) in counting.rows
    if beside != small.together:
        raise CheckFailed(f"declared together = {small.together}, and its passes have {counting.rows} rows")


def order_leaks_nothing(subject: InitialisationLearner) -> None:
    """Unless declared, the loss is the same when the rows of the episodes that it learns from stand in another order."""
    if subject.ordered or not subject.episodic or not subject.differentiates:
        return
    small, tasks, meta = _started(subject)
    drawn = small.draw(tasks, generator("contract", "drawn"))
    parts = {}
    for part in ("support", "query"):
        count = getattr(drawn, f"{part}_x").shape[1]
        order = torch.randperm(count, generator=generator("contract", "order", part))
        for name in (f"{part}_x", f"{part}_y", f"{part}_weight"):
            parts[name] = tree_map(lambda leaf, order=order: leaf[:, order], getattr(drawn, name))
    straight = small.loss(tasks, meta, drawn, _half())
    permuted = small.loss(tasks, meta, drawn._replace(**parts), _half())
    equal(
        straight, permuted, "losses of the same episodes with their rows in another order", ROUNDING * _size(straight)
    )


def alone_is_fleet(subject: InitialisationLearner) -> None:
    """Seed 3 alone and beside others learns the same, in float64."""
    small, tasks = subject.small(), tasks_for(subject)
    alone, fleet = (pretrain(small, tasks, seeds, episodes=0).meta for seeds in ((3,), (1, 3)))
    equal(alone, tree_map(lambda leaf: leaf[1:], fleet), "what a seed learns alone and in a fleet", 1e-12)


def gradient_is_the_losss(subject: InitialisationLearner) -> None:
    """The gradient is finite, shaped like what is learned, and that of the loss by central differences, in float64."""
    small, tasks = subject.small(), tasks_for(subject)
    meta, drawn = _begun(small, tasks), small.draw(tasks, generator("contract", "drawn"))
    loss, gradient = small.gradient(tasks, meta, drawn, _half())
    (leaves, spec), (slopes, other) = tree_flatten(meta), tree_flatten(gradient)
    if spec != other or [leaf.shape for leaf in leaves] != [slope.shape for slope in slopes]:
        raise CheckFailed("its gradient is not shaped like what is learned")
    if not all(bool(value.isfinite().all()) for value in (loss, *slopes)):
        raise CheckFailed("its loss or its gradient is not finite")
    if not small.differentiates:
        return
    random = generator("contract", "coordinates")
    for place, (leaf, slope) in enumerate(zip(leaves, slopes, strict=True)):
        for _ in range(min(POINTS, leaf.numel())):
            at = int(torch.randint(leaf.numel(), (1,), generator=random))
            shift = torch.zeros_like(leaf).flatten()
            shift[at] = STEP
            moved = [[*leaves[:place], leaf + sign * shift.view(leaf.shape), *leaves[place + 1 :]] for sign in (1, -1)]
            ends = [float(small.loss(tasks, tree_unflatten(leaves, spec), drawn, _half())) for leaves in moved]
            numeric, exact = (ends[0] - ends[1]) / (2 * STEP), float(slope.flatten()[at])
            if not abs(numeric - exact) <= 1e-6 * max(1.0, abs(exact)):
                raise CheckFailed(f"its gradient says {exact:.6g} where its loss has the slope {numeric:.6g}")


def follows_its_device(subject: InitialisationLearner) -> None:
    """Every verb runs where the tasks lie: on the meta device, where a stray tensor or a value read back shows."""
    small, tasks = subject.small(), tasks_for(subject).to("meta")
    meta, drawn = _begun(small, tasks), small.draw(tasks, generator("contract", "drawn"))
    loss, gradient = small.gradient(tasks, meta, drawn, _half().to("meta"))
    episode = tasks.train.draw(1, small.tests_way, max(small.tests_shot, 2), 2, generator("contract", "asked")).task(0)
    scores = small.predict(tasks, small.project(meta), episode.support, episode.query_x, small.tests_way)
    strays = [leaf for leaf in tree_flatten((meta, drawn, loss, gradient, scores))[0] if leaf.device.type != "meta"]
    if strays:
        raise CheckFailed(f"of tasks on another device it makes {len(strays)} tensors on the processor")


def _half() -> Tensor:
    return torch.tensor(0.5, dtype=DOUBLE)


def _size(values: Tensor) -> float:
    return max(1.0, float(values.detach().abs().max()))


INITIALISATION_CHECKS = (
    Check(
        "its repr builds it again", repr_round_trips, "Make it a @dataclass(frozen=True) whose fields are plain values."
    ),
    Check(
        "what it learns is saved and loaded to the bit",
        state_is_kept,
        "Hold it in dict, tuple, list and tensors; keys are text.",
    ),
    Check(
        "alone and in a fleet it learns the same",
        alone_is_fleet,
        "Keep all state in meta, and draw random numbers from the generator of `draw` alone.",
    ),
    Check(
        "its gradient is finite, and that of its loss",
        gradient_is_the_losss,
        "Look for detach and for choices by value; where `gradient` is meant to be another, say so in `differentiates`.",
    ),
    Check(
        "it runs where its tasks lie",
        follows_its_device,
        "Make tensors on distribution.device, and take no Python decision on the value of one.",
    ),
    Check(
        "permuted queries give permuted answers",
        queries_in_any_order,
        "Answer a query by what it is, not by where it stands.",
    ),
    Check(
        "the order of the support does not matter",
        support_in_any_order,
        "Take means or sums over the support; a sequence learner declares `ordered = True`.",
    ),
    Check(
        "queries do not help each other",
        queries_do_not_help_each_other,
        "Use the support's rows alone; a transductive method declares `transductive = True`.",
    ),
    Check(
        "the support passes beside the queries as declared",
        support_passes_as_declared,
        "Declare `together = True` where `query_scores` passes both in one batch: batch norm then needs no other rows in tests.",
    ),
    Check(
        "the order of an episode's rows leaks nothing",
        order_leaks_nothing,
        "Do not count on rows that stand class by class: labels say which class a row is of.",
    ),
)


def check_initialisation(subject: InitialisationLearner) -> Iterator[tuple[str, str, str]]:
    """The contract on one initialisation: (check, what was seen or "", how to mend it), one after another."""
    for check in INITIALISATION_CHECKS:
        yield check.name, outcome(check, subject), check.mend


# --- task sources -------------------------------------------------------------------------------------------------


EPISODES = 400


def places_tell_no_label(source: TaskSource) -> None:
    """Who answers by a row's place in its episode, and never looks at it, is right as often as chance."""
    if source.kind != "classes":
        return
    way, query = min(5, source.outputs(len(source))), 4
    drawn = source.draw(EPISODES, way, 1, query, generator("contract", "places"))
    way = drawn.classes.shape[1]
    for name, y in (("support", drawn.support_y), ("query", drawn.query_y)):
        first, second = y.split(EPISODES // 2)  # the best answer for each place by one half, scored on the other
        counts = (first[..., None] == torch.arange(way, device=y.device)).sum(0)  # [R, N]
        right = (second == counts.argmax(1)).to(DOUBLE).mean()
        chance = 1 / way
        limit = 5 * (chance * (1 - chance) / second.numel()) ** 0.5
        if float(right) > chance + limit:
            raise CheckFailed(
                f"answering by the place of {name} rows alone is right in {100 * float(right):.0f} % of them"
            )


def classes_get_every_label(source: TaskSource) -> None:
    """Which of an episode's labels a class bears is chance: over many episodes it bears each as often."""
    if source.kind != "classes":
        return
    drawn = source.draw(EPISODES, min(5, source.outputs(len(source))), 1, 1, generator("contract", "labels"))
    way = drawn.classes.shape[1]
    number = drawn.classes.to(DOUBLE)  # classes are numbered: their mean at each label is that at any other
    spread, count = float(number.std()), len(number)
    gap = float((number.mean(0) - number.mean()).abs().max())
    if gap > 5 * spread / count**0.5:
        raise CheckFailed(f"classes of larger numbers tend to bear other labels of the {way}")


def source_is_a_function_of_its_generator(source: TaskSource) -> None:
    """The same words give the same episodes."""
    size = (2, min(3, source.outputs(len(source))), 1, 1)
    a, b = (source.draw(*size, generator("contract", "again")) for _ in range(2))
    equal(a, b, "two draws of the same words")


SOURCE_CHECKS = (
    Check("a row's place tells nothing of its label", places_tell_no_label, "Order rows by `shuffled` in `draw`."),
    Check("a class bears every label", classes_get_every_label, "Number the classes of an episode at random."),
    Check(
        "the same words give the same episodes",
        source_is_a_function_of_its_generator,
        "Draw from the generator that `draw` is given, not from a global one.",
    ),
)


def check_source(source: TaskSource) -> Iterator[tuple[str, str, str]]:
    """The contract on one source of tasks."""
    for check in SOURCE_CHECKS:
        yield check.name, outcome(check, source), check.mend
