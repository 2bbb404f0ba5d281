"""Networks from elsewhere that give features of rows: a user's function, torchvision's, timm's, transformers' by name.

Their packages are imported when they are named. What they raise becomes one line, and weights are read as plain
tensors: nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.models.base import ModelError
from lifelong.notation.user_code import digest_of, from_file, in_one_line, suggest, user_line, words_of
from scenarios.disk import opened, reason
from scenarios.machine import free_memory

SOURCES = ("torchvision", "timm", "transformers")
HEADS = ("fc", "classifier", "heads", "head")  # what torchvision's networks call the layers that answer


def is_outside(text: str) -> bool:
    """Whether a text names a network from elsewhere rather than a model of ours, or a user's class, in brackets."""
    source, _, name = text.partition(":")
    return bool(name) and (source in SOURCES or (source.endswith(".py") and "(" not in name))


def outside_network(text: str, seed: int = 0, pretrained: bool = False) -> nn.Module:
    """The network that a text names, as in `my.py:build` or `torchvision:resnet18`, in evaluation mode.

    seed: of the random weights that it starts with. pretrained: with the weights that the package offers, which it
    fetches itself. Raises a ConfigurationError in one line for what is not there, not installed or cannot be fetched.
    """
    source, _, name = text.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _of_file(source, name) if source.endswith(".py") else _of_package(source, name, pretrained)
    return module.eval().requires_grad_(False)


def _of_file(path: str, name: str) -> nn.Module:
    maker = from_file(path, name)
    if not callable(maker):
        raise ModelError(f"{path}:{name} is no function that makes a torch module")
    with in_one_line(lambda error: ModelError(user_line(error, path))):
        module = maker()
    if not isinstance(module, nn.Module):
        raise ModelError(f"{path}:{name} made a {type(module).__name__}, and must return a torch module")
    return module


def _of_package(source: str, name: str, pretrained: bool) -> nn.Module:
    try:
        package = importlib.import_module(source)
    except ImportError:
        raise ModelError(
            f"{source}:{name} needs the package {source}, which is not installed: pip install {source}"
        ) from None
    try:
        return {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[source](
            package, name, pretrained
        )
    except ModelError:
        raise
    except Exception as error:  # each package has errors of its own for a name, a network and a server
        words = reason(error)
        hint = "; where there is no network, give --weights FILE and leave --pretrained out" if pretrained else ""
        raise ModelError(f"{source}:{name} cannot be made ({words}){hint}") from None


def _torchvision(package: Any, name: str, pretrained: bool) -> nn.Module:
    models = importlib.import_module("torchvision.models")
    if name not in models.list_models():
        raise ModelError(f"torchvision has no network {name!r}: {suggest(name, models.list_models())}")
    module = models.get_model(name, weights="DEFAULT" if pretrained else None)
    head = next((head for head in HEADS if isinstance(getattr(module, head, None), nn.Module)), None)
    if head is None:
        raise ModelError(
            f"torchvision:{name} has no head that could be left out: write a function that returns a trunk"
        )
    setattr(module, head, nn.Identity())
    return module


def _timm(package: Any, name: str, pretrained: bool) -> nn.Module:
    if name not in package.list_models():
        raise ModelError(f"timm has no network {name!r}: {suggest(name, package.list_models())}")
    return package.create_model(name, pretrained=pretrained, num_classes=0)


def _transformers(package: Any, name: str, pretrained: bool) -> nn.Module:
    """A folder with a configuration, or a name that is fetched; code that comes with one is not executed."""
    if pretrained:
        return package.AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True)
    config = package.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    return package.AutoModel.from_config(config, trust_remote_code=False)


def features_of(module: nn.Module, x: Tensor) -> Tensor:
    """Features [B, F] of rows [B, ...]: its output, flattened; of several outputs the pooled one, else the mean of all tokens.

    Raises ModelError where the rows do not fit it.
    """
    shape = tuple(x.shape[1:])
    with in_one_line(lambda error: ModelError(f"rows of shape {shape} do not fit the network ({words_of(error)}): see --size, --channels")):  # fmt: skip
        output: Any = module(x)
    pooled = getattr(output, "pooler_output", None)
    if isinstance(pooled, Tensor):
        output = pooled
    elif isinstance(getattr(output, "last_hidden_state", None), Tensor):
        output = output.last_hidden_state.mean(1)
    if not isinstance(output, Tensor) or len(output) != len(x) or not output.is_floating_point():
        raise ModelError(
            f"the network answers {len(x)} rows with {type(output).__name__}, and must give features [B, F]"
        )
    return output.flatten(1).float()


def load_weights(module: nn.Module, path: Path, wrappers: tuple[str, ...] = ("state_dict", "model", "module")) -> int:
    """Load a `.safetensors` file, or what torch.save wrote, as plain tensors; how many the network took.

    Layers that answer may be missing in the network, since features need none. Raises ModelError for a file that
    cannot be read, that holds more than tensors, or whose tensors are of another network.
    """
    held: dict[str, Any] = read_weights(path)
    while word := next((word for word in wrappers if isinstance(held.get(word), Mapping)), ""):
        held = held[word]
    mine = module.state_dict()
    found = {name.removeprefix("module."): value for name, value in held.items() if isinstance(value, Tensor)}
    missing = [name for name in mine if name not in found and not name.endswith("num_batches_tracked")]
    other = [name for name, value in mine.items() if name in found and found[name].shape != value.shape]
    if missing or other:
        words = f"has no {missing[0]}" if missing else f"has {other[0]} of shape {tuple(found[other[0]].shape)}"
        raise ModelError(
            f"{path} is of another network: it {words}, {tuple(mine[(missing or other)[0]].shape)} is needed"
        )
    unknown = [name for name in found if name not in mine and name.partition(".")[0] not in HEADS]
    if unknown:
        raise ModelError(f"{path} is of another network: it has {unknown[0]}, and this network has none")
    module.load_state_dict({name: value for name, value in found.items() if name in mine}, strict=False)
    return sum(name in mine for name in found)


def read_weights(path: Path) -> dict[str, Any]:
    """The named tensors of a file; nothing in it is executed. Raises ModelError where it cannot be read so."""
    try:
        with opened(path) as file:  # a pipe or a device would be waited for
            if os.fstat(file.fileno()).st_size > free_memory():
                raise ModelError(f"{path} is larger than memory")
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such file") from None
    except ModelError:
        raise
    except Exception as error:  # pickle, zip and safetensors each have errors of their own
        words = str(error).strip().splitlines() or [type(error).__name__]
        unsafe = any("weights_only" in line or "Unsupported" in line for line in words)
        reason = "it holds more than tensors, and nothing in it is executed" if unsafe else words[0][:200]
        raise ModelError(f"{path} cannot be read as weights ({reason})") from None
    if not isinstance(held, Mapping):
        raise ModelError(f"{path} holds a {type(held).__name__}, and weights are tensors by name")
    return {str(name): value for name, value in held.items()}


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes, kinds and numbers, first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()[:16]


def code_of(text: str) -> str:
    """The hash of the file that a text names; of a package its version."""
    source, _, _ = text.partition(":")
    return (
        digest_of(source)[:16]
        if source.endswith(".py")
        else str(vars(importlib.import_module(source)).get("__version__", ""))
    )
