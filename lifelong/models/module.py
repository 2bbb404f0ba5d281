"""A user's own network: any torch module, or a frozen record like ours; whatever it raises becomes one line.

A torch module is a class `Net(nn.Module)` with `__init__(self, shape, classes, ...)`: the shape of a row, the number of
classes C, then fields of your own, as in `my_net.py:Net(width=32)`. It has `features`, rows [B, *shape] -> [B, F], and
`head`, [B, F] -> scores [B, C], each a submodule or a method. `mixes_rows = True` in the class says that a row's scores
depend on the rows beside it. A record has `init`, `features` and `head` as `lifelong.models.perceptron.Model` says.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lifelong.models.base import Described, Hook, ModelError, Net
from lifelong.notation.user_code import file_of, in_one_line, user_line, words_of

CONTRACT = "write `def __init__(self, shape, classes, ...)`, your own fields after these two"
ROWS = 3  # rows of the trial that every network passes before anything learns

# what torch says of code that cannot be learned as a fleet -> what to write instead
MENDS = {
    "data-dependent control flow": "choose with torch.where: an `if` on a tensor cannot be learned as a fleet",
    ".item()": "keep it a tensor: `.item()` cannot be learned as a fleet",
    "randomness": "a network draws no random numbers when it scores rows",
    "random operation": "a network draws no random numbers when it scores rows",
    "inplace": "write a + b and not a += b",
    "in-place": "write a + b and not a += b",
    "shapes cannot be multiplied": "the sizes of neighbouring layers do not fit",
    "size mismatch": "the sizes of neighbouring layers do not fit",
}


def refusal(error: BaseException, maker: type, shown: str = "") -> ModelError:
    """What a user's network raised as one line: the file and the line in it, what happened, and what to do."""
    path, text = file_of(maker), words_of(error, 10_000)
    mend = next((mend for words, mend in MENDS.items() if words in text), "")
    mend = mend or (f"`lifelong check {path}` runs the contract" if path else "it breaks the contract of a model")
    return ModelError(f"{user_line(error, path or shown or maker.__qualname__)}: {mend}")


