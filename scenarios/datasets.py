"""Data sets as tables of tensors: decoded once, kept in a cache, checked by the content of the decoded rows.

torchvision downloads and decodes; a table made from its files is written beside them as safetensors and read from
there afterwards. Archives that were re-packed are accepted when their decoded rows are right, damaged ones refused.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scenarios.stream import ScenarioError, Table, generator


def default_root() -> Path:
    """$LIFELONG_DATA, or the user's cache folder."""
    named = os.environ.get("LIFELONG_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(named) if named else cache / "lifelong"


def table_from_arrays(
    name: str, x: Any, y: Any, x_test: Any = None, y_test: Any = None, test_share: float = 0.2
) -> Table:
    """A table from a user's own arrays or tensors; classes are renumbered 0 ... C - 1 in the order of their labels.

    Without test arrays a fixed random fifth of each class is the test part. Raises ScenarioError for rows that are
    not finite, labels that are not integers, and lengths that differ.
    """
    x, y = _checked(name, x, y)
    if x_test is not None and y_test is not None:
        x_test, y_test = _checked(name, x_test, y_test)
        if x_test.shape[1:] != x.shape[1:]:
            raise ScenarioError(
                f"{name}: training rows have shape {tuple(x.shape[1:])}, test rows {tuple(x_test.shape[1:])}"
            )
    else:
        test = torch.zeros(len(y), dtype=torch.bool)
        for label in y.unique().tolist():
            own = torch.nonzero(y == label)[:, 0]
            if len(own) < 2:
                raise ScenarioError(f"{name}: class {label} has one row, and training and test need one each")
            order = torch.randperm(len(own), generator=generator("test rows", label))
            test[own[order[: max(1, int(len(own) * test_share))]]] = True
        x, x_test, y, y_test = x[~test], x[test], y[~test], y[test]
    labels = y.unique()
    if not torch.isin(y_test, labels).all():
        raise ScenarioError(f"{name}: the test part has classes that the training part lacks")
    numbers = torch.searchsorted(labels, torch.cat([y, y_test]))
    return Table(name, torch.cat([x, x_test]).contiguous(), numbers, len(y), len(labels), tuple(labels.tolist()))


def _checked(name: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if len(x) != len(y):
        raise ScenarioError(f"{name}: {len(x)} rows and {len(y)} labels; there must be as many of one as of the other")
    if not len(x) or x.ndim < 2:
        raise ScenarioError(
            f"{name}: rows must form an array [N, ...] that is not empty, and this one has shape {tuple(x.shape)}"
        )
    if y.is_floating_point() and not (y == y.round()).all():
        raise ScenarioError(f"{name}: labels must be whole numbers, and some are not")
    if y.ndim != 1 or y.is_complex():
        raise ScenarioError(f"{name}: labels must be one whole number for each row")
    if x.dtype != torch.uint8:
        x = x.to(torch.float32)
        if not torch.isfinite(x).all():
            raise ScenarioError(f"{name}: some values are NaN or infinite; remove or replace those rows")
    return x, y.to(torch.int64)


def read_npz(path: Path) -> Table:
    """A table from a `.npz` file with arrays x and y, and if there are any x_test and y_test. Nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"x", "y"} - set(arrays.files)
            if missing:
                raise ScenarioError(f"{path}: needs arrays named x and y, and has {', '.join(arrays.files) or 'none'}")
            held = {key: arrays[key] for key in ("x", "y", "x_test", "y_test") if key in arrays.files}
        bad = [key for key, value in held.items() if value.dtype.kind not in "biuf"]
        if bad:
            raise ScenarioError(f"{path}: {bad[0]} must hold numbers, and holds {held[bad[0]].dtype}")
        if held["y"].dtype.kind not in "biu" and not np.isfinite(held["y"]).all():
            raise ScenarioError(f"{path}: labels must be whole numbers, and some are NaN or infinite")
    except FileNotFoundError:
        raise ScenarioError(f"{path}: there is no such file") from None
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        if isinstance(error, ScenarioError):
            raise
        raise ScenarioError(f"{path}: is not an .npz file that can be read ({error})") from None
    return table_from_arrays(path.stem, **held)


def read_image_folder(path: Path, size: int = 32) -> Table:
    """A table from a folder of one folder per class, images scaled to size x size in colour.

    Folders named `train` and `test` inside it are taken as the two parts.
    """
    from torchvision.datasets import ImageFolder

    def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        images = ImageFolder(str(folder), transform=lambda image: np.asarray(image.resize((size, size))))
        if not images.samples:
            raise ScenarioError(f"{folder}: holds no image")
        return np.stack([image for image, _ in images]).transpose(0, 3, 1, 2), np.array(images.targets)

    try:
        if (path / "train").is_dir() and (path / "test").is_dir():
            return table_from_arrays(path.name, *read(path / "train"), *read(path / "test"))
        return table_from_arrays(path.name, *read(path))
    except (FileNotFoundError, OSError) as error:
        raise ScenarioError(
            f"{path}: is not a folder of images, one folder per class ({str(error).splitlines()[0]})"
        ) from None


def _digits(root: Path) -> Table:
    """Handwritten digits, 8 x 8, 1,797 images: scikit-learn's bundled copy of the UCI test set (Alpaydin, 1998)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    return table_from_arrays("digits", images, data.target)


def _idx(class_name: str) -> Callable[[Path], Table]:
    def read(root: Path) -> Table:
        import torchvision.datasets

        maker = getattr(torchvision.datasets, class_name)
        with _writable(root, class_name) as folder:
            train, test = (maker(folder, train=train, download=True) for train in (True, False))
        return table_from_arrays(class_name, train.data, train.targets, test.data, test.targets)

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


def _omniglot(background: bool) -> Callable[[Path], Table]:
    """Omniglot at 28 x 28, strokes white; 15 images of each character train, 5 test (Javed and White, 2019)."""

    def read(root: Path) -> Table:
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
        return table_from_arrays("omniglot", x[train], y[train], x[~train], y[~train])

    return read


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR's own files: numpy arrays and plain containers, and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        if name in ("_reconstruct", "ndarray", "dtype") and module.split(".")[0] == "numpy":
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise ScenarioError(f"a CIFAR file asks for {module}.{name}: it is damaged or was tampered with")


def _cifar(class_name: str) -> Callable[[Path], Table]:
    def read(root: Path) -> Table:
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
        return table_from_arrays(class_name, *parts)

    return read


@dataclass(frozen=True)
class DataSet:
    """How a named data set is decoded, the hash of its decoded rows where known, and the files it needs."""

    read: Callable[[Path], Table]
    content: str
    files: str
    about: str


DATASETS = {
    "digits": DataSet(_digits, "718ee69e0baa2ed1", "", "handwritten digits 8x8, 1,797 images, comes with scikit-learn"),
    "mnist": DataSet(
        _idx("MNIST"),
        "b3fe36794a3a345d",
        "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
        "handwritten digits 28x28, 70,000 images",
    ),
    "fashion-mnist": DataSet(
        _idx("FashionMNIST"),
        "75979490032625d6",
        "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
        "clothes 28x28, 70,000 images",
    ),
    "omniglot": DataSet(
        _omniglot(False),
        "a0dbb1e2cc0d9f84",
        "omniglot-py/images_evaluation.zip",
        "659 characters 28x28, 20 images each",
    ),
    "omniglot-background": DataSet(
        _omniglot(True),
        "b6452862744b06aa",
        "omniglot-py/images_background.zip",
        "964 other characters 28x28, 20 images each",
    ),
    "cifar10": DataSet(
        _cifar("CIFAR10"), "", "cifar-10-python.tar.gz", "photographs 32x32 in 10 classes, 60,000 images"
    ),
    "cifar100": DataSet(
        _cifar("CIFAR100"), "", "cifar-100-python.tar.gz", "photographs 32x32 in 100 classes, 60,000 images"
    ),
}


def load_table(name: str, root: Path | str | None = None) -> Table:
    """A named data set, a `.npz` file or a folder of images, as a table on the CPU.

    Raises ScenarioError when it is not there and cannot be downloaded, is damaged, or is not known.
    """
    if name.endswith(".npz"):
        return read_npz(Path(name))
    if Path(name).is_dir() and name not in DATASETS:
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


def _cached(name: str, data: DataSet, root: Path) -> Table:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    cache = root / "tables" / f"{name}.safetensors"
    try:
        with safe_open(cache, "pt") as file:
            kept = file.metadata()
            table = Table(
                name, file.get_tensor("x"), file.get_tensor("y"), int(kept["train_rows"]), int(kept["classes"])
            )
        if table.content_hash() == kept["content"]:
            return table
    except (FileNotFoundError, SafetensorError, OSError, KeyError, TypeError):
        pass
    where = f"put {data.files} under {root}, or run `lifelong data get {name}` where there is a network"
    there = root.exists()
    try:
        table = data.read(root)
    except ScenarioError:
        raise
    except zipfile.BadZipFile as error:
        raise ScenarioError(f"{name}: its archive is damaged ({error}); {where}") from None
    except (
        Exception
    ) as error:  # torchvision raises RuntimeError, URLError, OSError, EOFError ... for one and the same thing
        if not there and root.is_dir() and not any(root.iterdir()):
            root.rmdir()  # torchvision makes the folder before it knows that it cannot fill it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ScenarioError(
            f"{name} is not there, or damaged, and could not be downloaded ({reason}); {where}"
        ) from None
    content = table.content_hash()
    if data.content and content != data.content:
        raise ScenarioError(f"{name}: the decoded images are not the published ones (damaged archive?); {where}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        kept = {"train_rows": str(table.train_rows), "classes": str(table.classes), "content": content}
        partial = cache.with_suffix(f".{os.getpid()}")
        save_file({"x": table.x, "y": table.y}, partial, metadata=kept)
        partial.replace(cache)
    except OSError:
        pass  # a folder that may only be read costs a decode at each start, nothing else
    return Table(name, table.x, table.y, table.train_rows, table.classes)
