"""Brain-inspired replay against a plain loop, row by row, with torch's distributions: the same rows, noise, gates, float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal

from lifelong.optimisers.adam import Adam
from lifelong.strategies.replay.brain_inspired import BrainInspiredReplay
from tests.reference.plain_methods import features, scores
from tests.reference.witnesses.beside import DOUBLE, PLANTED, TOLERANCE, beside, gap, member, stream_of

SMALL = BrainInspiredReplay(width=9, layers=2, latent=3, gated=0.3)


def gaussian(uniforms):
    return torch.special.ndtri(uniforms.to(DOUBLE))


def image(decoder, gates, z, opened):
    """Pixels of one row: gates [G, layers, width], opened [G] how far each set of gates is open."""
    for i in range(gates.shape[1]):
        gate = sum(share * gates[g, i] for g, share in enumerate(opened))
        z = torch.relu(gate * (z @ decoder[f"decoder{i}.weight"] + decoder[f"decoder{i}.bias"]))
    return torch.sigmoid(z @ decoder["image.weight"] + decoder["image.bias"])


def reconstruction(net, decoder, gates, x, chance, opened, noise, wrong):
    """V of one row."""
    f = features(net, x[None])[0]
    mean, logvariance = f @ decoder["mean.weight"] + decoder["mean.bias"], f @ decoder["logvariance.weight"]
    spread = (logvariance / 2).exp()
    z = mean + spread * noise
    made = image(decoder, gates, z, opened)
    surprise = -(x * made.log() + (1 - x) * (1 - made).log()).sum()
    prior = Normal(decoder["prior.mean"], (wrong["prior"] * decoder["prior.logvariance"] / 2).exp()).log_prob(z).sum(1)
    likely = torch.log((chance * prior.exp()).sum())
    return (surprise + wrong["entropy"] * Normal(mean, spread).log_prob(z).sum() - likely) / len(x)


def loop(ours, strategy, setting, **wrong):
    """Every row by itself; `wrong` plants errors."""
    wrong = {"prior": 1.0, "entropy": 1.0, "V": 1.0, "D": 1.0, "hard": False, "classes": 0, **wrong}
    first = member(ours.session.first_state())
    gates = first.memory[0]["gates"]
    (first_decoder,) = first.params["own"].values()
    net = {name: value.clone().requires_grad_() for name, value in ours.start.items()}
    decoder = {name: value.clone().requires_grad_() for name, value in first_decoder.items()}
    optimiser = torch.optim.Adam([*net.values(), *decoder.values()], 0.05)
    seen, temperature = set(), strategy.temperature
    for t, (steps, numbers) in enumerate(zip(ours.tasks, ours.draws, strict=True)):
        share = 1.0 if t == 0 else 1 / (t + 1) if strategy.weighting == "tasks" else 0.5
        old_net, old = ({name: value.detach().clone() for name, value in held.items()} for held in (net, decoder))
        for rows, (drawn,) in zip(steps, numbers, strict=True):
            count, total = len(rows.y), torch.zeros((), dtype=DOUBLE)
            noise = gaussian(drawn["noise"])
            for b in range(count):
                z = scores(net, rows.x[b : b + 1])[0].masked_fill(~rows.allowed[b], -torch.inf)
                hot = torch.eye(len(z), dtype=DOUBLE)[rows.y[b]]
                opened = torch.eye(len(gates), dtype=DOUBLE)[t] if setting == "domain" else hot
                value = reconstruction(net, decoder, gates, rows.x[b], hot, opened, noise[b], wrong)
                total = total + share / count * (wrong["V"] * value - z.log_softmax(0)[rows.y[b]])
            made = len(drawn["class"])
            for r in range(made if t else 0):
                past = r % t if setting == "task" else int(drawn["task"][r] * t)
                allowed = ours.tasks[past if setting == "task" else t][0].allowed[0]
                known = [c for c in range(len(allowed)) if allowed[c] and c in seen]
                y = known[int(drawn["class"][r] * len(known) + wrong["classes"]) % len(known)]
                hot = torch.eye(len(allowed), dtype=DOUBLE)[y]
                with torch.no_grad():
                    code = old["prior.mean"][y] + (old["prior.logvariance"][y] / 2).exp() * gaussian(drawn["latent"])[r]
                    domain = torch.eye(len(gates), dtype=DOUBLE)[past]
                    x = image(old, gates, code, domain if setting == "domain" else hot)
                    said = scores(old_net, x[None])[0] / temperature
                    chance = torch.zeros_like(said)
                    chance[known] = said[known].softmax(0)
                    if wrong["hard"]:
                        chance = torch.eye(len(allowed), dtype=DOUBLE)[chance.argmax()]
                answer = (scores(net, x[None])[0] / temperature).masked_fill(~allowed, -torch.inf).log_softmax(0)
                distilled = -(chance[allowed] * answer[allowed]).sum()
                opened, e = (domain if setting == "domain" else chance), gaussian(drawn["noise_again"])[r]
                value = reconstruction(net, decoder, gates, x, chance, opened, e, wrong)
                total = total + (1 - share) / made * (wrong["V"] * value + wrong["D"] * distilled)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
        seen |= {int(c) for rows in steps for c in rows.y}
    return {name: value.detach() for name, value in (net | decoder).items()}


CASES = [
    (SMALL, "class"),
    (replace(SMALL, weighting="equal", rows=5), "domain"),
    (replace(SMALL, gated=0.0, temperature=1.5), "task"),
]


@pytest.mark.parametrize("strategy, setting", CASES, ids=str)
def test_it_is_its_plain_loop(strategy, setting):
    ours = beside(strategy, stream_of(setting, iterations=8, batch=3)[:2], Adam(0.05))
    (decoder,) = ours.own_params.values()
    assert gap(ours.net | decoder, loop(ours, strategy, setting)) < TOLERANCE
    errors = {"prior": 1.001, "entropy": 1.001, "V": 1.001, "D": 1.001, "hard": True, "classes": 1}
    for name, value in errors.items():
        assert gap(ours.net | decoder, loop(ours, strategy, setting, **{name: value})) > PLANTED, name
    warmer = replace(strategy, temperature=strategy.temperature * 1.001)
    assert gap(ours.net | decoder, loop(ours, warmer, setting)) > PLANTED


def test_gates_close_the_share_that_was_asked_for():
    ours = beside(replace(SMALL, width=400, gated=0.1), stream_of(iterations=1))
    gates = ours.memory[0]["gates"]
    assert gates.shape == (6, 2, 400) and set(gates.unique().tolist()) == {0.0, 1.0}
    assert abs(float(gates.mean()) - 0.9) < 4 * (0.09 / gates.numel()) ** 0.5
