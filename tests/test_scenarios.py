"""Streams: sizes, settings, transformations, data sets, and Avalanche's benchmarks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lifelong.contracts.streams import check_stream
from lifelong.core.learner import Learner
from lifelong.core.loop import Session
from lifelong.core.problem import rotate
from lifelong.models.perceptron import MLP
from scenarios.datasets import dataset_from_arrays, load_dataset
from scenarios.split import class_by_class, split
from scenarios.stream import Budget, ScenarioError, generator, stream_index
from scenarios.synthetic import blobs
from scenarios.transformed import permuted, rotated


def test_digits_are_what_they_were():
    dataset = load_dataset("digits")
    assert (len(dataset.y), dataset.train_rows, dataset.shape, dataset.classes) == (1797, 1442, (8, 8), 10)
    assert dataset.content_hash() == "718ee69e0baa2ed1"


@pytest.mark.parametrize("setting, classes", [("task", 10), ("domain", 2), ("class", 10)])
def test_split_covers_all_rows_once(setting, classes):
    stream = split(load_dataset("digits"), 5, setting, validation=0.1)
    rows = torch.cat([torch.cat([t.train, t.validation, t.test]) for t in stream])
    assert stream.classes == classes and sorted(rows.tolist()) == list(range(1797))


def test_class_orders_are_uniform():
    """Each class stands in the first task equally often, over many seeds: chi-square."""
    from scipy.stats import chi2

    stream = split(blobs(6, 2, 4), 3)
    counts = torch.zeros(6)
    for seed in range(600):
        counts[stream.tasks_of(seed)[0].label >= 0] += 1
    expected, n = 200.0, 600
    statistic = float(((counts - expected) ** 2).sum() / (n * (1 / 3) * (2 / 3)) * 5 / 6)
    assert 1e-4 < chi2.sf(statistic, 5) < 1 - 1e-4


def test_allowed_classes_by_setting():
    dataset = blobs(6, 2, 4)
    for setting, open_, expected in (
        ("task", "all", [2, 2, 2]),
        ("class", "all", [6, 6, 6]),
        ("class", "seen", [2, 4, 6]),
        ("class", "current", [2, 2, 2]),
        ("domain", "all", [2, 2, 2]),
    ):
        allowed = stream_index(split(dataset, 3, setting, open=open_), [0])["allowed"][0]
        assert allowed.sum(1).tolist() == expected, (setting, open_)


def test_permuted_rows_are_permuted_and_tasks_differ():
    stream = permuted(load_dataset("digits"), 3)
    session = Session(Learner(MLP(4)), stream, [0, 1])
    problem = dataclasses.replace(
        session.fleet.problem, index={k: v[1] for k, v in session.fleet.problem.index.items()}
    )
    row = torch.arange(5)
    seen = [problem.x(row, torch.full_like(row, t)).flatten(1) for t in range(3)]
    plain = stream.dataset.x[row].flatten(1) / 255
    permutation = stream.tasks_of(1)[2].permutation
    assert permutation is not None and torch.equal(seen[2], plain[:, permutation])
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[0].sort(1).values, plain.sort(1).values)


def test_rotation_by_quarter_turns_is_exact():
    image = torch.rand(1, 8, 8, generator=generator("image"))
    assert torch.allclose(rotate(image, torch.tensor([90.0])), image.rot90(1, (1, 2)), atol=1e-5)
    assert torch.allclose(rotate(image, torch.tensor([180.0])), image.flip(1, 2), atol=1e-5)
    assert [task.angle for task in rotated(load_dataset("digits"), 3)] == [0.0, 90.0, 180.0]


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 28, 28), (4, 3, 6, 9)])
def test_rotation_is_torchs_own(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    angle = 360 * torch.rand(shape[0], generator=generator, dtype=torch.float64)
    radians = angle * (torch.pi / 180)
    zero = torch.zeros_like(radians)
    theta = torch.stack([radians.cos(), -radians.sin(), zero, radians.sin(), radians.cos(), zero], 1).view(-1, 2, 3)
    images = x if x.ndim == 4 else x[:, None]
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    exact = torch.nn.functional.grid_sample(images, grid, align_corners=False).view(x.shape)
    torch.testing.assert_close(rotate(x, angle), exact, rtol=0, atol=1e-12)


def test_batches_show_every_row_once_in_an_epoch():
    stream = split(blobs(4, 3, 20), 2, budget=Budget(epochs=3, batch=7))
    session = Session(Learner(MLP(2)), stream, [0, 4])
    count = int(session.fleet.problem.index["count_train"][1, 0])
    assert session.sampler.steps[1, 0] == -(-3 * count // 7)
    batches = list(session.sampler.batches(0))
    shown = torch.cat([batch.row[1][batch.shown[1]] for batch in batches])
    assert len(shown) == 3 * count and torch.bincount(shown)[stream.tasks_of(4)[0].train].tolist() == [3] * count
    assert all(batch.weight[1].sum() == pytest.approx(1) for batch in batches)
    assert sorted(shown[:count].tolist()) == sorted(stream.tasks_of(4)[0].train.tolist())
    first = torch.cat([batch.first_seen[1] for batch in batches])
    assert int(first.sum()) == count and bool(first[:count].all())


def test_uniforms_do_not_depend_on_other_parts_or_seeds():
    from lifelong.strategies.replay.replay import ClassReplay, Replay

    stream = split(blobs(4, 3, 20), 2, budget=Budget(iterations=5, batch=4))

    def uniforms(strategy, seeds, place):
        session = Session(Learner(MLP(2), strategy), stream, seeds)
        return next(iter(session.sampler.batches(1, 3))).draws[place]

    alone = uniforms(Replay(5), [7], 0)["ticket"]
    together = uniforms(ClassReplay(2) + Replay(5), [1, 7], 1)["ticket"]
    assert torch.equal(alone[0], together[1]) and bool(((alone > 0) & (alone < 1)).all())


def test_wrong_arrays_are_refused():
    x = torch.rand(6, 2)
    for y, words in ((torch.arange(5), "6 rows and 5"), (torch.rand(6), "whole"), (torch.arange(6), "one row")):
        with pytest.raises(ScenarioError, match=words):
            dataset_from_arrays("mine", x, y)


def test_image_folder(tmp_path):
    from PIL import Image

    for name, colour in (("dark", 10), ("light", 240)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (9, 9), (colour, i, 0)).save(tmp_path / "images" / name / f"{i}.png")
    dataset = load_dataset(str(tmp_path / "images"))
    assert dataset.shape == (3, 32, 32) and dataset.classes == 2 and len(dataset.y) == 8


def test_cifar_reader_refuses_what_is_not_an_array(tmp_path):
    import pickle

    from scenarios.datasets import DATASETS

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": Evil(), "labels": [0]}))
    with pytest.raises(ScenarioError, match="tampered"):
        DATASETS["cifar10"].read(tmp_path)


def test_cifar_reader_reads_arrays(tmp_path):
    import pickle

    import numpy as np

    from scenarios.datasets import DATASETS

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        entry = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]}
        (folder / file).write_bytes(pickle.dumps(entry))
    dataset = DATASETS["cifar10"].read(tmp_path)
    assert dataset.shape == (3, 32, 32) and (dataset.train_rows, len(dataset.y)) == (20, 24)


@pytest.fixture(scope="module")
def avalanche_pieces():
    import numpy as np
    from torch.utils.data import Dataset

    digits = load_dataset("digits")

    class Digits(Dataset):
        def __init__(self, part):
            rows = slice(None, 200) if part == "train" else slice(digits.train_rows, digits.train_rows + 100)
            self.x, self.y = digits.x[rows].float() / 255, digits.y[rows]
            self.targets = self.y.tolist()

        def __len__(self):
            return len(self.y)

        def __getitem__(self, i):
            return self.x[i][None], int(self.y[i])

    np.random.seed(0)
    return Digits("train"), Digits("test")


def test_avalanche_benchmark_is_a_stream(avalanche_pieces):
    from avalanche.benchmarks import nc_benchmark

    from scenarios.avalanche import stream_of

    train, test = avalanche_pieces
    benchmark = nc_benchmark(train, test, n_experiences=5, task_labels=False, seed=3)
    stream = stream_of(benchmark)
    assert (stream.setting, len(stream), stream.classes) == ("class", 5, 10)
    assert [seen for _, seen, _ in check_stream(stream) if seen] == []
    for task, experience in zip(stream, benchmark.train_stream, strict=True):
        assert len(task.train) == len(experience.dataset)
        assert set(task.classes) == set(experience.classes_in_this_experience)
        for i in (0, 5):
            row = experience.dataset[i]
            assert (
                torch.equal(stream.dataset.x[task.train[i]], row[0]) and int(stream.dataset.y[task.train[i]]) == row[1]
            )
    labelled = stream_of(nc_benchmark(train, test, n_experiences=5, task_labels=True, seed=3))
    assert labelled.setting == "task"


def test_avalanche_random_transform_is_refused_by_name(avalanche_pieces):
    from avalanche.benchmarks import nc_benchmark
    from torchvision.transforms import RandomCrop

    from scenarios.avalanche import stream_of

    train, test = avalanche_pieces
    benchmark = nc_benchmark(train, test, n_experiences=2, task_labels=False, train_transform=RandomCrop(8, 2))
    with pytest.raises(ScenarioError, match="RandomCrop"):
        stream_of(benchmark)


def test_a_rehearsal_shows_no_test_row():
    """What a setting is chosen by is held out of training rows, at least one of each class."""
    for per_class in (40, 4):
        dataset = blobs(6, 3, per_class)
        plain, rehearsal = (class_by_class(dataset, 4, rehearsal=share).tasks_of(2) for share in (0.0, 0.2))
        for task, trial in zip(plain, rehearsal, strict=True):
            assert len(trial.test) == max(1, len(task.train) // 5) and not torch.isin(trial.test, task.test).any()
            assert torch.equal(torch.cat([trial.train, trial.test]).sort().values, task.train)
    with pytest.raises(ScenarioError, match="rehearsals need 2"):
        class_by_class(blobs(3, 3, 2), 2, rehearsal=0.2).tasks_of(0)
