"""The contract of a network: what every model must pass, ours and yours. `lifelong check my_net.py` runs it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lifelong.contracts.learners import Check, CheckFailed, equal
from lifelong.models.base import Described, Net, chosen
from lifelong.models.module import Module
from lifelong.notation import expression
from lifelong.notation.user_code import file_of, user_line, words_of
from scenarios.errors import ConfigurationError

SHAPES = ((8, 8), (20,), (3, 16, 16))  # of a row; a network is checked on the first that it takes
DESCRIBED = Described(64, 3, 1, 8)
CLASSES = 4


def declares(model: Any, name: str) -> bool:
    """Whether a model says of itself that it is `task_embedding`, told the task, or `mixes_rows`."""
    if name in dir(model):
        return bool(getattr(model, name))
    return name == "mixes_rows" and getattr(model, "norm", "") == "batch"


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shape_of(model: Any) -> tuple[int, ...]:
    """The shape of the rows that a network is checked on. Raises what it raises on the first where it takes none."""
    if declares(model, "task_embedding"):
        return DESCRIBED
    refusals = []
    for shape in SHAPES:
        try:
            model.init(shape, CLASSES, _generator())
        except ConfigurationError as error:
            refusals.append(error)
        else:
            return shape
    raise refusals[0]


def _rows(shape: tuple[int, ...], count: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    size = (count, sum(shape[:2])) if isinstance(shape, Described) else (count, *shape)
    return torch.rand(size, generator=_generator(seed), dtype=torch.float64).to(dtype)


def _net(model: Any, seed: int = 0, classes: int = CLASSES, dtype: torch.dtype = torch.float64) -> Net:
    net = model.init(shape_of(model), classes, _generator(seed))
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in net.items()}


def _scores(model: Any, net: Net, x: Tensor) -> Tensor:
    return model.head(net, model.features(net, x))


def shapes_hold(model: Any) -> None:
    """Features [B, F] and scores [B, C], for other numbers of rows and classes."""
    for classes in (2, 7):
        net = _net(model, classes=classes)
        for count in (1, 2, 5):
            features = model.features(net, _rows(shape_of(model), count))
            scores = model.head(net, features)
            if features.ndim != 2 or len(features) != count:
                raise CheckFailed(f"features of {count} rows have shape {tuple(features.shape)}, not [{count}, F]")
            if scores.shape != (count, classes):
                raise CheckFailed(f"scores of {count} rows and {classes} classes have shape {tuple(scores.shape)}")


def fleet_is_alone(model: Any) -> None:
    """Two networks at once, with their gradients, are each alone, float64."""
    x = _rows(shape_of(model))

    def both(net: Net) -> tuple[Tensor, Net]:
        gradient = torch.func.grad(lambda params: _scores(model, params, x).logsumexp(1).sum())(net)
        return _scores(model, net, x), gradient

    nets = [_net(model, seed) for seed in (0, 1, 2)]
    together = torch.func.vmap(both)({name: torch.stack([net[name] for net in nets]) for name in nets[0]})
    for s, net in enumerate(nets):
        equal(
            both(net), tree_map(lambda leaf, s=s: leaf[s], together), "scores and gradients alone and in a fleet", 1e-9
        )


def nothing_is_kept(model: Any) -> None:
    """What it scored before changes nothing."""
    net, x = _net(model), _rows(shape_of(model))
    first = _scores(model, net, x).clone()
    _scores(model, _net(model, 1), _rows(shape_of(model), 3, 1))
    equal(first, _scores(model, net, x), "scores before and after it scored other rows by another network")


def nothing_is_drawn(model: Any) -> None:
    """Scores draw no random numbers, and a first draw follows its generator alone."""
    state = torch.get_rng_state()
    try:
        seen = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            net = _net(model)
            seen.append((net, _scores(model, net, _rows(shape_of(model)))))
        equal(seen[0][0], seen[1][0], "two draws of the network from one generator")
        equal(seen[0][1], seen[1][1], "scores with other random numbers")
    finally:
        torch.set_rng_state(state)
    if all(torch.equal(value, _net(model, 1)[name]) for name, value in seen[0][0].items()):
        raise CheckFailed("two generators draw the same network")


def inputs_untouched(model: Any) -> None:
    """It writes neither into its rows nor into its parameters, and its head not into the features."""
    net, x = _net(model), _rows(shape_of(model))
    given = tree_map(torch.clone, (net, x))
    features = model.features(*given)
    before = features.clone()
    model.head(given[0], features)
    equal((net, x, before), (*given, features), "parameters, rows and features before and after")


def rows_are_apart(model: Any) -> None:
    """A row's scores do not depend on the rows beside it, or the model says that they do."""
    if declares(model, "mixes_rows"):
        return
    net, x = _net(model), _rows(shape_of(model))
    whole = _scores(model, net, x)
    for rows in (slice(0, 1), slice(2, 5)):
        equal(whole[rows], _scores(model, net, x[rows]), "scores of a row among six rows and among others", 1e-9)


