"""Metric learners against the plain loops beside this file: the same meta-gradients and answers, in float64; and identities."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from lifelong.core.inner_loop import memberships
from lifelong.meta import graph, matching
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.graph import GraphNet
from lifelong.meta.infinite_mixture import InfiniteMixturePrototypes
from lifelong.meta.matching import MatchingNet
from lifelong.meta.metric import embedded
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.r2d2 import R2D2
from lifelong.meta.relation import RelationNet
from lifelong.meta.siamese import Siamese
from lifelong.meta.testing import scored
from lifelong.notation.expression import parse
from lifelong.studies.published.few_shot import METRIC, NET
from scenarios.episodes import Support, class_pool
from scenarios.errors import ConfigurationError
from scenarios.stream import generator
from scenarios.synthetic import blobs
from tests.reference import plain_few_shot, plain_metric
from tests.reference.test_plain_loops import by_the_loops_names

DOUBLE = torch.float64
TABLE = blobs(24, 28 * 28, 20)
IMAGES = class_pool(replace(TABLE, x=TABLE.x.view(-1, 28, 28)), rotations=True)
TASKS = TaskDistribution(parse(NET, "models"), IMAGES, IMAGES, DOUBLE)
HALF = torch.tensor(0.5, dtype=DOUBLE)
SIZE = {"way": 3, "shot": 3, "query": 2, "tasks": 2}
METHODS = {row.method: replace(parse(row.stage, "initialisations"), **SIZE) for row in METRIC} | {
    "matching-euclidean": MatchingNet(distance="euclidean", sharpness=1.0, **SIZE)
}
SEVERAL = 1.0  # a concentration at which some of these tasks' classes have several clusters, and others one
METHODS["infinite-mixture"] = replace(METHODS["infinite-mixture"], concentration=SEVERAL)
# for rows that weigh 2: an LSTM would meet them twice, and a node hear its twin
WHOLE = ("matching-full-context", "gnn")


def started(method):
    """What is learned at first, and episodes some of whose rows count twice and others not at all."""
    meta, drawn = method.init(TASKS, generator("start")), method.draw(TASKS, generator("tasks"))
    return meta, drawn


def weighted(name, drawn):
    """The episodes with weights: of each class and part one row or more counts."""
    weights = {}
    for part in ("support", "query"):
        y = getattr(drawn, f"{part}_y")
        nth = torch.stack([(row[:, None] == row).tril().sum(1) for row in y])  # which of its class's rows it is
        weights[f"{part}_weight"] = torch.where(nth == 1, 1.0 if name in WHOLE else 2.0, (nth == 2).to(DOUBLE))
    return drawn._replace(**weights)


def plain(name, method, meta, drawn):
    """Loss and gradient by the plain loop: rows stand as often as they count."""
    net = plain_few_shot.Net(ways=len(meta["net"]["head.bias"])).to(DOUBLE)
    net.load_state_dict(by_the_loops_names(meta["net"]))
    total, p = 0.0, of_comparison(meta)
    for task in range(len(drawn.classes)):
        shown, labels, asked, targets = rows_of(net, drawn.task(task))
        told = {**p, "concentration": getattr(method, "concentration", 0.0)}
        total = total + plain_metric.loss(name, told, shown, labels, asked, targets, 3) / len(drawn.classes)
    total.backward()
    return total.detach(), dict(net.named_parameters()), p


def of_comparison(meta):
    """Copies of all that is learned beside the network, which are differentiated."""
    return {k: v.clone().requires_grad_() for part in meta if part != "net" for k, v in meta[part].items()}


def rows_of(net, task):
    x = torch.cat([task.support_x, task.query_x]).to(DOUBLE)[:, None]
    features, count = net.features(x), len(task.support_y)
    found = []
    for rows, y, weight in (
        (features[:count], task.support_y, task.support_weight),
        (features[count:], task.query_y, task.query_weight),
    ):
        times = weight.to(torch.int64) if isinstance(weight, torch.Tensor) else torch.ones_like(y)
        found += [list(rows.repeat_interleave(times, 0)), y.repeat_interleave(times).tolist()]
    return found


def gap(name, method, drawn, meta):
    """The largest difference to the plain loop, of loss and gradient, relative to the largest number of a tensor."""
    theirs, trunk, p = plain(name, method, meta, drawn)
    loss, gradient = method.gradient(TASKS, meta, drawn, HALF)
    pairs = [(loss, theirs), *((leaf, trunk[n].grad) for n, leaf in by_the_loops_names(gradient["net"]).items())]
    pairs += [(gradient[part][k], p[k].grad) for part in gradient if part != "net" for k in gradient[part]]
    return max(
        float((ours - (0 if other is None else other)).abs().max() / max(1e-3, float(ours.abs().max())))
        for ours, other in pairs
    )


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_and_answers_as_its_plain_loop(name):
    method = METHODS[name]
    meta, drawn = started(method)
    for episodes in (drawn, weighted(name, drawn)):
        assert gap(name, method, episodes, meta) < 1e-9
    net = plain_few_shot.Net(ways=3).to(DOUBLE)
    net.load_state_dict(by_the_loops_names(meta["net"]))
    task = IMAGES.draw(1, 5, 1, 2, generator("test")).task(0)  # other ways and shots than it learns from
    told = {**of_comparison(meta), "concentration": getattr(method, "concentration", 0.0)}
    shown, labels, asked, _ = rows_of(net, task)
    theirs = plain_metric.scores(name, told, shown, labels, asked, 5).detach()
    ours = method.predict(TASKS, meta, task.support, task.query_x, 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_mixtures_that_are_compared_are_mixtures():
    """Classes of different numbers of clusters are among the tasks of the test above."""
    method = METHODS["infinite-mixture"]
    meta, drawn = started(method)
    counts = set()
    for place in range(len(drawn.classes)):
        task = drawn.task(place)
        shown, _ = embedded(TASKS, meta, task.support, task.query_x, 3)
        found = method.clusters(shown, task.support, 3, meta["mixture"]["log_variance"].exp())
        counts |= set(memberships(found.label, 3, torch.int64)[found.there].sum(0).tolist())
    assert len(counts) > 1, counts


# --- errors on purpose ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnequalHalves(Siamese):
    """Ways count: pairs of one class and of two are not brought to a half each."""

    def task_loss(self, distribution, meta, task):
        logits = self.logits(distribution, meta, task.support, task.query_x, self.way)
        same = (task.query_y[:, None] == task.support_y).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, same)


@dataclass(frozen=True)
class Sharper(MatchingNet):
    """0.1 % sharper."""

    def similarity(self, asked, shown):
        return 1.001 * super().similarity(asked, shown)


@dataclass(frozen=True)
class Softer(RelationNet):
    """Its targets are 0.999 and 0."""

    def task_loss(self, distribution, meta, task):
        scores = self.predict(distribution, meta, task.support, task.query_x, self.way)
        return (scores - 0.999 * memberships(task.query_y, self.way, scores.dtype)).square().mean()


@dataclass(frozen=True)
class Nearer(InfiniteMixturePrototypes):
    """Rows farther than a tenth of lambda begin clusters."""

    def threshold(self, means, variance):
        return 0.1 * super().threshold(means, variance)


@dataclass(frozen=True)
class Wider(InfiniteMixturePrototypes):
    """A variance 0.1 % too large."""

    def clusters(self, features, support, way, variance):
        return super().clusters(features, support, way, 1.001 * variance)


@dataclass(frozen=True)
class Stronger(R2D2):
    """A strength 0.1 % too large."""

    def query_scores(self, distribution, meta, support, query, way):
        ridge = {**meta["ridge"], "log_strength": meta["ridge"]["log_strength"] + 0.001}
        return super().query_scores(distribution, {**meta, "ridge": ridge}, support, query, way)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("siamese", UnequalHalves),
        ("matching", Sharper),
        ("matching-euclidean", Sharper),
        ("relation", Softer),
        ("infinite-mixture", Nearer),
        ("infinite-mixture", Wider),
        ("r2d2", Stronger),
    ],
)
def test_the_loop_sees_an_error(name, wrong):
    method = wrong(**vars(METHODS[name]))
    meta, drawn = started(method)
    assert gap(name, method, drawn, meta) > 1e-6


def test_the_loop_sees_errors_inside_the_context_and_the_graph(monkeypatch):
    """The backward LSTM's outputs in the wrong order, a step too few, nodes that hear 0.1 % too little."""

    def unflipped(net, features, present):
        found = in_context(net, features, present)
        forwards = in_context({**net, "along.input": net["along.input"] * torch.tensor([1.0, 0.0])[:, None, None],
                               "along.hidden": net["along.hidden"] * 0 + torch.cat([net["along.hidden"][:1], 0 * net["along.hidden"][1:]]),
                               "along.bias": net["along.bias"] * torch.tensor([1.0, 0.0])[:, None]}, features, present)  # fmt: skip
        return forwards + (found - forwards).flip(0)

    in_context = matching.in_context
    name = "matching-full-context"
    meta, drawn = started(METHODS[name])
    assert gap(name, replace(METHODS[name], steps=4), drawn, meta) > 1e-6
    monkeypatch.setattr(matching, "in_context", unflipped)
    assert gap(name, METHODS[name], drawn, meta) > 1e-6

    method = METHODS["gnn"]
    meta, drawn = started(method)
    adjacency = graph._adjacency
    monkeypatch.setattr(graph, "_adjacency", lambda *given: adjacency(*given) * 0.999)
    assert gap("gnn", method, drawn, meta) > 1e-6


