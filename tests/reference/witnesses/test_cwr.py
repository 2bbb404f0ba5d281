"""CWR and CWR* against a plain float64 loop, in a stream of new classes and in one where classes come back in other numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from lifelong.strategies.architecture.cwr import CWR, CWRStar
from tests.reference.plain_methods import descend, detached, features, leaves, loss, scores
from tests.reference.witnesses.beside import PLANTED, TOLERANCE, adam, beside, gap, stream_of


@dataclass(frozen=True)
class Returning:
    """A task generator whose last task shows the first one's classes again, in fewer rows."""

    task_generator: Any

    def tasks(self, dataset, seed):
        tasks = self.task_generator.tasks(dataset, seed)
        first = tasks[0]
        return [replace(first, train=first.train[:40]), tasks[1], replace(first, train=first.train[40:52])]


def returning():
    stream = stream_of("class")
    return replace(stream, task_generator=Returning(stream.task_generator))


def cwr_star(start, tasks, optimiser, counts, *, power=0.5, mean=1.0, thaw=False, keep=False, copied=0.0):
    """counts[t]: rows of each class in task t. power, mean, thaw, keep: errors planted. copied: CWR's scale, 0 for CWR*."""
    params, kept, past = leaves(start), {}, {}
    steps = optimiser(list(params.values()))
    for t, batches in enumerate(tasks):
        now = counts[t]
        if not (keep and t):
            params["head.weight"].data.zero_()
            params["head.bias"].data.zero_()
        for c in now:
            if c in kept and not copied:
                params["head.weight"].data[:, c], params["head.bias"].data[c] = kept[c]
        for rows in batches:
            before = detached(params)
            descend(steps, loss(params, rows))
            if t and not thaw:
                for name in params:
                    params[name].data = params[name].data if name.startswith("head") else before[name]
        weight, bias, classes = params["head.weight"].detach(), params["head.bias"].detach(), sorted(now)
        weight_mean, bias_mean = mean * weight[:, classes].mean(), mean * bias[classes].mean()
        for c in classes:
            if copied:
                kept[c] = copied * weight[:, c].clone(), copied * bias[c].clone()
                continue
            r = (past.get(c, 0) / now[c]) ** power
            old = kept.get(c, (torch.zeros_like(weight[:, c]), torch.zeros_like(bias[c])))
            kept[c] = (
                (old[0] * r + weight[:, c] - weight_mean) / (r + 1),
                (old[1] * r + bias[c] - bias_mean) / (r + 1),
            )
            past[c] = past.get(c, 0) + now[c]
    trunk = {name: value for name, value in detached(params).items() if not name.startswith("head")}
    head = {"head.weight": start["head.weight"] * 0, "head.bias": start["head.bias"] * 0}
    for c, (weight, bias) in kept.items():
        head["head.weight"][:, c], head["head.bias"][c] = weight, bias
    return {**trunk, **head}


@pytest.mark.parametrize("strategy", [CWRStar(), CWR(1.25)], ids=repr)
@pytest.mark.parametrize("name", ["new", "returning"])
def test_copied_weights_are_their_plain_loop(name, strategy):
    scale = getattr(strategy, "scale", 0.0)
    run = beside(strategy, stream_of("class") if name == "new" else returning())
    counts = []
    for t, task in enumerate(run.finished):
        y = run.problem.y(task.row[task.valid], torch.full_like(task.row[task.valid], t))
        counts.append({c: y.tolist().count(c) for c in sorted(set(y.tolist()))})
    assert counts[0].keys().isdisjoint(counts[2]) == (name == "new")
    given = run.start, run.tasks, adam, counts
    net = cwr_star(*given, copied=scale)
    x = torch.cat([batch.x for batches in run.tasks for batch in batches])
    ours = run.scores(x, torch.full((len(x),), -1))

    def apart(wrong):
        return float((ours - scores(wrong, x)).abs().max())

    kept = run.memory[0]["kept"]
    assert gap({"w": kept[:, :-1].T, "b": kept[:, -1]}, {"w": net["head.weight"], "b": net["head.bias"]}) < TOLERANCE
    trunk = {name: value for name, value in net.items() if not name.startswith("head")}
    assert gap(run.net, trunk) < TOLERANCE
    assert apart(net) < 1e-8
    wrongs = [{"thaw": True, "copied": scale}, {"keep": True, "copied": scale}]
    if scale:
        wrongs.append({"copied": scale * 1.001})
    else:
        wrongs += [{"mean": 1.001}] + [{"power": 1.0}] * (name != "new")
    for wrong in wrongs:
        assert apart(cwr_star(*given, **wrong)) > PLANTED, wrong
    assert float(features(net, x).abs().max()) > 0.1
