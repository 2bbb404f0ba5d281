"""Tables of rows in a `.npz` file that need not fit into memory: training rows first, test rows after them, mapped.

Beside x [N, ...] and y [N] such a file holds train_rows, how many of the rows are for training, and it may hold
about.json, which says where the rows came from. x is mapped where it lies uncompressed, float32 or bytes, in rows, at
a place that is a multiple of an element's size: as `write_table` writes it. Else it is read whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from scenarios.disk import BLANK, opened, reason
from scenarios.stream import ScenarioError

SPLIT = "train_rows"  # the array by which a table is known
ABOUT = "about.json"
LONGEST = 2**20  # bytes of what is said of a table
PIECE = 2**24  # bytes that are looked at together
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)  # which nobody asked for
ALIGNED = 64  # bytes: where x begins, so that it can be mapped
_HEAD = 30  # bytes of a member's own header before its name, by the zip format
_ZIP64 = 20  # bytes that zipfile adds to it for long members
_PADDING = 0x4C4C  # a field that readers of zip files pass over


def write_table(
    path: Path,
    rows: Iterator[np.ndarray],
    shape: tuple[int, ...],
    y: np.ndarray,
    train_rows: int,
    about: dict[str, Any],
) -> None:
    """Write a table piece by piece, whole or not at all. rows: float32 [n, *shape], together as many as y.

    Raises ScenarioError where it cannot be written, or a piece is not finite.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            _write_rows(archive, rows, (len(y), *shape))
            for name, value in (("y", y), (SPLIT, np.array(train_rows))):
                with archive.open(_member(f"{name}.npy"), "w") as member:
                    npy.write_array(member, value, allow_pickle=False)
            archive.writestr(_member(ABOUT), json.dumps(about, indent=2))
            archive.comment = BLANK
        with open(partial, "r+b") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(-len(BLANK), os.SEEK_END)
            file.write(digest.encode())
        os.replace(partial, path)
    except OSError as error:
        failed = ScenarioError(f"{path} cannot be written ({reason(error)})")
        failed.exit_code = 1 if error.errno in FULL else 2
        raise failed from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _member(name: str) -> zipfile.ZipInfo:
    """An entry without a time, so that equal tables are equal files."""
    return zipfile.ZipInfo(name)


def _write_rows(archive: zipfile.ZipFile, rows: Iterator[np.ndarray], shape: tuple[int, ...]) -> None:
    about, header = _member("x.npy"), {"descr": "<f4", "fortran_order": False, "shape": shape}
    # the npy header is a multiple of 64 bytes: the zip header before it must be, too
    fixed = _HEAD + len(about.filename) + _ZIP64 + 4
    about.extra = struct.pack("<HH", _PADDING, -fixed % ALIGNED) + bytes(-fixed % ALIGNED)
    with archive.open(about, "w", force_zip64=True) as member:
        npy.write_array_header_1_0(member, header)
        for piece in rows:
            if not np.isfinite(piece).all():
                raise ScenarioError("some features are NaN or infinite: is this the network for these rows?")
            member.write(np.ascontiguousarray(piece, dtype="<f4").data.cast("B"))


def refuse_damaged(path: Path) -> bool:
    """Raise ScenarioError where a table is not as it was written; whether a file says how it was written at all."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(BLANK)))
        said = file.read()
        if sum(letter in b"0123456789abcdef" for letter in said) < len(BLANK) - 4:  # a damaged digest is one, too
            return False
        file.seek(0)
        digest, left = hashlib.sha256(), size - len(BLANK)
        while left > 0 and (piece := file.read(min(PIECE, left))):
            digest.update(piece)
            left -= len(piece)
    digest.update(BLANK)
    if digest.hexdigest().encode() != said:
        raise ScenarioError(f"{path}: is damaged: it is not as it was written")
    return True


def read_through(path: Path) -> None:
    """Read the rows of a table once, which compares them with the checksum of the archive. Raises BadZipFile."""
    with opened(path) as file, zipfile.ZipFile(file) as archive, archive.open("x.npy") as member:
        while member.read(PIECE):
            pass


def about_table(path: Path) -> dict[str, Any]:
    """What a table says of itself; nothing where it says nothing. Raises ScenarioError where that cannot be read."""
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            if ABOUT not in archive.namelist():
                return {}
            if archive.getinfo(ABOUT).file_size > LONGEST:
                raise ScenarioError(f"{path}: {ABOUT} is longer than anything that is said of a table")
            held = json.loads(archive.read(ABOUT))
    except ScenarioError:
        raise
    except Exception as error:  # zip, zlib and JSON each have errors of their own for a damaged file
        raise ScenarioError(f"{path}: {ABOUT} cannot be read ({reason(error)})") from None
    if not isinstance(held, dict):
        raise ScenarioError(f"{path}: {ABOUT} holds no object")
    return held


def origin_of(about: dict[str, Any]) -> str:
    """Where a table's rows came from, in a line of at most 300 characters."""
    if "model" not in about:
        return ""
    words = [
        f"features of {about.get('data', '?')} by {about['model']}",
        f"pre-trained on: {about.get('pretrained on', 'unknown')}",
    ]
    words += [f"weights {about.get('weights', '?')}", str(about.get("transform", ""))]
    line = " ".join(", ".join(word for word in words if word).split())
    return "".join(letter for letter in line if letter.isprintable())[:300]


def refuse_infinite(path: Path, x: np.ndarray) -> None:
    """Raise ScenarioError where some value of a table is not finite; looked at piece by piece."""
    if x.dtype == np.uint8:
        return
    rows = max(1, PIECE // max(x[0].nbytes, 1))
    if not all(np.isfinite(x[first : first + rows]).all() for first in range(0, len(x), rows)):
        raise ScenarioError(f"{path}: some values are NaN or infinite; remove or replace those rows")


def mapped(path: Path) -> np.ndarray | None:
    """x of a `.npz` file as a map of it, copied where it is written to; None where it cannot be mapped."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        about = archive.getinfo("x.npy")
        if about.compress_type != zipfile.ZIP_STORED or about.flag_bits & 1:
            return None
        file.seek(about.header_offset)
        head = file.read(_HEAD)
        if len(head) < _HEAD or head[:4] != b"PK\x03\x04":
            raise ScenarioError(f"{path}: is damaged: x does not begin where the file says")
        file.seek(sum(struct.unpack("<HH", head[26:30])), os.SEEK_CUR)
        if npy.read_magic(file) != (1, 0):
            return None
        shape, turned, dtype = npy.read_array_header_1_0(file)
        place = file.tell()
    if dtype not in (np.dtype("<f4"), np.dtype(np.uint8)) or turned or place % dtype.itemsize or 0 in shape:
        return None
    return np.memmap(path, dtype, "c", place, shape)
