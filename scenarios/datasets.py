"""Data sets as datasets of tensors: decoded once, kept in a cache, checked by the content of the decoded rows.

torchvision downloads and decodes; a dataset made from its files is written beside them as safetensors and read from
there afterwards. Archives that were re-packed are accepted when their decoded rows are right, damaged ones refused.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scenarios.disk import BLANK, DIGEST, is_intact, opened, reason, remove_left_by_the_dead, sealed
from scenarios.machine import free_memory
from scenarios.stream import Dataset, ScenarioError, generator
from scenarios.tables import SPLIT, about_table, mapped, origin_of, read_through, refuse_damaged, refuse_infinite


def default_root() -> Path:
    """$LIFELONG_DATA, or the user's cache folder."""
    named = os.environ.get("LIFELONG_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(named) if named else cache / "lifelong"


def dataset_from_arrays(
    name: str, x: Any, y: Any, x_test: Any = None, y_test: Any = None, *, test_share: float = 0.2
) -> Dataset:
    """A dataset from a user's own arrays or tensors; classes are renumbered 0 ... C - 1 in the order of their labels.

    x: rows [N, ...]; bytes are kept and read as 0 ... 1, all else becomes float32. Images are [N, H, W] or, with
    channels first, [N, K, H, W]. y: whole numbers of at least 0 [N]. Without test arrays a fixed random fifth of each
    class is the test part. Raises ScenarioError for rows that are not finite, labels that are no whole numbers, lengths
    and shapes that differ, half a test part, and classes that only one of the parts has.
    """
    if (x_test is None) != (y_test is None):
        there, missing = ("y_test", "x_test") if x_test is None else ("x_test", "y_test")
        raise ScenarioError(f"{name}: has {there} and no {missing}: a test part needs both, or leave both out")
    x, y = _checked(name, x, y)
    if x_test is not None:
        x_test, y_test = _checked(name, x_test, y_test)
        if x_test.shape[1:] != x.shape[1:]:
            raise ScenarioError(
                f"{name}: training rows have shape {tuple(x.shape[1:])}, test rows {tuple(x_test.shape[1:])}"
            )
        if x_test.dtype != x.dtype:
            raise ScenarioError(
                f"{name}: training rows are {x.dtype}, test rows {x_test.dtype}: bytes are scaled, others not"
            )
    else:
        test = torch.zeros(len(y), dtype=torch.bool)
        for label in y.unique().tolist():
            rows = torch.nonzero(y == label)[:, 0]
            if len(rows) < 2:
                raise ScenarioError(f"{name}: class {label} has one row, and training and test need one each")
            order = torch.randperm(len(rows), generator=generator("test rows", label))
            test[rows[order[: max(1, int(len(rows) * test_share))]]] = True
        x, x_test, y, y_test = x[~test], x[test], y[~test], y[test]
    labels = y.unique()
    _refuse_alone(name, labels.tolist(), y_test.unique().tolist())
    numbers = torch.searchsorted(labels, torch.cat([y, y_test]))
    rows = torch.cat([x, x_test]).contiguous()
    return Dataset(name, rows, numbers, len(y), len(labels), labels=tuple(labels.tolist()))


def _refuse_alone(name: str, train: Sequence[Any], test: Sequence[Any]) -> None:
    """Refuse classes that only one part has: those of the test part are unknown, those of training cannot be scored."""
    for words, part, other in (("test", test, train), ("training", train, test)):
        alone = sorted(set(part) - set(other))
        if alone:
            named = ", ".join(map(str, alone[:5])) + (", ..." if len(alone) > 5 else "")
            lacks = "training" if words == "test" else "test"
            raise ScenarioError(f"{name}: the {words} part has classes that the {lacks} part lacks: {named}")


def _checked(name: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Rows as bytes or float32, labels as int64."""
    x, y = _plain(name, "x", x), _plain(name, "y", y)
    if x.ndim < 2 or not x.size:
        raise ScenarioError(
            f"{name}: rows must form an array [N, ...] that is not empty, and this one has shape {x.shape}"
        )
    if y.ndim != 1:
        raise ScenarioError(f"{name}: labels must be one whole number for each row, and they have shape {y.shape}")
    if len(x) != len(y):
        raise ScenarioError(f"{name}: {len(x)} rows and {len(y)} labels; there must be as many of one as of the other")
    y = y.astype(np.float64) if y.dtype.kind == "f" else y
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
        raise ScenarioError(f"{name}: labels must be whole numbers, and some are not, or are NaN or infinite")
    if (y < 0).any() or (y >= 2**62).any():
        row = int(np.flatnonzero((y < 0) | (y >= 2**62))[0])
        raise ScenarioError(f"{name}: row {row} has the label {y[row]}: labels are whole numbers of at least 0")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ScenarioError(f"{name}: some values are NaN or infinite; remove or replace those rows")
    return torch.as_tensor(np.ascontiguousarray(x)), torch.as_tensor(y.astype(np.int64))


def _plain(name: str, word: str, values: Any) -> np.ndarray:
    """An array of numbers in the machine's own order of bytes."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ScenarioError(f"{name}: {word} must hold numbers, and holds {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


ARRAYS = ("x", "y", "x_test", "y_test")


def read_npz(path: Path) -> Dataset:
    """A dataset from a `.npz` file with arrays x and y, and if there are any x_test and y_test. Nothing is unpickled.

    As `np.savez("my.npz", x=rows, y=labels)` writes it; what the arrays hold: see `dataset_from_arrays`. With an array
    train_rows in place of a test part, x and y hold training rows first and test rows after them, and x is mapped, see
    `scenarios.tables`. Raises ScenarioError for anything else.
    """
    try:
        whole = refuse_damaged(path)
        _refuse_claims(path)
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"x", "y"} - set(arrays.files)
            if missing:
                raise ScenarioError(
                    f"{path}: needs arrays named x and y, and has {', '.join(arrays.files[:9]) or 'none'}"
                )
            if SPLIT in arrays.files:
                return _read_table(path, {key: arrays[key] for key in ("y", SPLIT)}, whole)
            held = {key: arrays[key] for key in ARRAYS if key in arrays.files}
    except FileNotFoundError:
        raise ScenarioError(f"{path}: there is no such file") from None
    except ScenarioError:
        raise
    except Exception as error:  # zip, zlib, numpy and Python's parser each have their own errors for a damaged file
        raise ScenarioError(f"{path}: is not an .npz file that can be read ({reason(error)})") from None
    for key, value in held.items():
        if not isinstance(value, np.ndarray):
            raise ScenarioError(f"{path}: {key} is no array: write the file with np.savez")
    return dataset_from_arrays(path.stem, **held)


def _read_table(path: Path, held: dict[str, np.ndarray], whole: bool) -> Dataset:
    """The dataset of a table, see `scenarios.tables`; held: its small arrays y and train_rows.

    whole: whether it is known that nothing in it changed since it was written.
    """
    split, y, about, x = held[SPLIT], _plain(path.stem, "y", held["y"]), about_table(path), mapped(path)
    if split.ndim or split.dtype.kind not in "iu" or y.ndim != 1 or not 0 < int(split) < len(y):
        raise ScenarioError(f"{path}: {SPLIT} must be a whole number above 0 and below the number of rows")
    count = int(split)
    if x is None:
        with np.load(path, allow_pickle=False) as arrays:
            x = arrays["x"]
        dataset = dataset_from_arrays(path.stem, x[:count], y[:count], x[count:], y[count:])
    else:
        if len(x) != len(y) or y.dtype.kind not in "iu" or bool((y < 0).any()) or x.ndim < 2:
            raise ScenarioError(
                f"{path}: {len(x)} rows and {len(y)} labels; there must be as many whole numbers of at least 0 as rows"
            )
        read_through(path) if not whole else None
        refuse_infinite(path, x)
        _refuse_alone(path.stem, np.unique(y[:count]).tolist(), np.unique(y[count:]).tolist())
        labels = np.unique(y)
        numbers = torch.from_numpy(np.searchsorted(labels, y).astype(np.int64))
        dataset = Dataset(path.stem, torch.from_numpy(x), numbers, count, len(labels), labels=tuple(labels.tolist()))
    named = about.get("labels")
    if isinstance(named, list) and len(named) == dataset.classes and all(isinstance(word, str | int) for word in named):
        dataset = replace(dataset, labels=tuple(named))
    return replace(dataset, origin=origin_of(about))


def _refuse_claims(path: Path) -> None:
    """Refuse arrays that say they are larger than what the file holds, or than memory is, before any room is made."""
    with opened(path) as file:
        if file.read(6) == b"\x93NUMPY":
            raise ScenarioError(
                f"{path}: is a single array, as of a .npy file: write it with np.savez(..., x=rows, y=labels)"
            )
    with zipfile.ZipFile(path) as archive:
        split = f"{SPLIT}.npy" in archive.namelist()
        for about in archive.infolist():
            if about.filename.removesuffix(".npy") not in (*ARRAYS, SPLIT):
                continue
            with archive.open(about) as member:
                if member.read(6) != b"\x93NUMPY":
                    raise ScenarioError(f"{path}: {about.filename} is no array: write the file with np.savez")
            with archive.open(about) as member:
                version = np.lib.format.read_magic(member)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in read:
                    raise ScenarioError(f"{path}: {about.filename} is no plain array of numbers")
                shape, _, dtype = read[version](member)
            size = math.prod(shape) * dtype.itemsize
            if dtype.kind != "O" and size > about.file_size:
                raise ScenarioError(
                    f"{path}: {about.filename} says that it holds {math.prod(shape):,} values, and the file is too short"
                )
            if size > 0.9 * free_memory() and not (split and about.filename == "x.npy" and mapped(path) is not None):
                raise ScenarioError(
                    f"{path}: {about.filename} needs {size / 1e9:,.0f} GB, and there is not as much memory"
                )


IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def read_image_folder(path: Path, size: int = 32) -> Dataset:
    """A dataset from a folder of one folder per class, images scaled to size x size in colour: rows [3, size, size].

    Folders named `train` and `test` inside it, each with one folder per class, are taken as the two parts; a class is
    known by its folder's name in both. Raises ScenarioError for classes that only one of the parts has, and for files
    that are no images.
    """
    parts = {word: _class_folders(path / word) for word in ("train", "test")}
    if not any(parts.values()):
        parts = {"train": _class_folders(path)}
    for word, folders in parts.items():
        if not folders:
            raise ScenarioError(
                f"{path}: has one of the folders train and test, and no classes in {word}: it needs both, or neither"
            )
    names = sorted(parts["train"])
    if len(parts) == 2:
        _refuse_alone(str(path), names, sorted(parts["test"]))
    arrays: list[np.ndarray] = []
    for folders in parts.values():
        files = [(file, number) for number, name in enumerate(names) for file in _images(folders[name])]
        arrays.append(np.stack([_pixels(file, size) for file, _ in files]).transpose(0, 3, 1, 2))
        arrays.append(np.array([number for _, number in files]))
    return replace(dataset_from_arrays(path.name, *arrays), labels=tuple(names))


def _class_folders(path: Path) -> dict[str, Path]:
    """The folders in a folder, by name; none where it is none."""
    try:
        return {place.name: place for place in sorted(path.iterdir()) if place.is_dir() and place.name[0] != "."}
    except NotADirectoryError:
        return {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror})") from None


