"""Where a meta-learner's gradient comes from: is it its loss's, how much of it is second order, what it misses, what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lifelong.contracts.case import Case, Finding, names
from lifelong.contracts.initialisations import POINTS, ROUNDING, STEP
from lifelong.contracts.peak_memory import peak_bytes
from lifelong.meta.initialisation_learner import Meta
from scenarios.stream import generator

WRONG = 1e-5  # of a gradient's largest entry: from here on a gap is no rounding of differences
ROUNDED = 1e-15  # of a loss: what its last digits are worth
NOTHING = 1e-12  # of the largest gradient


def gradient_error(case: Case) -> tuple[float, str]:
    """The largest gap between gradient and central differences of the loss, over the leaf's largest entry; and its leaf.

    Some random places of each leaf are tried, and that of the largest entry. At a kink, where the slopes to both sides
    differ, any number between them is right.
    """
    slopes, loss = tree_leaves(case.gradient), abs(float(case.loss(case.meta)))
    least = ROUNDED * loss / (STEP * WRONG) or 1.0  # what differences of such a loss cannot tell from 0
    random, worst = generator("diagnosis", "coordinates"), (0.0, "")
    for place, (slope, name) in enumerate(zip(slopes, names(case.meta), strict=True)):
        points = torch.randint(slope.numel(), (POINTS,), generator=random).tolist()
        size = max(float(slope.abs().max()), least)
        for at in {*points, int(slope.abs().argmax())}:
            exact = float(slope.flatten()[at])
            below, above = one_sided(case, place, at, STEP)
            gap = abs((below + above) / 2 - exact) / size
            if gap > WRONG:  # unless a kink lies in between: nearer still, or at the very point
                near = [sorted((below, above)), sorted(one_sided(case, place, at, STEP / 10))]
                gap = min(max(low - exact, exact - high, 0.0) for low, high in near) / size
            worst = max(worst, (gap, name))
    return worst


def one_sided(case: Case, place: int, at: int, step: float) -> tuple[float, float]:
    """The loss's slopes below and above the value of one entry of one leaf."""
    leaves, spec = tree_flatten(case.meta)
    shift = torch.zeros_like(leaves[place]).flatten()
    shift[at] = step
    moved = [
        [*leaves[:place], leaves[place] + sign * shift.view(leaves[place].shape), *leaves[place + 1 :]]
        for sign in (-1, 0, 1)
    ]
    low, middle, high = (float(case.loss(tree_unflatten(ends, spec))) for ends in moved)
    return (middle - low) / step, (high - middle) / step


def states_a_loss(case: Case) -> bool:
    """Whether the method says what it minimises; one that differentiates nothing may leave a loss that it never calls."""
    try:
        case.loss(case.meta)
    except Exception as error:
        if isinstance(error, NotImplementedError) or not case.method.differentiates:
            return False
        raise
    return True


def gradient_against_differences(case: Case) -> Finding:
    """Its gradient is that of its loss, by central differences in float64."""
    name = "gradient against differences"
    if not states_a_loss(case):
        return Finding(name, "not compared: it states no loss")
    gap, place = gradient_error(case)
    size = f"{gap:.1e}" if gap < 0.01 else f"{100 * gap:.0f} %"
    seen = f"off by {size} of the largest entry" + (f", at {place}" if gap > WRONG else "")
    if not case.method.differentiates:
        return Finding(name, f"{seen}; it declares another gradient than its loss's")
    mend = "Something cuts the gradient: look for detach, create_graph=False, no_grad, argmax or .item()."
    return Finding(name, seen, mend if gap > WRONG else "")


@contextmanager
def inner_gradients_as_constants() -> Iterator[list[int]]:
    """Every gradient that is taken meanwhile, by torch.func or torch.autograd, is a constant to what surrounds it.

    The functions of torch.func take theirs by torch.autograd.grad; the outermost loses nothing by it. Gives a list that
    grows by one entry with each.
    """
    derive, taken = torch.autograd.grad, []

    def constant(*inputs: Any, **options: Any) -> Any:
        taken.append(1)
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, derive(*inputs, **options))

    torch.autograd.grad = constant
    try:
        yield taken
    finally:
        torch.autograd.grad = derive


def takes_inner_gradients(case: Case) -> bool:
    """Whether its loss, evaluated and not differentiated, takes gradients."""
    with inner_gradients_as_constants() as taken:
        case.loss(case.meta)
    return bool(taken)