# --- identities -----------------------------------------------------------------------------------------------------------


def answered(method, meta, way=5, shot=3, weight=()):
    task = IMAGES.draw(1, way, shot, 2, generator("identity")).task(0)
    support = Support(task.support_x, task.support_y, weight)
    return method.predict(TASKS, meta, support, task.query_x, way)


def test_a_mixture_of_an_infinite_threshold_is_the_prototypical_network():
    """Scores over twice the variance; with one shot at any threshold."""
    prototypes, method = ProtoNet(), InfiniteMixturePrototypes(concentration=0.0)
    meta = method.init(TASKS, generator("start"))
    meta["mixture"]["log_variance"] += 0.3
    expected = answered(prototypes, meta) / (2 * torch.tensor(0.3, dtype=DOUBLE).exp())
    torch.testing.assert_close(answered(method, meta), expected, rtol=1e-9, atol=1e-9)
    alone = answered(replace(method, concentration=SEVERAL), meta, shot=1)
    torch.testing.assert_close(alone, answered(method, meta, shot=1), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(answered(replace(method, concentration=SEVERAL), meta), expected)


def test_euclidean_attention_over_one_shot_is_the_prototypical_network():
    method = MatchingNet(distance="euclidean", sharpness=0.5)
    meta = method.init(TASKS, generator("start"))
    expected = (0.5 * answered(ProtoNet(), meta, shot=1)).log_softmax(1)
    torch.testing.assert_close(answered(method, meta, shot=1), expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(answered(method, meta), (0.5 * answered(ProtoNet(), meta)).log_softmax(1))


def test_a_context_of_silent_cells_is_none():
    method = MatchingNet(full_context=True)
    meta = method.init(TASKS, generator("start"))
    silent = {**meta, "comparison": tree_map(torch.zeros_like, meta["comparison"])}
    torch.testing.assert_close(answered(method, silent), answered(MatchingNet(), meta), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(answered(method, meta), answered(MatchingNet(), meta))


def test_links_of_no_difference_hear_all_rows_alike():
    """What a query hears of a class is then the class's share of the rows, its own left out."""
    method = GraphNet(depth=0)
    meta = method.init(TASKS, generator("start"))
    meta["comparison"] |= {
        "link0.weight": torch.zeros(48, 1, dtype=DOUBLE),
        "score.weight": torch.ones(1, 1, dtype=DOUBLE),
    }
    weight = torch.zeros(15)
    task = IMAGES.draw(1, 5, 3, 2, generator("identity")).task(0)
    counts = torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0])
    for c in range(5):
        weight[(task.support_y == c).nonzero()[: int(counts[c]), 0]] = 1.0
    shares = (counts / counts.sum()).to(DOUBLE).expand(10, 5)
    torch.testing.assert_close(answered(method, meta, weight=weight), shares, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_any_way_and_shot_is_answered(name):
    method = METHODS[name]
    meta = method.init(TASKS, generator("start"))
    for way, shot in ((2, 1), (4, 2)):
        found = scored(method, TASKS, meta, IMAGES, way=way, shot=shot, query=2, episodes=3)
        assert found.way == way and found.shot == shot and bool(found.scores.isfinite().all())


def test_what_makes_no_sense_is_refused():
    for build in (
        lambda: MatchingNet(distance="manhattan"),
        lambda: MatchingNet(sharpness=0.0),
        lambda: InfiniteMixturePrototypes(concentration=-1.0),
        lambda: Siamese(shot=0),
        lambda: GraphNet(depth=-1),
        lambda: RelationNet(units=0),
        lambda: Siamese(units=0),
    ):
        with pytest.raises(ConfigurationError):
            build()