def _images(folder: Path) -> list[Path]:
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        found += [Path(place, file) for file in files if file.lower().endswith(IMAGES)]
    found.sort(key=lambda file: (str(file.parent), file.name))
    if not found:
        raise ScenarioError(f"{folder}: holds no image: each class is a folder of images ({', '.join(IMAGES[:3])} ...)")
    return found


def _pixels(file: Path, size: int) -> np.ndarray:
    """An image in colour, [size, size, 3]."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with opened(file) as plain, Image.open(plain) as image:
                return np.asarray(image.convert("RGB").resize((size, size)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ScenarioError(f"{file}: says that it is larger than any image should be: it is not decoded") from None
    except Exception as error:  # each format has errors of its own for a damaged file
        raise ScenarioError(f"{file}: is no image that can be read ({reason(error)})") from None


def describe(dataset: Dataset) -> str:
    """A dataset in a line: its name, rows of both parts, their shape and kind, classes, and rows of each class."""
    shape = dataset.shape
    kinds = {1: f"{shape[0]} numbers", 2: "{} x {}".format(*shape) if len(shape) == 2 else ""}
    if len(shape) == 3:
        kinds[3] = f"{shape[0]} channel{'s' * (shape[0] != 1)} of {shape[1]} x {shape[2]}"
    rows = kinds.get(len(shape)) or " x ".join(map(str, shape))
    kind = "bytes" if dataset.x.dtype == torch.uint8 else "numbers" if len(shape) > 1 else ""
    counts = torch.bincount(dataset.y[: dataset.train_rows].cpu(), minlength=dataset.classes)
    least, most = int(counts.min()), int(counts.max())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    labels = [str(label)[:20] for label in dataset.labels or range(dataset.classes)]
    words = ", ".join(labels) if len(labels) <= 10 else f"{labels[0]}, {labels[1]} ... {labels[-1]}"
    return (
        f"{dataset.name}: {dataset.train_rows:,} training and {len(dataset.y) - dataset.train_rows:,} test rows of {rows}"
        f"{f' ({kind})' if kind else ''}, {dataset.classes} classes ({words}) of {each} training rows each"
        f"{f'; {dataset.origin}' if dataset.origin else ''}"
    )


def _digits(root: Path) -> Dataset:
    """Handwritten digits, 8 x 8, 1,797 images: scikit-learn's bundled copy of the UCI test set (Alpaydin, 1998)."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()  # scikit-learn does not say which of its two returns this is
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    return dataset_from_arrays("digits", images, data.target)