def first_order_gradient(case: Case) -> Meta:
    """The gradient with inner gradients as constants: by the method's own `order`, else by cutting every inner one."""
    known = {field.name for field in fields(case.method)}
    if "order" in known:
        return case.gradient_by(replace(case.method, order=1))
    plain = replace(case.method, cached=False) if "cached" in known else case.method  # a shortcut takes no gradients
    with inner_gradients_as_constants():
        return case.gradient_by(plain)


def second_order_shares(case: Case) -> dict[str, float]:
    """|g - g_first| / |g| of each layer, g the gradient through the inner steps and g_first with their own as constants.

    A method that says order=1 is differentiated in full for it.
    """
    ordered = "order" in {field.name for field in fields(case.method)}
    full = case.gradient_by(replace(case.method, order=2)) if ordered else case.gradient
    squares: dict[str, list[float]] = {}
    for name, g, first in zip(names(full), tree_leaves(full), tree_leaves(first_order_gradient(case)), strict=True):
        layer = name.removeprefix("net.").rpartition(".")[0] or name
        sums = squares.setdefault(layer, [0.0, 0.0])
        sums[0] += float((g - first).square().sum())
        sums[1] += float(g.square().sum())
    largest = max(total for _, total in squares.values())
    return {layer: (part / total) ** 0.5 for layer, (part, total) in squares.items() if total > NOTHING**2 * largest}


def second_order_share(case: Case) -> Finding:
    """How much of the gradient comes through the inner steps; nothing, though they are there, is a missing graph."""
    name = "second order's share"
    if not states_a_loss(case):
        return Finding(name, "not compared: it states no loss")
    shares = second_order_shares(case)
    if max(shares.values(), default=0.0) > ROUNDING:
        declared = "" if case.method.differentiates else "; it goes without"
        return Finding(name, ", ".join(f"{layer} {100 * s:.0f} %" for layer, s in shares.items()) + declared)
    if not takes_inner_gradients(case):
        return Finding(name, "none: it takes no inner gradients")
    if case.method.differentiates and gradient_error(case)[0] > WRONG:
        seen = "none, and its loss has one: the graph through the inner steps is missing"
        mend = "Keep the graph (create_graph=True, no detach), or declare it: `differentiates` is False."
        return Finding(name, seen, mend)
    return Finding(name, "none: nothing of its inner steps reaches the loss twice")


def unreached(case: Case) -> list[str]:
    """The tensors of what is learned whose gradient is 0 everywhere."""
    sizes = [float(slope.abs().max()) for slope in tree_leaves(case.gradient)]
    return [name for name, size in zip(names(case.meta), sizes, strict=True) if size <= NOTHING * max(sizes)]


def parameters_without_gradient(case: Case) -> Finding:
    """Every tensor that is learned is reached by the loss."""
    name, found = "parameters without gradient", unreached(case)
    if found and all(place.startswith("net.head.") for place in found):
        return Finding(name, f"{', '.join(found)}: it answers without the network's head")
    mend = "Nothing learns them: use them in the loss, leave them out of `init`, or look for detach before them."
    return Finding(name, ", ".join(found) or "none", mend if found else "")


def bytes_of_inner_step(case: Case) -> int:
    """Bytes that one more inner step adds to the peak of a meta-gradient; for methods with a field `steps`."""
    tasks = case.tasks.to("meta")
    peaks = []
    for steps in (2, 4):
        method = replace(case.method, steps=steps)
        meta, drawn = tree_map(lambda leaf: leaf.to("meta"), (case.meta, method.draw(case.tasks, generator("step"))))
        peaks.append(peak_bytes(lambda m=method, p=meta, d=drawn: m.gradient(tasks, p, d, case.halfway.to("meta"))))
    return (peaks[1] - peaks[0]) // 2


def memory_of_inner_step(case: Case) -> Finding:
    """What one more inner step costs."""
    name = "memory of one more inner step"
    if "steps" not in {field.name for field in fields(case.method)}:
        return Finding(name, "not compared: it has no `steps`")
    size, weights = bytes_of_inner_step(case), sum(leaf.nbytes for leaf in tree_leaves(case.meta))
    return Finding(name, f"{size:,} bytes, {size / weights:.1f} times what is learned" if size > 0 else "none")
