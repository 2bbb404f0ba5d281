"""Classes with descriptors: which belong to which class, what they are made of, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.meta.descriptor_net import DescriptorNet
from lifelong.meta.distribution import TaskDistribution
from lifelong.meta.initialisation_learner import InitialisationError
from lifelong.meta.learned import distribution_of
from lifelong.meta.pretraining import pretrain
from lifelong.meta.testing import scored
from lifelong.models.perceptron import MLP
from scenarios.descriptors import described, described_blobs, described_by_images
from scenarios.episodes import class_pool, turned
from scenarios.errors import ConfigurationError
from scenarios.stream import generator
from scenarios.synthetic import blobs


def images():
    dataset = blobs(6, 16, 8)
    return replace(dataset, x=dataset.x.view(-1, 4, 4))


def test_centres_are_one_linear_map_of_the_descriptors():
    pool = described_blobs(40, 12, 5, per_class=10, spread=0.0)
    centres = pool.dataset.x[pool.rows].mean(1)
    matrix = torch.linalg.lstsq(pool.about, centres).solution
    torch.testing.assert_close(pool.about @ matrix, centres, rtol=0, atol=1e-5)
    assert torch.linalg.matrix_rank(centres, atol=1e-3) == 5


def test_an_episode_bears_the_descriptors_of_its_classes_wherever_it_was_cut():
    pool = described_by_images(images(), rows=3, rotations=True)
    part = pool.some(2, 5)
    for source in (pool, part):
        drawn = source.draw(20, 4, 1, 2, generator("described"))
        places = drawn.classes if source is pool else pool.numbers(part, 2, drawn.classes)
        torch.testing.assert_close(drawn.about, pool.about[places])
    assert part.hash != pool.hash != replace(pool, about=pool.about + 1).hash and pool.about_size == 16


def test_who_describes_a_class_is_never_drawn():
    """A descriptor is the mean of rows that no episode shows, turned as its class is."""
    dataset, rows = images(), 3
    pool = described_by_images(dataset, rows=rows, rotations=True)
    for c in range(dataset.classes):
        of_class = (dataset.y == c).nonzero()[:, 0]
        assert set(pool.rows[c].tolist()) == set(of_class[rows:].tolist())
        for turn in range(4):
            image = turned(dataset.x[of_class[:rows]][None], torch.full((1, rows), turn))[0].mean(0)
            torch.testing.assert_close(pool.about[turn * dataset.classes + c], image.flatten())


def test_what_does_not_go_is_refused_in_a_line():
    pool = class_pool(blobs(6, 5, 8))
    with pytest.raises(ConfigurationError, match="one row for each of 6 classes"):
        described(pool, torch.zeros(5, 2))
    with pytest.raises(ConfigurationError, match="one at least is to be left"):
        described_by_images(images(), rows=8)
    with pytest.raises(ConfigurationError, match="square images"):
        described_by_images(blobs(6, 5, 8), rotations=True)
    with pytest.raises(ConfigurationError, match="at least 1 of everything"):
        described_blobs(0)
    with pytest.raises(ConfigurationError, match="described_by_images"):
        DescriptorNet(way=3).check(TaskDistribution(MLP(5), pool, pool))


def test_by_name_it_learns_from_a_dataset_and_is_tested_on_another():
    """The command line's way: what describes a class is made of the dataset at hand."""
    method = DescriptorNet(way=3, query=2, rows=4, iterations=2)
    background, unseen = blobs(60, 5, 12), blobs(6, 5, 12, seed=1)
    distribution = distribution_of(method, MLP(5), background, unseen)
    assert distribution.train.about_size == 5 and int(distribution.train.count.max()) == 8
    learned, pool = pretrain(method, distribution, (0,), episodes=4), method.pool(unseen)
    found = scored(method, distribution, learned.of(0), pool, way=4, query=5, episodes=4)
    with pytest.raises(InitialisationError, match="no support: --shot 0, not 1"):
        scored(method, distribution, learned.of(0), pool, way=4, shot=1, query=5, episodes=4)
    assert (found.way, found.shot, found.query) == (4, 0, 5) and pool.content != unseen.content_hash()
