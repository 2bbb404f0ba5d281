"""Fine-tuning against meta-learning: the crossing by hand, nested shots, arms against plain loops, the figure."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lifelong.adaptation.methods import adapted_net
from lifelong.display.crossover import crossing_of, crossover_figure, crossover_json, crossover_table
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.maml import MAML
from lifelong.meta.pretraining import pretrain
from lifelong.meta.protonet import ProtoNet
from lifelong.meta.supervised import Pretrained
from lifelong.models.convolutional import Conv4
from lifelong.models.perceptron import MLP
from lifelong.studies import crossover as studied
from lifelong.studies.crossover import (
    RANDOM,
    CrossoverProtocol,
    CrossoverStudy,
    Start,
    crossover,
    crossover_of,
    first_of_each,
    learned_starts,
)
from scenarios.episodes import class_pool
from scenarios.errors import ConfigurationError
from scenarios.stream import generator
from scenarios.synthetic import blobs

WAYS = ("its own way", "fine-tuned")
SMALL = CrossoverProtocol((1, 3), 3, 4, episodes=6, choosing=3, steps=4, rates=(0.01, 0.1), examples=400)


def spread(*means: float, width: float = 0.01) -> torch.Tensor:
    """Differences of three seeds [3, K] with these means and half-widths of 2.48 times the width."""
    return torch.tensor([[-width], [0.0], [width]], dtype=torch.float64) + torch.tensor(means, dtype=torch.float64)


def test_the_crossing_by_hand():
    """-0.2, -0.1, 0.3 at 1, 2, 8: zero a quarter of the way from 2 to 8 on a logarithmic axis."""
    found = crossover((1, 2, 8), spread(-0.2, -0.1, 0.3, width=0.05))  # half-widths of 0.124
    assert found.k == pytest.approx(2 * 4**0.25) and (found.low, found.high) == (1, 8)
    assert (found.ahead, found.behind) == ((8,), (1, 2))
    assert crossover((1, 2, 8), spread(-0.2, -0.1, 0.3003)).k != pytest.approx(found.k, rel=1e-5)
    never = crossover((1, 2), spread(-0.2, -0.1, width=0.1))
    assert (never.k, never.low, never.high) == (None, None, None)
    assert crossover((1, 2, 4, 8), spread(-0.1, 0.1, -0.1, 0.1)).k == pytest.approx(4 * math.sqrt(2))
    assert crossover((1, 2, 4), spread(-0.1, 0.1, -0.1)).k is None


def test_curves_that_touch_do_not_cross():
    """At 100 % both ways of answering meet, and nothing is better than the other."""
    touching = crossover((1, 2, 4), spread(-0.1, 0.0, 0.0))
    assert (touching.k, touching.ahead, touching.behind) == (None, (), (1,))
    assert crossover((1, 2, 4), spread(-0.1, 0.0, 0.1)).k == pytest.approx(2)
    assert crossover((1, 2), torch.tensor([[-0.1, 0.1 + 0.2 - 0.3], [-0.1, 0.0]], dtype=torch.float64)).k is None


def test_differences_without_spread_are_held_to_the_sign_test():
    """Of few seeds that agree by chance nothing is established: p = 2^(1 - S), as of every other paired difference."""
    few, many = (crossover((1, 2), torch.tensor([[-0.25, 0.25]]).expand(seeds, 2)) for seeds in (3, 6))
    assert (few.low, few.high) == (None, None) and (many.low, many.high) == (1, 2)


def pools():
    data = blobs(15, 5, 20, seed=3)
    return [class_pool(data, tuple(range(first, first + 5))) for first in (0, 5, 10)]


def test_shots_are_the_first_of_each_class():
    drawn = pools()[0].draw(3, 3, 5, 2, generator("episodes"))
    x, y = first_of_each(drawn, 3, 2)
    assert y.shape == (3, 6) and x.shape == (3, 6, 5)
    for t in range(3):
        for c in range(3):
            assert torch.equal(x[t][y[t] == c], drawn.support_x[t][drawn.support_y[t] == c][:2])
    whole = first_of_each(drawn, 3, 5)
    assert torch.equal(whole[0], drawn.support_x) and torch.equal(whole[1], drawn.support_y)


def study():
    train, held, test = pools()
    distribution = TaskDistribution(MLP(8), train, held)
    starts = [Pretrained(batch=8), ProtoNet(way=3, shot=1, query=2), MAML(way=3, shot=1, query=2, tasks=2, steps=1)]
    return distribution, test, crossover_of(learned_starts(starts, distribution, [0, 1], SMALL), held, test, SMALL)


def test_no_start_takes_the_place_of_another():
    train, held, _ = pools()
    two = [ProtoNet(way=3, shot=shot, query=2) for shot in (1, 2)]
    with pytest.raises(ConfigurationError, match="of the same name"):
        learned_starts(two, TaskDistribution(MLP(8), train, held), [0], SMALL)


def test_arms_are_plain_loops_on_the_same_episodes():
    distribution, test, found = study()
    assert set(found.accuracy) == {
        RANDOM, "Pretrained, fine-tuned", "ProtoNet, fine-tuned", "MAML, fine-tuned", "ProtoNet, its own way",
        "MAML, its own way",
    }  # fmt: skip
    assert all(value.shape == (2, 2) for value in found.accuracy.values())
    seed, k = 1, 1
    episode = test.draw(6, 3, 3, 4, generator(seed, "crossover", "test"))
    right, near = [], []
    start = ProtoNet(way=3, shot=1, query=2)
    iterations = SMALL.examples // start.images(distribution)
    net = pretrain(ProtoNet(way=3, shot=1, query=2, iterations=iterations), distribution, [0, 1]).of(seed)["net"]
    for t in range(6):
        head = MLP(8).init((5,), 3, generator(seed, "crossover head"))
        live = {name: value.clone().requires_grad_() for name, value in head.items()}
        optimiser = torch.optim.Adam(live.values(), lr=found.rates[RANDOM][k])

        def scores(x, live=live):
            hidden = (x @ live["layer0.weight"] + live["layer0.bias"]).relu()
            return hidden @ live["head.weight"] + live["head.bias"]

        for _ in range(4):
            optimiser.zero_grad()
            F.cross_entropy(scores(episode.support_x[t]), episode.support_y[t]).backward()
            optimiser.step()
        right.append((scores(episode.query_x[t]).argmax(1) == episode.query_y[t]).double().mean())
        shown, asked = (
            (x @ net["layer0.weight"] + net["layer0.bias"]).relu() for x in (episode.support_x[t], episode.query_x[t])
        )
        means = torch.stack([shown[episode.support_y[t] == c].mean(0) for c in range(3)])
        near.append((torch.cdist(asked, means).argmin(1) == episode.query_y[t]).double().mean())
    assert float(found.accuracy[RANDOM][seed, k]) == pytest.approx(float(torch.stack(right).mean()))
    assert float(found.accuracy["ProtoNet, its own way"][seed, k]) == pytest.approx(float(torch.stack(near).mean()))


def test_the_figure_has_every_arm_and_the_crossing():
    accuracy = {"a": torch.tensor([[0.1, 0.9], [0.2, 0.8]]), "b": torch.tensor([[0.5, 0.5], [0.5, 0.6]])}
    figure = crossover_figure(CrossoverStudy(replace(SMALL, shots=(1, 4)), accuracy, {}), [("a", "b"), ("b", "a")])
    (axes,) = figure.figure.axes
    assert [line.get_label() for line in axes.lines if not line.get_label().startswith("_")] == ["a", "b"]
    assert [line.get_label() for line in axes.lines if " over " in line.get_label()] == ["_a over b"]


def test_crossings_that_lie_close_together_are_told_apart():
    accuracy = {"a": spread(0.1, 0.9), "b": spread(0.5, 0.6), "c": spread(0.5, 0.59)}
    figure = crossover_figure(CrossoverStudy(replace(SMALL, shots=(1, 4)), accuracy, {}), [("a", "b"), ("a", "c")])
    figure.figure.draw_without_rendering()
    first, second = (text.get_window_extent() for text in figure.figure.axes[0].texts if " over " in text.get_text())
    assert not first.overlaps(second)


def test_convolutions_are_tuned_in_pieces_and_to_the_same_answers(monkeypatch):
    """How many pairs of a rate and an episode are tuned at once changes the memory, and nothing else."""
    clouds = blobs(6, 16, 10, seed=1)
    data = replace(clouds, x=clouds.x.view(-1, 4, 4))
    pool = class_pool(data)
    distribution, rates = TaskDistribution(Conv4(8, blocks=2), pool, pool), torch.tensor([0.001, 0.03])
    net, drawn = distribution.model.init(data.shape, 3, generator(0, "net")), pool.draw(5, 3, 2, 3, generator("e"))
    pieces, found = [], []

    def counted(*words):
        pieces.append(words)
        return adapted_net(*words)

    monkeypatch.setattr(studied, "adapted_net", counted)
    for at_once, wanted in ((1000, 1), (30, 5), (1, 10)):  # an episode has 15 images
        monkeypatch.setattr(studied, "IMAGES", at_once)
        pieces.clear()
        found.append(studied._tuned(distribution, net, drawn, replace(SMALL, steps=3), 2, rates))
        assert len(pieces) == wanted and found[-1].shape == (2, 5)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_what_was_asked_stands_with_the_numbers():
    """Way, queries (fewer than wanted where a class is small), and rates beyond which a better one may lie."""
    accuracy = {name: torch.full((2, 2), 0.5) for name in ("a, fine-tuned", "b, fine-tuned", "a, its own way")}
    rates = {"a, fine-tuned": (0.01, 0.03), "b, fine-tuned": (0.03, 0.03)}
    ends = {"a, fine-tuned": (1,), "b, fine-tuned": ()}
    study = CrossoverStudy(SMALL, accuracy, rates, data="blobs", together=True, ends=ends)
    table, lines = crossover_table(study, 200)
    assert table.title == (
        "accuracy, %, after k rows of each of 3 classes of blobs; 4 queries of each, 6 episodes of each seed;"
        " ± 95 % over seeds"
    )
    assert lines.plain.splitlines()[-2] == "rates at an end of the grid: a, fine-tuned at k = 1"
    assert "normalised together" in lines.plain.splitlines()[-1]
    said = crossover_json(replace(study, together=False))
    assert said["rates at an end of the grid"] == {"a, fine-tuned": [1]}
    assert (said["way"], said["query"], said["episodes"], said["normalised together"]) == (3, 4, 6, False)


def test_a_single_seed_has_its_interval_over_episodes():
    train, held, test = pools()
    distribution = TaskDistribution(MLP(8), train, held)
    method = ProtoNet(way=3, shot=1, query=2, iterations=3)
    start = Start(method, distribution, {4: pretrain(method, distribution, [4]).of(0)})
    found = crossover_of({"p": start}, held, test, SMALL)
    assert found.over == "episodes" and all(value.shape == (6, 2) for value in found.accuracy.values())
    again = crossover_of({"p": start, "q": start}, held, test, SMALL)
    assert torch.equal(again.accuracy["q, fine-tuned"], found.accuracy["p, fine-tuned"])
    with pytest.raises(ConfigurationError, match="called 'random'"):
        crossover_of({"random": start}, held, test, SMALL)
    wide = MAML(way=4, shot=1, query=2, tasks=2, steps=1, iterations=1)
    with pytest.raises(ConfigurationError, match="--way 4, not 3"):
        crossover_of({"m": Start(wide, distribution, {0: pretrain(wide, distribution, [0]).of(0)})}, held, test, SMALL)


def test_starts_are_paired_by_their_seeds_and_not_by_their_places():
    """A seed has the same episodes and fresh head alone, among others, and in whatever order its file holds it."""
    train, held, test = pools()
    distribution = TaskDistribution(MLP(8), train, held)
    method = ProtoNet(way=3, shot=1, query=2, iterations=3)
    learned = pretrain(method, distribution, [7, 4])
    metas = {7: learned.of(0), 4: learned.of(1)}
    both = Start(method, distribution, metas)
    turned = Start(method, distribution, dict(reversed(metas.items())))
    found = crossover_of({"a": both, "b": turned}, held, test, SMALL)
    assert all(torch.equal(found.accuracy[f"a, {how}"], found.accuracy[f"b, {how}"]) for how in WAYS)
    alone = crossover_of({"a": Start(method, distribution, {7: metas[7]})}, held, test, SMALL)
    assert torch.equal(alone.accuracy["a, its own way"].mean(0), found.accuracy["a, its own way"][1])
    with pytest.raises(ConfigurationError, match="a was learned for 4, 7, and b for 4, 9"):
        crossover_of({"a": both, "b": Start(method, distribution, {4: metas[4], 9: metas[7]})}, held, test, SMALL)


def test_crossings_are_said_in_words():
    def words(*means: float, shots: tuple[int, ...] = (1, 4)) -> str:
        accuracy = {"a": 0.5 + spread(*means), "b": torch.full((3, len(means)), 0.5)}
        return crossing_of(CrossoverStudy(replace(SMALL, shots=shots), accuracy, {"a": (0.1, 0.1)}), "a", "b")

    assert words(-0.3, 0.3) == "from k = 2.0 on (established: behind up to 1, ahead from 4)"
    assert words(0.1, 0.3) == "from k = 1 on (established: ahead from 1)"
    assert words(-0.3, -0.2) == "not up to k = 4 (established: behind up to 4)"
    assert words(-0.3, 0.0) == "not up to k = 4 (established: behind up to 1)"
    assert words(0.3, -0.3) == "only up to k = 2.0 (established: ahead up to 1, behind from 4)"
    assert words(0.0, 0.0) == "level at every k (established: nothing)"
    three = {"shots": (1, 2, 4)}
    assert words(-0.1, 0.1, -0.1, **three) == "only at k = 2 (established: behind up to 1, behind from 4)"
    assert words(0.1, -0.1, 0.1, **three) == "from k = 2.8 on, and before at k = 1 (established: ahead from 4)"


def test_what_is_no_curve_is_refused():
    for shots in ((), (5,), (5, 1), (0, 1)):
        with pytest.raises(ConfigurationError, match="smallest first"):
            CrossoverProtocol(shots)