def head_is_named(model: Any) -> None:
    """Its head can be trained alone, and nothing but the head depends on the number of classes."""
    small, large = _net(model, classes=2), _net(model, classes=5)
    chosen(small, "head")
    for name in small.keys() | large.keys():
        shapes = [tuple(net[name].shape) if name in net else "missing" for net in (small, large)]
        if not name.startswith("head.") and shapes[0] != shapes[1]:
            raise CheckFailed(f"{name} is {shapes[0]} for two classes and {shapes[1]} for five")


def no_value_is_read(model: Any) -> None:
    """It runs on the `meta` device, which has shapes and no values: so it waits for no device, and uses that of its rows."""
    net = {name: value.to("meta") for name, value in _net(model, dtype=torch.float32).items()}
    _scores(model, net, _rows(shape_of(model), dtype=torch.float32).to("meta"))


def hook_changes_nothing(model: Any) -> None:
    """A hook that hands on each layer's output leaves the scores as they are."""
    if any("at" not in inspect.signature(verb).parameters for verb in (model.features, model.head)):
        return
    net, x = _net(model), _rows(shape_of(model))

    def at(name: str, entering: Tensor, leaving: Tensor) -> Tensor:
        if not any(parameter.startswith(f"{name}.") for parameter in net) and not name.endswith(".norm"):
            raise CheckFailed(f"its hook names the layer {name!r}, and no parameter is called so")
        return leaving

    equal(
        _scores(model, net, x), model.head(net, model.features(net, x, at), at), "scores with and without a hook", 1e-9
    )


def repr_round_trips(model: Any) -> None:
    """Its repr is the text that builds it."""
    if expression.parse(repr(model), "models") != model:
        raise CheckFailed(f"{model!r} does not come back from its own text")


_PURE = "Keep nothing in the object between calls: all that changes is in the parameters."
MODEL_CHECKS = (
    Check("features and scores have their shapes", shapes_hold, "Return features [B, F] and scores [B, C] for any B."),
    Check(
        "alone and in a fleet it scores the same", fleet_is_alone, "Use torch.where for choices and torch's own layers."
    ),
    Check("it keeps nothing between calls", nothing_is_kept, _PURE),
    Check("it draws no random numbers", nothing_is_drawn, "Draw in init alone; leave dropout and noise out."),
    Check("its inputs stay untouched", inputs_untouched, "Use a + b, not a += b, on tensors that you were given."),
    Check(
        "a row is scored by itself",
        rows_are_apart,
        "Use group norm, or say `mixes_rows = True` in the class; a stream then refuses it.",
    ),
    Check("its head can be told apart", head_is_named, "Let the head's layers, and no others, depend on `classes`."),
    Check(
        "it runs on any device and reads no value back",
        no_value_is_read,
        "Make new tensors with device=x.device, and leave `.item()` out.",
    ),
    Check(
        "a hook sees its layers and changes nothing",
        hook_changes_nothing,
        "Call `at(name, input, output)` once a layer.",
    ),
    Check("its repr builds it again", repr_round_trips, "Name each field in __init__, with a plain value."),
)


def is_model(value: Any) -> bool:
    """Whether a class of a user's file is a network: a record with the verbs, or a torch module for (shape, classes)."""
    if not inspect.isclass(value):
        return False
    if issubclass(value, nn.Module):
        return list(inspect.signature(value.__init__).parameters)[1:3] == ["shape", "classes"]
    return dataclasses.is_dataclass(value) and {"init", "features", "head"} <= set(dir(value))


def check_model(subject: Any) -> Iterator[tuple[str, str, str]]:
    """The contract on one model: (check, what was seen or "", how to mend it), one after another."""
    path = file_of(subject.make if isinstance(subject, Module) else type(subject))
    for check in MODEL_CHECKS:
        seen = ""
        try:
            check.holds(subject)
        except (CheckFailed, ConfigurationError) as error:
            seen = str(error)
        except Exception as error:  # a user's network may raise anything at all
            seen = user_line(error, path) if path else words_of(error)
        yield check.name, seen, check.mend
