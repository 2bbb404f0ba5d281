"""Data sets of the user's own: what is read, what is refused in one line, and what is said of it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from scenarios.datasets import dataset_from_arrays, describe, load_dataset, read_image_folder, read_npz
from scenarios.errors import ConfigurationError
from scenarios.split import split
from scenarios.stream import Dataset
from scenarios.synthetic import blobs


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 8), (shade, 0, 0)).save(path)


def folder(path, shades, count=3):
    """One folder per class; images of a class have its shade."""
    for name, shade in shades.items():
        for i in range(count):
            picture(path / name / f"{i}.png", shade)


def test_classes_of_an_image_folder_go_by_name(tmp_path):
    shades = {"ant": 10, "bee": 20, "cat": 30}
    folder(tmp_path / "train", shades)
    folder(tmp_path / "test", shades, 2)
    (tmp_path / "test/.hidden").mkdir()
    dataset = read_image_folder(tmp_path)
    assert (dataset.labels, dataset.train_rows, dataset.shape) == (("ant", "bee", "cat"), 9, (3, 32, 32))
    red = dataset.x[:, 0, 0, 0].tolist()
    assert [shades[dataset.labels[y]] for y in dataset.y.tolist()] == red
    assert "(ant, bee, cat) of 3 training rows each" in describe(dataset)


@pytest.mark.parametrize(
    "test, hint",
    [({"bee": 20, "cat": 30}, "ant"), ({"e": 50}, "training part lacks: e"), ({}, "test"),
     ({"ant": 10, "bee": 20, "cat": 30, "dog": 40}, "dog")],
)  # fmt: skip
def test_a_test_folder_with_other_classes_is_refused_by_name(tmp_path, test, hint):
    folder(tmp_path / "train", {"ant": 10, "bee": 20, "cat": 30})
    (tmp_path / "test").mkdir()
    folder(tmp_path / "test", test)
    with pytest.raises(ConfigurationError, match=hint) as error:
        load_dataset(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_folder_without_parts_and_its_faults(tmp_path):
    folder(tmp_path / "a", {"ant": 10, "bee": 20})
    assert read_image_folder(tmp_path / "a").labels == ("ant", "bee")
    (tmp_path / "a/empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds no image"):
        read_image_folder(tmp_path / "a")
    (tmp_path / "a/empty").rmdir()
    (tmp_path / "a/bee/bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(ConfigurationError, match=r"bad.png: is no image"):
        read_image_folder(tmp_path / "a")
    folder(tmp_path / "b/train", {"ant": 10})
    with pytest.raises(ConfigurationError, match="needs both"):
        read_image_folder(tmp_path / "b")


def test_a_decompression_bomb_is_not_decoded(tmp_path):
    folder(tmp_path, {"ant": 10, "bee": 20})
    for side in (10_000, 60_000):  # what Pillow warns of, and what it refuses
        chunks = [b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(bytes(100_000))]
        png = b"\x89PNG\r\n\x1a\n"
        for chunk in chunks:
            png += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "bee/bomb.png").write_bytes(png)
        with pytest.raises(ConfigurationError, match=r"bomb.png: says that it is larger") as error:
            read_image_folder(tmp_path)
        assert "\n" not in str(error.value)


ROWS, LABELS = np.arange(48.0).reshape(12, 4), np.arange(12) % 3


def written(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "arrays, hint",
    {
        "x_test alone": ({"x": ROWS, "y": LABELS, "x_test": ROWS}, "no y_test"),
        "y_test alone": ({"x": ROWS, "y": LABELS, "y_test": LABELS}, "no x_test"),
        "unknown class": ({"x": ROWS, "y": LABELS, "x_test": ROWS, "y_test": LABELS + 1}, "training part lacks: 3"),
        "class without test rows": ({"x": ROWS, "y": LABELS, "x_test": ROWS[:2], "y_test": LABELS[:2]}, "test part lacks: 2"),
        "0-d x": ({"x": np.array(3.0), "y": LABELS}, "shape"),
        "0-d y": ({"x": ROWS, "y": np.array(1)}, "for each row"),
        "no features": ({"x": np.zeros((12, 0)), "y": LABELS}, "not empty"),
        "no rows": ({"x": np.zeros((0, 3)), "y": LABELS[:0]}, "not empty"),
        "label below 0": ({"x": ROWS, "y": LABELS - 1}, "row 0 has the label -1"),
        "huge label": ({"x": ROWS, "y": np.full(12, 2**63, np.uint64)}, "row 0"),
        "complex": ({"x": ROWS + 1j, "y": LABELS}, "numbers"),
        "infinite labels": ({"x": ROWS, "y": np.full(12, np.inf)}, "whole"),
        "too large": ({"x": ROWS * 1e300, "y": LABELS}, "infinite"),
        "other kinds": ({"x": ROWS.astype(np.uint8), "y": LABELS, "x_test": ROWS, "y_test": LABELS}, "uint8"),
        "dates": ({"x": ROWS.astype("datetime64[s]"), "y": LABELS}, "numbers"),
    }.values(),
)  # fmt: skip
def test_arrays_that_are_refused_in_one_line(tmp_path, arrays, hint):
    with pytest.raises(ConfigurationError, match=hint) as error:
        read_npz(written(tmp_path / "my.npz", **arrays))
    assert "\n" not in str(error.value)


def test_other_kinds_of_numbers_are_read(tmp_path):
    plain = read_npz(written(tmp_path / "my.npz", x=ROWS, y=LABELS))
    assert plain.x.dtype == torch.float32 and plain.labels == (0, 1, 2)
    for dtype in (">f8", "longdouble", "float16", ">i4", "uint16", "uint32", "uint64", "int8"):
        other = read_npz(written(tmp_path / "my.npz", x=ROWS.astype(dtype), y=LABELS.astype(dtype)))
        assert other.content_hash() == plain.content_hash(), dtype


def test_bytes_are_images_of_any_number_of_channels(tmp_path):
    for channels in (1, 2, 5):
        x = np.arange(12 * channels * 20, dtype=np.uint8).reshape(12, channels, 4, 5)
        dataset = read_npz(written(tmp_path / "my.npz", x=x, y=LABELS + 7))
        assert dataset.x.dtype == torch.uint8 and dataset.shape == (channels, 4, 5) and dataset.labels == (7, 8, 9)
        words = f"of {channels} channel{'s' * (channels > 1)} of 4 x 5 (bytes), 3 classes (7, 8, 9)"
        assert words in describe(dataset)


def header(path, shape, values=b"", magic=b"\x93NUMPY\x01\x00", kind="<f8"):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", magic + struct.pack("<H", len(text)) + text.encode() + values)
        file = io.BytesIO()
        np.save(file, LABELS)
        archive.writestr("y.npy", file.getvalue())
    return path


def test_damaged_and_lying_files_are_refused_in_one_line(tmp_path):
    np.save(tmp_path / "one.npy", ROWS)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("x.npy", "text")
        archive.writestr("y", "text")
    good = written(tmp_path / "good.npz", x=ROWS, y=LABELS).read_bytes()
    (tmp_path / "cut.npz").write_bytes(good[:-30])
    (tmp_path / "flipped.npz").write_bytes(good.replace(b"descr", b"dscre"))
    cases = {
        "one.npz": "single array",
        "text.npz": "no array",
        "cut.npz": "cannot be read|can be read",
        "flipped.npz": "can be read",
        header(tmp_path / "claims.npz", (10**15,)).name: "too short",
        header(tmp_path / "negative.npz", (-3, 4)).name: "can be read|too short",
        header(tmp_path / "version.npz", (3,), magic=b"\x93NUMPY\x09\x00").name: "plain array",
        "nowhere.npz": "no such file",
    }
    for name, hint in cases.items():
        with pytest.raises(ConfigurationError, match=hint) as error:
            read_npz(tmp_path / name)
        assert "\n" not in str(error.value), name


def test_an_array_that_no_memory_holds_is_refused(tmp_path, monkeypatch):
    file = written(tmp_path / "my.npz", x=ROWS, y=LABELS)
    monkeypatch.setattr("scenarios.datasets.free_memory", lambda: 100)
    with pytest.raises(ConfigurationError, match="not as much memory"):
        read_npz(file)


def test_a_label_that_is_no_class_names_its_row():
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, -1, 1])
    for wrong, hint in ((y, "row 2 has the label -1"), (y + 1, "row 1 has the label 2, and classes are 0 to 1")):
        with pytest.raises(ConfigurationError, match=hint):
            Dataset("mine", x, wrong, 2, 2)
    with pytest.raises(ConfigurationError, match="3 labels are named"):
        Dataset("mine", x, y.abs(), 2, 2, labels=("a", "b", "c"))
    with pytest.raises(ConfigurationError, match="row 3"):
        dataset_from_arrays("mine", np.zeros((4, 2)), [0, 1, 0, -1])


def test_labels_are_looked_at_once_and_never_on_another_device(monkeypatch):
    dataset = blobs(classes=3)
    assert dataset.labels == (0, 1, 2)
    looked = []
    monkeypatch.setattr(torch.Tensor, "any", lambda self, *words: looked.append(1) or torch.tensor(False))
    for again in (
        replace(dataset, name="b"),
        dataset.to("cpu"),
        dataset.to("meta"),
        replace(dataset.to("meta"), name="c"),
    ):
        assert again.labels == dataset.labels
    assert not looked
    replace(dataset, classes=4, labels=())
    assert looked


def test_labels_are_kept_with_the_cached_table(tmp_path, monkeypatch):
    import scenarios.datasets as datasets

    reads = []

    def read(root):
        reads.append(1)
        return dataset_from_arrays("mine", ROWS, LABELS * 10)

    data = datasets.DatasetSource(read, "", "", "")
    tables = [datasets._cached("mine", data, tmp_path) for _ in range(2)]
    assert len(reads) == 1 and [dataset.labels for dataset in tables] == [(0, 10, 20)] * 2
    file = tmp_path / "datasets/mine.safetensors"
    content = file.read_bytes()
    for old, new in ((b'"classes":"3"', b'"classes":"9"'), (b'"train_rows":"9"', b'"train_rows":"0"')):
        assert old in content
        file.write_bytes(content.replace(old, new))
        assert datasets._cached("mine", data, tmp_path).classes == 3
    assert len(reads) == 3


def test_a_stream_of_own_data_learns_only_what_it_can_score():
    stream = split(dataset_from_arrays("mine", ROWS, LABELS * 5), 3, "task")
    assert all(len(task.test) for task in stream)
