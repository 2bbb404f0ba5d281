"""Files as they lie on disk: read only where they are plain files, and known again by a digest of every byte in them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from scenarios.machine import free_memory

LONGEST = 2**26  # bytes of a file that is read as text
DIGEST = "digest"  # the word under which a file says what its content is
BLANK = b"0" * 64  # stands where the digest will be while it is taken
_OPENING = b'{\\"' + DIGEST.encode() + b'\\": \\"'  # of JSON that stands as text in JSON


@contextmanager
def opened(path: Path | str) -> Iterator[BufferedReader]:
    """A plain file, to be read. Raises OSError where it is none: a pipe would be waited for, a device never ends."""
    try:
        kind = os.stat(path).st_mode
    except ValueError:  # a zero byte in its name
        raise OSError(errno.EINVAL, "that is no name of a file") from None
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "it is no plain file")
    with open(path, "rb") as file:
        yield file


def read_plain(path: Path | str, longest: int = LONGEST) -> bytes:
    """The bytes of a plain file. Raises OSError where it is none, cannot be read or is longer than so many bytes."""
    with opened(path) as file:
        content = file.read(longest + 1)
    if len(content) > longest:
        raise OSError(errno.EFBIG, f"it is longer than {longest:,} bytes")
    return content


def reason(error: BaseException) -> str:
    """Why something cannot be read or written, in the system's own words and in one short line."""
    words = (error.strerror if isinstance(error, OSError) else "") or str(error).strip() or type(error).__name__
    line = words.splitlines()[0]
    return line if len(line) <= 120 else f"{line[:117]}..."


def shown(path: Path | str) -> str:
    """A path as a message says it: the end of it where it is long."""
    text = str(path)
    return text if len(text) <= 150 else f"...{text[-147:]}"


def remove_left_by_the_dead(folder: Path, names: str) -> None:
    """Remove what a process that is no more left half-made: names begin as in ".{process}-partial-", with its number."""
    before, after = names.split("{process}")
    for path in folder.glob(f"{before}*{after}*"):
        number = path.name.removeprefix(before).partition(after)[0]
        if number.isdigit() and not is_alive(int(number)):
            with suppress(OSError):  # it is in nobody's way where it cannot be removed
                for inside in path.iterdir() if path.is_dir() else ():
                    inside.unlink()
                path.rmdir() if path.is_dir() else path.unlink()


def is_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


# --- digests of files of tensors --------------------------------------------------------------------------------------


def place_of_digest(header: bytes) -> slice | None:
    """Where the digest stands in the header of a safetensors file whose text begins with it; None where none does."""
    first = header.find(_OPENING)
    return None if first < 0 else slice(first + len(_OPENING), first + len(_OPENING) + len(BLANK))


def sealed(content: bytes) -> bytes:
    """A safetensors file with the digest of its own content in it, in place of zeros: SHA-256, 64 hexadecimal digits."""
    place = place_of_digest(content)
    assert place is not None and content[place] == BLANK
    return content[: place.start] + hashlib.sha256(content).hexdigest().encode() + content[place.stop :]


def is_intact(path: Path) -> bool | None:
    """Whether a safetensors file is as it was written, to the bit; None where it says nothing of that, as earlier ones.

    Raises OSError where it is no plain file, and where memory does not hold what it is long.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > free_memory():
            raise OSError(errno.EFBIG, f"it is {size:,} bytes long, and there is not as much memory")
        start = file.read(8)
        header = start + file.read(min(int.from_bytes(start, "little"), size))
        place = place_of_digest(header)
        if place is None:
            return None
        digest = hashlib.sha256(header[: place.start] + BLANK + header[place.stop :])
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest().encode() == header[place]