def asked(maker: type, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call code of a user's network: the one place where what it raises becomes one line."""
    with in_one_line(lambda error: refusal(error, maker)):
        return call(*arguments, **named)


def broken(maker: type, words: str, verb: str = "") -> ModelError:
    """A part of the contract that a network does not keep, with the line where its code stands."""
    path = file_of(maker)
    found = vars(maker).get(verb) or vars(maker).get("forward") or vars(maker).get("__init__")
    code = getattr(inspect.unwrap(found) if inspect.isfunction(found) else None, "__code__", None)
    line = f":{code.co_firstlineno}" if path and code is not None else ""
    return ModelError(f"{path or maker.__qualname__}{line}: {words}")


# --- from a class to a model ------------------------------------------------------------------------------------------


def described(maker: type, shown: str, path: str) -> tuple[Any, Callable[[Any], Any]]:
    """What makes a record of a model's fields, and what makes the model of the record.

    Of a torch module that is a record of its own fields; of a record it is the class itself. Raises ModelError for a
    class that is neither.
    """
    if issubclass(maker, nn.Module):
        return fields_of(maker), lambda fields: Module(maker, shown, fields)
    missing = [verb for verb in ("init", "features", "head") if verb not in dir(maker)]
    if missing:
        raise broken(
            maker, f"{maker.__name__} is no model: it is no torch module, and has no {' and no '.join(missing)}"
        )
    if path:
        if not dataclasses.is_dataclass(maker):
            raise broken(maker, f"{maker.__name__} must be a frozen dataclass: write @dataclass(frozen=True) above it")
        guard(maker)
    return maker, lambda model: model


@functools.cache
def fields_of(maker: type) -> type:
    """A record of the own fields of a torch module: the arguments of `__init__` after shape and classes."""
    parameters = list(inspect.signature(maker.__init__).parameters.values())[1:]
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(places) < 2 or any(p.default is not p.empty for p in places[:2]) or rest:
        raise broken(
            maker, f"{maker.__name__}{inspect.signature(maker)} cannot be built for a stream: {CONTRACT}", "__init__"
        )
    fields: list[Any] = []
    for p in parameters:
        if p in places[:2]:
            continue
        about: dict[str, Any] = {"kw_only": p.kind is p.KEYWORD_ONLY}
        if p.default is not p.empty:
            about["default_factory"] = lambda value=p.default: value  # lists are no defaults of a dataclass
        fields.append((p.name, Any if p.annotation is p.empty else p.annotation, field(**about)))
    record = dataclasses.make_dataclass(maker.__name__, fields, frozen=True)
    record.__module__ = maker.__module__
    return record


def guard(maker: type) -> None:
    """Let what the methods of a user's record raise become one line, and fill in what he need not write."""
    if "guarded_" in vars(maker):
        return
    for verb in ("init", "features", "head", "head_rows"):
        if method := vars(maker).get(verb):
            setattr(maker, verb, _guarded(maker, verb, method))
    seen = "at" in inspect.signature(inspect.unwrap(maker.features)).parameters
    usual = {"task_embedding": False, "mixes_rows": False, "shows_layers": seen, "head_rows": _head_rows}
    for name, value in usual.items():
        if name not in dir(maker):
            setattr(maker, name, value)
    maker.guarded_ = True


def _guarded(maker: type, verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
    sees_layers = "at" in inspect.signature(method).parameters

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if verb in ("features", "head"):
            if not sees_layers:
                arguments, named = arguments[:2], {}
            return _tensor(maker, verb, asked(maker, method, self, *arguments, **named))
        result = asked(maker, method, self, *arguments, **named)
        if verb == "init":
            _sound_net(maker, result)
            try_out(self, maker, result, *arguments[:2])
        return result

    return call


def _head_rows(self: Any, net: Net) -> Tensor:
    """The head's weights [C, F], as `lifelong.models.perceptron.linear` names and turns them."""
    if "head.weight" not in net:
        raise ModelError(f"{self!r}: its head is not one linear layer, so it has no row for each class")
    return net["head.weight"].T


def _sound_net(maker: type, net: Any) -> None:
    if not (isinstance(net, dict) and net and all(isinstance(value, Tensor) for value in net.values())):
        raise broken(maker, "init must return a dict of tensors by name, and at least one", "init")


def _tensor(maker: type, verb: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise broken(
            maker, f"`{verb}` returned {type(value).__name__}, and must return a tensor: is a `return` missing?", verb
        )
    return value


# --- torch modules ----------------------------------------------------------------------------------------------------


class _Door(nn.Module):
    """Calls `features` or `head` of a module, submodule or method, so that both take parameters from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, part: str, x: Tensor) -> Any:
        """What the part makes of x."""
        return getattr(self.module, part)(x)


@dataclass(frozen=True)
class _Built:
    """A module that was built: the names of its parameters inside, by the names they have in a net, and its buffers."""

    door: _Door
    names: dict[str, str]
    buffers: dict[Any, dict[str, Tensor]]

    def tensors(self, net: Net) -> dict[str, Tensor]:
        """Parameters and buffers as the module's own code finds them, buffers where the parameters are."""
        some = next(iter(net.values()))
        where = (some.device, some.dtype)
        if where not in self.buffers:
            self.buffers[where] = {
                name: value.to(some.device, some.dtype if value.is_floating_point() else value.dtype)
                for name, value in self.door.named_buffers()
            }
        return {f"module.{self.names[name]}": value for name, value in net.items()} | self.buffers[where]


@dataclass(frozen=True, repr=False)
class Module:
    """Any `torch.nn.Module` of the user with `features` and `head`; `make(shape, classes, **fields)` builds it.

    name: the text that names it; two are equal by name and fields. Parameters that `features` does not use are the
    head's, and are called `head.` something. Refused: norms with running statistics, dropout, lazy layers.
    """

    make: Any = field(compare=False)
    name: str = ""
    fields: Any = ()
    built: dict[Any, _Built] = field(default_factory=dict, compare=False)
    task_embedding = False
    shows_layers = False  # its hook shows torch's own layers, whose weights lie the other way round

    def __repr__(self) -> str:
        return f"{self.name or self.make.__name__}({', '.join(f'{name}={value!r}' for name, value in self._named.items())})"

    @property
    def _named(self) -> dict[str, Any]:
        names = [f.name for f in dataclasses.fields(self.fields)] if self.fields != () else []
        return {name: getattr(self.fields, name) for name in names}

    @property
    def mixes_rows(self) -> bool:
        """Whether the class says that a row's scores depend on the rows beside it."""
        return bool(getattr(self.make, "mixes_rows", False))

    @property
    def norm(self) -> str:
        """ "batch" where rows are mixed, as `Conv4` calls it."""
        return "batch" if self.mixes_rows else ""

    def init(self, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> Net:
        """Build the module with torch's own random numbers, seeded from the generator; try it out the first time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator, device="cpu")))
            module = asked(self.make, self.make, tuple(shape), classes, **self._named)
        self._check(module)
        weights = {name: value.detach().clone() for name, value in module.named_parameters()}
        place = (
            next(iter(weights.values())).device,
            tuple(shape),
            classes,
            str(module),
            *((name, tuple(value.shape)) for name, value in weights.items()),
        )
        built = self.built.get(place)
        if built is None:
            built = _Built(_Door(module), self._names(module, weights, shape), {})
        net = {name: weights[inside] for name, inside in built.names.items()}
        if place not in self.built and place[0].type != "meta":
            self.built[place] = self.built[_shapes(net)] = built
            try_out(self, self.make, net, shape, classes)
        return net

    def _check(self, module: nn.Module) -> None:
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
                raise broken(
                    self.make,
                    "batch norm with running statistics cannot be learned as a fleet: use group norm",
                    "__init__",
                )
            if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
                words = "dropout draws its own random numbers and cannot be learned as a fleet: leave it out"
                raise broken(self.make, words, "__init__")
        for verb in ("features", "head"):
            if not callable(getattr(module, verb, None)):
                words = f"{self.make.__name__} has no `{verb}`: make it a submodule or a method, features [B, F] and scores [B, C]"
                raise broken(self.make, words, "__init__")
        if any(isinstance(value, UninitializedParameter) for value in module.parameters()):
            raise broken(self.make, "lazy layers have no sizes yet: give their sizes, from `shape`", "__init__")
        if not any(True for _ in module.parameters()):
            raise broken(self.make, f"{self.make.__name__} has no parameters: there is nothing to learn", "__init__")

    def _names(self, module: nn.Module, weights: Net, shape: tuple[int, ...]) -> dict[str, str]:
        """Names in a net -> names inside: what the features do not use is the head's, and says so."""
        params = {name: value.clone().requires_grad_() for name, value in weights.items()}
        inside = {f"module.{name}": value for name, value in params.items()}
        with torch.enable_grad():
            features = self._part(_Door(module), inside, "features", _rows(shape, next(iter(weights.values()))))
            total = features.sum()
        if not total.requires_grad:
            return {name: name for name in weights}
        used = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        return {
            name if gradient is not None or name.startswith("head.") else f"head.{name}": name
            for name, gradient in zip(weights, used, strict=True)
        }

    def _part(self, door: _Door, tensors: dict[str, Tensor], part: str, x: Tensor) -> Tensor:
        call = functools.partial(torch.func.functional_call, door, tensors, (part, x))
        return _tensor(self.make, part, asked(self.make, call))

    def _call(self, net: Net, part: str, x: Tensor, at: Hook | None) -> Tensor:
        built = self.built.get(_shapes(net))
        if built is None:
            raise ModelError(f"{self!r}: these parameters are of another network, or `init` was not called")
        if at is None:
            return self._part(built.door, built.tensors(net), part, x)
        outer = {inside: name for name, inside in built.names.items()}
        hooks = [
            layer.register_forward_hook(functools.partial(_shown, at, _layer_name(outer, name, layer)))
            for name, layer in built.door.module.named_modules()
            if next(layer.parameters(recurse=False), None) is not None
        ]
        try:
            return self._part(built.door, built.tensors(net), part, x)
        finally:
            for hook in hooks:
                hook.remove()

    def features(self, net: Net, x: Tensor, at: Hook | None = None) -> Tensor:
        """Features [B, F]; `at(name, input, output)` sees each layer that has parameters, by their name."""
        features = self._call(net, "features", x, at)
        return features.flatten(1) if features.ndim > 1 else features

    def head(self, net: Net, features: Tensor, at: Hook | None = None) -> Tensor:
        """Scores [B, C]."""
        return self._call(net, "head", features, at)

    def head_rows(self, net: Net) -> Tensor:
        """The head's weights, one row for each class [C, F], where the head is one `nn.Linear`."""
        weights = [value for name, value in net.items() if name.startswith("head.") and value.ndim == 2]
        if len(weights) != 1:
            raise ModelError(f"{self!r}: its head is not one linear layer, so it has no row for each class")
        return weights[0]


def _shapes(net: Net) -> tuple[Any, ...]:
    return tuple((name, tuple(value.shape)) for name, value in net.items())


def _layer_name(outer: dict[str, str], name: str, layer: nn.Module) -> str:
    """The name of a layer in a net: that of its parameters without their last word."""
    parameter = next(iter(layer.named_parameters(recurse=False)))[0]
    inside = f"{name}.{parameter}" if name else parameter
    return outer[inside].rpartition(".")[0] if inside in outer else name


def _shown(at: Hook, name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    return at(name, inputs[0], output) if isinstance(output, Tensor) and inputs else output


# --- the trial --------------------------------------------------------------------------------------------------------


def _rows(shape: tuple[int, ...], like: Tensor, count: int = ROWS) -> Tensor:
    """Random rows of a shape, between 0 and 1."""
    size = (count, sum(shape[:2])) if isinstance(shape, Described) else (count, *shape)
    random = torch.Generator().manual_seed(0)
    return torch.rand(size, generator=random, device="cpu").to(like.device, like.dtype)


def try_out(model: Any, maker: type, net: Net, shape: tuple[int, ...], classes: int) -> None:
    """Score a few rows as a fleet will, before anything learns. Raises ModelError in one line where the network cannot.

    Shapes [B, F] and [B, C]; rows untouched; the same answer twice; no row mixed with another unless the class says so;
    and all of it for two networks at once.
    """
    some = next(iter(net.values()))
    x = _rows(shape, some)

    def scores(net: Net, rows: Tensor) -> Tensor:
        return model.head(net, model.features(net, rows))

    def both(net: Net, rows: Tensor) -> tuple[Tensor, Tensor]:
        features = model.features(net, rows)
        return features, model.head(net, features)

    given = x.clone()
    features, first = both(net, given)
    for words, value, wanted in (("features", features, None), ("head", first, classes)):
        size = tuple(value.shape)
        if len(size) != 2 or size[0] != ROWS or (wanted is not None and size[1] != wanted):
            right = f"{ROWS} x {'F' if wanted is None else wanted}"
            raise broken(maker, f"`{words}` of {ROWS} rows has shape {size}, and must have {right}", words)
    if some.device.type == "meta":
        return
    if not torch.equal(given, x):
        raise broken(maker, "`features` writes into its input: write a + b and not a += b", "features")
    if not torch.equal(first.nan_to_num(), scores(net, x).nan_to_num()):
        raise broken(
            maker, "the same rows score differently a second time: no random numbers, nothing kept", "features"
        )
    stacked = {name: torch.stack([value, value]) for name, value in net.items()}

    def loss(net: Net, rows: Tensor) -> Tensor:
        return scores(net, rows).logsumexp(1).sum()

    fleet = torch.func.vmap(torch.func.grad(loss))
    asked(maker, fleet, stacked, torch.stack([x, x]))
    alone = scores(net, x[:1])
    if not getattr(model, "mixes_rows", False) and not _close(first[:1], alone):
        words = "a row's scores depend on the rows beside it: use group norm, or say `mixes_rows = True` in the class"
        raise broken(maker, words, "features")


def _close(a: Tensor, b: Tensor) -> bool:
    scale = (
        max(1.0, float(a.detach().abs().max())) if a.numel() and math.isfinite(float(a.detach().abs().max())) else 1.0
    )
    return bool(((a - b).abs().nan_to_num() <= 1e-3 * scale).all())
