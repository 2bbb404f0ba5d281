"""Tensors and text on disk: plain files, each written whole or not at all, never pickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from scenarios.errors import ConfigurationError

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None


FORMAT = 3  # of run folders and of starts; raised where older ones can no longer be read


class RunError(ConfigurationError):
    """A file that cannot be written or read; what was there before is as it was."""


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, flush, rename, folder synced."""
    try:
        partial = path.with_name(path.name + ".partial")
    except ValueError:
        raise RunError(f"{path} cannot be written: it is not the name of a file") from None
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):  # where nothing can be written, nothing can be removed either
            partial.unlink()
        raise RunError(f"{path} cannot be written ({reason(error)}); what was saved before is as it was") from None


def reason(error: OSError) -> str:
    """Why the system refused, in its own words."""
    return error.strerror or str(error).partition("\n")[0] or type(error).__name__


def make_folder(path: Path, new: bool = False) -> None:
    """A folder and those above it; `new`: refused where it is there already. Raises RunError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except FileExistsError:
        raise RunError(f"{path} exists already: choose another name") from None
    except RecursionError:  # Python makes the folders above by recursion
        raise RunError(f"{path} cannot be made: it lies in too many folders") from None
    except OSError as error:
        raise RunError(f"{path} cannot be made ({reason(error)}): choose another folder") from None


def check_writable(folder: Path) -> None:
    """Raise RunError where no file can be written in a folder, which is made if it is not there."""
    make_folder(folder)
    trial = folder / ".writable"
    write(trial, b"")
    trial.unlink()


def remove_partials(folder: Path) -> None:
    """Remove what a process that was killed while it wrote left in a folder."""
    for path in folder.glob("*.partial"):
        with suppress(OSError):  # it is in nobody's way where it cannot be removed
            path.unlink()


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """A folder that no other process works in meanwhile; a process that is killed lets go of it.

    Raises RunError where another process works in it, or nothing can be written. Where the system has no such locks
    (Windows), nothing is held.
    """
    if fcntl is None:
        yield
        return
    try:
        lock = open(folder / ".lock", "w")  # noqa: SIM115 - it is held while the folder is
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({reason(error)}); what was saved before is as it was") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder} is being learned by another process: wait for it, or stop it first") from None
        except OSError:
            pass  # some network file systems know no locks
        yield


def digest(path: Path) -> str:
    """SHA-256 of a file's content, first 16 hexadecimal digits. Raises RunError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise RunError(f"{path} cannot be read ({reason(error)})") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises RunError where there is none, or it is damaged."""
    try:
        held = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({str(error).partition(chr(10))[0]})") from None
    if not isinstance(held, dict):
        raise RunError(f"{path} is damaged, or of another version of lifelong")
    return held


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Tensors and a JSON description in one safetensors file."""
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write(path, save(plain, {"about": json.dumps(about)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote."""
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["about"])
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({str(error).splitlines()[0]}): delete it, and the run starts that part again"
        ) from None


def named(tree: Any) -> dict[str, Tensor]:
    """The leaves of a tree by their place in it."""
    return {keystr(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


def check_format(about: dict[str, Any], path: Path) -> None:
    """Raise RunError where a file was written by a version of lifelong whose files cannot be read any more."""
    if about.get("format") != FORMAT:
        raise RunError(f"{path} is of an older version of lifelong, whose files cannot be read: learn it again")


def filled(template: Any, tensors: dict[str, Tensor], prefix: str, where: Path, kept: str | None = None) -> Any:
    """A tree like the template with leaves from a file; refuses leaves that are missing or of another shape.

    kept: leaves whose place begins so are the template's own.
    """
    leaves, spec = tree_flatten_with_path(template)
    new = []
    for path, leaf in leaves:
        if kept is not None and keystr(path).startswith(kept):
            new.append(leaf)
            continue
        found = tensors.get(prefix + keystr(path))
        if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise RunError(f"{where} is of another run: its {keystr(path)} does not fit this learner")
        new.append(found.to(leaf.device))
    return tree_unflatten(new, spec)