def _idx(class_name: str) -> Callable[[Path], Dataset]:
    def read(root: Path) -> Dataset:
        import torchvision.datasets

        maker = getattr(torchvision.datasets, class_name)
        with _writable(root, class_name) as folder:
            train, test = (maker(folder, train=train, download=True) for train in (True, False))
        return dataset_from_arrays(class_name, train.data, train.targets, test.data, test.targets)

    return read


class _writable:
    """The folder itself, or, where it may not be written, a temporary one with links to its archives."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name, self.made = root, name, None

    def __enter__(self) -> str:
        source = self.root / self.name
        if not source.is_dir() or os.access(source / "raw", os.W_OK):
            return str(self.root)
        self.made = tempfile.TemporaryDirectory()
        for file in source.rglob("*.gz"):
            link = Path(self.made.name) / file.relative_to(self.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
        return self.made.name

    def __exit__(self, *error: object) -> None:
        if self.made:
            self.made.cleanup()


def _omniglot(background: bool) -> Callable[[Path], Dataset]:
    """Omniglot at 28 x 28, strokes white; 15 images of each character train, 5 test (Javed and White, 2019)."""

    def read(root: Path) -> Dataset:
        from PIL import Image
        from torchvision.datasets import Omniglot
        from torchvision.datasets.utils import download_url

        name = "images_background" if background else "images_evaluation"
        archive = root / "omniglot-py" / f"{name}.zip"
        if not archive.exists():
            download_url(f"{Omniglot.download_url_prefix}/{name}.zip", str(archive.parent))
        images: list[np.ndarray] = []
        with zipfile.ZipFile(archive) as files:
            names = sorted(n for n in files.namelist() if n.endswith(".png"))
            characters = sorted({n.rsplit("/", 1)[0] for n in names})
            number = {character: i for i, character in enumerate(characters)}
            for n in names:
                with files.open(n) as file:
                    drawn = Image.open(file).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
                images.append(255 - np.asarray(drawn))
        y = np.array([number[n.rsplit("/", 1)[0]] for n in names])
        place = np.arange(len(y)) - np.searchsorted(y, y)
        x, train = np.stack(images), place < 15
        return dataset_from_arrays("omniglot", x[train], y[train], x[~train], y[~train])

    return read


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR's own files: numpy arrays and plain containers, and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        if name in ("_reconstruct", "ndarray", "dtype") and module.split(".")[0] == "numpy":
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise ScenarioError(f"a CIFAR file asks for {module}.{name}: it is damaged or was tampered with")


def _cifar(class_name: str) -> Callable[[Path], Dataset]:
    def read(root: Path) -> Dataset:
        import torchvision.datasets
        from torchvision.datasets.utils import download_and_extract_archive

        maker = getattr(torchvision.datasets, class_name)
        folder = root / maker.base_folder
        if not folder.is_dir():
            download_and_extract_archive(maker.url, str(root), filename=maker.filename, md5=maker.tgz_md5)
        parts = []
        for batches in (maker.train_list, maker.test_list):
            x, y = [], []
            for file, _ in batches:
                with open(folder / file, "rb") as stream:
                    entry = _ArraysOnly(stream, encoding="latin1").load()
                x.append(np.asarray(entry["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
                y.extend(entry.get("labels", entry.get("fine_labels")))
            parts += [np.concatenate(x), np.array(y)]
        return dataset_from_arrays(class_name, *parts)

    return read


@dataclass(frozen=True)
class DatasetSource:
    """How a named data set is decoded, the hash of its decoded rows where known, and the files it needs."""

    read: Callable[[Path], Dataset]
    content: str
    files: str
    about: str


DATASETS = {
    "digits": DatasetSource(
        _digits, "718ee69e0baa2ed1", "", "handwritten digits 8x8, 1,797 images, comes with scikit-learn"
    ),
    "mnist": DatasetSource(
        _idx("MNIST"),
        "b3fe36794a3a345d",
        "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
        "handwritten digits 28x28, 70,000 images",
    ),
    "fashion-mnist": DatasetSource(
        _idx("FashionMNIST"),
        "75979490032625d6",
        "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
        "clothes 28x28, 70,000 images",
    ),
    "omniglot": DatasetSource(
        _omniglot(False),
        "a0dbb1e2cc0d9f84",
        "omniglot-py/images_evaluation.zip",
        "659 characters 28x28, 20 images each",
    ),
    "omniglot-background": DatasetSource(
        _omniglot(True),
        "b6452862744b06aa",
        "omniglot-py/images_background.zip",
        "964 other characters 28x28, 20 images each",
    ),
    "cifar10": DatasetSource(
        _cifar("CIFAR10"), "", "cifar-10-python.tar.gz", "photographs 32x32 in 10 classes, 60,000 images"
    ),
    "cifar100": DatasetSource(
        _cifar("CIFAR100"), "", "cifar-100-python.tar.gz", "photographs 32x32 in 100 classes, 60,000 images"
    ),
}


def load_dataset(name: str, root: Path | str | None = None) -> Dataset:
    """A named data set, a `.npz` file or a folder of images, as a dataset on the CPU.

    Raises ScenarioError when it is not there and cannot be downloaded, is damaged, or is not known.
    """
    if name.endswith(".npz"):
        return read_npz(Path(name))
    if name not in DATASETS and os.path.isdir(name):
        return read_image_folder(Path(name))
    if name not in DATASETS:
        import difflib

        near = difflib.get_close_matches(name, DATASETS, 1)
        raise ScenarioError(
            f"unknown data set {name!r}: "
            + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DATASETS)}")
        )
    if name == "digits":
        return _digits(Path())
    folder = Path(root) if root else default_root()
    return _cached(name, DATASETS[name], folder)


UNSEALED = {"train_rows", "classes", "content", "labels"}  # what caches say that were written before there were digests


def _cached(name: str, data: DatasetSource, root: Path) -> Dataset:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    cache = root / "datasets" / f"{name}.safetensors"
    try:
        intact = is_intact(cache)
        with safe_open(cache, "pt") as file:
            kept = file.metadata()
            if intact is False or (intact is None and not {*kept} <= UNSEALED):
                raise ValueError("it is not as it was written")
            x, y, train_rows, classes = (
                file.get_tensor("x"),
                file.get_tensor("y"),
                int(kept["train_rows"]),
                int(kept["classes"]),
            )
        if classes == int(y.max()) + 1 and 0 < train_rows < len(y) == len(x):
            dataset = Dataset(name, x, y, train_rows, classes, labels=_labels(kept, classes))
            if dataset.content_hash() == (data.content or kept["content"]):
                return dataset
    except (FileNotFoundError, SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError):
        pass  # damaged, or of another version: it is decoded again
    where = f"put {data.files} under {root}, or run `lifelong data get {name}` where there is a network"
    there = root.exists()
    try:
        dataset = data.read(root)
    except ScenarioError:
        raise
    except zipfile.BadZipFile as error:
        raise ScenarioError(f"{name}: its archive is damaged ({error}); {where}") from None
    except (
        Exception
    ) as error:  # torchvision raises RuntimeError, URLError, OSError, EOFError ... for one and the same thing
        if not there and root.is_dir() and not any(root.iterdir()):
            root.rmdir()  # torchvision makes the folder before it knows that it cannot fill it
        raise ScenarioError(
            f"{name} is not there, or damaged, and could not be downloaded ({reason(error)}); {where}"
        ) from None
    content = dataset.content_hash()
    if data.content and content != data.content:
        raise ScenarioError(f"{name}: the decoded images are not the published ones (damaged archive?); {where}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        remove_left_by_the_dead(cache.parent, f"{name}.{{process}}.")
        kept = {"train_rows": str(dataset.train_rows), "classes": str(dataset.classes), "content": content}
        kept["labels"] = json.dumps(dataset.labels)
        kept["about"] = json.dumps({DIGEST: BLANK.decode()})
        partial = cache.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(sealed(save({"x": dataset.x, "y": dataset.y}, kept)))
        partial.replace(cache)
    except OSError:
        pass  # a folder that may only be read costs a decode at each start, nothing else
    return replace(dataset, name=name)


def _labels(kept: dict[str, str], classes: int) -> tuple[Any, ...]:
    """The labels that a cached dataset has, or class numbers where it was written before labels were kept."""
    labels = tuple(json.loads(kept.get("labels", "[]")))
    return labels if len(labels) == classes else tuple(range(classes))
