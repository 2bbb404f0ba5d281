"""Episodes: what is drawn, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from scenarios.episodes import Sines, check_apart, class_pool, split_classes, turned
from scenarios.errors import ConfigurationError
from scenarios.stream import Dataset, generator
from scenarios.synthetic import blobs

IMAGES = Dataset(
    "images",
    torch.randint(0, 256, (60, 4, 4), dtype=torch.uint8, generator=generator("x")),
    torch.arange(60) % 6,
    60,
    6,
)


def drawn(pool, *size):
    return pool.draw(*size, generator("draw"))


def test_support_and_query_share_no_row():
    dataset = replace(IMAGES, x=torch.arange(60).view(60, 1).float())  # each row bears its number
    episode = drawn(class_pool(dataset), 50, 4, 3, 5)
    for support, query in zip(episode.support_x, episode.query_x, strict=True):
        assert not set(support.flatten().tolist()) & set(query.flatten().tolist())
        assert len(set(support.flatten().tolist())) == 12 and len(set(query.flatten().tolist())) == 20


def test_labels_are_those_of_the_rows():
    dataset = replace(IMAGES, x=IMAGES.y.view(60, 1).float())  # each row bears its class
    episode = drawn(class_pool(dataset), 30, 4, 2, 2)
    for x, y, classes in zip(episode.query_x, episode.query_y, episode.classes, strict=True):
        assert torch.equal(classes[y], x[:, 0].to(torch.int64))


def test_every_class_is_drawn_as_often_as_any_other():
    episode = drawn(class_pool(IMAGES), 3000, 3, 1, 1)
    counts = torch.bincount(episode.classes.flatten(), minlength=6)
    expected = 3000 * 3 / 6
    assert float(((counts - expected) ** 2 / expected).sum()) < 20.5  # chi squared, 5 degrees of freedom, p = 0.001


def test_right_angles_are_classes_of_their_own():
    pool = class_pool(IMAGES, rotations=True)
    assert len(pool) == 24
    episode = drawn(pool, 20, 10, 1, 1)
    shown = episode.classes.gather(1, episode.support_y)
    for x, c in zip(episode.support_x.flatten(0, 1), shown.flatten().tolist(), strict=True):
        candidates = torch.rot90(IMAGES.x[IMAGES.y == c % 6], c // 6, (1, 2))
        assert (candidates == x).flatten(1).all(1).any()


def test_turned_is_rot90_for_each():
    x = IMAGES.x[:12].view(2, 3, 2, 4, 4)
    turn = torch.tensor([[0, 1, 2], [3, 0, 1]])
    ours = turned(x, turn)
    for t in range(2):
        for n in range(3):
            assert torch.equal(ours[t, n], torch.rot90(x[t, n], int(turn[t, n]), (-2, -1)))


def test_zero_shots_and_another_way():
    episode = drawn(class_pool(IMAGES), 2, 5, 0, 3)
    assert episode.support_x.shape[1] == 0 and episode.query_x.shape[:2] == (2, 15)


def test_sub_pools_keep_their_numbers():
    whole = class_pool(IMAGES, rotations=True)
    part = whole.some(2, 5)
    places = torch.arange(len(part))
    numbers = whole.numbers(part, 2, places)
    assert [whole.classes[int(n) % 6] for n in numbers] == [part.classes[int(p) % 3] for p in places]
    assert (numbers // 6 == places // 3).all()


def test_the_split_is_sorted_hashed_and_disjoint():
    train, held = split_classes(IMAGES, 2, generator("split"))
    assert list(train) == sorted(train) and list(held) == sorted(held) and not set(train) & set(held)
    assert (
        class_pool(IMAGES, train).hash
        == class_pool(IMAGES, tuple(reversed(train))).hash
        != class_pool(IMAGES, held).hash
    )


@pytest.mark.parametrize(
    ("size", "word"),
    [((2, 7, 1, 1), "7-way"), ((2, 3, 9, 2), "shot=9"), ((2, 0, 1, 1), "way=0"), ((2, 2, 1, 0), "query=0")],
)
def test_what_cannot_be_drawn_is_refused(size, word):
    with pytest.raises(ConfigurationError, match=word):
        class_pool(IMAGES).check(*size[1:])


def test_shared_rows_are_refused():
    other = blobs(3, 4, 20)
    check_apart(IMAGES, replace(IMAGES, name="other", x=255 - IMAGES.x))
    check_apart(IMAGES, other)
    with pytest.raises(ConfigurationError, match="share 60 rows"):
        check_apart(IMAGES, replace(IMAGES, name="other", x=IMAGES.x.flip(0)))
    fractions = replace(IMAGES, name="other", x=IMAGES.x / 255)
    with pytest.raises(ConfigurationError, match="share"):
        check_apart(IMAGES, fractions)
    with pytest.raises(ConfigurationError, match="share"):
        check_apart(fractions, replace(fractions, x=fractions.x.to(torch.float64)))
    check_apart(IMAGES, replace(fractions, x=fractions.x + 0.3 / 255))


def test_sines_follow_their_formula_and_ranges():
    waves = Sines()
    episode = waves.draw(200, 1, 10, 5, generator("waves"))
    assert float(episode.support_x.abs().max()) <= 5 and float(episode.support_y.abs().max()) <= 5
    outside = waves.outside.draw(200, 1, 200, 5, generator("waves"))
    assert float(outside.support_y.abs().amax(1).min()) > 4.9
    far = waves.shifted("x", 1.5).draw(200, 1, 10, 5, generator("waves"))
    assert float(far.support_x.min()) >= 10 and float(far.query_x.max()) <= 20
    assert waves.shifted("phase", 1.0).phase == (math.pi, 2 * math.pi) and waves.shifted("phase", 0.0) == waves
    assert waves.shifted("amplitude", 0.5).amplitude == pytest.approx((2.55, 7.45))
    with pytest.raises(ConfigurationError, match="one of amplitude, phase, x"):
        waves.shifted("frequency", 0.5)
    # a sin(x - p) = u sin x + v cos x: two numbers explain all points of a wave
    for x, y in zip(episode.support_x.double(), episode.support_y.double(), strict=True):
        basis = torch.cat([x.sin(), x.cos()], 1)
        rest = y - basis @ torch.linalg.lstsq(basis, y).solution
        assert float(rest.abs().max()) < 1e-5


def test_every_class_bears_every_label_as_often():
    episode = drawn(class_pool(IMAGES), 3000, 3, 1, 1)
    counts = torch.stack([torch.bincount(episode.classes[:, n], minlength=6) for n in range(3)])
    expected = 3000 / 6
    assert float(((counts - expected) ** 2 / expected).sum()) < 37.7  # chi squared, 15 degrees of freedom, p = 0.001


def test_a_rows_place_tells_nothing_of_its_label():
    """Every label stands at every place as often, of support and queries."""
    episode = drawn(class_pool(IMAGES), 4000, 4, 2, 3)
    for y in (episode.support_y, episode.query_y):
        assert all(torch.equal(row.bincount(), torch.full((4,), y.shape[1] // 4)) for row in y[:50])
        counts = torch.stack([torch.bincount(y[:, place], minlength=4) for place in range(y.shape[1])])
        assert float((counts - 1000).abs().max()) < 5 * (4000 * 3 / 16) ** 0.5


def test_sources_know_their_kind_shape_and_place():
    images, waves = class_pool(IMAGES), Sines()
    assert (images.kind, images.shape, images.name, images.outputs(5)) == ("classes", (4, 4), "images", 5)
    assert (waves.kind, waves.shape, waves.name, waves.outputs(5)) == ("numbers", (1,), "sines", 1)
    assert images.device == waves.device == torch.device("cpu")
    assert waves.to("cpu").hash == waves.hash != waves.outside.hash
    assert list(waves.tests) == ["inside", "outside"] and list(images.tests) == ["images"]
    assert images.queries(3, 15) == 7  # of ten rows of each class
    for refused in (waves.as_dataset, lambda: waves.some(0, 1)):
        with pytest.raises(ConfigurationError, match="sines"):
            refused()


def test_draws_lie_where_their_source_lies():
    """On the meta device, which holds no numbers: a stray processor tensor shows there."""
    assert {part.device.type for part in Sines().to("meta").draw(2, 1, 3, 2, generator("x"))[:5]} == {"meta"}
