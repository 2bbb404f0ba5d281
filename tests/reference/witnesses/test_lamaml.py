"""Look-ahead meta-learning against a plain loop with autograd: C-MAML, Sync and La-MAML, rows and draws alike, float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lifelong.optimisers.sgd import SGD
from lifelong.strategies.lookahead.lamaml import CMAML, LaMAML, SyncLaMAML
from tests.reference.plain_methods import Rows, row_losses, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, beside, gap, stream_of

RATE = 0.1


def kept_after(memory, age, rows, tickets, task, size):
    """A reservoir, a row at a time: the first `size` enter, the n-th takes place floor(u n) if there is one."""
    for b in range(len(rows.y)):
        if not rows.first[b]:
            continue
        age += 1
        place = age - 1 if age <= size else int(tickets[b] * age)
        if place < size:
            memory[place : place + 1] = [(rows.x[b], rows.y[b], rows.allowed[b], task)]
    return age


def loop(ours, strategy, learns, alternates, wrong=None):
    """Fast weights as lists of tensors with their graphs; every derivative by autograd.grad."""
    wrong = wrong or {}
    net = {name: value.clone() for name, value in ours.start.items()}
    inner = strategy.inner * wrong.get("inner", 1.0)
    rates = {name: torch.full_like(value, inner) for name, value in net.items()}
    memory, age = [], 0
    for t, (steps, numbers) in enumerate(zip(ours.tasks, ours.draws, strict=True)):
        for rows, (drawn,) in zip(steps, numbers, strict=True):
            places = [int(u * len(memory)) for u in drawn["place"].tolist()] if memory else []
            x = torch.stack([*rows.x, *(memory[i][0] for i in places)])
            y = torch.stack([*rows.y, *(memory[i][1] for i in places)])
            allowed = torch.stack([*rows.allowed, *(memory[i][2] for i in places)])
            every = Rows(x, y, allowed)
            for tensor in [*net.values(), *rates.values()]:
                tensor.requires_grad_()
            fast, losses = dict(net), []
            size = -(-len(rows.y) // min(strategy.steps, len(rows.y)))
            for i in range(0, len(rows.y), size):
                mine = Rows(*(value[i : i + size] for value in rows[:3]))
                loss = row_losses(scores(fast, mine.x), mine).mean()
                second = strategy.second_order and not wrong.get("first order")
                slopes = torch.autograd.grad(loss, list(fast.values()), create_graph=second, retain_graph=second)
                steps_ahead = zip(fast.items(), slopes, strict=True)
                fast = {name: value - torch.relu(rates[name]) * slope for (name, value), slope in steps_ahead}
                losses.append(row_losses(scores(fast, every.x), every).mean())
            met = losses[-1] if wrong.get("last") else torch.stack(losses).mean()
            found = torch.autograd.grad(met, [*net.values(), *rates.values()])
            half = [list(found[: len(net)]), list(found[len(net) :])]
            for part in half:
                norm = torch.stack([slope.square().sum() for slope in part]).sum().sqrt()
                if norm > strategy.clip:
                    part[:] = [slope * strategy.clip * wrong.get("clip", 1.0) / (norm + 1e-6) for slope in part]
            old = {name: value.detach() for name, value in rates.items()}
            if learns:
                step = strategy.rate * wrong.get("rate", 1.0)
                rates = {name: old[name] - step * slope for name, slope in zip(old, half[1], strict=True)}
            else:
                rates = old
            use = old if wrong.get("weights first") else rates
            net = {
                name: value.detach() - (torch.relu(use[name]) if alternates else RATE) * slope
                for (name, value), slope in zip(net.items(), half[0], strict=True)
            }
            age = kept_after(memory, age, rows, drawn["ticket"].tolist(), t, strategy.size)
    return net | {f"rate of {name}": value for name, value in rates.items()}


CASES = [
    (CMAML(0.2, steps=8, size=20, rows=5), "class"),
    (CMAML(0.2, steps=3, size=11, clip=0.3, second_order=True), "task"),
    (SyncLaMAML(0.2, steps=8, size=20), "domain"),
    (SyncLaMAML(0.2, steps=4, size=20, clip=0.2, second_order=True), "class"),
    (LaMAML(0.2, steps=8, size=20), "class"),
    (LaMAML(0.2, steps=3, size=15, rows=4, clip=0.2), "task"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_it_is_its_plain_loop(strategy, setting):
    ours = beside(strategy, stream_of(setting, iterations=5)[:2], SGD(RATE))
    learns, alternates = isinstance(strategy, SyncLaMAML), isinstance(strategy, LaMAML)
    found = dict(ours.net)
    for rates in ours.own_params.values():
        found |= {f"rate of {name}": value for name, value in rates.items()}
    if not learns:
        found |= {f"rate of {name}": torch.full_like(value, strategy.inner) for name, value in ours.net.items()}
    assert gap(found, loop(ours, strategy, learns, alternates)) < TOLERANCE
    errors = {"inner": 1.001, "last": True}
    errors |= {"clip": 1.001} if strategy.clip < 1 else {}
    errors |= {"rate": 1.001} if learns else {}
    errors |= {"weights first": True} if alternates else {}
    errors |= {"first order": True} if strategy.second_order else {}
    for name, value in errors.items():
        theirs = loop(ours, strategy, learns, alternates, {name: value})
        assert gap(ours.net, {name: theirs[name] for name in ours.net}) > PLANTED, name
    smaller = replace(strategy, size=strategy.size - 1)
    theirs = loop(ours, smaller, learns, alternates)
    assert gap(ours.net, {name: theirs[name] for name in ours.net}) > PLANTED


def test_a_rate_below_zero_stands_still():
    """By so large a step some rates fall below 0; those weights do not move, and their rates get no gradient."""
    strategy = LaMAML(0.01, rate=5.0, steps=4, size=20)
    ours = beside(strategy, stream_of(iterations=5)[:2])
    (rates,) = ours.own_params.values()
    assert min(float(value.min()) for value in rates.values()) < 0
    found = ours.net | {f"rate of {name}": value for name, value in rates.items()}
    assert gap(found, loop(ours, strategy, True, True)) < TOLERANCE
