"""Black-box meta-learners against the plain loops beside this file, and what no label may leak."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lifelong.meta import film, mann, neural_process, recurrent, sequence, snail
from lifelong.meta.descriptor_net import DescriptorNet
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.film import FiLMNet
from lifelong.meta.mann import MANN
from lifelong.meta.neural_process import NeuralProcess
from lifelong.meta.pretraining import pretrain
from lifelong.meta.recurrent import RecurrentLearner
from lifelong.meta.snail import SNAIL
from lifelong.meta.testing import scored
from lifelong.models.perceptron import MLP
from lifelong.notation.expression import parse
from lifelong.studies.published.few_shot import BLACK_BOX, NET
from scenarios.descriptors import described_blobs
from scenarios.episodes import ClassPool, Sines, Support, class_pool
from scenarios.stream import generator
from scenarios.synthetic import blobs
from tests.reference import plain_black_box

DOUBLE = torch.float64
FEW = {"way": 3, "shot": 2, "query": 2, "tasks": 2}
SMALL = (
    RecurrentLearner(hidden=9),
    MANN(hidden=9, slots=5, width=4, heads=2),  # six rows by two heads: slots are written over
    SNAIL(filters=5, keys=(3, 4, 5), values=(4, 3, 2)),
    NeuralProcess(hidden=9),
    FiLMNet(hidden=9),
)


def with_noise(meta):
    """What starts at 0 would hide its errors."""
    random = generator("noise")
    return {
        part: {n: v + 0.1 * torch.randn(v.shape, generator=random, dtype=v.dtype) for n, v in net.items()}
        for part, net in meta.items()
    }


def images():
    dataset = blobs(24, 28 * 28, 20)
    pool = class_pool(replace(dataset, x=dataset.x.view(-1, 28, 28)), rotations=True)
    return TaskDistribution(parse(NET, "models"), pool, pool, DOUBLE)


def waves():
    return TaskDistribution(MLP(7, 6), Sines(), Sines(), DOUBLE)


def gap(method, tasks):
    """The largest difference between a method and its plain loop, of meta-gradients and of answers, relative to their size."""
    meta = with_noise(method.init(tasks, generator("start")))
    drawn, outputs = method.draw(tasks, generator("tasks")), tasks.train.outputs(method.way)
    _, gradient = method.gradient(tasks, meta, drawn, torch.tensor(0.5, dtype=DOUBLE))
    theirs = plain_black_box.meta_gradient(method, meta, drawn, outputs)
    gaps, unused = [], []
    for part, net in gradient.items():
        for name, leaf in net.items():
            if theirs[part][name] is None:
                unused.append(f"{part}.{name}")
                gaps.append(leaf.abs().max())
            else:
                assert theirs[part][name].any(), (part, name)
                gaps.append((leaf - theirs[part][name]).abs().max() / theirs[part][name].abs().max().clamp(min=1e-3))
    heads = {"net.head.weight", "net.head.bias"}
    assert set(unused) == (set() if (tasks.kind, type(method)) == ("numbers", FiLMNet) else heads)
    episode = tasks.train.draw(1, method.way, method.shot, 4, generator("test")).task(0)
    x, y, query = (part.to(DOUBLE) if part.is_floating_point() else part for part in episode[:3])
    answers = method.predict(tasks, meta, Support(x, y), query, method.way)
    plain = plain_black_box.ANSWERS[type(method).__name__](method, meta, x, y, query, outputs).detach()
    return float(torch.stack([*gaps, (answers - plain).abs().max() / plain.abs().max()]).max())


@pytest.mark.parametrize("row", BLACK_BOX, ids=lambda row: row.method)
def test_a_row_learns_and_answers_as_its_plain_loop(row):
    assert gap(replace(parse(row.stage, "initialisations"), tasks=2, query=1), images()) < 1e-9


@pytest.mark.parametrize("kind", [images, waves], ids=["classes", "numbers"])
@pytest.mark.parametrize("method", SMALL, ids=lambda method: type(method).__name__)
def test_a_small_one_with_more_rows_does(method, kind):
    assert gap(replace(method, **{**FEW, "shot": 2 if kind is images else 6}), kind()) < 1e-9


def _scaled(function, place=None):
    """A function whose result, or one of its results, is a thousandth too large."""

    def wrong(*arguments):
        result = function(*arguments)
        if place is None:
            return result * 1.001
        return (*result[:place], result[place] * 1.001, *result[place + 1 :])

    return wrong


def _own_row(net, name, shown, asked, dilation):
    return RIGHT_CONVOLUTION(net, name, shown, asked, dilation + 1)


def _all_count(net, name, shown, asked, counts):
    return RIGHT_ATTENTION(net, name, shown.flip(0), asked, counts)


RIGHT_CONVOLUTION, RIGHT_ATTENTION = snail._convolved, snail._attended
PLANTED = {
    "lstm state": (SMALL[0], recurrent, "lstm", _scaled(sequence.lstm, 1)),
    "length of keys": (SMALL[1], mann, "_unit", _scaled(mann._unit)),
    "most used": (SMALL[1], torch.Tensor, "argsort", lambda x, stable=True: torch.argsort(-x, stable=True)),
    "dilation": (SMALL[2], snail, "_convolved", _own_row),
    "order": (SMALL[2], snail, "_attended", _all_count),
    "sharpness": (SMALL[2], snail.math, "sqrt", _scaled(snail.math.sqrt)),
    "mean": (SMALL[3], neural_process, "set_means", _scaled(neural_process.set_means)),
    "modulation": (SMALL[4], film, "set_means", _scaled(film.set_means)),
    "nearest mean": (SMALL[4], film, "nearest_means", _scaled(film.nearest_means)),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_seen(error, monkeypatch):
    method, place, name, wrong = PLANTED[error]
    monkeypatch.setattr(place, name, wrong)
    assert gap(replace(method, **FEW), images()) > 1e-6


@pytest.mark.parametrize("method", SMALL, ids=lambda method: type(method).__name__)
def test_rows_of_weight_0_are_as_if_they_were_not_there(method):
    method, tasks = replace(method, **FEW), TaskDistribution(MLP(7), *[class_pool(blobs(12, 6, 30))] * 2, DOUBLE)
    meta = with_noise(method.init(tasks, generator("start")))
    episode = tasks.train.draw(1, 3, 2, 4, generator("test")).task(0)
    x, y = episode.support_x, episode.support_y
    some = torch.tensor([place for place in range(6) if place in (0, 5) or y[place] not in y[:place]])
    assert len(some) < 6
    weight = torch.zeros(6).index_fill(0, some, 1.0)
    padded = method.predict(tasks, meta, Support(x, y, weight), episode.query_x, 3)
    alone = method.predict(tasks, meta, Support(x[some], y[some]), episode.query_x, 3)
    torch.testing.assert_close(padded, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", [0, 9])
def test_descriptors_are_answered_as_by_a_plain_loop(hidden, monkeypatch):
    pool = described_blobs(12, 6, 4)
    method, tasks = DescriptorNet(way=4, query=2, hidden=hidden), TaskDistribution(MLP(7), pool, pool, DOUBLE)
    meta, drawn = method.init(tasks, generator("start")), method.draw(tasks, generator("tasks"))
    leaves = [leaf.requires_grad_() for net in meta.values() for leaf in net.values()]
    task = drawn.task(0)
    plain = plain_black_box.descriptor_net(method, meta, task.about.double(), task.query_x.double())
    theirs = torch.autograd.grad(F.cross_entropy(plain, task.query_y), leaves, allow_unused=True)

    def gap():
        _, gradient = method.gradient(tasks, meta, drawn, torch.tensor(0.5, dtype=DOUBLE))
        ours = [leaf for net in gradient.values() for leaf in net.values()]
        assert [t is None for t in theirs].count(True) == 2  # the head's
        return max(
            float((a if b is None else (a - b) / b.abs().max()).detach().abs().max())
            for a, b in zip(ours, theirs, strict=True)
        )

    assert gap() < 1e-9
    monkeypatch.setattr(F, "normalize", lambda x: 1.001 * x / x.norm(dim=1, keepdim=True))
    assert gap() > 1e-6


def test_classes_that_were_never_seen_are_told_by_their_descriptors_and_not_by_others():
    """Near the best answer there is, the nearest true centre; and at chance where descriptors are exchanged."""
    pool = described_blobs(220, 10, 4, spread=0.5)
    seen, unseen = pool.some(0, 200), pool.some(200, 220)
    method = DescriptorNet(way=10, iterations=190, hidden=16, outer=parse("Adam(0.01)", "optimisers"))
    tasks = TaskDistribution(MLP(32), seen, unseen)
    learned = pretrain(method, tasks, (0,), episodes=0).of(0)
    exchanged = replace(unseen, about=unseen.about.roll(1, 0))
    found = {
        name: float(scored(method, tasks, learned, source, way=5, episodes=200).scores.mean())
        for name, source in (("own", unseen), ("others'", exchanged))
    }
    matrix = torch.linalg.lstsq(pool.about, pool.dataset.x[pool.rows].mean(1)).solution
    episode = unseen.draw(200, 5, 0, 15, generator("best"))
    best = torch.cdist(episode.query_x, episode.about @ matrix).argmin(2).eq(episode.query_y).float().mean()
    assert found["own"] > float(best) - 0.15 and found["own"] > 0.6 and abs(found["others'"] - 0.2) < 0.08, (
        found,
        best,
    )


class Blank(ClassPool):
    """Episodes whose support shows labels and no rows, so that only counting labels could help."""

    def draw(self, tasks, way, shot, query, generator):
        episode = super().draw(tasks, way, shot, query, generator)
        return episode._replace(support_x=torch.zeros_like(episode.support_x))


@pytest.mark.parametrize("method", SMALL[1:3], ids=lambda method: type(method).__name__)
def test_who_counts_labels_is_at_chance_and_who_sees_rows_is_not(method):
    """Learned with and without sight of the support's rows; the queries and all labels are there in both."""
    seen = class_pool(blobs(40, 6, 30, spread=0.2))
    method = replace(method, way=3, shot=1, query=3, tasks=8, iterations=150, outer=parse("Adam(0.02)", "optimisers"))
    found = {}
    for name, pool in (("seen", seen), ("blank", Blank(**vars(seen)))):
        tasks = TaskDistribution(MLP(16), pool, pool)
        learned = pretrain(method, tasks, (0,), episodes=0).of(0)
        found[name] = scored(method, tasks, learned, pool, query=10, episodes=300)
        found[f"{name}, no support"] = scored(method, tasks, learned, seen, shot=0, query=10, episodes=300)
    for name in ("blank", "blank, no support", "seen, no support"):
        assert abs(float(found[name].scores.mean()) - 1 / 3) < 4 * found[name].half_width / 1.96, name
    assert float(found["seen"].scores.mean()) > 1 / 3 + 0.1


