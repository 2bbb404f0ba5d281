"""Tensors and text on disk: plain files, each written whole or not at all, known again by a digest, never pickled."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from scenarios.disk import BLANK, DIGEST, is_intact, opened, read_plain, reason, sealed, shown
from scenarios.errors import ConfigurationError
from scenarios.typed import TypedError, check, damaged

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None


# of run folders and of starts; raised where older ones can no longer be read. A file of this format that holds no digest
# was written before there were any, or was changed by a person who took it out: it is read as it is
FORMAT = 3


class RunError(ConfigurationError):
    """A file that cannot be written or read; what was there before is as it was."""


class UnwrittenError(RunError):
    """A file that cannot be written."""


class FailedError(RunError):
    """Work that began and could not be finished, though nothing was wrong with what was asked for. Exit code 1."""

    exit_code = 1


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, flush, rename, folder synced. Raises UnwrittenError."""
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
    except (OSError, ValueError) as error:  # a zero byte in a name is a ValueError
        with suppress(OSError, ValueError):  # where nothing can be written, nothing can be removed either
            partial.unlink()
        words = f"{shown(path)} cannot be written ({reason(error)}); what was saved before is as it was"
        raise UnwrittenError(words) from None


@contextmanager
def goes_on(folder: Path, how: str) -> Iterator[None]:
    """What cannot be written from here on is a failure of work that began: exit code 1, and what goes on, if anything does."""
    try:
        yield
    except UnwrittenError as error:
        more = f": once it can be, {how} goes on" if os.path.isdir(folder) else ""
        raise FailedError(f"{error}{more}") from None


def make_folder(path: Path, new: bool = False) -> None:
    """A folder and those above it; `new`: refused where it is there already. Raises RunError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except FileExistsError:
        raise RunError(f"{shown(path)} exists already: choose another name") from None
    except RecursionError:  # Python makes the folders above by recursion
        raise RunError(f"{shown(path)} cannot be made: it lies in too many folders") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{shown(path)} cannot be made ({reason(error)}): choose another folder") from None


def check_writable(folder: Path) -> None:
    """Raise RunError where no file can be written in a folder, which is made if it is not there."""
    make_folder(folder)
    trial = folder / ".writable.partial"  # which is removed with the others where a kill leaves it
    write(trial, b"")
    trial.unlink()


def remove_partials(folder: Path) -> None:
    """Remove what a process that was killed while it wrote left in a folder."""
    for path in folder.glob("*.partial"):
        with suppress(OSError):  # it is in nobody's way where it cannot be removed
            path.unlink()


# --- one process at a time --------------------------------------------------------------------------------------------


@contextmanager
def held_alone(folder: Path, name: str = ".lock") -> Iterator[None]:
    """A folder that no other process works in meanwhile; a process that is killed lets go of it.

    Its lock is a file with the process's number and the time, and is gone afterwards. Raises RunError where another
    process works in the folder, with who that is, or where nothing can be written. Where the system has no such locks
    (Windows), nothing is held.
    """
    if fcntl is None:
        yield
        return
    path = folder / name
    lock = _locked(path, fcntl)
    try:
        yield
    finally:
        with lock, suppress(OSError):
            path.unlink()  # while it is held: who waits for it finds it gone, and takes a new one


def _locked(path: Path, system: Any) -> IO[str]:
    """The open file of a lock that is held. Raises RunError where another process holds it."""
    while True:
        try:
            lock = open(path, "a+")  # noqa: SIM115 - it is held while the folder is
        except OSError as error:
            words = f"{shown(path.parent)} cannot be written ({reason(error)}); what was saved before is as it was"
            raise RunError(words) from None
        try:
            system.flock(lock, system.LOCK_EX | system.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = _owner(lock.read(100))
            lock.close()
            raise RunError(f"{shown(path.parent)} is being learned by {owner}: wait for it, or stop it first") from None
        except OSError:
            return lock  # some network file systems know no locks
        with suppress(OSError):
            if os.fstat(lock.fileno()).st_ino == os.stat(path).st_ino:
                lock.truncate(0)
                lock.write(f"{os.getpid()} {time.time():.0f}\n")
                lock.flush()
                return lock
        lock.close()  # its owner removed it between our opening and our holding it


def _owner(text: str) -> str:
    """Who holds a lock, as far as it says so: "process 1234, since 12:30:05"."""
    number, _, since = text.strip().partition(" ")
    if not (number.isdigit() and since.isdigit() and len(since) < 12):
        return "another process"
    return f"another process, {number}, since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(int(since)))}"


# --- JSON -------------------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """SHA-256 of a file's content, first 16 hexadecimal digits. Raises RunError where it cannot be read."""
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise RunError(f"{shown(path)} cannot be read ({reason(error)})") from None


