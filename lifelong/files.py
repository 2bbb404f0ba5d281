"""Tensors and text on disk: plain files, each written whole or not at all, never pickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from scenarios.refusal import Refusal


class RunError(Refusal):
    """A file that cannot be written or read; what was there before is as it was."""


class Stopped(Exception):
    """The work was asked to stop, and what it had is saved."""


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, flush, rename, folder synced."""
    partial = path.with_name(path.name + ".partial")
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
        partial.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written ({error.strerror}); what was saved before is as it was") from None


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


def filled(template: Any, tensors: dict[str, Tensor], prefix: str, where: Path) -> Any:
    """A tree like the template with leaves from a file; refuses leaves that are missing or of another shape."""
    leaves, spec = tree_flatten_with_path(template)
    new = []
    for path, leaf in leaves:
        found = tensors.get(prefix + keystr(path))
        if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise RunError(f"{where} is of another run: its {keystr(path)} does not fit this learner")
        new.append(found.to(leaf.device))
    return tree_unflatten(new, spec)