@pytest.mark.parametrize("method", SMALL[3:], ids=lambda method: type(method).__name__)
def test_sets_of_numbers_have_no_order_and_sequences_do(method):
    tasks, size = waves(), {**FEW, "shot": 6}
    episode = tasks.train.draw(1, 1, 6, 4, generator("test")).task(0)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    for some in (method, *SMALL[:3]):
        some = replace(some, **size)
        meta = with_noise(some.init(tasks, generator("start")))
        shown = [
            some.predict(tasks, meta, Support(episode.support_x[rows], episode.support_y[rows]), episode.query_x, 1)
            for rows in (torch.arange(6), order)
        ]
        difference = float((shown[0] - shown[1]).abs().max() / shown[0].abs().max())
        assert (difference > 1e-6) if some.ordered else (difference < 1e-12)


def test_a_neural_process_answers_without_support_and_any_number_of_classes():
    method = NeuralProcess(**{**FEW, "way": 3})
    tasks = TaskDistribution(MLP(7), *[class_pool(blobs(12, 6, 30))] * 2, DOUBLE)
    meta = method.init(tasks, generator("start"))
    episode = tasks.train.draw(1, 5, 0, 4, generator("test")).task(0)
    scores = method.predict(tasks, meta, episode.support, episode.query_x, 5)
    assert scores.shape == (20, 5) and bool(torch.isfinite(scores).all())
    torch.testing.assert_close(F.softmax(scores, 1), torch.full_like(scores, 0.2))