def write_json(path: Path, held: dict[str, Any]) -> None:
    """An object as JSON, with a digest of what it says, by which it is known again."""
    held = json.loads(json.dumps({name: value for name, value in held.items() if name != DIGEST}))
    write(path, json.dumps({**held, DIGEST: _digest_of(held)}, indent=2).encode())


def _is_changed(held: dict[str, Any]) -> bool:
    """Whether an object is another than its digest, which is taken out, says; without one it is as it is."""
    said = held.pop(DIGEST, None)
    return _looks_like_a_digest(held) if said is None else said != _digest_of(held)


def _looks_like_a_digest(held: dict[str, Any]) -> bool:
    """Whether some value can only be a digest whose name is damaged."""
    texts = [value for value in held.values() if isinstance(value, str) and len(value) == len(BLANK)]
    return any(not text.strip("0123456789abcdef") for text in texts)


def _digest_of(held: Any) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, kinds: Any = None) -> dict[str, Any]:
    """A JSON file that holds an object, its values of some kinds, see `scenarios.typed`.

    Raises RunError, in one line with the file and the key, where there is none, it is damaged, a value is of another
    kind, or it is not what `write_json` wrote. A file without a digest is read as it is.
    """
    try:
        held = json.loads(read_plain(path))
        if isinstance(held, dict) and _is_changed(held):
            raise RunError(
                f"{shown(path)} is not as it was written: put it back; where you changed it yourself, delete its"
                f' line "{DIGEST}"'
            )
        check(held, {} if kinds is None else kinds)
    except FileNotFoundError:
        raise RunError(f"{shown(path)}: there is no such file") from None
    except OSError as error:
        raise RunError(f"{shown(path)} cannot be read ({reason(error)})") from None
    except RecursionError:
        raise RunError(damaged(shown(path), "it is nested too deeply")) from None
    except TypedError as error:
        raise RunError(damaged(shown(path), error)) from None
    except RunError:
        raise
    except ValueError as error:
        raise RunError(f"{shown(path)} cannot be read ({reason(error)})") from None
    return held


# --- tensors ----------------------------------------------------------------------------------------------------------


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Tensors and a JSON description in one safetensors file, with a digest of every byte of it."""
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write(path, sealed(save(plain, {"about": json.dumps({DIGEST: BLANK.decode(), **about})})))


DAMAGED = "delete it, and the run starts that part again"


def load_tensors(path: Path, kinds: Any = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote; kinds: of the description, see `scenarios.typed`.

    Raises RunError, in one line with the file and the key, where it is damaged or is not as it was written.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise RunError(f"{shown(path)} cannot be read: its name is no text, give it another") from None
    try:
        if is_intact(path) is False:
            raise RunError(f"{shown(path)} is damaged (it is not as it was written): {DAMAGED}")
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            check(about, {} if kinds is None else kinds)
            _check_digest(about)
            return {name: file.get_tensor(name) for name in list(file.keys())}, about
    except FileNotFoundError:
        raise RunError(f"{shown(path)}: there is no such file") from None
    except RunError:
        raise
    except TypedError as error:
        raise RunError(f"{shown(path)} is damaged, or of another version of lifelong ({error}): {DAMAGED}") from None
    except RecursionError:
        raise RunError(f"{shown(path)} is damaged (it is nested too deeply): {DAMAGED}") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{shown(path)} is damaged ({reason(error)}): {DAMAGED}") from None


def _check_digest(about: dict[str, Any]) -> None:
    """Take the digest out of a description."""
    about.pop(DIGEST, None)
    if _looks_like_a_digest(about):
        raise TypedError("it is not as it was written")


def fitting(
    path: Path, tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> Tensor:
    """One of the tensors of a file; -1 in a shape is any length. Raises RunError where it is missing, or another."""
    value = tensors.get(name)
    if value is None:
        raise RunError(f"{shown(path)} is damaged (it holds no {name[:60]!r}): {DAMAGED}")
    fits = len(shape) == value.ndim and all(a in (-1, b) for a, b in zip(shape, value.shape, strict=True))
    if not fits or value.dtype != dtype:
        found = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)[:6]}"
        raise RunError(f"{shown(path)} is damaged (its {name[:60]!r} is {found}, and must not be): {DAMAGED}")
    return value


def named(tree: Any) -> dict[str, Tensor]:
    """The leaves of a tree by their place in it."""
    return {keystr(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


def check_format(about: dict[str, Any], path: Path) -> None:
    """Raise RunError where a file was written by a version of lifelong whose files cannot be read any more."""
    if isinstance(about.get("format"), int) and about["format"] > FORMAT:
        raise RunError(f"{path} is of a newer version of lifelong: read it with that one")
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
